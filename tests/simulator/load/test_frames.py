"""Audio that says what it is, and its sending on time."""

from __future__ import annotations

import math
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from audiohook.simulator.load._frames import (
    BLOCK_BYTES,
    MAX_NUMBER,
    Metronome,
    Outlet,
    audio,
)
from audiohook.simulator.load.histogram import bucket_of
from audiohook.simulator.load.voice import Place, read_block

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = b"\x11\x82\xfe\x07"


def block(call: int, number: int) -> bytes:
    """Makes a block the slow way."""
    digits = [value >> 7 * i & 127 for value in (number, call) for i in range(4)]
    return bytes(digit & 63 | (digit & 64) << 1 for digit in digits)


@given(
    call=st.integers(0, MAX_NUMBER - 1),
    first=st.integers(0, MAX_NUMBER - 1),
    blocks=st.integers(0, 300),
)
def test_audio_tells_call_and_place(call: int, first: int, blocks: int) -> None:
    made = audio(call, first, blocks)
    numbers = [(first + i) % MAX_NUMBER for i in range(blocks)]
    assert made == b"".join(block(call, number) for number in numbers)
    for i, number in enumerate(numbers):
        place = read_block(made[8 * i : 8 * i + 8])
        assert place == Place(call, number)


def test_audio_has_neither_code_of_silence() -> None:
    made = audio(MAX_NUMBER - 1, MAX_NUMBER - 2000, 4000)
    assert not {0x7F, 0xFF} & set(made)


def test_audio_of_a_number_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="28 bits"):
        audio(MAX_NUMBER, 0, 1)
    with pytest.raises(ValueError, match="28 bits"):
        Outlet(-1, call=MAX_NUMBER, mask=MASK, owner=None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def make_outlet(
    sock: socket.socket | None, metronome: Metronome[str], *, call: int = 5
) -> Outlet[str]:
    fd = -1 if sock is None else sock.fileno()
    outlet = Outlet(fd, call=call, mask=MASK, owner=f"call {call}")
    metronome.add(outlet)
    return outlet


def messages(data: bytes | bytearray) -> list[bytes]:
    """Has frames parsed by a server that knows nothing of ours."""
    server = Connection(ConnectionType.SERVER)
    server.receive_data(bytes(data))
    found, parts = [], bytearray()
    for event in server.events():
        assert isinstance(event, BytesMessage)
        parts += event.data
        if event.message_finished:
            found.append(bytes(parts))
            parts.clear()
    return found


@pytest.mark.parametrize("frame_bytes", [16, 112, 128, 1600, 64_000])
def test_frames_that_are_due_are_sent(
    frame_bytes: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    outlet.play(time.monotonic() - 0.5, 0.2, 3, frame_bytes)
    assert metronome.sweep() == ["call 5"]
    sent = messages(theirs.recv(1_000_000))
    count = frame_bytes // BLOCK_BYTES
    assert sent == [audio(5, i * count, count) for i in range(3)]
    assert (outlet.frames, outlet.audio_bytes) == (3, 3 * frame_bytes)
    assert metronome.frames == sum(metronome.lag_counts()) == 3
    assert metronome.largest_lag >= 0.5
    assert metronome.next_due() == math.inf


def test_frames_that_are_not_due_wait(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    first = time.monotonic() - 0.1
    outlet.play(first, 1000.0, 2, 160)
    assert metronome.sweep() == []
    assert messages(theirs.recv(1_000_000)) == [audio(5, 0, 20)]
    assert metronome.next_due() == pytest.approx(first + 1000)
    assert outlet.hold() == 1
    assert metronome.next_due() == math.inf
    # It goes on where it was.
    outlet.play(time.monotonic() - 0.1, 1.0, 1, 160)
    assert metronome.sweep() == ["call 5"]
    assert messages(theirs.recv(1_000_000)) == [audio(5, 20, 20)]


def test_lag_is_counted_in_the_buckets_of_a_histogram(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = pair
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    for lag in (0.0, 0.003, 0.2, 40.0):
        outlet.play(time.monotonic() - lag, 1.0, 1, 16)
        metronome.sweep()
    filled = [i for i, count in enumerate(metronome.lag_counts()) if count]
    wanted = [bucket_of(lag) for lag in (0.0, 0.003, 0.2, 40.0)]
    # What the test itself takes comes on top.
    for bucket, least in zip(filled, wanted, strict=True):
        assert least <= bucket <= max(least + 60, 128)


def test_text_stands_between_the_frames(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    outlet.write(b"first")
    outlet.play(time.monotonic() - 0.1, 1.0, 1, 16)
    metronome.sweep()
    outlet.write(b"last")
    data = theirs.recv(1_000_000)
    assert data.startswith(b"first")
    assert data.endswith(b"last")
    assert messages(data[5:-4]) == [audio(5, 0, 2)]


def test_peer_that_does_not_read_is_no_lag_of_ours(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    outlet.play(time.monotonic() - 1.0, 0.001, 900, 1600)
    assert metronome.sweep() == ["call 5"]
    assert outlet.waiting_bytes > 0
    counted = sum(metronome.lag_counts())
    assert counted == outlet.frames < 900
    assert metronome.next_due() == math.inf
    outlet.write(b"tail")
    received = bytearray()
    while outlet.left or outlet.waiting_bytes:
        received += theirs.recv(1_000_000)
        outlet.flush()
        metronome.sweep()
    received += theirs.recv(1_000_000)
    # The text came behind the frame that was under way when it was written.
    at = received.index(b"tail")
    assert messages(received[:at]) == [audio(5, i * 200, 200) for i in range(counted)]
    assert messages(received[at + 4 :]) == [
        audio(5, i * 200, 200) for i in range(counted, 900)
    ]
    assert metronome.held_frames == 900 - counted
    assert sum(metronome.lag_counts()) == counted


def test_somebody_else_may_send() -> None:
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(None, metronome)
    outlet.write(b"hello")
    assert outlet.peek() == b"hello"
    outlet.drop(2)
    assert outlet.peek() == b"llo"
    with pytest.raises(ValueError, match="so much"):
        outlet.drop(4)
    outlet.drop(3)
    outlet.play(time.monotonic() - 1.0, 0.1, 2, 16)
    taken = []
    while outlet.left or outlet.waiting_bytes:
        assert metronome.sweep() == ["call 5"]
        taken.append(outlet.peek())
        outlet.drop(len(taken[-1]))
    assert [messages(each) for each in taken] == [[audio(5, 0, 2)], [audio(5, 2, 2)]]
    assert metronome.held_frames == 0


def test_failed_sending_is_told_once(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.close()
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(ours, metronome)
    outlet.play(time.monotonic() - 1.0, 0.1, 5, 16)
    assert metronome.sweep() == ["call 5"]
    assert outlet.error
    outlet.write(b"more")
    assert outlet.waiting_bytes == 0
    assert metronome.sweep() == []
    assert metronome.next_due() == math.inf


def test_many_outlets_come_and_go(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    metronome: Metronome[str] = Metronome()
    outlets = [make_outlet(ours, metronome, call=call) for call in range(200)]
    for outlet in outlets[::2]:
        metronome.remove(outlet)
        metronome.remove(outlet)
    assert len(metronome) == 100
    for outlet in outlets[1::2]:
        outlet.play(time.monotonic() - 0.1, 1.0, 1, 16)
    assert sorted(metronome.sweep()) == sorted(f"call {n}" for n in range(1, 200, 2))
    said = {read_block(each[:8]) for each in messages(theirs.recv(1_000_000))}
    assert said == {Place(call, 0) for call in range(1, 200, 2)}
    with pytest.raises(ValueError, match="not in a metronome"):
        outlets[0].play(0.0, 1.0, 1, 16)
    with pytest.raises(ValueError, match="is in a metronome"):
        metronome.add(outlets[1])


@pytest.mark.parametrize("frame_bytes", [0, 12, 64_008])
def test_frames_of_no_possible_size_are_refused(frame_bytes: int) -> None:
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(None, metronome)
    with pytest.raises(ValueError, match="whole blocks"):
        outlet.play(0.0, 1.0, 1, frame_bytes)


def test_mask_is_the_one_given() -> None:
    metronome: Metronome[str] = Metronome()
    outlet = make_outlet(None, metronome)
    outlet.play(time.monotonic() - 1.0, 1.0, 1, 128)
    metronome.sweep()
    frame = outlet.peek()
    assert frame[:8] == struct.pack(">BBH", 0x82, 0xFE, 128) + MASK
    plain = audio(5, 0, 16)
    assert frame[8:] == bytes(byte ^ MASK[i % 4] for i, byte in enumerate(plain))
