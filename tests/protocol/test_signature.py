"""Signatures: the published vectors, every rule, and hostile input."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import time
from typing import TYPE_CHECKING

import http_sf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audiohook.errors import AuthenticationError
from audiohook.protocol import signature
from audiohook.protocol.signature import (
    MAX_FIELD_BYTES,
    REQUIRED_COMPONENTS,
    NonceCache,
    Refusal,
    Verified,
    fold,
    sign,
    signature_base,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET = base64.b64decode("TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU=")
API_KEY = "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh"
ORGANIZATION = b"d7934305-0972-4844-938e-9060eef73d05"
SESSION = b"30b0e395-84d3-4570-ac13-9a62d8f514c0"
CORRELATION = b"e160e428-53e2-487c-977d-96989bf5c99d"
HEADERS = (
    (b"Host", b"audiohook.example.com"),
    (b"Audiohook-Organization-Id", ORGANIZATION),
    (b"Audiohook-Session-Id", SESSION),
    (b"Audiohook-Correlation-Id", CORRELATION),
    (b"X-API-KEY", API_KEY.encode()),
)

OLD_TARGET = b"/api/v1/voicebiometrics/ws"
OLD_NONCE = "VGhpc0lzQVVuaXF1ZU5vbmNl"
OLD_CREATED = 1641013200
OLD_PARAMETERS: dict[str, str | int] = {
    "keyid": API_KEY,
    "nonce": OLD_NONCE,
    "alg": "hmac-sha256",
    "created": OLD_CREATED,
    "expires": 3282026430,
}
OLD_SIGNATURE = "NZBwyBHRRyRoeLqy1IzOa9VYBuI8TgMFt2GRDkDuJh4="

TARGET = b"/api/v1/audiohook/ws?tenant=a%20b&x=1"
NONCE = "AAECAwQFBgcICQoLDA0ODxAR"
CREATED = 1700000000
PARAMETERS: dict[str, str | int] = {
    "keyid": API_KEY,
    "nonce": NONCE,
    "alg": "hmac-sha256",
    "created": CREATED,
    "expires": CREATED + 30,
}
SIGNATURE = "VyC7IcuEyjmr+7iOpjlP7QdVqPykkNKOvv0Pgg13Owk="

Headers = list[tuple[bytes, bytes]]


def inner_list(
    parameters: dict[str, str | int], components: Sequence[str] = REQUIRED_COMPONENTS
) -> str:
    """Write Signature-Input's value by hand, apart from the code under test."""
    text = "(" + " ".join(f'"{name}"' for name in components) + ")"
    for name, value in parameters.items():
        text += f";{name}=" + (f'"{value}"' if isinstance(value, str) else str(value))
    return text


def signed(
    parameters: dict[str, str | int],
    signature: str,
    *,
    components: Sequence[str] = REQUIRED_COMPONENTS,
    headers: Sequence[tuple[bytes, bytes]] = HEADERS,
) -> Headers:
    return [
        *headers,
        (b"Signature-Input", f"sig1={inner_list(parameters, components)}".encode()),
        (b"Signature", f"sig1=:{signature}:".encode()),
    ]


def with_input(signature_input: str, signature: str = f"sig1=:{SIGNATURE}:") -> Headers:
    return [
        *HEADERS,
        (b"signature-input", signature_input.encode()),
        (b"signature", signature.encode()),
    ]


def check(
    headers: Sequence[tuple[bytes, bytes]],
    target: bytes = TARGET,
    *,
    secret: bytes | None = SECRET,
    now: float = CREATED,
) -> Verified:
    return verify(fold(headers), target, secret=secret, now=now)


def refusal(
    headers: Sequence[tuple[bytes, bytes]],
    target: bytes = TARGET,
    *,
    secret: bytes | None = SECRET,
    now: float = CREATED,
) -> Refusal:
    with pytest.raises(AuthenticationError) as caught:
        check(headers, target, secret=secret, now=now)
    assert caught.value.http_status == 401
    return Refusal(caught.value.reason)


def signing(
    parameters: dict[str, str | int],
    components: Sequence[tuple[str, bytes]] | None = None,
    secret: bytes = SECRET,
) -> Headers:
    """Sign anything, well, so that only the rule under test can refuse it."""
    if components is None:
        components = values(*REQUIRED_COMPONENTS)
    digest = hmac.digest(secret, signature_base(components, parameters), "sha256")
    return signed(
        parameters,
        base64.b64encode(digest).decode(),
        components=[name for name, _ in components],
    )


def values(*names: str) -> list[tuple[str, bytes]]:
    known = {
        "@request-target": TARGET,
        "@authority": b"audiohook.example.com",
        **{name.decode().lower(): value for name, value in HEADERS},
    }
    return [(name, known.get(name, b"x")) for name in names]


def test_base_official_vector_to_the_byte() -> None:
    base = signature_base(
        [
            ("@request-target", OLD_TARGET),
            *values(*REQUIRED_COMPONENTS)[1:],
        ],
        OLD_PARAMETERS,
    )
    assert len(base) == 593
    assert hashlib.sha256(base).hexdigest() == (
        "6fc7f72e95dddd7420441f42fb08c533151f55c9d4603a3632cdebb4488afd5f"
    )


def test_base_draft_vector_b_2_5() -> None:
    base = signature_base(
        [
            ("date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@authority", b"example.com"),
            ("content-type", b"application/json"),
        ],
        {"created": 1618884473, "keyid": "test-shared-secret"},
    )
    key = base64.b64decode(
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    )
    assert base64.b64encode(hmac.digest(key, base, "sha256")) == (
        b"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="
    )


@pytest.mark.parametrize(
    ("expires", "signature"),
    [
        (3282026430, OLD_SIGNATURE),
        (1641013230, "13MrOmtEIFb8cH00czAZWdEkgJr9QlnAQABRRF1A2gE="),
    ],
)
def test_verify_official_vectors(expires: int, signature: str) -> None:
    headers = signed({**OLD_PARAMETERS, "expires": expires}, signature)
    verified = check(headers, OLD_TARGET, now=OLD_CREATED)
    assert verified == Verified(API_KEY, OLD_NONCE, OLD_CREATED + 13)


def test_verify_target_with_query_counts_as_received() -> None:
    assert check(signed(PARAMETERS, SIGNATURE)).nonce == NONCE


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param("h1jYP+LqKP+6pkQT5kN/gtjH9dpcaY0y0bvO/8e50bA=", id="no query"),
        pytest.param("jaBf1jXY1eQcVRbCONpjjEE97c4adb3qgVV31C/EVxk=", id="ids swapped"),
        pytest.param("iNUZzzWEGOPse8kuvU0NeuNP+zh0oTCDthdbfVoohCE=", id="method"),
        pytest.param("wRxUC1f7b+Wz3Y++v+aM7CmOEinS2pqhd86ow+t2cPo=", id="raw secret"),
        pytest.param("qd857Ibapdf8oJvjKmTFihGzTCL9ui6dOMLFbNMOfHY=", id="last LF"),
        pytest.param("9MXhxVLMsXMoBl8WQU/VMaDlYWWYL7wgpu9v1RanhMQ=", id="authority"),
    ],
)
def test_verify_negative_vectors(signature: str) -> None:
    assert refusal(signed(PARAMETERS, signature)) == Refusal.FAILED


def test_verify_signature_without_query_holds_for_target_without_query() -> None:
    headers = signed(PARAMETERS, "h1jYP+LqKP+6pkQT5kN/gtjH9dpcaY0y0bvO/8e50bA=")
    check(headers, TARGET.partition(b"?")[0])


def test_verify_host_in_place_of_authority_refused() -> None:
    components = ["host" if c == "@authority" else c for c in REQUIRED_COMPONENTS]
    headers = signed(
        OLD_PARAMETERS,
        "zupMJUMfd/kMuvKc5zhRyfJPE3jTROuz1S1hn8SCTpE=",
        components=components,
    )
    assert refusal(headers, OLD_TARGET, now=OLD_CREATED) == Refusal.PRECONDITION


@pytest.mark.parametrize(
    "host",
    [
        b"audiohook.example.com:443",
        b"AudioHook.Example.COM",
        b"audiohook.example.com:",
        b" audiohook.example.com\t",
    ],
)
def test_verify_authority_is_normalised(host: bytes) -> None:
    check([*signed(PARAMETERS, SIGNATURE)[1:], (b"HOST", host)])


@pytest.mark.parametrize("host", [b"audiohook.example.com:8443", b"evil.example.com"])
def test_verify_other_authority_fails(host: bytes) -> None:
    headers = [*signed(PARAMETERS, SIGNATURE)[1:], (b"host", host)]
    assert refusal(headers) == Refusal.FAILED


def test_verify_rebuilds_from_parsed_value() -> None:
    text = inner_list(PARAMETERS).replace(";", ";  ").replace("(", "(  ")
    check(with_input(f"sig1={text}"))


@given(st.permutations(REQUIRED_COMPONENTS), st.permutations(["keyid", "nonce", "alg"]))
def test_verify_any_order_accepted(components: list[str], names: list[str]) -> None:
    parameters = {name: PARAMETERS[name] for name in ("created", *names, "expires")}
    check(signing(parameters, values(*components)))


def test_verify_other_headers_may_be_covered() -> None:
    names = (*REQUIRED_COMPONENTS, "x-more")
    headers = [*signing(PARAMETERS, values(*names)), (b"X-More", b"x")]
    check(headers)
    headers[-1] = (b"X-More", b"y")
    assert refusal(headers) == Refusal.FAILED


def test_verify_empty_header_may_be_covered() -> None:
    # Source: draft-ietf-httpbis-message-signatures-11, section 2.1.
    headers = signing(PARAMETERS, [*values(*REQUIRED_COMPONENTS), ("x-empty", b"")])
    assert refusal(headers) == Refusal.PRECONDITION
    check([*headers, (b"X-Empty", b" ")])
    assert refusal([*headers, (b"X-Empty", b"y")]) == Refusal.FAILED


def test_verify_duplicates_last_wins_at_first_place() -> None:
    text = inner_list(PARAMETERS)
    twice = text.replace(f'nonce="{NONCE}"', f'nonce="old";alg="x";nonce="{NONCE}"')
    check(with_input(f'sig1=("x");created=1, sig1={twice}'))
    check(with_input(f"sig1={text}", f"sig1=:AAAA:,\tsig1=:{SIGNATURE}:"))


def test_verify_any_label_and_first_of_several() -> None:
    text = inner_list(PARAMETERS)
    check(with_input(f"*a.b-1={text}", f"*a.b-1=:{SIGNATURE}:"))
    check(
        with_input(
            f'b={text}, a=("@status");tag="x"', f"a=:AAAA:, b=:{SIGNATURE}:, c=1"
        )
    )


def test_verify_header_lines_are_joined() -> None:
    headers = [
        *HEADERS,
        (b"Signature-Input", f"a={inner_list(PARAMETERS)}".encode()),
        (b"signature-input", b"b=1"),
        (b"Signature", b"b=1"),
        (b"SIGNATURE", f"a=:{SIGNATURE}:".encode()),
    ]
    check(headers)


def test_verify_signature_without_padding_accepted() -> None:
    bare = SIGNATURE.rstrip("=")
    check(with_input(f"sig1={inner_list(PARAMETERS)}", f"sig1=:{bare}:"))


def test_verify_unsigned() -> None:
    assert refusal(HEADERS) == Refusal.UNSIGNED


@pytest.mark.parametrize("name", [b"Signature", b"Signature-Input"])
def test_verify_half_signed_is_invalid(name: bytes) -> None:
    headers = [pair for pair in signed(PARAMETERS, SIGNATURE) if pair[0] != name]
    assert refusal(headers) == Refusal.INVALID
    assert refusal([*headers, (name, b"")]) == Refusal.INVALID


GOOD = inner_list(PARAMETERS)


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        (f"sig1={GOOD}", "sig1"),
        (f"sig1={GOOD}", "sig1=AAAA"),
        (f"sig1={GOOD}", "sig1=:A:"),
        (f"sig1={GOOD}", f'sig1="{SIGNATURE}"'),
        (f"sig1={GOOD}", f"sig1=:{SIGNATURE}"),
        (f"sig1={GOOD}", f"sig1=(:{SIGNATURE}:)"),
        (f"sig1={GOOD}", f"sig2=:{SIGNATURE}:"),
        (f"Sig1={GOOD}", f"Sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD},", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD} x", f"sig1=:{SIGNATURE}:"),
        ("sig1", f"sig1=:{SIGNATURE}:"),
        ("sig1=1", f"sig1=:{SIGNATURE}:"),
        ('sig1="@request-target"', f"sig1=:{SIGNATURE}:"),
        ('sig1=("@request-target"', f"sig1=:{SIGNATURE}:"),
        ('sig1=("@request-target")', f"sig1=:{SIGNATURE}:"),
        ("sig1=();created=1", f"sig1=:{SIGNATURE}:, "),
        (f"sig1={GOOD}".replace('"@authority"', "token"), f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD}".replace('"@authority"', "7"), f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};tag=1", f"sig1=:{SIGNATURE}:"),
        (f'sig1={GOOD};tag="x"', f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};keyid=token", f"sig1=:{SIGNATURE}:"),
        (f'sig1={GOOD};keyid=%"x"', f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};nonce=1", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};alg", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};created", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};created=?0", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};created=-1", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};created={CREATED}.0", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};created=@{CREATED}", f"sig1=:{SIGNATURE}:"),
        (f'sig1={GOOD};created="{CREATED}"', f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};expires=1000000000000000", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD};expires=?1", f"sig1=:{SIGNATURE}:"),
        (f"sig1={GOOD}, ä=1", f"sig1=:{SIGNATURE}:"),
        ("sig1=" + "(" * 3000, f"sig1=:{SIGNATURE}:"),
    ],
)
def test_verify_malformed_is_invalid(signature_input: str, signature: str) -> None:
    headers = [
        *HEADERS,
        (b"Signature-Input", signature_input.encode("latin-1")),
        (b"Signature", signature.encode("latin-1")),
    ]
    assert refusal(headers) == Refusal.INVALID


def test_verify_longest_field() -> None:
    room = MAX_FIELD_BYTES - len(f"sig1={GOOD}")
    check(with_input("sig1=(" + " " * room + GOOD[1:]))
    too_long = with_input("sig1=( " + " " * room + GOOD[1:])
    assert refusal(too_long) == Refusal.INVALID


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ('"@signature-params"', Refusal.INVALID),
        ('"@nonsense"', Refusal.INVALID),
        ('"@"', Refusal.INVALID),
        ('"@authority"', Refusal.INVALID),
        ('"x-api-key"', Refusal.INVALID),
        ('"@authority";req', Refusal.INVALID),
        ('"@authority";name="x"', Refusal.INVALID),
        ('"host";key="a"', Refusal.INVALID),
        ('"host";sf=1', Refusal.INVALID),
        ('"host";sf=?0', Refusal.INVALID),
        ('"host";sf;other', Refusal.INVALID),
        ('"Host"', Refusal.INVALID),
        ('"ho st"', Refusal.INVALID),
        ('"ho\\"st"', Refusal.INVALID),
        ('""', Refusal.INVALID),
        ('"@query-params"', Refusal.UNSUPPORTED),
        ('"host";sf', Refusal.UNSUPPORTED),
        ('"host";bs', Refusal.UNSUPPORTED),
        ('"host";req', Refusal.UNSUPPORTED),
        ('"host";sf;bs', Refusal.UNSUPPORTED),
        ('"signature"', Refusal.UNSUPPORTED),
        ('"@method"', Refusal.PRECONDITION),
        ('"@status"', Refusal.PRECONDITION),
        ('"@path"', Refusal.PRECONDITION),
        ('"absent"', Refusal.PRECONDITION),
        ('"empty"', Refusal.FAILED),
    ],
)
def test_verify_bad_component(component: str, expected: Refusal) -> None:
    text = GOOD.replace(")", f" {component})")
    assert refusal([*with_input(f"sig1={text}"), (b"Empty", b" ")]) == expected


@pytest.mark.parametrize("missing", REQUIRED_COMPONENTS)
def test_verify_required_component_not_covered(missing: str) -> None:
    names = [name for name in REQUIRED_COMPONENTS if name != missing]
    headers = signing(PARAMETERS, values(*names))
    assert refusal(headers) == Refusal.PRECONDITION


@pytest.mark.parametrize("missing", [name for name, _ in HEADERS])
def test_verify_covered_header_absent(missing: bytes) -> None:
    headers = [pair for pair in signed(PARAMETERS, SIGNATURE) if pair[0] != missing]
    assert refusal(headers) == Refusal.PRECONDITION


def test_verify_empty_target() -> None:
    assert refusal(signed(PARAMETERS, SIGNATURE), b"") == Refusal.PRECONDITION


@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"a\0b", b"a\r\nb"])
def test_verify_line_break_in_value_is_invalid(bad: bytes) -> None:
    headers = signed(PARAMETERS, SIGNATURE)
    assert refusal(headers, b"/" + bad) == Refusal.INVALID
    with_bad = [(name, bad if value == SESSION else value) for name, value in headers]
    assert refusal(with_bad) == Refusal.INVALID


def test_fold_trims_unfolds_and_joins() -> None:
    assert fold(
        [(b"A", b" x \r\n\t y\t"), (b"b", b""), (b"a", b"z"), (b"B", b"\xff ")]
    ) == {b"a": b"x y, z", b"b": b", \xff"}


@given(st.text(alphabet="a \t\r\n", max_size=40).map(str.encode))
def test_fold_does_what_the_pattern_says(value: bytes) -> None:
    wanted = re.sub(rb"[ \t]*\r\n[ \t]+", b" ", value).strip(b" \t")
    assert fold([(b"x", value)]) == {b"x": wanted}


@pytest.mark.parametrize("filler", [b" ", b"\t", b" \t", b"\r\n", b"\r\n ", b" \r\n"])
def test_fold_takes_time_in_proportion_to_the_length(filler: bytes) -> None:
    # It took 0.9 s of CPU once, and takes a few milliseconds at the most.
    assert cost_of_fold(filler) < 0.1


def cost_of_fold(filler: bytes) -> float:
    value = b"a" + filler * (32_768 // len(filler)) + b"b"
    costs = []
    for _ in range(5):
        began = time.process_time()
        fold([(b"x", value)])
        costs.append(time.process_time() - began)
    return min(costs)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nonce": "A" * 21}, Refusal.PRECONDITION),
        ({"nonce": ""}, Refusal.PRECONDITION),
        ({"keyid": API_KEY.lower()}, Refusal.PRECONDITION),
        ({"keyid": ""}, Refusal.PRECONDITION),
        ({"created": CREATED + 4}, Refusal.PRECONDITION),
        ({"created": CREATED - 14}, Refusal.EXPIRED),
        ({"created": CREATED - 5, "expires": CREATED - 4}, Refusal.EXPIRED),
        ({"expires": 0}, Refusal.EXPIRED),
        ({"alg": "hmac-sha512"}, Refusal.UNSUPPORTED),
        ({"alg": ""}, Refusal.UNSUPPORTED),
    ],
)
def test_verify_bad_parameter_though_signed(
    changes: dict[str, str | int], expected: Refusal
) -> None:
    assert refusal(signing({**PARAMETERS, **changes})) == expected


@pytest.mark.parametrize("missing", ["nonce", "keyid", "created"])
def test_verify_parameter_missing(missing: str) -> None:
    parameters = {k: v for k, v in PARAMETERS.items() if k != missing}
    assert refusal(signing(parameters)) == Refusal.PRECONDITION


@pytest.mark.parametrize("missing", ["alg", "expires"])
def test_verify_optional_parameter_missing(missing: str) -> None:
    parameters = {k: v for k, v in PARAMETERS.items() if k != missing}
    assert check(signing(parameters)).good_until == CREATED + 13


def test_verify_nonce_of_22_characters_accepted() -> None:
    check(signing({**PARAMETERS, "nonce": "A" * 22}))


def test_verify_escapes_in_string_are_written_back() -> None:
    nonce = 'with "quotes" and \\ twice'
    parameters = {**PARAMETERS, "nonce": nonce}
    text = inner_list({**PARAMETERS, "nonce": nonce}).replace(
        nonce, nonce.replace("\\", "\\\\").replace('"', '\\"')
    )
    base = signature_base(values(*REQUIRED_COMPONENTS), parameters)
    assert base.endswith(text.encode())
    digest = base64.b64encode(hmac.digest(SECRET, base, "sha256")).decode()
    assert check(with_input(f"sig1={text}", f"sig1=:{digest}:")).nonce == nonce


def test_verify_wrong_algorithm_is_told_only_to_who_can_sign() -> None:
    headers = signing({**PARAMETERS, "alg": "rsa"}, secret=b"another")
    assert refusal(headers) == Refusal.FAILED


@pytest.mark.parametrize(
    ("expires", "now", "passes"),
    [
        (CREATED + 30, CREATED - 3, True),
        (CREATED + 30, CREATED - 3.001, False),
        (CREATED + 30, CREATED + 13, True),
        (CREATED + 30, CREATED + 13.001, False),
        (CREATED + 5, CREATED + 8, True),
        (CREATED + 5, CREATED + 8.001, False),
        (CREATED - 2, CREATED + 1, True),
        (CREATED - 2, CREATED + 1.5, False),
    ],
)
def test_verify_clock_skew_is_granted_both_ways(
    expires: int, now: float, *, passes: bool
) -> None:
    headers = signing({**PARAMETERS, "expires": expires})
    if passes:
        assert check(headers, now=now).good_until == min(expires, CREATED + 10) + 3
    else:
        late = Refusal.EXPIRED if now > CREATED else Refusal.PRECONDITION
        assert refusal(headers, now=now) == late


@pytest.mark.parametrize("secret", [None, b""])
def test_verify_without_secret_never_passes(secret: bytes | None) -> None:
    for signer in (SECRET, b"", b"\0" * 64):
        headers = signing(PARAMETERS, secret=signer)
        assert refusal(headers, secret=secret) == Refusal.FAILED


def test_verify_stand_in_for_a_secret_opens_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signature, "_DUMMY_SECRET", b"leaked")
    headers = signing(PARAMETERS, secret=b"leaked")
    assert refusal(headers, secret=None) == Refusal.FAILED


@pytest.mark.parametrize("secret", [SECRET, None])
def test_verify_computes_hmac_for_unknown_key_too(
    secret: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[bytes] = []
    digest = hmac.digest

    def spy(key: bytes, message: bytes, name: str) -> bytes:
        computed.append(message)
        return digest(key, message, name)

    headers = signed(PARAMETERS, base64.b64encode(b"no").decode())
    monkeypatch.setattr(hmac, "digest", spy)
    assert refusal(headers, secret=secret) == Refusal.FAILED
    assert len(computed) == 1


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_verify_signature_of_wrong_length_fails(length: int) -> None:
    headers = signed(PARAMETERS, base64.b64encode(b"x" * length).decode())
    assert refusal(headers) == Refusal.FAILED


@pytest.mark.parametrize("bit", range(0, 256, 17))
def test_verify_one_bit_off_fails(bit: int) -> None:
    value = bytearray(base64.b64decode(SIGNATURE))
    value[bit // 8] ^= 1 << bit % 8
    headers = signed(PARAMETERS, base64.b64encode(value).decode())
    assert refusal(headers) == Refusal.FAILED


def test_sign_makes_the_official_vector() -> None:
    added = sign(
        HEADERS,
        OLD_TARGET,
        secret=SECRET,
        now=OLD_CREATED + 0.9,
        nonce=OLD_NONCE,
        lifetime=OLD_CREATED + 30,
    )
    assert added == [
        (b"Signature-Input", f"sig1={inner_list(OLD_PARAMETERS)}".encode()),
        (b"Signature", f"sig1=:{OLD_SIGNATURE}:".encode()),
    ]


def test_sign_then_verify_with_fresh_nonces() -> None:
    nonces = set()
    for _ in range(10):
        added = sign(HEADERS, TARGET, secret=SECRET, now=CREATED, label="other")
        nonces.add(check([*HEADERS, *added]).nonce)
    assert len(nonces) == 10
    assert {len(nonce) for nonce in nonces} == {24}


def test_sign_missing_header_raises() -> None:
    with pytest.raises(AuthenticationError, match="precondition"):
        sign(HEADERS[1:], TARGET, secret=SECRET, now=CREATED)


def test_nonces_replay_seen_until_it_expires() -> None:
    cache = NonceCache()
    assert cache.add("key", "nonce", good_until=113, now=100)
    assert not cache.add("key", "nonce", good_until=113, now=113)
    assert cache.add("other", "nonce", good_until=113, now=113)
    assert cache.add("key", "nonce", good_until=130, now=113.001)
    assert len(cache) == 1


def test_nonces_key_and_nonce_do_not_run_together() -> None:
    cache = NonceCache()
    assert cache.add("ab", "c", good_until=1, now=0)
    assert cache.add("a", "bc", good_until=1, now=0)


def test_nonces_full_gives_up_the_one_that_expires_first() -> None:
    cache = NonceCache(capacity=3)
    for nonce, good_until in (("a", 12), ("b", 11), ("c", 13), ("d", 14)):
        assert cache.add("key", nonce, good_until=good_until, now=0)
    assert len(cache) == 3
    for nonce in "acd":
        assert not cache.add("key", nonce, good_until=14, now=0)
    assert cache.add("key", "b", good_until=11, now=0)


def test_nonces_empties_itself() -> None:
    cache = NonceCache()
    for second in range(1000):
        cache.add("key", str(second), good_until=second + 13, now=second)
        assert len(cache) <= 14
    cache.add("key", "last", good_until=math.inf, now=5000)
    assert len(cache) == 1


structured = st.text(st.sampled_from('ab1sig=,;()":\\ \t?@%*-.+/&_é\x7f'), max_size=60)
field_values = st.binary(max_size=60) | structured.map(
    lambda text: text.encode("latin-1")
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in HEADERS]) | st.binary(max_size=8),
            field_values,
        ),
        max_size=8,
    ),
    field_values,
    field_values,
    st.binary(max_size=20),
)
def test_verify_arbitrary_bytes_refused_cleanly(
    extra: Headers, signature_input: bytes, signature: bytes, target: bytes
) -> None:
    headers = [
        *HEADERS,
        *extra,
        (b"signature-input", signature_input),
        (b"signature", signature),
    ]
    refusal(headers, target)


@given(st.integers(0, len(GOOD) + 4), field_values, st.booleans())
def test_verify_damaged_input_refused_or_unharmed(
    place: int, insert: bytes, overwrite: bool
) -> None:
    text = f"sig1={GOOD}".encode()
    skip = len(insert) if overwrite else 0
    damaged = text[:place] + insert + text[place + skip :]
    headers = [
        *HEADERS,
        (b"signature-input", damaged),
        (b"signature", f"sig1=:{SIGNATURE}:".encode()),
    ]
    try:
        verified = check(headers)
    except AuthenticationError:
        return
    # Only what reads the same may pass: blanks, and values overruled later.
    assert verified == Verified(API_KEY, NONCE, CREATED + 13)


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30))))
def test_verify_arbitrary_headers_refused_cleanly(headers: Headers) -> None:
    refusal(headers)


# What is read and written without the library


strings = st.text(st.sampled_from('ab@-"\\ é\x7f'), max_size=4)
members = st.builds(
    "{}{}={}{}{}".format,
    st.sampled_from(["", " ", "*"]),
    st.sampled_from(["sig1", "a_b", "A", "1"]),
    st.one_of(
        st.builds(
            lambda names: "(" + " ".join(f'"{name}"' for name in names) + ")",
            st.lists(strings, max_size=3),
        ),
        st.binary(min_size=30, max_size=34).map(
            lambda data: f":{base64.b64encode(data).decode()}:"
        ),
        structured,
    ),
    st.lists(
        st.builds(
            ";{}={}".format,
            st.sampled_from(["keyid", "created", "a1"]),
            st.one_of(
                strings.map('"{}"'.format),
                st.integers(-(10**16), 10**16).map(str),
                st.sampled_from(["?1", "00012", "1.5", "", "token"]),
            ),
        ),
        max_size=3,
    ).map("".join),
    st.sampled_from(["", " ", ", b=1", ";"]),
)


@given(members | structured)
@example(f"sig1={GOOD}")
@example(f"sig1=:{SIGNATURE}:")
def test_usual_fields_are_read_as_the_library_reads_them(text: str) -> None:
    value = text.encode("latin-1")
    usual = signature._parse_usual_input(value) or signature._parse_usual_value(value)
    if usual is not None:
        assert usual == http_sf.parse(value, tltype="dictionary")


def test_fields_of_a_real_client_are_usual_ones() -> None:
    assert signature._parse_usual_input(f"sig1={GOOD}".encode()) is not None
    assert signature._parse_usual_value(f"sig1=:{SIGNATURE}:".encode()) is not None


@given(
    st.lists(strings | structured, max_size=4),
    st.dictionaries(
        st.sampled_from(["keyid", "nonce", "created"]),
        strings | st.integers(-(10**14), 10**14),
    ),
)
def test_inner_lists_are_written_as_the_library_writes_them(
    names: list[str], parameters: dict[str, str | int]
) -> None:
    try:
        members: list[http_sf.ItemType] = list(names)
        inner_list: http_sf.InnerListType = (members, dict(parameters))
        expected = http_sf.ser([inner_list]).encode("ascii")
    except ValueError:
        with pytest.raises(ValueError, match="string"):
            signature._serialise(names, parameters)
    else:
        assert signature._serialise(names, parameters) == expected
