"""API keys, and what goes with each of them.

They come as one JSON object, from a file or from AWS Secrets Manager: an API key
to its client secret, or to an object that says more. Where requests need no
signature, the secret is ``""`` or ``null``, and has to be given all the same: one
that was forgotten must not open the door.

Nothing here touches a network or a clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from audiohook.call_settings import EXAMPLES, NAMES, read_value
from audiohook.errors import ConfigError, in_one_line
from audiohook.protocol.messages import canonical_uuid
from audiohook.setting_values import (
    API_KEY_PATTERN,
    check_bucket,
    check_key_prefix,
    decode_secret,
    read_rate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from audiohook.rate import Rate
    from audiohook.settings import Settings

MIB: Final = 1024 * 1024

MOST_BYTES: Final = 4 * MIB
"""Longest file of keys; that is some ten thousand of them."""

_LABEL_LENGTH: Final = 8
_MOST_SECRETS: Final = 8
_MOST_ORGANIZATIONS: Final = 100
_MOST_DAYS: Final = 36_500
_MOST_CALLS: Final = 1_000_000
_EXAMPLE: Final = '{"my-api-key": "bXktc2VjcmV0", "unsigned-key": null}'


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much one API key may have.

    Attributes:
        max_calls: Most calls at a time; None leaves it to MAX_CALLS_PER_KEY.
        new_calls: Most new calls; None leaves it to NEW_CALLS_PER_KEY.
    """

    max_calls: int | None = None
    new_calls: Rate | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What goes with an API key.

    Attributes:
        secrets: Client secrets, decoded, any of which may sign; none if requests
            need no signature.
        organizations: Ids in lower case, one of which a request must name; none if
            any will do.
        bucket: Where its calls go; None for wherever the service stores.
        prefix: What the keys of their objects begin with; None leaves it to
            S3_KEY_PREFIX.
        limits: How much it may have.
        choices: Settings of its calls by their names, see `call_settings.NAMES`.
        keep_audio_days: How long audio is kept; None leaves it to KEEP_AUDIO_DAYS.
        keep_transcripts_days: The same for transcripts.
    """

    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    organizations: frozenset[str] = frozenset()
    bucket: str | None = None
    prefix: str | None = None
    limits: KeyLimits = field(default_factory=KeyLimits)
    choices: Mapping[str, Any] = field(default_factory=dict)
    keep_audio_days: int | None = None
    keep_transcripts_days: int | None = None

    @classmethod
    def of(cls, secret: bytes | None) -> KeyRecord:
        """Make what goes with a key of which only the secret is known."""
        return cls((secret,) if secret else ())


def label_of(key: str) -> str:
    """Return what tells an API key from others and gives none away.

    It is what logs and journals have in its place: the first 8 hexadecimal digits of
    its SHA-256.
    """
    return hashlib.sha256(key.encode("utf-8")).hexdigest()[:_LABEL_LENGTH]


def read_keys_file(path: Path) -> dict[str, KeyRecord]:
    """Read API keys from a file. It blocks.

    Returns:
        At least one.

    Raises:
        ConfigError: The file cannot be used; the text is one line and names a faulty
            entry by its place and its label, never by its key or secret.
    """
    where = f"API_KEYS_FILE: {in_one_line(path)}"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        _fault(where, f"cannot be read ({error.strerror})")
    return parse_keys(data, where)


def configured_keys(settings: Settings) -> dict[str, KeyRecord]:
    """Gather the keys that the settings and their file name.

    Blocking: it reads `Settings.api_keys_file`, so it is also what to call when
    that file may have changed.

    Args:
        settings: Where ``API_KEY``, ``CLIENT_SECRET`` and ``API_KEYS_FILE`` are.

    Returns:
        API keys with what goes with them; empty if the settings name none.

    Raises:
        ConfigError: If the file cannot be used, or gives ``API_KEY`` another
            secret than ``CLIENT_SECRET``.
    """
    keys: dict[str, KeyRecord] = {}
    if settings.api_keys_file is not None:
        keys = read_keys_file(settings.api_keys_file)
        check_buckets(keys, settings, f"API_KEYS_FILE: {settings.api_keys_file}")
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        secret = None
        if settings.client_secret is not None:
            secret = decode_secret(settings.client_secret.get_secret_value())
        record = KeyRecord.of(secret)
        known = keys.setdefault(key, record)
        if known.secrets != record.secrets:
            raise ConfigError(
                "API_KEYS_FILE: also holds the key of API_KEY, but not with the"
                " secret of CLIENT_SECRET; remove it from one of the two"
            )
    return keys


def check_buckets(
    keys: Mapping[str, KeyRecord], settings: Settings, where: str
) -> None:
    """Refuse buckets of keys where the service itself stores in a folder.

    Args:
        keys: API keys.
        settings: Where ``S3_BUCKET`` is.
        where: What a line about it begins with.

    Raises:
        ConfigError: A key has one; the text names the label of that key.
    """
    for key, record in keys.items():
        if record.bucket is not None and settings.s3_bucket is None:
            raise ConfigError(
                f"{where} key {label_of(key)}: bucket goes with S3_BUCKET, which is"
                " not set; for example S3_BUCKET=my-recordings"
            )


def parse_keys(data: bytes, where: str) -> dict[str, KeyRecord]:
    """Read API keys.

    Args:
        data: JSON.
        where: What lines about faults begin with: a setting, and what it names.

    Returns:
        At least one.

    Raises:
        ConfigError: As for `read_keys_file`.
    """
    if len(data) > MOST_BYTES:
        _fault(where, f"is longer than {MOST_BYTES // MIB} MiB")
    try:
        pairs = json.loads(data, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # The cause is left out: it holds the text of the file.
        _fault(where, "is not JSON")
    if not isinstance(pairs, _Pairs):
        _fault(where, "is not one JSON object")
    if not pairs:
        _fault(where, "holds no key")
    keys: dict[str, KeyRecord] = {}
    for place, (key, value) in enumerate(pairs, start=1):
        if not re.fullmatch(API_KEY_PATTERN, key):
            _fault(
                where, f"entry {place}: the key is not of the form {API_KEY_PATTERN}"
            )
        entry = f"entry {place} (key {label_of(key)})"
        if key in keys:
            _fault(where, f"{entry}: the key is there twice")
        keys[key] = _read_entry(value, where, entry)
    return keys


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, so that a name given twice is seen."""


class _FieldError(Exception):
    """A field is wrong; its arguments are its name, why, and what would be right."""


def _no_constant(_: str) -> object:
    raise ValueError


def _read_entry(value: object, where: str, entry: str) -> KeyRecord:
    try:
        if not isinstance(value, _Pairs):
            return KeyRecord(_read_secrets(value))
        return _read_record(_as_object(value, ""))
    except _FieldError as error:
        name, why, example = error.args
        _fault(where, f"{entry}: {name} {why}", example)


def _as_object(value: object, path: str) -> dict[str, Any]:
    """Return a JSON object and all below it as a dict; a name given twice is a fault."""
    if not isinstance(value, _Pairs):
        raise _FieldError(path or "it", "is not an object", None)
    found: dict[str, Any] = {}
    for name, each in value:
        where = f"{path}.{name}" if path else name
        if name in found:
            raise _FieldError(_shown(where), "is there twice", None)
        found[name] = _plain(each, where)
    return found


def _plain(value: object, path: str) -> object:
    if isinstance(value, _Pairs):
        return _as_object(value, path)
    if isinstance(value, list):
        return [_plain(each, path) for each in value]
    return value


def _shown(name: str) -> str:
    """Return a name as a line may have it: it may be a secret in the wrong place."""
    return name if re.fullmatch(r"[a-z_.]{1,60}", name) else "a field"


def _read_record(given: dict[str, Any]) -> KeyRecord:
    if "secret" not in given:
        raise _FieldError(
            "secret", "is missing; null lets requests be unsigned", '"bXktc2VjcmV0"'
        )
    values = {
        name: _FIELDS[name](each) for name, each in given.items() if name in _FIELDS
    }
    unknown = given.keys() - _FIELDS.keys()
    if unknown:
        raise _FieldError(
            _shown(min(unknown)), f"is none of {', '.join(_FIELDS)}", None
        )
    values["secrets"] = values.pop("secret")
    values["organizations"] = values.pop("organization", frozenset())
    values["choices"] = values.pop("settings", {})
    return KeyRecord(
        **{name: each for name, each in values.items() if each is not None}
    )


def _read_secrets(value: object) -> tuple[bytes, ...]:
    if value is None or value == "":
        return ()
    given: list[object] = value if isinstance(value, list) else [value]
    texts = [each for each in given if isinstance(each, str)]
    if len(texts) < len(given):
        raise _FieldError(
            "the secret", "is neither text nor null nor a list of texts", None
        )
    if not 0 < len(given) <= _MOST_SECRETS:
        raise _FieldError(
            "the secret", f"is a list of none or over {_MOST_SECRETS}", None
        )
    try:
        found = tuple(decode_secret(each) for each in texts)
    except ValueError:
        raise _FieldError("the secret", "is not base64", None) from None
    if not all(found):
        # One empty secret among others would let everybody sign.
        raise _FieldError("the secret", "is a list with an empty one in it", None)
    return found


def _read_organizations(value: object) -> frozenset[str]:
    given = value if isinstance(value, list) else [value]
    ids = [canonical_uuid(each) if isinstance(each, str) else None for each in given]
    if not 0 < len(ids) <= _MOST_ORGANIZATIONS or None in ids:
        raise _FieldError(
            "organization",
            "is neither the id of an organisation nor a list of such",
            '"d7934305-0972-4844-938e-9060eef73d05"',
        )
    return frozenset(each for each in ids if each is not None)


def _text_checked(
    name: str, check: Callable[[str], str], example: str
) -> Callable[[object], str | None]:
    def read(value: object) -> str | None:
        if value is None:
            return None
        try:
            if isinstance(value, str):
                return check(value)
            why = "is not a text"
        except ValueError as error:
            why = str(error)
        raise _FieldError(name, why, example)

    return read


def _whole(name: str, most: int, example: str) -> Callable[[object], int | None]:
    def read(value: object) -> int | None:
        if value is None:
            return None
        if type(value) is not int or not 1 <= value <= most:
            raise _FieldError(name, f"is not a whole number from 1 to {most}", example)
        return value

    return read


def _read_new_calls(value: object) -> Rate | None:
    if value is None:
        return None
    text = f"{value:g}" if type(value) in (int, float) else value
    try:
        if isinstance(text, str):
            return read_rate(text)
        why = "is neither a number per second nor number:burst"
    except ValueError as error:
        why = str(error)
    raise _FieldError("limits.new_calls", why, '"50:500"')


def _read_limits(value: object) -> KeyLimits:
    given = _below(value, "limits", _LIMITS)
    return KeyLimits(**{name: _LIMITS[name](each) for name, each in given.items()})


def _read_choices(value: object) -> dict[str, Any]:
    choices = {}
    for name, each in _below(value, "settings", NAMES).items():
        try:
            choices[name] = read_value(name, each)
        except ValueError as error:
            raise _FieldError(f"settings.{name}", str(error), EXAMPLES[name]) from None
    if "prefix" in choices:
        raise _FieldError(
            "settings.prefix", "is a field of its own for a key: prefix", '"sales/"'
        )
    return choices


def _below(value: object, name: str, known: Any) -> dict[str, Any]:  # noqa: ANN401 - a collection of names
    if not isinstance(value, dict):
        raise _FieldError(name, "is not an object", None)
    unknown = value.keys() - set(known)
    if unknown:
        raise _FieldError(
            _shown(f"{name}.{min(unknown)}"), f"is none of {', '.join(known)}", None
        )
    return value


_LIMITS: Final[Mapping[str, Callable[[object], Any]]] = {
    "max_calls": _whole("limits.max_calls", _MOST_CALLS, "500"),
    "new_calls": _read_new_calls,
}
_FIELDS: Final[Mapping[str, Callable[[object], Any]]] = {
    "secret": _read_secrets,
    "organization": _read_organizations,
    "bucket": _text_checked("bucket", check_bucket, '"my-recordings"'),
    "prefix": _text_checked("prefix", check_key_prefix, '"sales/"'),
    "limits": _read_limits,
    "settings": _read_choices,
    "keep_audio_days": _whole("keep_audio_days", _MOST_DAYS, "90"),
    "keep_transcripts_days": _whole("keep_transcripts_days", _MOST_DAYS, "365"),
}


def _fault(where: str, fault: str, example: str | None = None) -> NoReturn:
    raise ConfigError(f"{where} {fault}; for example {example or _EXAMPLE}") from None
