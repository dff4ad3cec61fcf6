"""Hostile peers of every kind, and good calls that must not notice."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from bench.samples import sample
from tests.house import KEY, Recording, house
from tests.slow.hostile_shapes import KINDS
from tests.slow.peer import Peer, Target
from tests.slow.processes import (
    Site,
    numbered_audio,
    sound_audio,
    tell,
    wav_samples,
    worst,
    write_wav,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry

    from audiohook.simulator.report import CallReport
    from tests.slow.hostile import Kind
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

PEERS = 260
GOOD_CALLS = 50
GOOD_SECONDS = 24.0
# In which time hostile peers come.
SPREAD_SECONDS = 8.0
PEER_SECONDS = 40.0

SIGNED_KEY = "U2lnbmVkIGtleSBvZiB0aGUgdGVzdHM="
SECRET = b"known to the tests and the server"

MOST_GROWTH_BYTES = 64 * 2**20
# What a peer can claim to have left out: the length of the call, and a minute.
MOST_GAP_SECONDS = 75

_COUNTERS = {
    "audiohook_handshakes_refused_total": ("refused", "reason"),
    "audiohook_calls_total": ("calls", "outcome"),
    "audiohook_protocol_violations_total": ("violation", None),
}


def write_keys(path: Path) -> Path:
    secret = base64.b64encode(SECRET).decode()
    path.write_text(json.dumps({KEY: None, SIGNED_KEY: secret}))
    return path


def make_target(port: int) -> Target:
    return Target(port, KEY.encode(), SIGNED_KEY.encode(), SECRET)


async def be_hostile(kind: Kind, peer: Peer, faults: list[Exception]) -> None:
    """Does what the kind does; what comes out otherwise is noted, for all to end."""
    try:
        with trio.fail_after(PEER_SECONDS):
            await kind.act(peer)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
        error.add_note(f"while a peer {kind.name}")
        faults.append(error)
    finally:
        peer.drop()


def complain(faults: Sequence[Exception]) -> None:
    if faults:
        raise ExceptionGroup("answers that hostile peers should not get", faults)


def judge_recordings(
    kind: Kind, peer: Peer, recordings: Sequence[Recording], root: Path
) -> None:
    assert len(recordings) in kind.recordings, kind.name
    for recording in recordings:
        facts = recording.facts
        assert facts["ended"]["complete"] is kind.complete, kind.name
        if facts["gaps"]:
            assert recording.audio(".raw") == peer.audio
            samples = len(wav_samples(recording.audio(".wav"))) // 4
            most = len(peer.audio) // 2 + MOST_GAP_SECONDS * SAMPLE_RATE_HZ
            assert samples <= most, kind.name
        else:
            assert sound_audio(recording, root) == peer.audio, kind.name


# Every kind, one of each, with the counters at hand.


async def test_each_hostile_peer_is_answered_and_counted(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json")
    async with house(tmp_path / "recordings", api_keys_file=keys) as it:
        target = make_target(it.port)
        peers = [(kind, Peer(target, number)) for number, kind in enumerate(KINDS)]
        faults: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for kind, peer in peers:
                nursery.start_soon(be_hostile, kind, peer, faults)
        complain(faults)
        await it.settle()
        wanted: Counter[str] = sum((kind.counts for kind, _ in peers), Counter())
        counts = counted(it.service.metrics.registry)
        missing, more = wanted - counts, counts - wanted
        assert (missing, more) == (Counter(), Counter())
        assert it.spooled() == []
        stored = by_session(it.recordings())
    assert len(target.refusals) == 1
    for kind, peer in peers:
        found = stored.pop(peer.session_id, [])
        judge_recordings(kind, peer, found, tmp_path / "recordings")
    assert stored == {}


async def test_noise_in_place_of_tls_is_refused_and_counted(tmp_path: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, ca = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    hello = b"\x16\x03\x01\x02\x00"
    async with house(tmp_path / "recordings", tls_certificate=chain, tls_key=key) as it:
        registry = it.service.metrics.registry
        for noise in (b"GET / HTTP/1.1\r\n\r\n", bytes(512), hello + bytes(512)):
            peer = Peer(make_target(it.port), 0)
            await peer.connect()
            await peer.send(noise)
            # At most an alert of TLS.
            assert len(await peer.rest()) <= 7
            peer.drop()
        peer = Peer(make_target(it.port), 0)
        await peer.connect()
        await peer.send(hello)
        peer.reset()
        await wait_until(lambda: counted(registry)["refused no_request"])
        report = await it.call(uri=it.uri.replace("ws:", "wss:"), ca_file=ca)
        assert report.ok, report.breaches
        await it.settle()
        wanted = {"refused tls": 3, "refused no_request": 1, "calls ended": 1}
        assert counted(registry) == Counter(wanted)


def counted(registry: CollectorRegistry) -> Counter[str]:
    """Reads the counters in the words of `Kind.counts`."""
    found: Counter[str] = Counter()
    for metric in registry.collect():
        for one in metric.samples:
            if one.name in _COUNTERS:
                what, label = _COUNTERS[one.name]
                word = f" {one.labels[label]}" if label else ""
                found[what + word] += int(one.value)
    return found


def by_session(recordings: Iterable[Recording]) -> dict[str, list[Recording]]:
    found: dict[str, list[Recording]] = {}
    for recording in recordings:
        found.setdefault(recording.facts["sessionId"], []).append(recording)
    return found


# Hundreds of them against a process of its own, which has fifty calls to take.


async def test_good_calls_do_not_notice_hundreds_of_hostile_peers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random("hostile")
    keys = write_keys(tmp_path / "keys.json")
    site = Site(tmp_path, {"API_KEYS_FILE": str(keys)})
    async with site.serve() as server:
        await warm_up(site, server)
        before, files = sample(server.pid), open_files(server)
        target = make_target(server.port)
        peers = [
            (kind, Peer(target, GOOD_CALLS + number))
            for number, kind in enumerate(choose(draw))
        ]
        calls = make_calls(site, server)
        reports: list[CallReport] = []
        faults: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for options in calls:
                nursery.start_soon(make_call, options, reports)
            for kind, peer in peers:
                at = draw.uniform(0.0, SPREAD_SECONDS)
                nursery.start_soon(come_later, at, kind, peer, faults)
        complain(faults)
        await site.wait_stored()
        after = sample(server.pid)
        await wait_until(lambda: open_files(server) <= files)
        # A call tells of its end after its files are closed.
        due = site.stored().keys()
        await wait_until(lambda: due <= {line["session"] for line in ended(server)})
        lines = ended(server)
        assert server.lines("call_failed") == []
        assert server.lines("handshake_refused")
        assert server.lines("protocol_violation")
    tell(capsys, summarize(reports, before.rss_bytes, after.rss_bytes))
    assert after.rss_bytes - before.rss_bytes < MOST_GROWTH_BYTES
    assert len(target.refusals) == 1
    judge_good(calls, reports, site)
    judge_hostile(peers, lines, site)
    assert site.strays() == []


def ended(server: Server) -> list[dict[str, object]]:
    """The last lines of all recorded calls, and of the first other sessions."""
    lines = server.lines("session_ended") + server.lines("call_ended")
    return [line for line in lines if "held_back" not in line]


def choose(draw: random.Random) -> list[Kind]:
    """Returns `PEERS` kinds: each at least twice, the cheap ones more often."""
    chosen = KINDS * 2
    cheap = [kind for kind in KINDS if not kind.costly]
    chosen += draw.choices(cheap, k=PEERS - len(chosen))
    draw.shuffle(chosen)
    return chosen


async def warm_up(site: Site, server: Server) -> None:
    """Makes one call, so that the server has all that it needs for one."""
    report = await place_call(
        CallOptions(uri=server.uri, api_key=KEY, fast=True, duration=1.0)
    )
    assert report.ok, report.breaches
    await site.wait_stored()


def make_calls(site: Site, server: Server) -> list[CallOptions]:
    calls = []
    for number in range(GOOD_CALLS):
        audio = numbered_audio(number, GOOD_SECONDS)
        wav = write_wav(site.base / f"{number}.wav", audio)
        calls.append(CallOptions(uri=server.uri, api_key=KEY, wav=wav))
    return calls


async def make_call(options: CallOptions, reports: list[CallReport]) -> None:
    reports.append(await place_call(options))


async def come_later(
    at: float, kind: Kind, peer: Peer, faults: list[Exception]
) -> None:
    await trio.sleep(at)
    await be_hostile(kind, peer, faults)


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def summarize(reports: Sequence[CallReport], before: int, after: int) -> str:
    opened = [report.opened_latency or 0.0 for report in reports]
    pong = [rtt for report in reports for rtt in report.pong_latencies]
    closed = [report.closed_latency or 0.0 for report in reports]
    return (
        f"worst of the good calls: opened {worst(opened)}, pong {worst(pong)},"
        f" closed {worst(closed)}; memory {before >> 20} to {after >> 20} MiB"
    )


def judge_good(
    calls: Sequence[CallOptions], reports: Sequence[CallReport], site: Site
) -> None:
    stored = site.stored()
    for report in reports:
        # This also says that each answer came in time.
        assert report.ok, report.breaches
        assert report.pong_latencies
    assert len(reports) == len(calls)
    for number, options in enumerate(calls):
        (recording,) = stored[options.session_id]
        raw = sound_audio(recording, site.recordings)
        assert raw == numbered_audio(number, GOOD_SECONDS)
        assert recording.facts["ended"]["complete"] is True


def judge_hostile(
    peers: Sequence[tuple[Kind, Peer]], lines: Sequence[dict[str, object]], site: Site
) -> None:
    stored = site.stored()
    for kind, peer in peers:
        found = stored.get(peer.session_id, [])
        judge_recordings(kind, peer, found, site.recordings)
        ended = [line for line in lines if line["session"] == peer.session_id]
        outcomes = [line["outcome"] for line in ended]
        # Of sessions that leave nothing the first have to do; that all of them are
        # counted is seen where each comes alone.
        if found or outcomes:
            assert outcomes == ([kind.outcome] if kind.outcome else []), kind.name
        violations = [line["violations"] for line in ended]
        if outcomes:
            assert violations == [kind.counts["violation"]], kind.name
    # Nothing but theirs, those of the good calls, and the first.
    theirs = {peer.session_id for _, peer in peers}
    assert len(stored.keys() - theirs) == GOOD_CALLS + 1
