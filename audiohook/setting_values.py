"""What the value of a setting may be: types that check, each used by a field or two.

A validator says what is wrong with a value in words that follow the setting's name,
and never repeats the value.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainValidator,
    SecretStr,
)
from pydantic_settings import NoDecode

from audiohook.hosts import is_loopback
from audiohook.networks import Networks
from audiohook.rate import Rate

API_KEY_PATTERN = r"^[a-zA-Z0-9+/_-]+={0,2}$"
"""What Genesys accepts as an API key."""

_SECRET_PATTERN = re.compile(
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=?|[A-Za-z0-9+/]{2}(?:==)?)?"
)
_BUCKET_PATTERN = re.compile(r"[A-Za-z0-9._-]{3,255}|arn:[!-~]+")
_REGION_PATTERN = re.compile(r"[A-Za-z0-9-]{1,63}")
_HOST_NAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
# What Amazon calls safe in keys; a part with a dot in front would be hidden.
_KEY_PART_PATTERN = re.compile(r"(?!\.)[A-Za-z0-9!_.*'()-]+")
_MAX_PREFIX_BYTES = 512
# With the longest prefix before it, all keys are within what a store takes.
_MAX_PART_BYTES = 128
# Source: Amazon S3 User Guide, "Categorizing your objects using tags".
_MAX_TAGS = 10
_MAX_TAG_NAME_CHARS = 128
_MAX_TAG_VALUE_CHARS = 256
_MAX_PARAMS_BYTES = 1024 * 1024
_LANGUAGE_PATTERN = re.compile(r"call|detect|[a-z]{2,3}(?:_[a-z0-9]{2,8}){0,3}")
# One that is easily guessed is none. Source: NIST SP 800-63B, and more.
_SHORTEST_PASSWORD = 12
# Peaks of a 16-bit sample lie between these.
_LEAST_DBFS, _MOST_DBFS = -96.0, 0.0
_MOST_NOTIFY_SECRETS = 2
_NOTIFY_SECRET_BYTES = 24, 64
# Sessions that may be opened at once after a quiet time, in seconds of the rate.
_BURST_SECONDS = 10

CUSTOM_CONFIG_WORDS = (
    "language",
    "transcription",
    "layout",
    "keep_raw",
    "prefix",
    "mode",
    "neither",
)
"""What may be allowed to be set by ``customConfig``."""

JOB_OWN_PARAMS = (
    "audio_url",
    "webhook_url",
    "webhook_auth_header_name",
    "webhook_auth_header_value",
)
"""Parameters that every transcription job gets by itself; nobody sets them."""

NOTIFY_KINDS = ("opened", "stored", "transcribed", "failed", "erased")
"""What may be told of calls: `audiohook.notify.event.Kind`."""


def decode_secret(text: str) -> bytes:
    """Decode a client secret.

    Args:
        text: Base64 with the alphabet ``+/``; padding may be missing.

    Returns:
        The bytes that key the HMAC; none for empty text.

    Raises:
        ValueError: If the text is not base64; the error does not hold it.

    Source: Genesys Cloud developer centre, AudioHook, "Security".
    """
    if not _SECRET_PATTERN.fullmatch(text):
        raise ValueError("is not base64")
    unpadded = text.rstrip("=")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4))


def decode_notify_secrets(text: str) -> list[bytes]:
    """Decode what notifications are signed with.

    Args:
        text: One secret, or two with a comma between: base64, with or without
            ``whsec_`` before it.

    Returns:
        Keys of the HMAC.

    Raises:
        ValueError: They are of no use; the error does not hold them.

    Source: Standard Webhooks specification 1.0, "Secret serialization".
    """
    parts = text.split(",")
    if len(parts) > _MOST_NOTIFY_SECRETS:
        raise ValueError("may hold two secrets at most, with a comma between")
    secrets = []
    for part in parts:
        try:
            secret = base64.b64decode(
                part.strip().removeprefix("whsec_"), validate=True
            )
        except ValueError:
            raise ValueError("is not base64, or not after whsec_") from None
        least, most = _NOTIFY_SECRET_BYTES
        if not least <= len(secret) <= most:
            raise ValueError(
                f"must have from {least} to {most} bytes, in base64; `openssl rand"
                " -base64 32` makes one"
            )
        secrets.append(secret)
    return secrets


def _notify_secret(value: SecretStr) -> SecretStr:
    decode_notify_secrets(value.get_secret_value())
    return value


def _notify_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(_url(value.get_secret_value()))
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("must have no user name and no fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https://, unless it is on this machine")
    return value


def _notify_kinds(value: object) -> object:
    if not isinstance(value, str):
        return value
    kinds = tuple(dict.fromkeys(each.strip() for each in value.split(",")))
    if not set(kinds) <= set(NOTIFY_KINDS):
        raise ValueError(f"may hold {', '.join(NOTIFY_KINDS)} only, with commas")
    return kinds


def _api_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(API_KEY_PATTERN, value.get_secret_value()):
        raise ValueError(
            "may hold letters, digits and + / _ - only, with up to two = at the end"
        )
    return value


def _client_secret(value: SecretStr) -> SecretStr:
    decode_secret(value.get_secret_value())
    return value


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST_NAME_PATTERN.fullmatch(value):
            raise ValueError(
                "is neither an IP address nor a host name (no scheme, no port)"
            ) from None
    return value


def check_bucket(value: str) -> str:
    """Return the name of a bucket; `ValueError` if it is none."""
    if not _BUCKET_PATTERN.fullmatch(value):
        raise ValueError(
            "is not a bucket's name (no s3://, no folders; those go in S3_KEY_PREFIX)"
        )
    return value


def _region(value: str) -> str:
    if not _REGION_PATTERN.fullmatch(value):
        raise ValueError("is not a region's name")
    return value


def check_key_prefix(value: str) -> str:
    """Return what keys may begin with, with a slash at its end; else `ValueError`."""
    prefix = value.removesuffix("/")
    if prefix.startswith("/") or not prefix:
        raise ValueError("must be relative and not empty")
    if not all(_KEY_PART_PATTERN.fullmatch(part) for part in prefix.split("/")):
        raise ValueError(
            "may hold letters, digits and ! _ . * ' ( ) - only between slashes, and"
            " no part may be empty or begin with a dot"
        )
    if len(prefix.encode("utf-8")) > _MAX_PREFIX_BYTES:
        raise ValueError(f"must not be longer than {_MAX_PREFIX_BYTES} bytes")
    return prefix + "/"


def check_part_of_prefix(value: str) -> str:
    """Return what may stand behind a prefix; else `ValueError`.

    It may come from the network, and need not be as long.
    """
    if len(value) > _MAX_PART_BYTES:
        raise ValueError(f"must not be longer than {_MAX_PART_BYTES} bytes")
    return check_key_prefix(value)


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        valid = False
    if not valid or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("is not an http:// or https:// address")
    return value


def _base_url(value: str) -> str:
    parts = urlsplit(_url(value))
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must have no user name, no query and no fragment")
    return value.rstrip("/")


def _key_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", value):
        raise ValueError("is neither the id nor the ARN nor the alias of a key")
    return value


def _parameter_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:/-]{1,1011}", value):
        raise ValueError("is neither the name nor the ARN of a parameter")
    return value


def _secret_name(value: str) -> str:
    # Source: AWS Secrets Manager, "CreateSecret", Name; and the form of an ARN.
    if not re.fullmatch(r"[A-Za-z0-9/_+=.@:-]{1,2048}", value):
        raise ValueError("is neither the name nor the ARN of a secret")
    return value


def _storage_class(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_]{1,64}", value):
        raise ValueError("is not a storage class, which is in capitals")
    return value


def _tags(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        tags = parse_qsl(value, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError("is not name=value, joined by &") from None
    if len(tags) > _MAX_TAGS or len(dict(tags)) < len(tags):
        raise ValueError(f"must be at most {_MAX_TAGS} tags, each name once")
    if any(
        len(name) > _MAX_TAG_NAME_CHARS or len(text) > _MAX_TAG_VALUE_CHARS
        for name, text in tags
    ):
        raise ValueError(
            f"has a name over {_MAX_TAG_NAME_CHARS} or a value over"
            f" {_MAX_TAG_VALUE_CHARS} characters"
        )
    return dict(tags)


def _token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("holds a space or a character that is not ASCII")
    return value


def _password(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.isprintable():
        raise ValueError("holds a character that cannot be typed")
    if len(text) < _SHORTEST_PASSWORD:
        raise ValueError(f"must have at least {_SHORTEST_PASSWORD} characters")
    return value


def _secret_url(value: SecretStr) -> SecretStr:
    _url(value.get_secret_value())
    return value


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("is not a JSON object")
    return parsed


def _rate(value: object) -> object:
    return read_rate(value) if isinstance(value, str) else value


def read_rate(value: str) -> Rate:
    """Read how often something may happen; `ValueError` if it does not say."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(?::([0-9]{1,9}))?", value)
    if match is None:
        raise ValueError("is neither a number per second nor number:burst")
    per_second = float(match[1])
    if not per_second:
        raise ValueError("must be more than 0")
    burst = match[2] or math.ceil(per_second * _BURST_SECONDS)
    return _burst(Rate(per_second, int(burst)))


def _burst(value: Rate) -> Rate:
    if value.burst < 1:
        raise ValueError("must have a burst of at least 1")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def check_job_params(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return parameters of jobs; `ValueError` if one is not anybody's to set."""
    for name in JOB_OWN_PARAMS:
        if name in value:
            raise ValueError(f"must not hold {name}, which every job gets by itself")
    return value


def _json_file(value: object) -> object:
    if not isinstance(value, str | Path):
        return value
    try:
        with Path(value).open("rb") as file:
            content = file.read(_MAX_PARAMS_BYTES + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("names a file that is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"names a file that cannot be read ({why})") from None
    if len(content) > _MAX_PARAMS_BYTES:
        raise ValueError("names a file of more than 1 MiB")
    try:
        return _json_object(text)
    except ValueError as error:
        raise ValueError(f"names a file that {error}") from None


def check_language(value: str) -> str:
    """Return a choice of language in lower case; `ValueError` if it is none."""
    language = value.lower().replace("-", "_")
    if not _LANGUAGE_PATTERN.fullmatch(language):
        raise ValueError("is neither call nor detect nor the code of a language")
    return language


def _silence(value: object) -> object:
    if isinstance(value, str) and value != "off":
        try:
            value = float(value)
        except ValueError:
            raise ValueError("is neither off nor a number of decibels") from None
    if isinstance(value, float) and not _LEAST_DBFS <= value < _MOST_DBFS:
        raise ValueError(f"should be off, or from {_LEAST_DBFS:g} to below 0")
    return value


def _split(text: str) -> list[str]:
    """Take a list with commas between apart; what is empty does not count."""
    return [word for each in text.split(",") if (word := each.strip())]


def _words(value: object) -> object:
    return _split(value) if isinstance(value, str) else value


def _custom_config_words(value: list[str]) -> list[str]:
    if not set(value) <= set(CUSTOM_CONFIG_WORDS):
        raise ValueError(
            f"may hold {', '.join(CUSTOM_CONFIG_WORDS)} only, with commas between"
        )
    return value


def _networks(value: object) -> object:
    return Networks(_split(value)) if isinstance(value, str) else value


def _no_constant(_: str) -> object:
    raise ValueError


ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ClientSecret = Annotated[SecretStr, AfterValidator(_client_secret)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Password = Annotated[SecretStr, AfterValidator(_password)]
Host = Annotated[str, AfterValidator(_host)]
Bucket = Annotated[str, AfterValidator(check_bucket)]
Region = Annotated[str, AfterValidator(_region)]
KeyPrefix = Annotated[str, AfterValidator(check_key_prefix)]
ParameterName = Annotated[str, AfterValidator(_parameter_name)]
KeyId = Annotated[str, AfterValidator(_key_id)]
StorageClass = Annotated[str, AfterValidator(_storage_class)]
Tags = Annotated[dict[str, str], NoDecode, BeforeValidator(_tags)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
SecretName = Annotated[str, AfterValidator(_secret_name)]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
NotifyUrl = Annotated[SecretStr, AfterValidator(_notify_url)]
NotifySecret = Annotated[SecretStr, AfterValidator(_notify_secret)]
NotifyKinds = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_notify_kinds)]
JobParams = Annotated[
    dict[str, JsonValue],
    NoDecode,
    BeforeValidator(_json_object),
    AfterValidator(check_job_params),
]
JobParamsFile = Annotated[
    dict[str, JsonValue],
    NoDecode,
    BeforeValidator(_json_file),
    AfterValidator(check_job_params),
]
Language = Annotated[str, AfterValidator(check_language)]
Silence = Annotated[float | Literal["off"], BeforeValidator(_silence)]
CustomConfigWords = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_words),
    AfterValidator(_custom_config_words),
]
NetworkList = Annotated[Networks, NoDecode, PlainValidator(_networks)]
Port = Annotated[int, Field(ge=0, le=65535)]
NewCalls = Annotated[Rate, BeforeValidator(_rate), AfterValidator(_burst)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)
]
