"""Requests and messages of shapes that parsers of others have stumbled over.

They come on top of the ways in `tests.slow.hostile`, one of each.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from audiohook.protocol.messages import Opened, Pong
from tests.reference_frames import TEXT
from tests.slow.hostile import KINDS, kind
from tests.slow.peer import message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.slow.peer import Peer

__all__ = ["KINDS"]

# Requests.


def _is_answered(
    name: str, status: bytes, reason: str, spoil: Callable[[bytes], bytes]
) -> None:
    @kind(f"refused {reason}", name=name)
    async def act(peer: Peer) -> None:
        await peer.connect()
        await peer.send(spoil(peer.request()))
        answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 " + status + b" "), answer
        assert answer.count(b"HTTP/1.1") == 1


def _line(line: bytes) -> Callable[[bytes], bytes]:
    return lambda request: request[:-2] + line + b"\r\n\r\n"


def _instead(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda request: request.replace(old, new)


def _is_a_bad_request(name: str, spoil: Callable[[bytes], bytes]) -> None:
    _is_answered(name, b"400", "bad_request", spoil)


# A proxy before us might see two requests where we see one, or the other way round.
_is_a_bad_request("names_no_host", _instead(b"Host: x\r\n", b""))
_is_a_bad_request("names_two_hosts", _line(b"Host: y"))
_is_a_bad_request("gives_two_lengths", _line(b"Content-Length: 5\r\nContent-Length: 6"))
_is_a_bad_request("gives_a_signed_length", _line(b"Content-Length: +5"))
_is_a_bad_request(
    "codes_its_body_twice", _line(b"Transfer-Encoding: identity, chunked")
)
_is_a_bad_request(
    "upgrades_with_a_body", lambda r: _line(b"Content-Length: 5")(r) + b"hello"
)
_is_a_bad_request(
    "upgrades_with_a_chunked_body",
    lambda r: _line(b"Transfer-Encoding: chunked")(r) + b"5\r\nhello\r\n0\r\n\r\n",
)
_is_a_bad_request(
    "hides_a_request_in_a_body",
    lambda r: (
        _line(b"Content-Length: 4\r\nTransfer-Encoding: chunked")(r)
        + b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
)
_is_a_bad_request("puts_a_space_before_the_colon", _instead(b"Host:", b"Host :"))
_is_a_bad_request("breaks_a_line_with_cr_alone", _line(b"X-A: a\rX-B: b"))
_is_a_bad_request("has_a_nul_in_a_value", _line(b"X-A: a\0b"))
_is_a_bad_request("has_a_nul_in_a_name", _line(b"X\0A: b"))
_is_a_bad_request("has_a_nul_in_its_target", _instead(b"GET /", b"GET /\0"))
_is_a_bad_request("has_raw_utf8_in_its_target", _instead(b"GET /", b"GET /\xc3\xbc"))
_is_a_bad_request(
    "speaks_for_a_proxy", lambda r: b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + r
)
_is_a_bad_request("wants_a_tunnel", _instead(b"GET /", b"CONNECT x:443"))
_is_a_bad_request("upgrades_with_post", _instead(b"GET", b"POST"))
_is_a_bad_request(
    "upgrades_without_saying_so", _instead(b"Connection: Upgrade\r\n", b"")
)
_is_a_bad_request("has_two_websocket_keys", _line(b"Sec-WebSocket-Key: eA=="))
_is_a_bad_request(
    "has_a_websocket_key_of_two_bytes", _instead(b"A" * 22 + b"==", b"abc")
)
_is_answered("speaks_an_old_draft", b"426", "bad_request", _instead(b": 13", b": 8"))
_is_answered(
    "speaks_http_1_0", b"426", "not_an_upgrade", _instead(b"HTTP/1.1", b"HTTP/1.0")
)
_is_answered(
    "speaks_http_2",
    b"426",
    "not_an_upgrade",
    lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
)
_is_answered(
    "floods_with_headers",
    b"431",
    "head_too_long",
    lambda r: r[:-2] + b"".join(b"X-%d: y\r\n" % n for n in range(3_000)) + b"\r\n",
)
_is_answered(
    "asks_for_16_kib", b"431", "head_too_long", _instead(b"/ ", b"/" * 16_384 + b" ")
)


@kind("refused handshake_timeout")
async def breaks_lines_with_lf_alone(peer: Peer) -> None:
    await peer.connect()
    await peer.send(peer.request().replace(b"\r\n", b"\n"))
    assert await peer.rest() == b""


@kind("refused malformed")
async def names_two_sessions(peer: Peer) -> None:
    await peer.connect()
    request = _line(b"Audiohook-Session-Id: " + peer.session_id.encode())
    await peer.send(request(peer.request()))
    assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


@kind("refused unknown_key")
async def has_two_keys(peer: Peer) -> None:
    await peer.connect()
    await peer.send(_line(b"X-API-KEY: " + peer.target.key)(peer.request()))
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 401 ")
    peer.target.refusals.add(answer)


def _is_let_in(name: str, spoil: Callable[[bytes], bytes]) -> None:
    """Odd, but in order, or of no consequence: the call is as any other."""

    @kind("calls ended", recordings=(1,), complete=True, name=name)
    async def act(peer: Peer) -> None:
        await peer.connect()
        await peer.send(spoil(peer.request()))
        head = await peer.hear_upgraded()
        # Nothing that it asked for besides: no compression, no protocol of its own.
        assert b"extensions" not in head.lower()
        assert b"protocol:" not in head.lower()
        await peer.say("open", parameters=peer.open_parameters())
        await peer.hear_opened()
        await peer.play()
        await peer.leave()


_is_let_in(
    "offers_compression",
    _line(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
)
_is_let_in("offers_a_protocol", _line(b"Sec-WebSocket-Protocol: chat"))
_is_let_in("folds_a_line", _line(b"X-Folded: a\r\n\tb"))
_is_let_in("names_the_host_in_its_target", _instead(b"GET /", b"GET http://x/"))
_is_let_in("sends_15_kib_of_one_header", _line(b"X-A: " + b"a" * 15_000))

# Messages.


def _says(name: str, spoil: Callable[[str], str], info: str) -> None:
    """Opens with a message that is spoilt, and leaves when it is asked to."""

    # The number of what cannot be read is not learnt, so that of `close` is out of
    # order as well.
    @kind("calls ended", "violation", "violation", name=name)
    async def act(peer: Peer) -> None:
        await peer.upgrade()
        text = spoil(peer.words("open", parameters=peer.open_parameters()))
        await peer.send(message(TEXT, text.encode()))
        await peer.hear_disconnect(info)
        await peer.leave()


def _changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


_NOT_JSON = "Message is not valid JSON"
_NOT_FORMED = "Message is not well formed"
_says("has_a_number_past_all", _changed('"seq": 1', '"seq": 1e999'), _NOT_JSON)
_says("has_a_key_twice", _changed('"seq": 1', '"seq": 1, "seq": 1'), _NOT_FORMED)
_says("numbers_with_a_fraction", _changed('"seq": 1', '"seq": 1.0'), _NOT_FORMED)
_says("numbers_with_truth", _changed('"seq": 1', '"seq": true'), _NOT_FORMED)
_says("numbers_with_text", _changed('"seq": 1', '"seq": "1"'), _NOT_FORMED)
_says("numbers_below_zero", _changed('"seq": 1', '"seq": -1'), _NOT_FORMED)
_says(
    "numbers_past_doubles", _changed('"seq": 1', '"seq": 9007199254740993'), _NOT_FORMED
)
_says("claims_a_position_past_all", _changed("PT0S", f"PT{'9' * 60}S"), _NOT_FORMED)
_says("claims_a_position_with_a_sign", _changed("PT0S", "PT-1S"), _NOT_FORMED)


@kind("calls ended", recordings=(1,), complete=True)
async def has_half_a_surrogate_pair(peer: Peer) -> None:
    """As a name that somebody cut off in the middle of an emoji."""
    await peer.upgrade()
    text = peer.words("open", parameters=peer.open_parameters())
    text = _changed('"ani": "', r'"ani": "\ud800')(text)
    await peer.send(message(TEXT, text.encode()))
    await peer.hear_opened()
    await peer.play()
    await peer.leave()


@kind("calls ended", "violation")
async def numbers_with_minus_zero(peer: Peer) -> None:
    await peer.upgrade()
    text = peer.words("open", parameters=peer.open_parameters())
    await peer.send(message(TEXT, _changed('"seq": 1', '"seq": -0')(text).encode()))
    await peer.hear_disconnect("Invalid seq value")
    peer.skip(-1)
    await peer.leave()


def _has_an_id(name: str, spoil: Callable[[str], str]) -> None:
    @kind("calls ended", "violation", "violation", name=name)
    async def act(peer: Peer) -> None:
        await peer.upgrade()
        other = spoil(peer.session_id)
        await peer.say("open", id=other, parameters=peer.open_parameters())
        await peer.hear_disconnect(_NOT_FORMED)
        await peer.leave()


_has_an_id("has_an_id_in_braces", lambda text: f"{{{text}}}")
_has_an_id("has_an_id_and_a_line_break", lambda text: f"{text}\n")
_has_an_id("has_an_id_without_hyphens", lambda text: text.replace("-", ""))
_has_an_id("has_an_id_of_wide_digits", lambda text: f"\uff11{text[1:]}")


@kind("calls ended", recordings=(1,), complete=True)
async def spells_its_id_in_capitals(peer: Peer) -> None:
    await peer.upgrade()
    wanted = peer.session_id
    for which, changes in (
        ("open", {"parameters": peer.open_parameters()}),
        ("ping", {"parameters": {"rtt": "PT0S"}}),
    ):
        await peer.say(which, id=wanted.upper(), **changes)
        told = await peer.hear_as(wanted.upper())
        assert isinstance(told, Opened if which == "open" else Pong)
    await peer.play()
    await peer.leave()


@kind("calls ended", recordings=(1,), complete=True)
async def configures_as_much_as_fits(peer: Peer) -> None:
    """Keys by the thousand, repeated and of one length, and as deep as may be."""
    await peer.upgrade()
    keys = {f"{number:08}": number for number in range(3_000)}
    deep: object = keys
    for _ in range(90):
        deep = [deep]
    text = peer.words("open", parameters=peer.open_parameters(customConfig=deep))
    assert len(text) < 65_000
    assert json.loads(text)
    await peer.send(message(TEXT, text.encode()))
    await peer.hear_opened()
    await peer.play()
    await peer.leave()
