"""What may be said of an API key, and what is said if it makes no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook import settings as settings_module
from audiohook.call_settings import Mode
from audiohook.errors import ConfigError
from audiohook.keys import (
    MOST_BYTES,
    KeyLimits,
    KeyRecord,
    configured_keys,
    label_of,
    parse_keys,
    read_keys_file,
)
from audiohook.rate import Rate
from audiohook.recording.render import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.settings import Settings

WHERE = "API_KEYS_FILE: /keys.json"
ORGANIZATION = "d7934305-0972-4844-938e-9060eef73d05"
SECRET = "bXktc2VjcmV0"


def parse(entry: object) -> KeyRecord:
    return parse_keys(json.dumps({"my-key": entry}).encode(), WHERE)["my-key"]


def fault(data: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_keys(data, WHERE)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_everything_that_can_be_said_of_a_key() -> None:
    record = parse(
        {
            "secret": [SECRET, "b3RoZXI"],
            "organization": ORGANIZATION.upper(),
            "bucket": "acme-recordings",
            "prefix": "acme/calls",
            "limits": {"max_calls": 100, "new_calls": "5:50"},
            "settings": {
                "language": "de",
                "transcription": {"speaker_labels": True},
                "layout": "split",
                "keep_raw": False,
                "mode": "record-only",
            },
            "keep_audio_days": 90,
            "keep_transcripts_days": 365,
        }
    )
    assert record == KeyRecord(
        secrets=(b"my-secret", b"other"),
        organizations=frozenset({ORGANIZATION}),
        bucket="acme-recordings",
        prefix="acme/calls/",
        limits=KeyLimits(100, Rate(5.0, 50)),
        choices={
            "language": "de",
            "transcription": {"speaker_labels": True},
            "layout": Layout.SPLIT,
            "keep_raw": False,
            "mode": Mode.RECORD,
        },
        keep_audio_days=90,
        keep_transcripts_days=365,
    )
    assert "my-secret" not in repr(record)


@pytest.mark.parametrize("secret", [None, ""])
def test_object_without_a_secret_says_so(secret: str | None) -> None:
    assert parse({"secret": secret}) == parse(secret) == KeyRecord()


def test_old_form_means_the_same() -> None:
    assert parse(SECRET) == parse({"secret": SECRET}) == KeyRecord.of(b"my-secret")


def test_number_is_a_rate_as_well() -> None:
    record = parse({"secret": None, "limits": {"new_calls": 2.5}})
    assert record.limits.new_calls == Rate(2.5, 25)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "secret is missing; null lets requests be unsigned"),
        ({"secret": 1}, "the secret is neither text nor null nor a list of texts"),
        ({"secret": [SECRET, ""]}, "the secret is a list with an empty one in it"),
        ({"secret": []}, "the secret is a list of none or over 8"),
        ({"secret": [SECRET] * 9}, "the secret is a list of none or over 8"),
        ({"secret": {"hush": 1}}, "the secret is neither text nor null"),
        ({"secret": None, "organization": "acme"}, "organization is neither the id"),
        ({"secret": None, "organization": []}, "organization is neither the id"),
        ({"secret": None, "organization": [7]}, "organization is neither the id"),
        ({"secret": None, "bucket": "s3://x"}, "bucket is not a bucket's name"),
        ({"secret": None, "bucket": 7}, "bucket is not a text"),
        ({"secret": None, "prefix": "../x"}, "prefix may hold letters"),
        ({"secret": None, "prefix": "/x"}, "prefix must be relative"),
        ({"secret": None, "prefix": "a\nb"}, "prefix may hold letters"),
        ({"secret": None, "limits": 3}, "limits is not an object"),
        ({"secret": None, "limits": {"calls": 3}}, "limits.calls is none of max_calls"),
        ({"secret": None, "limits": {"max_calls": 0}}, "limits.max_calls is not a"),
        ({"secret": None, "limits": {"max_calls": True}}, "limits.max_calls is not a"),
        ({"secret": None, "limits": {"new_calls": "x"}}, "limits.new_calls is neither"),
        ({"secret": None, "limits": {"new_calls": 0}}, "limits.new_calls must be more"),
        ({"secret": None, "limits": {"new_calls": []}}, "limits.new_calls is neither"),
        ({"secret": None, "settings": {"layout": 1}}, "settings.layout is none of"),
        ({"secret": None, "settings": {"mode": "x"}}, "settings.mode is none of"),
        ({"secret": None, "settings": {"keep_raw": 1}}, "settings.keep_raw is neither"),
        ({"secret": None, "settings": {"language": "?"}}, "settings.language is nei"),
        (
            {"secret": None, "settings": {"prefix": "x"}},
            "settings.prefix is a field of",
        ),
        ({"secret": None, "settings": {"hush": 1}}, "settings.hush is none of"),
        (
            {"secret": None, "settings": {"transcription": {"audio_url": "x"}}},
            "settings.transcription must not hold audio_url",
        ),
        ({"secret": None, "keep_audio_days": 0}, "keep_audio_days is not a whole"),
        ({"secret": None, "keep_audio_days": 1.5}, "keep_audio_days is not a whole"),
        ({"secret": None, "keep_days": 1}, "keep_days is none of secret, organ"),
        ({"secret": None, "SGVsbG8s": 1}, "a field is none of secret, organ"),
    ],
)
def test_fault_is_one_line_that_names_file_key_and_field(
    entry: object, said: str
) -> None:
    line = fault(json.dumps({"other": None, "my-key": entry}).encode())
    assert line.startswith(f"{WHERE} entry 2 (key {label_of('my-key')}): {said}")
    assert "; for example " in line
    assert "\n" not in line
    assert "my-key" not in line.replace("my-api-key", "")
    assert "SGVsbG8s" not in line


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"secret": "bXktc2VjcmV0", "secret": null}}',
        '{"a": {"secret": null, "settings": {"mode": "neither", "mode": "neither"}}}',
    ],
)
def test_field_given_twice_is_a_fault(text: str) -> None:
    assert "is there twice" in fault(text.encode())


def test_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match="is longer than 4 MiB"):
        read_keys_file(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(
                st.sampled_from(["secret", "settings", "limits", "mode", "prefix"])
                | st.text(max_size=9),
                each,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_anything_is_read_or_refused_in_one_line(entry: object) -> None:
    said = ""
    try:
        parse(entry)
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said


# The file of keys, and what else names some.

LONG_SECRET = b"0123456789abcdef"


def keys_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "keys.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_keys_file_read(tmp_path: Path) -> None:
    path = keys_file(
        tmp_path,
        '{"a": "MDEyMzQ1Njc4OWFiY2RlZg==", "b+/-_=": "MDEyMzQ1Njc4OWFiY2RlZg",'
        ' "c": "", "d": null}',
    )
    assert read_keys_file(path) == {
        "a": KeyRecord.of(LONG_SECRET),
        "b+/-_=": KeyRecord.of(LONG_SECRET),
        "c": KeyRecord(),
        "d": KeyRecord(),
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not JSON"),
        ('{"hush": "hush"', "is not JSON"),
        (b'{"hush": "\xff"}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["hush"]', "is not one JSON object"),
        ("null", "is not one JSON object"),
        ("{}", "holds no key"),
        ('{"a": null, "hush hush": null}', "entry 2: the key is not of the form"),
        ('{"": null}', "entry 1: the key is not of the form"),
        ('{"a\\n": null}', "entry 1: the key is not of the form"),
        (
            '{"hush": null, "b": null, "hush": null}',
            "entry 3 (key dc8331bc): the key is there twice",
        ),
        ('{"a": null, "b": 1}', "entry 2 (key 3e23e816): the secret is neither text"),
        ('{"a": {"hush": 1}}', "entry 1 (key ca978112): secret is missing"),
        ('{"a": "hush!"}', "entry 1 (key ca978112): the secret is not base64"),
        ('{"a": "hushh"}', "entry 1 (key ca978112): the secret is not base64"),
        ('{"a": "hush\\n"}', "entry 1 (key ca978112): the secret is not base64"),
    ],
)
def test_keys_file_fault_is_one_line_without_secrets(
    tmp_path: Path, text: str | bytes, fault: str
) -> None:
    path = keys_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_keys_file(path)
    line = str(caught.value)
    assert line.startswith(f"API_KEYS_FILE: {path} {fault}")
    assert "; for example " in line
    assert "\n" not in line
    assert "hush" not in line
    assert caught.value.__suppress_context__


def test_keys_file_absent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        read_keys_file(tmp_path / "absent")


def test_keys_file_example_in_message_is_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_keys_file(tmp_path / "absent")
    example = str(caught.value).partition("for example ")[2]
    assert len(read_keys_file(keys_file(tmp_path, example))) == 2


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **flags: object) -> Settings:
    for description in settings_module.describe():
        monkeypatch.delenv(description.name, raising=False)
    return settings_module.load(env_file=tmp_path / "absent", **flags)


def test_configured_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keys_file(tmp_path, json.dumps({"a": "MDEyMzQ1Njc4OWFiY2RlZg", "b": None}))
    assert configured_keys(load(tmp_path, monkeypatch)) == {}
    settings = load(tmp_path, monkeypatch, api_key="b")
    assert configured_keys(settings) == {"b": KeyRecord()}
    settings = load(tmp_path, monkeypatch, api_keys_file=path, api_key="c")
    assert configured_keys(settings) == {
        "a": KeyRecord.of(LONG_SECRET),
        "b": KeyRecord(),
        "c": KeyRecord(),
    }
    settings = load(
        tmp_path,
        monkeypatch,
        api_keys_file=path,
        api_key="a",
        client_secret="MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    assert configured_keys(settings) == {
        "a": KeyRecord.of(LONG_SECRET),
        "b": KeyRecord(),
    }


@pytest.mark.parametrize(
    "flags", [{"api_key": "a"}, {"api_key": "b", "client_secret": "MDEy"}]
)
def test_configured_keys_contradiction_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object]
) -> None:
    path = keys_file(tmp_path, json.dumps({"a": "MDEyMzQ1Njc4OWFiY2RlZg", "b": None}))
    settings = load(tmp_path, monkeypatch, api_keys_file=path, **flags)
    with pytest.raises(ConfigError, match="not with the secret of CLIENT_SECRET"):
        configured_keys(settings)
