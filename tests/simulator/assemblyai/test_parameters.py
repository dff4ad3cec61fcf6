from __future__ import annotations

from typing import Any

import pytest

from audiohook.simulator.assemblyai import Policy
from audiohook.simulator.assemblyai.account import Refusal
from audiohook.simulator.assemblyai.parameters import Choice, choose

URL = {"audio_url": "https://h/a.wav?X-Amz-Signature=1"}


@pytest.mark.parametrize(
    ("more", "choice"),
    [
        ({}, Choice("universal-3-5-pro", "en_us")),
        ({"speech_models": None}, Choice("universal-3-5-pro", "en_us")),
        ({"speech_models": ["universal-2"]}, Choice("universal-2", "en_us")),
        ({"language_code": "de"}, Choice("universal-3-5-pro", "de")),
        # Only the second model of the list knows it.
        ({"language_code": "cy"}, Choice("universal-2", "cy")),
        ({"language_detection": True}, Choice("universal-3-5-pro", "en")),
        (
            {
                "speech_models": ["assemblyai-stt-3-7", "universal-2"],
                "multichannel": True,
                "speaker_options": {"max_speakers_expected": 3},
                "keyterms_prompt": ["account number", "Genesys Cloud"],
                "speech_threshold": 0.5,
                "audio_end_at": 5000,
                "webhook_url": "https://h/hook?call=1",
                "webhook_auth_header_name": "X-Secret",
                "webhook_auth_header_value": "s",
            },
            Choice("assemblyai-stt-3-7", "en_us"),
        ),
    ],
)
def test_taken(more: dict[str, Any], choice: Choice) -> None:
    assert choose({**URL, **more}, Policy(), set()) == choice


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"audio_url": None}, "audio_url"),
        ({"audio_url": "s3://bucket/key"}, "audio_url"),
        ({"audio_url": "http://["}, "audio_url"),
        ({"audio_url": "http://"}, "audio_url"),
        ({"format_text": "yes"}, "format_text must be a Boolean"),
        ({"multichannel": 1}, "multichannel must be a Boolean"),
        ({"audio_end_at": True}, "audio_end_at must be an Integer"),
        ({"speech_threshold": 2}, "speech_threshold must be a Number"),
        ({"speaker_options": []}, "speaker_options must be an Object"),
        ({"prompt": 1}, "prompt must be a String"),
        ({"keyterms_prompt": "a"}, "keyterms_prompt must be a List"),
        ({"keyterms_prompt": ["a b c d e f g"]}, "at most 6 words"),
        ({"keyterms_prompt": ["a"] * 1001}, "at most 1000 phrases"),
        (
            {"keyterms_prompt": ["a"] * 201, "speech_models": ["universal-2"]},
            "at most 200 phrases",
        ),
        ({"multi_channel": True}, "multi_channel is not known"),
        ({"speech_model": "best"}, '"speech_model" is deprecated'),
        (
            {"speech_models": ["universal-3-pro", "universal-2"]},
            "'universal-3-pro' is deprecated or unknown; .*\"universal-3-5-pro\"",
        ),
        (
            {"language_code": "cy", "speech_models": ["universal-3-5-pro"]},
            "not available in the language cy",
        ),
        (
            {"language_code": "de", "language_detection": True},
            "not available with language_detection",
        ),
        ({"webhook_auth_header_value": "a\nb"}, "fits no header"),
    ],
)
def test_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(Refusal, match=text) as caught:
        choose({**URL, **more}, Policy(), set())
    assert caught.value.status == 400


def test_body_that_is_no_object() -> None:
    with pytest.raises(Refusal):
        choose([], Policy(), set())


def test_models_by_the_policy_of_the_day() -> None:
    with pytest.raises(Refusal, match="speech_models"):
        choose(URL, Policy(default_models=()), set())
    with pytest.raises(Refusal, match="'universal-3-5-pro' is deprecated") as caught:
        choose(URL, Policy(), {"universal-3-5-pro"})
    named = str(caught.value).partition(";")[2]
    assert "universal-3-5-pro" not in named
    assert "universal-2" in named
    newest = Policy(default_models=("assemblyai-stt-3-7",))
    assert choose(URL, newest, set()).model == "assemblyai-stt-3-7"
