"""The ways in which a peer can be hostile, and what it should get for each.

What a way has to count is written as ``refused <reason>`` for a request that did
not become a session, ``calls <outcome>`` for one that did, and ``violation`` for
each message that broke the protocol.
"""

from __future__ import annotations

import itertools
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.protocol.messages import DisconnectReason, Pong
from tests.house import ORGANIZATION
from tests.reference_frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame
from tests.slow.peer import ANSWER_SECONDS, TOO_BIG, Peer, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Act = Callable[[Peer], Awaitable[None]]

# RFC 6455 section 7.4.1.
PROTOCOL_ERROR, NOT_UTF8 = 1002, 1007

# The server's limits.
FAILURE_DELAY = 0.5
REQUEST_SECONDS = 10.0
OPEN_SECONDS = 10.0
IDLE_SECONDS = 20.0
CLOSING_SECONDS = 12.0
SEND_SECONDS = 10.0

_ELSEWHERE = "../../../../../../tmp/elsewhere"
_WHOLE_SAMPLES = "Audio message does not hold whole samples"
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to be hostile.

    Attributes:
        name: Of the way.
        act: Does it, and checks the answers.
        counts: What the server has to count for it.
        recordings: How many there may be of it in the store afterwards.
        complete: Whether a recording has to be marked complete.
        costly: For us or in time, so that fewer of the kind have to do.
    """

    name: str
    act: Act
    counts: Counter[str]
    recordings: frozenset[int]
    complete: bool
    costly: bool

    @property
    def outcome(self) -> str | None:
        """How its session ends, in the server's word; None if there is none."""
        for name in self.counts:
            what, _, word = name.partition(" ")
            if what == "calls":
                return word
        return None


KINDS: list[Kind] = []
"""All ways that we know."""


def kind(
    *counts: str,
    recordings: tuple[int, ...] = (0,),
    complete: bool = False,
    costly: bool = False,
    name: str = "",
) -> Callable[[Act], Act]:
    """Adds a function to `KINDS`; for the arguments see `Kind`."""

    def add(act: Act) -> Act:
        KINDS.append(
            Kind(
                name=name or act.__name__,
                act=act,
                counts=Counter(counts),
                recordings=frozenset(recordings),
                complete=complete,
                costly=costly,
            )
        )
        return act

    return add


# Before there is a request.


@kind("refused handshake_timeout")
async def says_nothing(peer: Peer) -> None:
    await peer.connect()
    assert await peer.rest() == b""
    peer.took(REQUEST_SECONDS)


@kind("refused handshake_timeout")
async def says_a_byte_a_second(peer: Peer) -> None:
    await peer.connect()
    for byte in peer.request():
        with trio.move_on_after(1.0):
            assert await peer.rest() == b""
            break
        await peer.send(bytes([byte]))
    peer.took(REQUEST_SECONDS)


@kind("refused no_request")
async def speaks_tls(peer: Peer) -> None:
    sent = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), sent, server_hostname="localhost"
    )
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        hello = sent.read()
    await peer.connect()
    await peer.send(hello)
    assert await peer.rest() == b""
    peer.took(0.0)


@kind("refused no_request")
async def resets_at_once(peer: Peer) -> None:
    await peer.connect()
    peer.reset()


@kind("refused no_request")
async def resets_in_its_request(peer: Peer) -> None:
    await peer.connect()
    await peer.send(peer.request()[:100])
    await trio.sleep(0.05)
    peer.reset()


@kind("refused no_request")
async def ends_in_its_request(peer: Peer) -> None:
    await peer.connect()
    await peer.send(peer.request()[:100])
    await peer.stream.send_eof()
    assert await peer.rest() == b""


@kind("refused bad_request")
async def makes_noise(peer: Peer) -> None:
    await peer.connect()
    await peer.send(bytes(range(128, 256)) * 3 + b"\r\n\r\n")
    assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


@kind("refused head_too_long")
async def sends_a_long_head(peer: Peer) -> None:
    await peer.connect()
    await peer.send(peer.request(b"X-Filler: " + b"x" * 20_000 + b"\r\n"))
    assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")


@kind("refused not_an_upgrade")
async def wants_a_page(peer: Peer) -> None:
    await peer.connect()
    await peer.send(b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.rest()).startswith(b"HTTP/1.1 426 ")


@kind("refused bad_request")
async def posts(peer: Peer) -> None:
    await peer.connect()
    await peer.send(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert (await peer.rest()).startswith(b"HTTP/1.1 405 ")


@kind()
async def pipelines_requests(peer: Peer) -> None:
    await peer.connect()
    await peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    answers = await peer.rest()
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1") == 1


# Requests of those who may not come in.


async def _is_refused(peer: Peer, request: bytes, status: bytes) -> bytes:
    """Makes a request that is refused, and not too soon; the whole answer."""
    await peer.connect()
    await peer.send(request)
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 " + status)
    peer.took(FAILURE_DELAY)
    return answer


def _let_in_nobody(reason: str, name: str, headers: Callable[[Peer], bytes]) -> None:
    @kind(f"refused {reason}", name=name)
    async def act(peer: Peer) -> None:
        answer = await _is_refused(peer, peer.request(headers(peer)), b"401 ")
        peer.target.refusals.add(answer)


_let_in_nobody("precondition", "has_no_key", lambda peer: b"")
_let_in_nobody("unknown_key", "has_a_wrong_key", lambda peer: b"X-API-KEY: no\r\n")
_let_in_nobody(
    "unknown_key", "has_a_key_of_other_bytes", lambda peer: b"X-API-KEY: \xfc\xff\r\n"
)
_let_in_nobody(
    "unsigned",
    "does_not_sign",
    lambda peer: b"X-API-KEY: " + peer.target.signed_key + b"\r\n",
)
_let_in_nobody("failed", "signs_wrongly", lambda peer: peer.signature(secret=bytes(32)))
_let_in_nobody("expired", "signed_long_ago", lambda peer: peer.signature(age=60))
_let_in_nobody(
    "unexpected_signature",
    "signs_without_a_secret",
    lambda peer: peer.signature(key=peer.target.key),
)


@kind("refused replayed", "calls lost")
async def replays_a_signature(peer: Peer) -> None:
    request = peer.request(peer.signature())
    await peer.connect()
    await peer.send(request)
    await peer.hear_upgraded()
    again = Peer(peer.target, peer.number)
    try:
        peer.target.refusals.add(await _is_refused(again, request, b"401 "))
    finally:
        again.drop()


@kind("refused malformed")
async def has_a_path_for_a_session(peer: Peer) -> None:
    peer.session_id = _ELSEWHERE
    await _is_refused(peer, peer.request(), b"400 ")


@kind("refused malformed")
async def has_a_path_for_an_organization(peer: Peer) -> None:
    request = peer.request().replace(ORGANIZATION.encode(), b"..%2f..%2felsewhere")
    await _is_refused(peer, request, b"400 ")


# With a WebSocket, but without a session.


@kind("calls timeout_open")
async def never_opens(peer: Peer) -> None:
    await peer.upgrade()
    await peer.hear_end()
    peer.took(OPEN_SECONDS)


@kind("calls lost")
async def resets_after_the_upgrade(peer: Peer) -> None:
    await peer.upgrade()
    peer.reset()


@kind("calls lost")
async def ends_after_the_upgrade(peer: Peer) -> None:
    await peer.upgrade()
    await peer.stream.send_eof()
    await peer.hear_end()


# RFC 6455 section 4.1: a client has to wait for the answer. What comes before it is
# heard after it.


@kind("calls bad_frames", "violation")
async def asks_twice_at_once(peer: Peer) -> None:
    await peer.connect()
    await peer.send(peer.request() * 2)
    await peer.hear_upgraded()
    # A letter is a frame with reserved bits.
    await peer.hear_failure(PROTOCOL_ERROR)


@kind("calls ended", recordings=(1,), complete=True)
async def opens_before_the_answer(peer: Peer) -> None:
    await peer.connect()
    opening = peer.text("open", parameters=peer.open_parameters())
    await peer.send(peer.request() + opening)
    await peer.hear_upgraded()
    await peer.hear_opened()
    await peer.play()
    await peer.leave()


@kind("calls ended", "violation")
async def pauses_before_open(peer: Peer) -> None:
    await peer.upgrade()
    await peer.say("paused")
    await peer.hear_disconnect("Message is not allowed before open")
    await peer.leave()


@kind("calls ended", "violation")
async def sends_audio_before_open(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send(message(BINARY, bytes(1600)))
    await peer.hear_disconnect("Audio is not allowed before opened")
    await peer.leave()


@kind("calls ended")
async def pings_and_closes_before_open(peer: Peer) -> None:
    await peer.upgrade()
    await peer.say("ping", parameters={"rtt": "PT0S"})
    await peer.leave()


@kind("calls timeout_closing", "violation")
async def ignores_a_disconnect(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send(message(TEXT, b"{"))
    await peer.hear_disconnect("Message is not valid JSON")
    await peer.hear_end()
    peer.took(CLOSING_SECONDS)


def _cannot_be_read(name: str, text: str, info: str) -> None:
    @kind("calls ended", "violation", name=name)
    async def act(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(message(TEXT, text.encode()))
        await peer.hear_disconnect(info)
        await peer.leave()


_cannot_be_read("sends_65_600_characters", "x" * 65_600, "Message is too large")
_cannot_be_read("sends_70_000_characters", "x" * 70_000, "Message is too large")
_cannot_be_read("sends_65_600_wide_characters", "ü" * 65_600, "Message is too large")
_cannot_be_read("sends_bad_json", '{"version": "2"', "Message is not valid JSON")
_cannot_be_read("sends_no_number", '{"seq": NaN}', "Message is not valid JSON")
_cannot_be_read(
    "sends_a_long_number", f'{{"seq": {"9" * 50_000}}}', "Message is not valid JSON"
)
_cannot_be_read(
    "nests_deeply", "[" * 30_000 + "]" * 30_000, "Message is not valid JSON"
)
_cannot_be_read(
    "nests_objects_deeply",
    '{"a":' * 9_000 + "0" + "}" * 9_000,
    "Message is not valid JSON",
)
_cannot_be_read("sends_a_list", "[]", "Message is not valid JSON")
_cannot_be_read("sends_half_an_envelope", '{"seq": 1}', "Message is not well formed")


@kind("calls ended", "violation")
async def opens_for_another_session(peer: Peer) -> None:
    await peer.upgrade()
    other = "44444444-4444-4444-8444-444444444444"
    await peer.say("open", id=other, parameters=peer.open_parameters())
    await peer.hear_disconnect("Session identifier mismatch")
    await peer.leave()


@kind("calls ended", "violation")
async def opens_for_another_organization(peer: Peer) -> None:
    await peer.upgrade()
    other = "44444444-4444-4444-8444-444444444444"
    await peer.say("open", parameters=peer.open_parameters(organizationId=other))
    await peer.hear_disconnect(
        "Organization identifier mismatch", DisconnectReason.UNAUTHORIZED
    )
    await peer.leave()


@kind("calls ended", "violation")
async def skips_numbers(peer: Peer) -> None:
    await peer.upgrade()
    peer.skip(6)
    await peer.say("open", parameters=peer.open_parameters())
    await peer.hear_disconnect("Invalid seq value")
    await peer.leave()


# Its number is not learnt either, and so that of `close` is out of order too.
@kind("calls ended", "violation", "violation")
async def has_a_path_for_a_conversation(peer: Peer) -> None:
    await peer.upgrade()
    await peer.say("open", parameters=peer.open_parameters(conversationId=_ELSEWHERE))
    await peer.hear_disconnect("Invalid or missing parameters")
    await peer.leave()


@kind("calls ended", recordings=(1,), complete=True)
async def has_a_path_for_a_participant(peer: Peer) -> None:
    await peer.upgrade()
    party = dict.fromkeys(("id", "ani", "aniName", "dnis"), _ELSEWHERE)
    await peer.say("open", parameters=peer.open_parameters(participant=party))
    await peer.hear_opened()
    await peer.play()
    await peer.leave()


# What no WebSocket message may be.


def _breaks_the_framing(name: str, code: int, data: bytes) -> None:
    @kind("calls bad_frames", "violation", name=name)
    async def before_open(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(data)
        await peer.hear_failure(code)

    @kind("calls bad_frames", "violation", name=f"{name}_in_a_call", recordings=(1,))
    async def in_a_call(peer: Peer) -> None:
        await peer.open()
        await peer.play()
        await peer.send(data)
        await peer.hear_failure(code)


_breaks_the_framing(
    "does_not_mask", PROTOCOL_ERROR, frame(BINARY, bytes(1600), mask=None)
)
_breaks_the_framing(
    "sets_reserved_bits", PROTOCOL_ERROR, frame(BINARY, bytes(1600), rsv=4)
)
_breaks_the_framing("uses_a_reserved_opcode", PROTOCOL_ERROR, frame(3, b"x"))
_breaks_the_framing(
    "sends_a_fragment_of_nothing", PROTOCOL_ERROR, frame(CONTINUATION, b"x")
)
_breaks_the_framing("fragments_a_ping", PROTOCOL_ERROR, frame(PING, b"x", fin=False))
_breaks_the_framing("sends_a_long_ping", PROTOCOL_ERROR, frame(PING, bytes(126)))
_breaks_the_framing("sends_no_utf8", NOT_UTF8, frame(TEXT, b"\xc0\xaf"))
_breaks_the_framing("sends_200_000_characters", TOO_BIG, message(TEXT, b"x" * 200_000))


@kind("calls bad_frames", "violation", costly=True)
async def sends_10_mib_before_open(peer: Peer) -> None:
    await peer.upgrade()
    await _send_10_mib(peer)


@kind("calls bad_frames", "violation", recordings=(1,), costly=True)
async def sends_10_mib_in_a_call(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await _send_10_mib(peer)


async def _send_10_mib(peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        # The server need not read all of it.
        nursery.start_soon(peer.send, message(BINARY, bytes(10 * _MEBIBYTE)))
        await peer.hear_failure(TOO_BIG)


# In a call.


@kind("calls ended", recordings=(1,), complete=True)
async def opens_twice(peer: Peer) -> None:
    await peer.open()
    await peer.say("open", parameters=peer.open_parameters())
    await peer.play()
    await peer.leave()


@kind("calls ended", recordings=(1,), complete=True)
async def fragments_its_audio(peer: Peer) -> None:
    await peer.open()
    audio = peer.make_audio()
    pieces = [audio[:1], audio[1:5_000], b"", audio[5_000:]]
    for number, piece in enumerate(pieces):
        await peer.send(
            frame(
                CONTINUATION if number else BINARY,
                piece,
                fin=number == len(pieces) - 1,
            )
            + frame(PING, bytes([number]))
        )
    for number in range(len(pieces)):
        assert await peer.next_frame() == (PONG, bytes([number]))
    await peer.leave()


@kind("calls ended", "violation", recordings=(1,), complete=True)
async def sends_half_a_sample(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.send(message(BINARY, bytes(1601)))
    await peer.hear_disconnect(_WHOLE_SAMPLES)
    # What was on its way belongs to the call.
    await peer.play()
    await peer.leave()


@kind("calls ended", "violation", recordings=(1,), complete=True)
async def sends_too_much_audio_at_once(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.send(message(BINARY, bytes(65_538)))
    await peer.hear_disconnect("Audio message is too large")
    await peer.leave()


@kind("calls ended", recordings=(1,), complete=True, costly=True)
async def floods_with_pings_of_the_websocket(peer: Peer) -> None:
    await peer.open()
    count = 2_000
    flood = b"".join(frame(PING, b"%d" % number) for number in range(count))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, flood)
        for number in range(count):
            with trio.fail_after(ANSWER_SECONDS):
                assert await peer.next_frame() == (PONG, b"%d" % number)
    await peer.play()
    await peer.leave()


@kind("calls ended", recordings=(1,), complete=True, costly=True)
async def floods_with_pings_of_the_session(peer: Peer) -> None:
    await peer.open()
    count = 1_000
    flood = [peer.text("ping", parameters={"rtt": "PT0.1S"}) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, b"".join(flood))
        for seq in itertools.islice(itertools.count(2), count):
            told = await peer.hear()
            assert isinstance(told, Pong)
            assert told.clientseq == seq
    await peer.play()
    await peer.leave()


@kind("calls lost", recordings=(1,), costly=True)
async def never_reads(peer: Peer) -> None:
    await peer.open(receive_bytes=2_048)
    await peer.play()
    # Far more than the buffers between us hold.
    assert not await peer.send(frame(PING, bytes(125)) * 100_000)
    # Now and then a full buffer yet takes one answer more.
    peer.took(SEND_SECONDS, slack=SEND_SECONDS)


@kind("calls ended", recordings=(1,), complete=True)
async def claims_gaps_without_end(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    gap = {"start": "PT0S", "discarded": "PT999999999999S"}
    for _ in range(300):
        await peer.say("discarded", parameters=gap)
    await peer.leave()


@kind("calls lost", recordings=(0, 1))
async def resets_while_opening(peer: Peer) -> None:
    await peer.upgrade()
    await peer.say("open", parameters=peer.open_parameters())
    peer.reset()


@kind("calls lost", recordings=(1,))
async def resets_in_a_call(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    # So that the audio is not in the way of the reset.
    await trio.sleep(1.0)
    peer.reset()


@kind("calls ended", recordings=(1,), complete=True)
async def resets_while_closing(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.say("close", parameters={"reason": "end"})
    peer.reset()


@kind("calls lost", recordings=(1,))
async def ends_in_a_call(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.stream.send_eof()
    await peer.hear_end()


@kind("calls timeout_idle", recordings=(1,))
async def falls_silent(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.say("ping", parameters={"rtt": "PT0.1S"})
    assert isinstance(await peer.hear(), Pong)
    peer.start_clock()
    await peer.hear_end()
    peer.took(IDLE_SECONDS)


@kind("calls not_closed_by_peer", recordings=(1,), complete=True)
async def never_hangs_up(peer: Peer) -> None:
    await peer.open()
    await peer.play()
    await peer.close()
    await peer.hear_end()
    peer.took(CLOSING_SECONDS)
