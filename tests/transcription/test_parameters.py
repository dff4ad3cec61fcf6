"""What jobs are asked for, and which calls get none."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING

import pytest

from audiohook.errors import ConfigError
from audiohook.settings import describe, load
from audiohook.transcription.parameters import (
    Parameters,
    Webhook,
    language_code,
    peak_dbfs,
    webhook_secret,
)
from tests import assemblyai_spec

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://bucket.example/a.wav?signed=1"
MODELS = ["universal-3-5-pro", "universal-2"]


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name in {row.name for row in describe()}:
            monkeypatch.delenv(name)


def test_body_of_a_stereo_file() -> None:
    assert Parameters().body(URL, channels=2) == {
        "audio_url": URL,
        "speech_models": MODELS,
        "multichannel": True,
    }


def test_body_of_a_mono_file() -> None:
    assert Parameters().body(URL, channels=1) == {
        "audio_url": URL,
        "speech_models": MODELS,
    }


def test_extra_is_laid_over_and_null_takes_away() -> None:
    extra = {"multichannel": False, "speech_models": None, "prompt": "a call"}
    assert Parameters(extra=extra).body(URL, channels=2) == {
        "audio_url": URL,
        "multichannel": False,
        "prompt": "a call",
    }
    assert extra["speech_models"] is None


def test_what_is_ours_cannot_be_set() -> None:
    extra = {
        "audio_url": "https://thief",
        "webhook_url": "https://thief",
        "webhook_auth_header_name": "Thief",
        "webhook_auth_header_value": "thief",
    }
    parameters = Parameters(extra=extra)
    assert "thief" not in json.dumps(parameters.body(URL, channels=2)).lower()
    webhook = Webhook("https://example.com/?id=1", "secret")
    body = parameters.body(URL, channels=2, webhook=webhook)
    assert body["webhook_url"] == "https://example.com/?id=1"
    assert body["webhook_auth_header_name"] == "X-Audiohook-Secret"
    assert body["webhook_auth_header_value"] == "secret"
    assert "secret" not in repr(webhook)
    assert "thief" not in repr(parameters)


@pytest.mark.parametrize(
    ("chosen", "of_call", "says"),
    [
        (None, "de-DE", {}),
        ("detect", "de-DE", {"language_detection": True}),
        ("call", "de-DE", {"language_code": "de"}),
        ("call", "en-GB", {"language_code": "en_uk"}),
        ("call", "tlh", {"language_detection": True}),
        ("call", None, {"language_detection": True}),
        ("fr", "de-DE", {"language_code": "fr"}),
        ("en_gb", None, {"language_code": "en_uk"}),
        ("en_uk", None, {"language_code": "en_uk"}),
        ("pt_br", None, {"language_code": "pt"}),
        ("new", None, {"language_code": "new"}),
    ],
)
def test_language(
    chosen: str | None, of_call: str | None, says: dict[str, object]
) -> None:
    body = Parameters(language=chosen).body(URL, channels=1, language=of_call)
    assert {name: body[name] for name in body if "language" in name} == says


@pytest.mark.parametrize(
    "extra",
    [{"language_code": "it"}, {"language_detection": True}, {"language_codes": ["a"]}],
)
@pytest.mark.parametrize("chosen", ["call", "detect", "fr"])
def test_language_among_the_extra_parameters_wins(
    extra: dict[str, object], chosen: str
) -> None:
    parameters = Parameters(extra=extra, language=chosen)  # type: ignore[arg-type]  # JSON
    body = parameters.body(URL, channels=1, language="de-DE")
    assert {name: body[name] for name in body if "language" in name} == extra


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en-US", "en_us"),
        ("en-us", "en_us"),
        ("en_US", "en_us"),
        ("en-AU", "en_au"),
        ("en-IN", "en"),
        ("en", "en"),
        ("es-419", "es"),
        ("pt-BR", "pt"),
        ("zh-Hans-CN", "zh"),
        ("cmn-CN", "zh"),
        ("nb-NO", "no"),
        ("nn-NO", "nn"),
        ("iw", "he"),
        ("fil-PH", "tl"),
        ("sr-Latn-RS", "sr"),
        (" de-CH ", "de"),
        ("yue-HK", None),
        ("x-klingon", None),
        ("", None),
        ("-", None),
        ("../de", None),
    ],
)
def test_language_code(tag: str, code: str | None) -> None:
    assert language_code(tag) == code


def test_every_code_is_one_of_the_document() -> None:
    # Without Norwegian: YAML takes the document's "no" for a truth value.
    for tag in ("en-US", "en-GB", "en-AU", "cmn", "fil", "in", "iw", "ji", "jv", "mo"):
        code = language_code(tag)
        assert code is not None
        assemblyai_spec.hold("TranscriptLanguageCode", code)


@pytest.mark.parametrize(
    ("seconds", "peak", "reason"),
    [
        (60.0, -10.0, None),
        (0.99, -10.0, "shorter than 1 s"),
        (0.0, -math.inf, "shorter than 1 s"),
        (60.0, -50.0, "never louder than -50 dBFS"),
        (60.0, -math.inf, "never louder than -50 dBFS"),
        (60.0, -49.9, None),
        (1.0, 0.0, None),
    ],
)
def test_reason_to_skip(seconds: float, peak: float, reason: str | None) -> None:
    assert Parameters().reason_to_skip(seconds, peak) == reason


def test_silence_can_be_let_pass_but_not_what_is_too_short_for_them() -> None:
    parameters = Parameters(min_seconds=0.0, silence_dbfs=None)
    assert parameters.reason_to_skip(0.16, -math.inf) is None
    assert parameters.reason_to_skip(0.159, 0.0) == "shorter than 0.16 s"


def test_peak_dbfs() -> None:
    assert peak_dbfs(32768) == 0
    assert peak_dbfs(0) == -math.inf
    assert peak_dbfs(16384) == pytest.approx(-6.02, abs=0.01)


def test_settings_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"prompt": "file", "domain": "medical-v1"}')
    settings = load(
        assemblyai_params='{"prompt": "inline"}',
        assemblyai_params_file=str(file),
        transcribe_language="es-419",
        transcribe_min_seconds=2.5,
        transcribe_silence="-60",
    )
    assert Parameters.from_settings(settings) == Parameters(
        extra={"prompt": "inline", "domain": "medical-v1"},
        language="es_419",
        min_seconds=2.5,
        silence_dbfs=-60.0,
    )
    assert "medical" not in repr(settings)


def test_settings_as_they_come() -> None:
    assert Parameters.from_settings(load()) == Parameters()
    off = load(transcribe_silence="off")
    assert Parameters.from_settings(off).silence_dbfs is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"hush", "names a file that is not JSON"),
        (b"[]", "names a file that is not a JSON object"),
        (b"\xff", "names a file that is not UTF-8 text"),
        (b" " * (1024 * 1024 + 1), "names a file of more than 1 MiB"),
        (
            b'{"audio_url": "hush"}',
            "must not hold audio_url, which every job gets by itself",
        ),
    ],
)
def test_bad_file_stops_with_one_line(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    file = tmp_path / "parameters.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(assemblyai_params_file=str(file))
    assert str(caught.value) == (
        f"ASSEMBLYAI_PARAMS_FILE: {fault}; for example"
        " ASSEMBLYAI_PARAMS_FILE=/etc/audiohook/assemblyai.json"
    )


def test_file_may_be_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assemblyai_params_file").write_text('{"prompt": "a"}')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load().assemblyai_params_file == {"prompt": "a"}


def test_missing_file_stops_with_one_line() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file") as caught:
        load(assemblyai_params_file="/no/such/hush")
    assert "hush" not in str(caught.value)


def test_webhook_secret_follows_from_the_key() -> None:
    first = webhook_secret(load(assemblyai_api_key="one"))
    assert first == webhook_secret(load(assemblyai_api_key="one"))
    assert first is not None
    assert len(first) == 64
    assert "one" not in first
    assert webhook_secret(load(assemblyai_api_key="two")) != first
    assert webhook_secret(load()) is None


def test_webhook_secret_may_be_set() -> None:
    url = "https://example.com"
    settings = load(assemblyai_api_key="one", webhook_url=url, webhook_secret="mine")
    assert webhook_secret(settings) == "mine"


def test_webhook_secret_without_address_stops() -> None:
    with pytest.raises(ConfigError, match=r"^WEBHOOK_SECRET: goes with WEBHOOK_URL"):
        load(webhook_secret="hush")
