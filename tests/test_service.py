from __future__ import annotations

import hashlib
import io
import wave
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from audiohook.errors import ConfigError
from audiohook.protocol.messages import Channel
from audiohook.recovery import recover
from tests.house import House, house, make_service, upgrade_request
from tests.reference_frames import TEXT, frame
from tests.reference_ulaw import decode
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


async def test_call_becomes_a_wav_with_every_sample(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        report = await it.call(duration=3.0, frame_seed=5)
        assert report.ok, report.breaches
        await it.settle()
        (recording,) = it.recordings()
        assert it.spooled() == []
    raw = recording.audio(".raw")
    assert len(raw) == report.audio_bytes == 48_000
    with wave.open(io.BytesIO(recording.audio(".wav"))) as wav:
        assert (wav.getnchannels(), wav.getframerate(), wav.getsampwidth()) == (
            2,
            8000,
            2,
        )
        assert wav.readframes(100_000) == decode(raw)
    facts = recording.facts
    assert facts["ended"]["complete"] is True
    assert facts["gaps"] == []
    for entry in facts["objects"]:
        data = (tmp_path / entry["key"]).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]


async def test_gaps_are_silence_at_the_exact_sample(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        report = await it.call(
            duration=4.0, pauses=((1.0, 5.0),), discards=((8.0, 2.4),)
        )
        assert report.ok, report.breaches
        await it.settle()
        (recording,) = it.recordings()
    raw = recording.audio(".raw")
    pcm = decode(raw)
    silence = bytes(4 * 8000 * 5), bytes(4 * 19_200)
    expected = (
        pcm[: 4 * 8000]
        + silence[0]
        + pcm[4 * 8000 : 4 * 24_000]
        + silence[1]
        + pcm[4 * 24_000 :]
    )
    with wave.open(io.BytesIO(recording.audio(".wav"))) as wav:
        assert wav.readframes(1_000_000) == expected
    kinds = [(gap["kind"], gap["lengthSamples"]) for gap in recording.facts["gaps"]]
    assert kinds == [("paused", 40_000), ("discarded", 19_200)]


async def test_lost_socket_leaves_an_incomplete_recording(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        report = await it.call(duration=2.0, hang_up=True)
        await it.settle()
        (recording,) = it.recordings()
    assert recording.facts["ended"]["complete"] is False
    assert len(recording.audio(".raw")) == report.audio_bytes == 32_000


async def test_channels_keep_their_order_and_names(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        inverted = (Channel.INTERNAL, Channel.EXTERNAL)
        assert (await it.call(duration=1.0, channels=inverted)).ok
        assert (await it.call(duration=1.0, only=Channel.INTERNAL)).ok
        await it.settle()
        media = [r.facts["media"]["channels"] for r in it.recordings()]
    assert sorted(media) == [["internal"], ["internal", "external"]]


async def test_probe_is_answered_and_nothing_is_kept(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        report = await it.call(probe=True)
        assert report.ok, report.breaches
        await it.settle()
        assert it.recordings() == []
        assert it.spooled() == []
        assert (
            it.service.metrics.registry.get_sample_value("audiohook_probes_total") == 1
        )


async def test_signed_calls_only_once_there_is_a_secret(tmp_path: Path) -> None:
    secret = "TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU="
    async with house(tmp_path, client_secret=secret) as it:
        assert (await it.call(duration=0.5, client_secret=secret)).ok
        assert not (await it.call(duration=0.5)).ok
        assert not (await it.call(duration=0.5, client_secret="AAAA")).ok


async def test_all_refusals_look_alike_and_take_their_time(tmp_path: Path) -> None:
    answers = set()
    async with house(tmp_path) as it:
        for headers in (b"", b"X-API-KEY: wrong\r\n", b"X-API-KEY: \xff\r\n"):
            began = trio.current_time()
            async with await trio.open_tcp_stream("127.0.0.1", it.port) as client:
                await client.send_all(upgrade_request(headers))
                received = b""
                while data := await client.receive_some():
                    received += data
            answers.add(received)
            assert trio.current_time() - began >= 0.5
        assert it.service.statistics().live == 0
    (answer,) = answers
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_tls_ends_in_the_process(tmp_path: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, ca = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    async with house(tmp_path / "r", tls_certificate=chain, tls_key=key) as it:
        uri = it.uri.replace("ws:", "wss:")
        report = await it.call(uri=uri, ca_file=ca, duration=3.0, frame_seed=1)
        assert report.ok, report.breaches
        await it.settle()
        (recording,) = it.recordings()
    assert len(recording.audio(".raw")) == report.audio_bytes == 48_000


async def test_drain_asks_live_calls_to_close_and_stores_them(tmp_path: Path) -> None:
    service = make_service(tmp_path, drain_timeout=0.0)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(service.run)
        it = House(service, port, tmp_path)
        reports = []

        async def call() -> None:
            reports.append(await it.call(duration=30.0, fast=False, frame_ms=20))

        for _ in range(3):
            nursery.start_soon(call)
        await it.wait_heard(3)
        service.stop()
        with trio.fail_after(8):
            await service.wait_stopped()
    assert len(it.recordings()) == 3
    assert it.spooled() == []
    for report in reports:
        assert 0 < report.audio_bytes < 30 * 16_000


async def test_call_that_comes_while_draining_is_told_to_come_again(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, drain_timeout=60.0) as it:
        async with it.live_call():
            it.service.stop()
            await wait_until(lambda: it.service.statistics().draining)
            report = await it.call(duration=0.5)
            told = [f"{breach.rule}: {breach.text}" for breach in report.breaches]
            assert any("disconnect" in each for each in told)
            assert not any("401" in each for each in told)
            async with await trio.open_tcp_stream("127.0.0.1", it.port) as client:
                await client.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b" 503 " in await client.receive_some()


async def test_cancelled_service_leaves_sealed_calls_for_the_next(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        async with house(tmp_path) as it:
            nursery.start_soon(lambda: it.call(duration=30.0, fast=False))
            await it.wait_heard()
    async with house(tmp_path) as it:
        await wait_until(lambda: not it.spooled())
        (recording,) = it.recordings()
        assert recording.facts["ended"]["complete"] is False
        assert len(recording.audio(".raw")) > 0


async def test_same_name_gets_a_suffix_and_overwrites_nothing(tmp_path: Path) -> None:
    ids = {
        "conversation_id": "11111111-1111-4111-8111-111111111111",
        "participant_id": "22222222-2222-4222-8222-222222222222",
    }
    async with house(tmp_path, clock=lambda: 1_800_000_000.0) as it:
        await it.call(duration=1.0, **ids)
        await it.call(duration=2.0, **ids)
        await it.settle()
        sizes = [len(r.audio(".raw")) for r in it.recordings()]
    assert sizes == [16_000, 32_000]


@pytest.mark.parametrize("layout", ["mono", "split"])
@pytest.mark.parametrize("encoding", ["pcm16", "ulaw"])
async def test_layouts_and_encodings(
    tmp_path: Path, layout: str, encoding: str
) -> None:
    async with house(
        tmp_path,
        channel_layout=layout,
        wav_encoding=encoding,
        keep_raw=False,
        keep_peaks=False,
    ) as it:
        assert (await it.call(duration=1.0)).ok
        await it.settle()
        (recording,) = it.recordings()
    names = sorted(path.name for path in recording.folder.glob("audio/*"))
    assert len(names) == (2 if layout == "split" else 1)
    assert all(name.endswith(".wav") for name in names)
    body = 16_000 if encoding == "pcm16" else 8_000
    header = 44 if encoding == "pcm16" else 58
    for path in recording.folder.glob("audio/*"):
        assert path.stat().st_size == header + body


async def test_recover_finishes_what_was_left(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with house(tmp_path) as it:
            nursery.start_soon(lambda: it.call(duration=30.0, fast=False))
            await it.wait_heard()
    chosen = it.service._settings
    found = await recover(chosen, log=it.service._log)
    assert (found.stored, found.waiting) == (1, 0)
    assert len(it.recordings()) == 1


async def test_too_many_calls_are_sent_away_after_the_upgrade(tmp_path: Path) -> None:
    async with house(tmp_path, max_calls=1) as it:
        async with it.live_call():
            report = await it.call(duration=0.5)
            assert "disconnect" in str(report.breaches)
        await it.settle()
        assert len(it.recordings()) == 1


async def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        second = make_service(tmp_path, port=it.port)
        with pytest.raises(ExceptionGroup) as caught:
            await second.run()
        faults = caught.value.split(ConfigError)[0]
        assert f"PORT: {it.port} is in use" in repr(faults)


async def test_message_too_long_for_anything_gets_1009(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        async with await trio.open_tcp_stream("127.0.0.1", it.port) as client:
            await client.send_all(upgrade_request())
            assert b" 101 " in await client.receive_some()
            await client.send_all(frame(TEXT, b"x" * 200_000))
            received = await client.receive_some()
            assert received[0] == 0x88
            assert int.from_bytes(received[2:4], "big") == 1009
