"""Calls to a whole service, by clients and on disks that are odd or unlucky."""

from __future__ import annotations

import errno
import os
import resource
import ssl
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
import trio
import trio.testing
import trustme

from audiohook import call, call_recording, desk, service
from audiohook.call_recording import CallRecording
from audiohook.protocol.events import SessionFault
from audiohook.protocol.messages import Closed, Opened, Pong
from audiohook.recording import disk
from tests.house import KEY, House, house
from tests.reference_frames import BINARY
from tests.slow.peer import Peer, Target, message
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.stream import DivertedStream
    from audiohook.recording._files import Journals

_T = TypeVar("_T")


@asynccontextmanager
async def peer_of(it: House) -> AsyncIterator[Peer]:
    """A client of a house, whose socket is closed in the end."""
    peer = Peer(Target(it.port, KEY.encode(), b"", b""), 1)
    try:
        yield peer
    finally:
        peer.drop()


async def test_audio_between_open_and_opened_is_a_fault_of_the_peer(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.upgrade()
        early = peer.text("open", parameters=peer.open_parameters())
        assert await peer.send(early + message(BINARY, b"early!"))
        await peer.hear_opened()
        await peer.hear_disconnect(str(SessionFault.EARLY_AUDIO))
        await peer.play(0.5)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"]["complete"]


async def test_audio_that_is_no_whole_samples_is_refused_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.1)
        assert await peer.send(message(BINARY, b"odd"))
        await peer.hear_disconnect(str(SessionFault.AUDIO_FRAME))
        await peer.play(0.1)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio


async def test_open_that_came_with_the_request_is_answered(tmp_path: Path) -> None:
    """Some clients save a round trip, though they should not."""
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.connect()
        opening = peer.text("open", parameters=peer.open_parameters())
        assert await peer.send(peer.request() + opening)
        await peer.hear_upgraded()
        await peer.hear_opened()
        await peer.play(0.5)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"]["complete"]


async def test_what_a_stranger_sends_with_his_request_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    streams: list[DivertedStream] = []
    take = desk.CallDesk.take

    async def note(
        self: desk.CallDesk, stream: DivertedStream, head: RequestHead
    ) -> None:
        streams.append(stream)
        await take(self, stream, head)

    async def wait(_self: desk.Strangers, _until: float) -> None:
        kept.extend(stream.lane.rest_bytes for stream in streams)

    monkeypatch.setattr(desk.CallDesk, "take", note)
    monkeypatch.setattr(desk.Strangers, "wait", wait)
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.connect()
        early = message(BINARY, bytes(10_000))
        assert await peer.send(peer.request(b"X-API-KEY: wrong\r\n") + early)
        assert (await peer.rest()).startswith(b"HTTP/1.1 401 ")
    assert kept == [0]


async def test_request_that_is_not_in_order_is_told_what_is_wrong(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.connect()
        request = peer.request().replace(b"A" * 22 + b"==", b"abc")
        assert await peer.send(request + message(BINARY, b"early"))
        told = await peer.rest()
    assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert told.endswith(
        b"\r\n\r\nNo WebSocket for this request: Sec-WebSocket-Key must be there once,"
        b" 16 bytes in base64\n"
    )


# What the reference client and its suite do

_AUDIO = {"type": "audio", "format": "PCMU", "rate": 8000}
_PROBED = "00000000-0000-0000-0000-000000000000"


async def test_probe_of_the_reference_client_is_answered_in_full(
    tmp_path: Path,
) -> None:
    """It sends one frame without any audio before it closes."""
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.upgrade()
        parameters = peer.open_parameters(
            conversationId=_PROBED,
            participant={"id": _PROBED, "ani": "", "aniName": "", "dnis": ""},
        )
        await peer.say("open", parameters=parameters)
        await peer.hear_opened()
        assert await peer.send(message(BINARY, b""))
        await peer.leave()
        await wait_until(lambda: not it.service.statistics().live)
        assert it.recordings() == []
        assert it.spooled() == []
        assert it.service.metrics.probes._value.get() == 1


async def test_compression_that_is_offered_is_declined(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        await peer.connect()
        key = b"X-API-KEY: " + peer.target.key + b"\r\n"
        await peer.send(peer.request(key + offer + b"\r\n"))
        with trio.fail_after(30):
            head = b""
            while b"\r\n\r\n" not in head:
                head += await peer.stream.receive_some()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head.lower()
        await peer.say("open", parameters=peer.open_parameters())
        await peer.hear_opened()
        await peer.play(0.1)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio


@pytest.mark.parametrize(
    "channels",
    [["internal", "external"], ["external"], ["internal"]],
    ids=" ".join,
)
async def test_channels_are_taken_as_they_are_offered(
    tmp_path: Path, channels: list[str]
) -> None:
    offer = _AUDIO | {"channels": channels}
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.upgrade()
        await peer.say("open", parameters=peer.open_parameters(media=[offer]))
        told = await peer.hear()
        assert isinstance(told, Opened)
        assert [each.model_dump(mode="json") for each in told.parameters.media] == [
            offer
        ]
        await peer.play(0.25)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.facts["media"]["channels"] == channels
    assert recording.audio(".raw") == peer.audio
    assert recording.audio(".wav")[22] == len(channels)


async def test_ids_may_be_in_capitals(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        peer.session_id = peer.session_id.upper()
        await peer.upgrade()
        parameters = peer.open_parameters(
            conversationId="ABCDEF01-2345-4789-8BCD-EF0123456789",
            participant={"id": "no UUID/../..", "ani": "", "aniName": "", "dnis": ""},
        )
        await peer.say("open", parameters=parameters)
        await peer.hear_opened()
        await peer.play(0.1)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.facts["sessionId"] == peer.session_id.lower()
    assert recording.folder.name.endswith(
        f"_abcdef01-2345-4789-8bcd-ef0123456789_{_PROBED}"
    )


async def test_error_is_taken_note_of_and_close_still_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.25)
        error = {"code": 408, "message": "Timeout waiting for pong"}
        await peer.say("error", parameters=error)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio


async def test_ping_and_close_in_one_packet_are_both_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        ping = peer.text("ping", parameters={"rtt": "PT0.001453849S"})
        close = peer.text("close", parameters={"reason": "end"})
        assert await peer.send(ping + close)
        pong, closed = await peer.hear(), await peer.hear()
        assert isinstance(pong, Pong)
        assert isinstance(closed, Closed)
        assert (pong.clientseq, closed.clientseq) == (2, 3)


class Sealed:
    """TLS of a client over its socket, which can say that it sends nothing more.

    Args:
        tcp: The socket, connected.
        context: What it trusts.
        farewell: Whether TLS is told too that nothing more is sent.
    """

    def __init__(
        self, tcp: trio.SocketStream, context: ssl.SSLContext, *, farewell: bool
    ) -> None:
        self._tcp = tcp
        self._farewell = farewell
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")

    async def shake_hands(self) -> None:
        await self._do(self._tls.do_handshake)

    async def send_all(self, data: bytes) -> None:
        await self._do(lambda: self._tls.write(data))

    async def receive_some(self, most_bytes: int) -> bytes:
        try:
            return await self._do(lambda: self._tls.read(most_bytes))
        except ssl.SSLZeroReturnError:
            return b""

    async def send_eof(self) -> None:
        if self._farewell:
            with pytest.raises(ssl.SSLWantReadError):
                self._tls.unwrap()
            await self._tcp.send_all(self._out.read())
        await self._tcp.send_eof()

    async def _do(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                self._in.write(await self._tcp.receive_some())
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._out.read():
            await self._tcp.send_all(data)


@pytest.mark.parametrize("kind", ["plain", "tls", "tls with farewell"])
async def test_peer_that_sends_nothing_more_after_close_gets_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """However long it takes to seal the call; it has not said that it is gone."""
    seal = CallRecording.seal

    async def seal_late(
        self: CallRecording, reason: str, audio_bytes: int, *, until: float
    ) -> None:
        await wait_until(lambda: self._lane.eof)
        # Whoever reads the connection has seen its end as well.
        await trio.testing.wait_all_tasks_blocked()
        await seal(self, reason, audio_bytes, until=until)

    monkeypatch.setattr(CallRecording, "seal", seal_late)
    flags: dict[str, Any] = {}
    context = ssl.create_default_context()
    if kind != "plain":
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        authority.configure_trust(context)
        certificate = authority.issue_cert("127.0.0.1")
        flags = {"tls_certificate": tmp_path / "chain", "tls_key": tmp_path / "key"}
        certificate.cert_chain_pems[0].write_to_path(flags["tls_certificate"])
        certificate.private_key_pem.write_to_path(flags["tls_key"])
    async with house(tmp_path / "r", **flags) as it, peer_of(it) as peer:
        await peer.connect()
        if kind != "plain":
            sealed = Sealed(peer.stream, context, farewell="farewell" in kind)
            await sealed.shake_hands()
            peer._stream = cast("trio.SocketStream", sealed)
        await peer.send(peer.request())
        await peer.hear_upgraded()
        await peer.say("open", parameters=peer.open_parameters())
        await peer.hear_opened()
        await peer.play(0.5)
        await peer.say("close", parameters={"reason": "end"})
        await peer.stream.send_eof()
        closed = await peer.hear()
        assert isinstance(closed, Closed)
        with trio.fail_after(30):
            await peer.hear_end()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"]["complete"]


async def test_pings_of_a_live_call_are_answered_in_the_sweep(tmp_path: Path) -> None:
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        for number in range(5):
            await peer.play(0.1)
            # What wakes the call in between leaves nothing in the way.
            if number == 3:
                error = {"code": 429, "message": "too much"}
                await peer.say("error", parameters=error)
            await peer.say("ping", parameters={"rtt": "PT0.05S"})
            pong = await peer.hear()
            assert isinstance(pong, Pong)
        answered = it.service._pump.fleet.answered
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    # The one behind ``error`` comes together with it, or right after it.
    assert answered in (4, 5)
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"]["complete"]


async def test_pauses_and_losses_need_not_make_sense(tmp_path: Path) -> None:
    """Of what the client says is missing, only how much of it counts."""
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.1)
        await peer.say("paused")
        await peer.say("paused")
        missing = {"start": "PT999S", "discarded": "PT0.5S"}
        await peer.say("resumed", parameters=missing)
        missing = {"start": "PT6.3S", "discarded": "PT0.3S"}
        await peer.say("discarded", parameters=missing, position="PT0S")
        await peer.play(0.1)
        missing = {"start": "PT0S", "discarded": "PT1000000000S"}
        await peer.say("discarded", parameters=missing, position="PT0.1S")
        await peer.say("paused")
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    pcm = recording.audio(".wav")[44:]
    assert pcm[3200 : 3200 + 25_600] == bytes(25_600)
    assert any(pcm[3200 + 25_600 : 2 * 3200 + 25_600])
    paused, discarded, endless = recording.facts["gaps"]
    assert (paused["kind"], paused["length"]) == ("paused", 0.5)
    assert (discarded["kind"], discarded["length"]) == ("discarded", 0.3)
    # Of a call that has only begun no more than its history can be missing.
    assert endless["kind"] == "discarded"
    assert 58 < endless["length"] < 62
    assert recording.facts["ended"] == {
        "reason": "end",
        "complete": True,
        "paused": True,
    }


async def test_session_that_comes_again_is_recorded_again(tmp_path: Path) -> None:
    """Be the first still live, or waiting to be stored."""
    async with house(tmp_path) as it, peer_of(it) as first, peer_of(it) as again:
        again.session_id = first.session_id
        await first.open()
        await again.open()
        await again.play(0.25)
        await first.play(0.5)
        await again.leave()
        await first.leave()
        await it.settle()
        found = {recording.audio(".raw") for recording in it.recordings()}
    assert found == {first.audio, again.audio}


async def test_sync_that_failed_once_is_not_believed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of each failure once; the peer is not told that all is well."""
    monkeypatch.setattr(call, "_PEER_PATIENCE", 0.5)
    monkeypatch.setattr(service, "_ADOPT_INTERVAL", 0.1)
    sync, failures = os.fdatasync, [OSError(errno.EIO, "bad sector")]

    def fail_once(fd: int) -> None:
        if failures:
            raise failures.pop()
        sync(fd)

    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.5)
        monkeypatch.setattr(os, "fdatasync", fail_once)
        await peer.say("close", parameters={"reason": "end"})
        with trio.fail_after(30):
            await peer.hear_end()
        await wait_until(lambda: not it.spooled())
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio


# Disks


class Ailing:
    """A disk that does not let the end of a call be written, some times.

    Args:
        times: How often it refuses.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.refusals = 0
        self._times = times
        self._write = disk.write_steps
        monkeypatch.setattr(disk, "write_steps", self._ail)

    def _ail(
        self,
        journals: Journals,
        calls: Collection[tuple[disk.CallFiles, list[disk.Step]]],
    ) -> None:
        steps = [step for _, steps in calls for step in steps]
        ends = any(step.fit_bytes is not None for step in steps)
        if ends and self.refusals < self._times:
            self.refusals += 1
            for step in steps:
                step.failure = OSError(errno.EIO, "bad sector")
        else:
            self._write(journals, calls)


async def test_close_is_answered_once_the_disk_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ailing = Ailing(monkeypatch, 2)
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.5)
        await peer.leave()
        await it.settle()
        (recording,) = it.recordings()
    assert ailing.refusals == 2
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"]["complete"]


async def test_peer_is_not_kept_for_ever_if_its_close_cannot_be_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "_CLOSE_PATIENCE", 0.0)
    monkeypatch.setattr(call, "_PEER_PATIENCE", 0.5)
    ailing = Ailing(monkeypatch, 1)
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        await peer.play(0.5)
        await peer.say("close", parameters={"reason": "end"})
        with trio.fail_after(30):
            await peer.hear_end()
        await it.settle()
        (recording,) = it.recordings()
    assert ailing.refusals == 1
    assert recording.audio(".raw") == peer.audio
    assert recording.facts["ended"] == {
        "reason": "not_sealed",
        "complete": False,
        "paused": False,
    }


@pytest.mark.parametrize("room_bytes", [6000, 6001])
@pytest.mark.parametrize("refusals", [0, 1])
async def test_audio_that_a_full_disk_refused_is_a_gap_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room_bytes: int,
    refusals: int,
) -> None:
    """However often the end has to be tried, and if it is within a sample."""
    monkeypatch.setattr(call_recording, "_FLUSH_DEADLINE", 0.1)
    Ailing(monkeypatch, refusals)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with house(tmp_path) as it, peer_of(it) as peer:
        await peer.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
        try:
            await peer.play(0.5)
            await peer.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        peer.drop()
        await it.settle()
        (recording,) = it.recordings()
    assert recording.audio(".raw") == peer.audio[:6000]
    assert len(recording.audio(".wav")) == 44 + 2 * len(peer.audio)
    (gap,) = recording.facts["gaps"]
    assert (gap["kind"], gap["storedSamplesBefore"]) == ("lost", 3000)
    assert gap["lengthSamples"] == 1000
    assert not recording.facts["ended"]["complete"]


async def test_call_that_a_hanging_disk_kept_from_being_sealed_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "SEAL_DEADLINE", 0.3)
    monkeypatch.setattr(call, "_CLOSE_PATIENCE", 0.0)
    monkeypatch.setattr(call, "_PEER_PATIENCE", 0.5)
    monkeypatch.setattr(service, "_ADOPT_INTERVAL", 0.1)
    works = threading.Event()
    sync = os.fdatasync

    def hang(fd: int) -> None:
        works.wait(20)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", hang)
    try:
        async with house(tmp_path) as it, peer_of(it) as peer:
            await peer.open()
            await peer.play(0.5)
            await peer.say("close", parameters={"reason": "end"})
            with trio.fail_after(30):
                await peer.hear_end()
            await wait_until(lambda: not it.service.statistics().live)
            assert it.recordings() == []
            works.set()
            await wait_until(lambda: not it.spooled())
            (recording,) = it.recordings()
    finally:
        works.set()
    assert recording.audio(".raw") == peer.audio
