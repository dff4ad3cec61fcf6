from __future__ import annotations

import itertools
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook._divert import Batch, Fleet, Lane, batch_of
from tests.reference_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
    read_diverted,
    read_plainly,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.binary(max_size=40),
    st.integers(120, 131).map(bytes),
    st.integers(0, 255).map(lambda n: bytes([n]) * 1600),
    st.sampled_from([65535, 65536, 65537]).map(bytes),
)
texts = st.one_of(
    st.text(max_size=30).map(str.encode),
    st.just(b'{"type":"ping"}' * 20),
    st.binary(max_size=10),
)
controls = st.one_of(
    st.builds(
        frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=masks
    ),
    st.builds(
        frame,
        st.just(CLOSE),
        st.one_of(
            st.just(b""),
            st.binary(max_size=20),
            st.just((1000).to_bytes(2, "big") + b"bye"),
        ),
        mask=masks,
    ),
)
faulty = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=140),
    fin=st.booleans(),
    mask=st.one_of(st.none(), masks),
    rsv=st.integers(0, 7),
    length_form=st.sampled_from([None, 2, 8]),
    claimed=st.one_of(st.none(), st.sampled_from([0, 125, 126, 65536, 1 << 63])),
)


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    """One message in fragments, with control frames in between."""
    opcode = draw(st.sampled_from([TEXT, BINARY, BINARY]))
    payload = draw(texts if opcode == TEXT else payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    edges = [0, *cuts, len(payload)]
    out = b""
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        out += frame(
            opcode if i == 0 else CONTINUATION,
            payload[start:end],
            fin=i == len(edges) - 2,
            mask=draw(masks),
        )
        if draw(st.integers(0, 5)) == 0:
            out += draw(controls.filter(lambda data: data[0] & 15 != CLOSE))
    return out


whole = st.one_of(
    st.builds(frame, st.just(BINARY), payloads, mask=masks),
    st.builds(frame, st.just(TEXT), texts, mask=masks),
    st.builds(frame, st.just(TEXT), st.text(max_size=20).map(str.encode), mask=masks),
)
pieces = st.one_of(whole, whole, whole, fragmented(), controls, faulty)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A client's bytes, cut anywhere: mostly right, sometimes wrong."""
    data = b"".join(draw(st.lists(pieces, max_size=12)))
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    if len(data) < 400 and draw(st.booleans()):
        cuts = list(range(len(data)))
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if b > a]


@given(streams())
def test_lane_before_wsproto_reads_as_wsproto_alone(chunks: list[bytes]) -> None:
    assert read_diverted(chunks) == read_plainly(chunks)


@given(streams())
def test_what_stands_before_wsproto_in_a_call_reads_as_wsproto_alone(
    chunks: list[bytes],
) -> None:
    assert read_diverted(chunks, judged=True) == read_plainly(chunks)


@given(streams(), st.integers(0, 400))
def test_what_comes_with_the_request_reads_as_what_comes_after_it(
    chunks: list[bytes], early_bytes: int
) -> None:
    data = b"".join(chunks)
    early, later = data[:early_bytes], data[early_bytes:]
    diverted = read_diverted([later] if later else [], judged=True, early=early)
    assert diverted == read_plainly([each for each in (early, later) if each])


@given(streams(), st.integers(1, 200))
def test_messages_over_the_limit_take_the_slow_way_and_lose_nothing(
    chunks: list[bytes], limit: int
) -> None:
    plain = read_plainly(chunks)
    assert read_diverted(chunks, max_message_bytes=limit) == plain


def test_every_split_of_a_stream_reads_alike() -> None:
    data = (
        frame(TEXT, b'{"seq":1}')
        + frame(BINARY, bytes(range(200)))
        + frame(BINARY, b"abc", fin=False)
        + frame(PING, b"p")
        + frame(CONTINUATION, b"defg", fin=False)
        + frame(CONTINUATION, b"")
        + frame(TEXT, "µ-law".encode())
        + frame(BINARY, b"")
        + frame(BINARY, b"\x00\x01")
        + frame(CLOSE, b"")
    )
    plain = read_plainly([data])
    assert plain.messages == 4
    assert plain.has_ended()
    assert plain.happened[2] == ("text", 207, "µ-law")
    for cut in range(len(data)):
        assert read_diverted([data[:cut], data[cut:]]) == plain
    assert read_diverted([data[i : i + 1] for i in range(len(data))]) == plain


def framed(lane: Lane) -> Lane:
    lane.start_frames(0)
    return lane


def test_head_is_handed_on_and_frames_begin_after_it() -> None:
    lane = Lane()
    lane.keep(2)
    lane.feed(b"GET / HTTP/1.1\r\n")
    lane.feed(b"\r\n" + frame(BINARY, b"ab") + frame(TEXT, b"t"))
    assert lane.audio_bytes == 0
    lane.start_frames(lane.peek().index(b"\r\n\r\n") + 4)
    assert lane.take(1000) == b"GET / HTTP/1.1\r\n\r\n" + frame(TEXT, b"t")
    assert lane.audio_bytes == 2
    assert lane.pop_mark() == 2


@pytest.mark.parametrize("head_bytes", [-1, 4])
def test_frames_cannot_begin_outside_what_was_read(head_bytes: int) -> None:
    lane = Lane()
    lane.feed(b"GET")
    with pytest.raises(ValueError, match="frames begin once"):
        lane.start_frames(head_bytes)


def test_frames_begin_once() -> None:
    lane = framed(Lane())
    with pytest.raises(ValueError, match="frames begin once"):
        lane.start_frames(0)


def test_binary_before_keep_is_handed_on_to_its_end() -> None:
    lane = framed(Lane())
    data = frame(BINARY, b"abcdef")
    lane.feed(data[:8])
    lane.keep(2)
    lane.feed(data[8:] + frame(BINARY, b"gh"))
    assert lane.take(1000) == data
    assert lane.audio_bytes == 2


@pytest.mark.parametrize("fragments", [[b"abc"], [b"ab", b"c"], [b"a", b"b", b"c"]])
def test_torn_sample_is_handed_on_whole(fragments: list[bytes]) -> None:
    lane = framed(Lane())
    lane.keep(2)
    for i, part in enumerate(fragments):
        opcode = BINARY if i == 0 else CONTINUATION
        lane.feed(frame(opcode, part, fin=i == len(fragments) - 1))
    assert lane.audio_bytes == 0
    assert lane.rest_bytes > 3
    assert lane.hands_off == (len(fragments) > 1)


def test_ignored_audio_is_counted_and_forgotten() -> None:
    lane = framed(Lane())
    lane.ignore()
    lane.feed(frame(BINARY, b"abc") + frame(TEXT, b"x") + frame(BINARY, b"d"))
    assert (lane.audio_bytes, lane.ignored_bytes, lane.messages) == (0, 4, 2)
    assert lane.pop_mark() == 0


def test_message_open_when_audio_is_no_longer_wanted_leaves_no_trace() -> None:
    lane = framed(Lane())
    fd = os.memfd_create("audio")
    lane.keep(1, fd)
    data = frame(BINARY, b"abcdef")
    lane.feed(frame(BINARY, b"12") + data[:9])
    lane.ignore()
    lane.feed(data[9:])
    batch = batch_of([lane])
    batch.write()
    assert batch.finish() == []
    assert os.pread(fd, 10, 0) == b"12"
    assert (lane.audio_bytes, lane.ignored_bytes) == (2, 6)
    os.close(fd)


def test_append_keeps_order_only_when_everything_is_handed_on() -> None:
    lane = framed(Lane(max_message_bytes=4, audio_limit_bytes=100))
    lane.keep(1)
    with pytest.raises(ValueError, match="out of order"):
        lane.append(b"x")
    lane.feed(frame(BINARY, b"12345"))
    assert lane.hands_off
    lane.append(b"12345")
    with pytest.raises(ValueError, match="longer"):
        lane.append(bytes(101))
    assert lane.audio_bytes == 5


def test_audio_past_the_limit_is_dropped_whole_and_told() -> None:
    lane = framed(Lane(max_message_bytes=100, audio_limit_bytes=250))
    lane.keep(1)
    for _ in range(4):
        lane.feed(frame(BINARY, bytes(100)))
    assert lane.audio_bytes == 200
    assert lane.take_drops() == [(200, 200)]
    assert lane.take_drops() == []
    assert lane.dropped_bytes == 200


def test_fleet_drops_audio_past_the_limit_of_all_lanes() -> None:
    fleet = Fleet(buffer_limit_bytes=150)
    lanes = [framed(Lane(max_message_bytes=100)) for _ in range(2)]
    for lane in lanes:
        fleet.add(lane)
        lane.keep(1)
        lane.feed(frame(BINARY, bytes(100)))
    assert fleet.buffered_bytes == 200
    lanes[0].feed(frame(BINARY, bytes(10)))
    assert lanes[0].take_drops() == [(100, 10)]


def test_audio_is_settled_up_to_the_first_text_nobody_has_popped() -> None:
    fd = os.memfd_create("audio")
    lane = framed(Lane())
    lane.keep(1, fd)
    assert lane.settled_bytes == 0
    lane.feed(frame(BINARY, b"one") + frame(TEXT, b"t"))
    lane.feed(frame(BINARY, b"two") + frame(TEXT, b"t") + frame(BINARY, b"three"))
    assert lane.settled_bytes == 0  # none of it is in the file
    batch = batch_of([lane])
    batch.write()
    batch.finish()
    settled = []
    for _ in range(2):
        settled.append(lane.settled_bytes)
        lane.pop_mark()
    assert [*settled, lane.settled_bytes] == [3, 6, 11]
    lane.feed(frame(BINARY, b"four"))
    assert lane.settled_bytes == 11
    os.close(fd)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_sweep_reads_sockets_and_names_lanes_with_news(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    fleet = Fleet()
    lane = framed(Lane(server.fileno(), owner="me"))
    lane.keep(2)
    fleet.add(lane)
    client.sendall(frame(BINARY, bytes(1600)))
    assert fleet.sweep() == []
    assert lane.audio_bytes == 1600
    client.sendall(frame(TEXT, b"hello"))
    (news,) = fleet.sweep()
    assert news.owner == "me"
    assert news.take(100) == frame(TEXT, b"hello")
    client.close()
    assert fleet.sweep() == [lane]
    assert lane.eof


def test_reset_is_an_error_with_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server:
        fleet = Fleet()
        lane = framed(Lane(server.fileno()))
        fleet.add(lane)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert fleet.sweep() == [lane]
        assert lane.error == 104


def test_congested_lane_is_not_read_until_it_is_emptied(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    fleet = Fleet()
    lane = framed(Lane(server.fileno()))
    fleet.add(lane)
    data = frame(TEXT, b"x" * 150000)
    client.setblocking(False)
    sent = 0
    for _ in range(40):
        try:
            sent += client.send(data[sent % len(data) :])
        except BlockingIOError:
            if lane.congested:
                break
        fleet.sweep()
    assert lane.congested
    held = lane.rest_bytes
    fleet.sweep()
    assert lane.rest_bytes == held
    while lane.take(65536):
        pass
    fleet.sweep()
    assert lane.rest_bytes > 0


def test_batch_writes_whole_messages_and_leaves_the_open_one() -> None:
    fd = os.memfd_create("audio")
    fleet = Fleet()
    lane = framed(Lane())
    fleet.add(lane)
    lane.keep(1, fd)
    late = frame(BINARY, b"late")
    lane.feed(frame(BINARY, b"whole") + late[:8])
    batch = fleet.batch()
    assert len(batch) == 1
    lane.feed(late[8:] + frame(BINARY, b"!"))
    assert len(fleet.batch()) == 0  # one batch at a time holds a lane
    batch.write()
    assert batch.finish() == []
    assert os.pread(fd, 100, 0) == b"whole"
    assert (lane.unwritten_bytes, fleet.buffered_bytes) == (5, 5)
    batch = fleet.batch()
    batch.write()
    batch.finish()
    assert os.pread(fd, 100, 0) == b"wholelate!"
    assert (lane.unwritten_bytes, fleet.buffered_bytes) == (0, 0)
    os.close(fd)


def written(batch: Batch) -> int:
    """Carries a batch out; returns how many lanes it held."""
    lanes = len(batch)
    batch.write()
    assert batch.finish() == []
    return lanes


def test_due_batch_ends_files_with_whole_units_where_enough_has_come() -> None:
    fd = os.memfd_create("audio")
    fleet = Fleet(write_unit_bytes=100)
    lane = framed(Lane())
    fleet.add(lane)
    lane.keep(1, fd)
    sizes = []
    # All of it, where the last whole unit ends less than two units away.
    for length in (250, 240, 150, 120, 90, 230, 7, 350):
        lane.feed(frame(BINARY, os.urandom(length)))
        assert written(fleet.due_batch()) == 1
        sizes.append(lane.written_bytes)
    assert sizes == [200, 400, 600, 760, 850, 1080, 1087, 1400]
    assert fleet.buffered_bytes == lane.unwritten_bytes == 37
    assert os.fstat(fd).st_size == 1400
    os.close(fd)


def test_units_leave_audio_in_order_and_whole() -> None:
    fd = os.memfd_create("audio")
    fleet = Fleet(write_unit_bytes=4096)
    lane = framed(Lane())
    fleet.add(lane)
    lane.keep(2, fd)
    sent = b""
    for number in range(200):
        audio = os.urandom(1600 if number % 3 else 64)
        data = frame(BINARY, audio)
        # A batch may come in the middle of a message.
        lane.feed(data[:700])
        if number % 6 == 5:
            written(fleet.due_batch())
        lane.feed(data[700:])
        sent += audio
    assert 0 < lane.unwritten_bytes < len(sent)
    lane.hurry()
    written(fleet.hurried_batch())
    assert lane.unwritten_bytes == fleet.buffered_bytes == 0
    assert os.pread(fd, len(sent) + 1, 0) == sent
    os.close(fd)


def test_hurried_batch_takes_all_audio_of_those_in_a_hurry_and_of_no_others() -> None:
    files = [os.memfd_create("audio") for _ in range(2)]
    fleet = Fleet(write_unit_bytes=100)
    lanes = [framed(Lane()) for _ in files]
    for lane, fd in zip(lanes, files, strict=True):
        fleet.add(lane)
        lane.keep(1, fd)
        lane.feed(frame(BINARY, bytes(250)))
    assert written(fleet.hurried_batch()) == 0
    lanes[1].hurry()
    assert written(fleet.hurried_batch()) == 1
    assert [lane.unwritten_bytes for lane in lanes] == [250, 0]
    assert written(fleet.due_batch()) == 1
    assert [lane.unwritten_bytes for lane in lanes] == [50, 0]
    lanes[1].feed(frame(BINARY, bytes(250)))
    assert written(fleet.due_batch()) == 2
    assert [lane.unwritten_bytes for lane in lanes] == [0, 0]
    for fd in files:
        os.close(fd)


def test_a_unit_is_of_one_byte_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Fleet(write_unit_bytes=0)


def test_failed_write_keeps_the_audio_for_the_next_batch() -> None:
    read_only = os.open("/proc/self/exe", os.O_RDONLY)
    fleet = Fleet()
    lane = framed(Lane())
    fleet.add(lane)
    lane.keep(1, read_only)
    lane.feed(frame(BINARY, b"abc"))
    batch = fleet.batch()
    batch.write()
    assert batch.finish() == [lane]
    assert lane.write_error == 9
    assert (lane.unwritten_bytes, fleet.buffered_bytes) == (3, 3)
    os.close(read_only)
    fd = os.memfd_create("audio")
    lane.keep(1, fd)
    lane.feed(frame(BINARY, b"def"))
    for _ in range(2):
        batch = fleet.batch()
        batch.write()
        assert batch.finish() == []
    assert os.pread(fd, 100, 0) == b"abcdef"
    assert lane.write_error == 0
    os.close(fd)


def test_removed_lane_is_neither_read_nor_counted(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    fleet = Fleet()
    lanes = [framed(Lane(server.fileno() if i == 1 else -1)) for i in range(3)]
    for lane in lanes:
        fleet.add(lane)
        lane.keep(1)
    lanes[1].feed(frame(BINARY, b"12"))
    with pytest.raises(ValueError, match="already"):
        fleet.add(lanes[1])
    fleet.remove(lanes[1])
    fleet.remove(lanes[1])
    fleet.forget(lanes[1])
    assert fleet.buffered_bytes == 0
    client.sendall(frame(TEXT, b"x"))
    assert fleet.sweep() == []
    assert len(fleet) == 2
    for lane in (lanes[0], lanes[2]):
        lane.feed(frame(TEXT, b"x"))
    assert set(fleet.sweep()) == {lanes[0], lanes[2]}


def test_text_that_came_alone_can_be_looked_at() -> None:
    lane = framed(Lane())
    lane.keep(1)
    assert lane.peek_text() is None
    for text in ("", "x" * 125, "y" * 126, "µ" * 20_000):
        lane.feed(frame(BINARY, b"a") + frame(TEXT, text.encode()))
        assert lane.peek_text() == text
        assert lane.next_mark == lane.audio_bytes
        lane.pop_mark()
        assert lane.take(100_000) == frame(TEXT, text.encode())


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"a") + frame(TEXT, b"b"),
        frame(TEXT, b"a") + frame(PING, b""),
        frame(PING, b"") + frame(TEXT, b"a"),
        frame(TEXT, b"a")[:-1],
        frame(TEXT, b"a") + b"\x82",
        frame(TEXT, b"a", fin=False),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"x" * 65_536),
        frame(TEXT, b"a") + frame(CLOSE, b""),
        frame(PING, b"abc"),
    ],
)
def test_text_that_did_not_come_alone_is_for_the_library(data: bytes) -> None:
    lane = framed(Lane())
    lane.keep(1)
    lane.feed(data)
    assert lane.peek_text() is None
    assert lane.rest_bytes >= len(data) - 1


def test_text_behind_one_that_is_not_handled_yet_is_for_the_library() -> None:
    lane = framed(Lane())
    lane.feed(frame(TEXT, b"first"))
    assert lane.take(100) == frame(TEXT, b"first")
    lane.feed(frame(TEXT, b"second"))
    assert lane.peek_text() is None
    lane.pop_mark()
    assert lane.peek_text() == "second"


def test_lane_with_much_unwritten_audio_is_left_unread_while_the_disk_is_well(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    fd = os.memfd_create("audio")
    fleet = Fleet()
    lane = framed(
        Lane(server.fileno(), max_message_bytes=1000, audio_limit_bytes=10_000)
    )
    fleet.add(lane)
    lane.keep(1, fd)
    message = frame(BINARY, bytes(1000))
    client.sendall(message * 6)
    fleet.sweep()
    assert fleet.pressing
    assert lane.congested
    client.sendall(message * 20)
    fleet.sweep()
    assert lane.audio_bytes == 6000
    batch = fleet.batch()
    batch.write()
    batch.finish()
    fleet.sweep()
    assert lane.audio_bytes > 6000
    # A disk that hangs: what comes is read and, past the limit, dropped.
    fleet.patient = False
    client.sendall(message * 20)
    for _ in range(5):
        fleet.sweep()
    assert lane.dropped_bytes > 0
    assert lane.audio_bytes + lane.dropped_bytes == 46_000
    os.close(fd)


def test_settled_audio_ends_at_the_first_text_that_was_not_popped() -> None:
    fd = os.memfd_create("audio")
    lane = framed(Lane())
    lane.keep(1, fd)
    lane.feed(frame(BINARY, b"123") + frame(TEXT, b"t") + frame(BINARY, b"45"))
    assert lane.settled_bytes == 0
    batch = batch_of([lane])
    batch.write()
    batch.finish()
    assert lane.settled_bytes == 3
    lane.pop_mark()
    assert lane.settled_bytes == 5
    os.close(fd)
