"""Who decides on a call, and what a value that makes no sense comes to."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook import settings
from audiohook.call_settings import CallSettings, Chooser, Mode, Source
from audiohook.errors import ConfigError
from audiohook.keys import KeyRecord
from audiohook.recording.journal import decode, encode
from audiohook.recording.render import Layout
from audiohook.storage.base import check_key
from audiohook.storage.layout import beside, in_bucket, split_bucket
from audiohook.transcription.parameters import Parameters
from tests.documents import typed
from tests.house import Recording, house
from tests.recording.factory import make_opened

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL = "language,transcription,layout,keep_raw,prefix,mode"


def choose(
    custom_config: object,
    allow: str = ALL,
    key: KeyRecord | None = None,
    **flags: object,
) -> CallSettings:
    chooser = _chooser(allow, tuple(flags.items()))
    return chooser.choose(key or KeyRecord(), custom_config)


@cache
def _chooser(allow: str, flags: tuple[tuple[str, object], ...]) -> Chooser:
    """Makes one of each kind: to read settings takes long."""
    return Chooser(
        settings.load(
            env_file=Path(os.devnull), custom_config_allow=allow, **dict(flags)
        )
    )


def test_nothing_is_allowed_by_default() -> None:
    made = choose({"mode": "record only", "prefix": "x"}, allow="")
    assert made == CallSettings(
        prefix="calls/",
        layout=Layout.STEREO,
        keep_raw=True,
        sources=dict.fromkeys(("prefix", "layout", "keep_raw", "mode"), Source.SERVICE),
    )


def test_custom_config_goes_before_the_key_and_the_key_before_the_service() -> None:
    key = KeyRecord(
        prefix="acme/",
        bucket="acme-recordings",
        choices={"language": "de", "layout": Layout.MONO, "keep_raw": False},
        keep_audio_days=30,
    )
    made = choose(
        {"language": "fr", "prefix": "sales/north"}, key=key, s3_bucket="ours-here"
    )
    assert (made.language, made.layout, made.keep_raw) == ("fr", Layout.MONO, False)
    # Below what the operator chose for the key, never beside it.
    assert made.prefix == "acme/sales/north/"
    assert made.bucket == "acme-recordings"
    assert made.keep_audio_days == 30
    assert made.sources == {
        "prefix": Source.CUSTOM_CONFIG,
        "layout": Source.KEY,
        "keep_raw": Source.KEY,
        "mode": Source.SERVICE,
        "language": Source.CUSTOM_CONFIG,
        "bucket": Source.KEY,
        "keep_audio_days": Source.KEY,
    }
    assert made.ignored == ()


def test_bucket_of_the_service_is_none_of_its_own() -> None:
    assert choose({}, key=KeyRecord(bucket="ours"), s3_bucket="ours").bucket is None


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"mode": "keep nothing"}, "is none of 'record and transcribe'"),
        ({"mode": 7}, "is none of"),
        ({"mode": "neither"}, "may not be 'neither': that is not in CUSTOM_CONFIG"),
        ({"layout": "quad"}, "is none of stereo, mono and split"),
        ({"keep_raw": "no"}, "is neither true nor false"),
        ({"language": "no such thing"}, "is neither call nor detect"),
        ({"language": ["de"]}, "is not a text"),
        ({"transcription": "x"}, "is not an object"),
        ({"transcription": {"webhook_url": "http://x"}}, "must not hold webhook_url"),
        ({"prefix": "../other"}, "may hold letters"),
        ({"prefix": "/other"}, "must be relative"),
        ({"prefix": "a//b"}, "may hold letters"),
        ({"prefix": "a\x00b"}, "may hold letters"),
        ({"prefix": "@other/b"}, "may hold letters"),
        ({"prefix": "x" * 129}, "must not be longer than 128 bytes"),
        ({"prefix": {"a": 1}}, "is not a text"),
    ],
)
def test_value_that_makes_no_sense_changes_nothing_and_is_told(
    given_: dict[str, object], said: str
) -> None:
    made = choose(given_)
    (name,) = given_
    (ignored,) = made.ignored
    assert ignored.name == name
    assert ignored.reason.startswith(said)
    usual = choose({})
    assert made.sources == usual.sources
    assert made.prefix == usual.prefix
    assert made.describe()["ignored"] == [{"name": name, "reason": ignored.reason}]


def test_what_is_not_allowed_is_told() -> None:
    made = choose({"mode": "record only", "layout": "mono"}, allow="layout")
    assert made.layout is Layout.MONO
    assert made.mode is Mode.BOTH
    assert [each.name for each in made.ignored] == ["mode"]


@pytest.mark.parametrize("text", ["record only", "record-only", "RECORD_ONLY"])
def test_mode_is_read_as_people_write_it(text: str) -> None:
    assert choose({"mode": text}).mode is Mode.RECORD


def test_neither_takes_a_word_of_its_own() -> None:
    assert choose({"mode": "neither"}, allow="mode,neither").mode is Mode.NEITHER
    # In a file of the operator's it needs none.
    key = KeyRecord(choices={"mode": Mode.NEITHER})
    assert choose({}, allow="", key=key).mode is Mode.NEITHER


def test_transcribe_only_stores_one_audio_less() -> None:
    made = choose({"mode": "transcribe only"})
    assert not made.keep_raw
    assert made.sources["keep_raw"] is Source.CUSTOM_CONFIG


def test_parameters_are_laid_over_each_other() -> None:
    key = KeyRecord(
        choices={"transcription": {"language_code": "de", "punctuate": False}}
    )
    made = choose({"transcription": {"punctuate": None, "prompt": "x"}}, key=key)
    assert made.transcription == {
        "language_code": "de",
        "punctuate": None,
        "prompt": "x",
    }
    # Who asks for a language asks for that, whatever others said below.
    made = choose({"language": "fr"}, key=key)
    assert made.transcription == {"punctuate": False}
    service = Parameters(extra={"language_code": "it", "punctuate": True})
    body = service.body(
        "u", channels=1, chosen_language=made.language, own=made.transcription
    )
    assert body["language_code"] == "fr"
    assert body["punctuate"] is False


def test_call_without_choices_is_asked_for_as_ever() -> None:
    service = Parameters(extra={"language_code": "it"})
    assert service.body("u", channels=2) == service.body("u", channels=2, own={})


@pytest.mark.parametrize(
    "word", ["bucket", "language;prefix", "everything", "record only"]
)
def test_words_that_can_be_allowed_are_held_to(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^CUSTOM_CONFIG_ALLOW: may hold"):
        settings.load(env_file=Path(os.devnull), custom_config_allow=word)


def test_journal_keeps_what_was_decided() -> None:
    key = KeyRecord(bucket="acme-recordings", keep_transcripts_days=4)
    made = choose(
        {
            "mode": "transcribe only",
            "transcription": {"speaker_labels": True, "temperature": 0.5},
            "language": "call",
            "layout": "?",
        },
        key=key,
        s3_bucket="ours",
    )
    opened = make_opened(settings=made)
    assert decode(encode(opened)) == opened
    # One from before there was anything to decide.
    before = make_opened()
    line = json.loads(encode(before))
    del line["settings"]
    assert decode(json.dumps(line).encode()) == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3)
    ),
    max_leaves=5,
)


@given(
    JSON
    | st.dictionaries(st.sampled_from(ALL.split(",")), JSON, max_size=6)
    | st.fixed_dictionaries({"prefix": st.from_regex(r"[a-z./@\\ -]{1,12}")})
)
def test_any_custom_config_makes_settings_that_can_be_kept(
    custom_config: Mapping[str, object],
) -> None:
    made = _CHOOSER.choose(KeyRecord(prefix="acme/"), custom_config)
    assert made.prefix.startswith("acme/")
    check_key(f"{made.prefix}name/call.json")
    opened = make_opened(settings=made)
    assert decode(encode(opened)) == opened


_CHOOSER = Chooser(
    settings.load(env_file=Path(os.devnull), custom_config_allow=ALL + ",neither")
)


def test_keys_say_in_which_bucket_they_are() -> None:
    key = in_bucket("acme", "calls/NAME/call.json")
    assert split_bucket(key) == ("acme", "calls/NAME/call.json")
    assert split_bucket("calls/x") == (None, "calls/x")
    assert beside(key, "calls/NAME/a.wav") == in_bucket("acme", "calls/NAME/a.wav")
    assert beside("calls/x", "calls/y") == "calls/y"


async def test_call_keeps_to_the_custom_config_of_the_page(tmp_path: Path) -> None:
    page = json.loads(typed("docs/genesys.md", '{"language"').text)
    async with house(tmp_path, custom_config_allow=ALL) as it:
        assert (await it.call(duration=2.0, custom_config=page)).ok
        await it.settle()
    (folder,) = recordings(tmp_path / "calls" / page["prefix"])
    facts = Recording(folder).facts
    for name, value in page.items():
        # There it is named as all else is there.
        told = facts["settings"]["keepRaw" if name == "keep_raw" else name]
        assert told["from"] == Source.CUSTOM_CONFIG
        if name != "prefix":
            assert told["value"] == value
    assert sorted(path.suffix for path in recordings(folder / "audio")) == [
        ".dat",
        ".wav",
    ]
    (transcript,) = facts["transcripts"]
    assert transcript["reason"] == "only the recording is wanted, by customConfig"


def recordings(folder: Path) -> list[Path]:
    return list(folder.iterdir())
