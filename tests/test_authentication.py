"""Who gets in, who does not, and for which reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.authentication import FAILURE_DELAY, Authenticator, Credentials
from audiohook.errors import AuthenticationError
from audiohook.keys import KeyRecord
from audiohook.protocol.signature import NonceCache, Refusal, sign

if TYPE_CHECKING:
    from collections.abc import Sequence


NOW = 1_700_000_000.0
TARGET = b"/api/v1/audiohook/ws?x=1"
SECRET = b"0123456789abcdef"
ORGANIZATION = "d7934305-0972-4844-938e-9060eef73d05"
SESSION = "30b0e395-84d3-4570-ac13-9a62d8f514c0"
CORRELATION = "e160e428-53e2-487c-977d-96989bf5c99d"
KEYS = {
    "signed-key": KeyRecord.of(SECRET),
    "free-key": KeyRecord.of(None),
    "empty-key": KeyRecord.of(b""),
}

Headers = list[tuple[bytes, bytes]]


def request(key: str = "signed-key", **changed: str | None) -> Headers:
    fields: dict[str, str | None] = {
        "Host": "audiohook.example.com",
        "Audiohook-Organization-Id": ORGANIZATION,
        "Audiohook-Session-Id": SESSION,
        "Audiohook-Correlation-Id": CORRELATION,
        "X-API-KEY": key,
        "Audiohook-Retry-Attempt": "2",
    }
    for name in fields:
        word = name.rpartition("-")[0].rpartition("-")[2].lower()
        fields[name] = changed.get(word, fields[name])
    return [(k.encode(), v.encode("latin-1")) for k, v in fields.items() if v]


def with_signature(headers: Headers, secret: bytes = SECRET) -> Headers:
    return headers + sign(headers, TARGET, secret=secret, now=NOW)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(KEYS)


def refusal(
    authenticator: Authenticator, headers: Sequence[tuple[bytes, bytes]]
) -> tuple[Refusal, int]:
    with pytest.raises(AuthenticationError) as caught:
        authenticator.authenticate(headers, TARGET, now=NOW)
    return Refusal(caught.value.reason), caught.value.http_status


def test_signed_request_accepted(authenticator: Authenticator) -> None:
    headers = with_signature(request())
    assert authenticator.authenticate(headers, TARGET, now=NOW) == Credentials(
        key_id="f3ff7665",
        session_id=SESSION,
        organization_id=ORGANIZATION,
        correlation_id=CORRELATION,
        retry_attempt=2,
        record=KeyRecord.of(SECRET),
    )


@pytest.mark.parametrize("key", ["free-key", "empty-key"])
def test_unsigned_request_accepted_where_key_has_no_secret(
    authenticator: Authenticator, key: str
) -> None:
    accepted = authenticator.authenticate(request(key), TARGET, now=NOW)
    assert accepted.session_id == SESSION
    # No nonce, so nothing to replay: the client's retry looks the same.
    assert authenticator.authenticate(request(key), TARGET, now=NOW) == accepted


def test_key_with_secret_never_accepted_unsigned(authenticator: Authenticator) -> None:
    assert refusal(authenticator, request()) == (Refusal.UNSIGNED, 401)


@pytest.mark.parametrize("key", ["free-key", "empty-key"])
@pytest.mark.parametrize("secret", [SECRET, b"", b"\0" * 32])
def test_signed_request_refused_where_key_has_no_secret(
    authenticator: Authenticator, key: str, secret: bytes
) -> None:
    headers = with_signature(request(key), secret)
    assert refusal(authenticator, headers) == (Refusal.UNEXPECTED_SIGNATURE, 401)


@pytest.mark.parametrize(
    "key", ["unknown", "SIGNED-KEY", "free-key ,", "\xfffree-key", "x" * 60_000]
)
def test_unknown_key_refused(authenticator: Authenticator, key: str) -> None:
    headers = request(key)
    assert refusal(authenticator, headers) == (Refusal.UNKNOWN_KEY, 401)
    if key.isascii() and len(key) < 100:
        signed = with_signature(headers)
        assert refusal(authenticator, signed) == (Refusal.UNKNOWN_KEY, 401)


@pytest.mark.parametrize("headers", [[], request(""), request(" ")])
def test_missing_key_refused(authenticator: Authenticator, headers: Headers) -> None:
    assert refusal(authenticator, headers) == (Refusal.PRECONDITION, 401)


def test_empty_key_is_never_a_key() -> None:
    authenticator = Authenticator({"": KeyRecord()})
    assert refusal(authenticator, request("")) == (Refusal.PRECONDITION, 401)


def test_key_given_twice_refused(authenticator: Authenticator) -> None:
    headers = [*request("free-key"), (b"x-api-key", b"free-key")]
    assert refusal(authenticator, headers) == (Refusal.UNKNOWN_KEY, 401)
    signed = [*with_signature(request()), (b"x-api-key", b"signed-key")]
    assert refusal(authenticator, signed) == (Refusal.PRECONDITION, 401)


def test_wrong_secret_refused(authenticator: Authenticator) -> None:
    headers = with_signature(request(), b"another")
    assert refusal(authenticator, headers) == (Refusal.FAILED, 401)


@pytest.mark.parametrize("secret", [SECRET, b"the new one"])
def test_either_of_two_secrets_signs(secret: bytes) -> None:
    authenticator = Authenticator({"signed-key": KeyRecord((SECRET, b"the new one"))})
    accepted = authenticator.authenticate(
        with_signature(request(), secret), TARGET, now=NOW
    )
    assert accepted.session_id == SESSION
    third = with_signature(request(), b"another")
    assert refusal(authenticator, third) == (Refusal.FAILED, 401)


@pytest.mark.parametrize("secret", [SECRET, None])
def test_key_of_another_organization_refused(secret: bytes | None) -> None:
    other = "00000000-0000-4000-8000-000000000001"
    record = KeyRecord.of(secret)
    own = replace(record, organizations=frozenset({other, ORGANIZATION}))
    foreign = replace(record, organizations=frozenset({other}))
    headers = request("signed-key")
    signed = with_signature(headers) if secret else headers
    authenticator = Authenticator({"signed-key": foreign})
    assert refusal(authenticator, signed) == (Refusal.ORGANIZATION, 401)
    # It was not taken for used: what changes the answer is a newer set of keys.
    authenticator.replace_keys({"signed-key": own})
    authenticator.authenticate(signed, TARGET, now=NOW)


def test_organization_is_not_looked_at_before_the_signature() -> None:
    record = replace(KeyRecord.of(SECRET), organizations=frozenset({SESSION}))
    authenticator = Authenticator({"signed-key": record})
    headers = with_signature(request(), b"another")
    assert refusal(authenticator, headers) == (Refusal.FAILED, 401)


def test_half_signed_refused_even_where_key_has_no_secret(
    authenticator: Authenticator,
) -> None:
    headers = [*request("free-key"), (b"Signature", b"sig1=:AAAA:")]
    assert refusal(authenticator, headers) == (Refusal.INVALID, 401)


def test_half_signed_with_unknown_key_refused(authenticator: Authenticator) -> None:
    headers = [*request("unknown"), (b"Signature", b"sig1=:AAAA:")]
    assert refusal(authenticator, headers) == (Refusal.INVALID, 401)


def test_replay_refused(authenticator: Authenticator) -> None:
    headers = with_signature(request())
    authenticator.authenticate(headers, TARGET, now=NOW)
    assert refusal(authenticator, headers) == (Refusal.REPLAYED, 401)
    with pytest.raises(AuthenticationError, match="replayed"):
        authenticator.authenticate(headers, TARGET, now=NOW + 13)
    with pytest.raises(AuthenticationError, match="expired"):
        authenticator.authenticate(headers, TARGET, now=NOW + 13.5)
    # A retry is signed anew.
    again = with_signature(request())
    authenticator.authenticate(again, TARGET, now=NOW)


def test_failed_signature_leaves_no_nonce_behind() -> None:
    nonces = NonceCache()
    authenticator = Authenticator(KEYS, nonces=nonces)
    good = with_signature(request())
    bad = [(name, value.replace(b"sig1=:", b"sig1=:AAAA")) for name, value in good]
    assert refusal(authenticator, bad) == (Refusal.FAILED, 401)
    assert len(nonces) == 0
    authenticator.authenticate(good, TARGET, now=NOW)
    assert len(nonces) == 1


BAD_IDS = [
    None,
    "not-a-uuid",
    SESSION.replace("-", ""),
    "{" + SESSION + "}",
    SESSION + ", " + SESSION,
    "../" + SESSION,
    SESSION[:-1] + "\xb2",
]


@pytest.mark.parametrize("name", ["organization", "session", "correlation"])
@pytest.mark.parametrize("bad", BAD_IDS)
def test_malformed_id_refused_once_the_key_is_known(
    authenticator: Authenticator, name: str, bad: str | None
) -> None:
    headers = request("free-key", **{name: bad})
    assert refusal(authenticator, headers) == (Refusal.MALFORMED, 400)
    stranger = request("unknown", **{name: bad})
    assert refusal(authenticator, stranger) == (Refusal.UNKNOWN_KEY, 401)


def test_malformed_id_refused_though_signed(authenticator: Authenticator) -> None:
    headers = with_signature(request(session="../../etc"))
    assert refusal(authenticator, headers) == (Refusal.MALFORMED, 400)


def test_id_in_capitals_becomes_canonical(authenticator: Authenticator) -> None:
    headers = request("free-key", session=SESSION.upper())
    accepted = authenticator.authenticate(headers, TARGET, now=NOW)
    assert accepted.session_id == SESSION


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        ("-1", None),
        ("1.0", None),
        ("\xb2", None),
        ("9" * 5000, None),
        ("1, 2", None),
    ],
)
def test_retry_attempt_never_costs_a_call(
    authenticator: Authenticator, value: str | None, expected: int | None
) -> None:
    headers = request("free-key", retry=value)
    accepted = authenticator.authenticate(headers, TARGET, now=NOW)
    assert accepted.retry_attempt == expected


def test_replaced_keys_count_at_once(authenticator: Authenticator) -> None:
    used = with_signature(request())
    authenticator.authenticate(used, TARGET, now=NOW)
    authenticator.replace_keys(
        {"new-key": KeyRecord(), "signed-key": KeyRecord.of(SECRET)}
    )
    assert refusal(authenticator, request("free-key")) == (Refusal.UNKNOWN_KEY, 401)
    authenticator.authenticate(request("new-key"), TARGET, now=NOW)
    assert refusal(authenticator, used) == (Refusal.REPLAYED, 401)


def test_replacing_keys_takes_a_copy() -> None:
    keys = {"free-key": KeyRecord()}
    authenticator = Authenticator(keys)
    keys.clear()
    authenticator.authenticate(request("free-key"), TARGET, now=NOW)


def test_no_keys_refuse_everybody() -> None:
    assert refusal(Authenticator({}), request()) == (Refusal.UNKNOWN_KEY, 401)


def test_failure_delay_is_the_documented_one() -> None:
    assert FAILURE_DELAY == 0.5


@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in with_signature(request())])
            | st.binary(max_size=8),
            st.binary(max_size=40),
        ),
        max_size=12,
    ),
    st.binary(max_size=20),
)
def test_arbitrary_bytes_refused_cleanly(headers: Headers, target: bytes) -> None:
    authenticator = Authenticator(KEYS)
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(headers, target, now=NOW)


@given(st.dictionaries(st.integers(0, 7), st.binary(max_size=80), min_size=1))
def test_damaged_signed_request_refused_or_unharmed(damage: dict[int, bytes]) -> None:
    headers = with_signature(request())
    for place, value in damage.items():
        headers[place] = (headers[place][0], value)
    try:
        Authenticator(KEYS).authenticate(headers, TARGET, now=NOW)
    except AuthenticationError:
        return
    # The one header here that is not signed.
    assert set(damage) == {5}


@pytest.mark.parametrize("name", [name for name, _ in request()])
def test_header_of_many_kilobytes_refused_cleanly(
    authenticator: Authenticator, name: bytes
) -> None:
    long = [(n, v * 3000 if n == name else v) for n, v in with_signature(request())]
    if name == b"Audiohook-Retry-Attempt":
        assert authenticator.authenticate(long, TARGET, now=NOW).retry_attempt is None
    else:
        assert refusal(authenticator, long)[1] == 401
