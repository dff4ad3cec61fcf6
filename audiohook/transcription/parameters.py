"""What a job is asked for, and which calls are not worth one."""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from audiohook.call_settings import ABOUT_LANGUAGE, lay_over
from audiohook.setting_values import JOB_OWN_PARAMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from audiohook.settings import Settings

SECONDS: Final = 1.0

SPEECH_MODELS: Final = ("universal-3-5-pro", "universal-2")
"""Models, the preferred first; the last knows every language. They are named since
the service's own choice changes from one month to the next, and with it the text."""

RETIRED_MODELS: Final = frozenset(
    {"best", "nano", "slam-1", "universal", "universal-3-pro"}
)
"""Names that are refused by now. Source: AssemblyAI, "Model versions and deprecations"
and its changelog of 2026."""

REGIONS: Final[Mapping[str, str]] = {
    "api.assemblyai.com": "US",
    "api.eu.assemblyai.com": "EU",
}
"""Where data stay, by host. Source: AssemblyAI, "Select the region"."""

# Source: AssemblyAI's OpenAPI, `TranscriptParams`; the last line is from its SDK, which
# is newer.
_ALL_NAMES: Final = (
    "audio_end_at audio_start_from audio_url auto_chapters auto_highlights"
    " content_safety content_safety_confidence custom_spelling custom_topics"
    " disfluencies entity_detection filter_profanity format_text iab_categories"
    " keyterms_prompt language_code language_codes language_confidence_threshold"
    " language_detection language_detection_options multichannel prompt punctuate"
    " redact_pii redact_pii_audio redact_pii_audio_options redact_pii_audio_quality"
    " redact_pii_policies redact_pii_sub remove_audio_tags sentiment_analysis"
    " speaker_labels speaker_options speakers_expected speech_models speech_threshold"
    " speech_understanding summarization summary_model summary_type temperature topics"
    " webhook_auth_header_name webhook_auth_header_value webhook_url"
    " domain keyterms_prompt_options redact_pii_return_unredacted"
)
_NAMES: Final = frozenset(_ALL_NAMES.split())

MIN_SECONDS: Final = 0.16 * SECONDS
"""Shortest audio that is taken.

Source: AssemblyAI, "What is the minimum audio duration that can be transcribed".
"""

WEBHOOK_HEADER: Final = "X-Audiohook-Secret"
"""Header of AssemblyAI's reports that shows whose they are."""

_FULL_SCALE: Final = 32768
_STEREO: Final = 2

_DETECT: Final[Mapping[str, JsonValue]] = {"language_detection": True}

# Source: AssemblyAI's OpenAPI, `TranscriptLanguageCode`.
_ALL_CODES: Final = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl"
    " gu ha haw he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi"
    " mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr"
    " su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
_CODES: Final = frozenset(_ALL_CODES.split())
_REGIONAL: Final = {
    "en-au": "en_au",
    "en-gb": "en_uk",
    "en-uk": "en_uk",
    "en-us": "en_us",
}
# Other names of the same languages, of which some are older.
# Source: IANA Language Subtag Registry.
_ALIASES: Final = {
    "cmn": "zh",
    "fil": "tl",
    "in": "id",
    "iw": "he",
    "ji": "yi",
    "jv": "jw",
    "mo": "ro",
    "nb": "no",
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where the service is to report that a job is done.

    Attributes:
        url: An address of ours, with whatever we want to hear again in its query.
        secret: Comes back in the header `WEBHOOK_HEADER`.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What all jobs have in common.

    Attributes:
        extra: Laid over what we would ask for; None takes a parameter away.
        language: ``call``, ``detect``, a code of the service or a tag that stands for
            one, or None to say nothing.
        min_seconds: Shorter calls are skipped.
        silence_dbfs: Calls that are never louder are skipped, in dB of full scale;
            None skips none.
    """

    extra: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)
    language: str | None = None
    min_seconds: float = 1 * SECONDS
    silence_dbfs: float | None = -50.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Parameters:
        """Take what an operator has set."""
        silence = settings.transcribe_silence
        return cls(
            extra={**settings.assemblyai_params_file, **settings.assemblyai_params},
            language=settings.transcribe_language,
            min_seconds=settings.transcribe_min_seconds,
            silence_dbfs=None if silence == "off" else silence,
        )

    def body(
        self,
        audio_url: str,
        *,
        channels: int,
        language: str | None = None,
        webhook: Webhook | None = None,
        chosen_language: str | None = None,
        own: Mapping[str, JsonValue] | None = None,
    ) -> dict[str, JsonValue]:
        """Make the body that submits one WAV.

        Args:
            audio_url: Where the service finds it.
            channels: How many it has.
            language: That of the call, as Genesys names it, such as ``es-419``.
            webhook: Where to report to; without it the job has to be polled.
            chosen_language: What this job has in place of `language`.
            own: Laid over `extra` for this job.
        """
        body: dict[str, JsonValue] = {"speech_models": list(SPEECH_MODELS)}
        if channels == _STEREO:
            body["multichannel"] = True
        extra = lay_over(self.extra, own or {}, language=chosen_language is not None)
        if not any(name in extra for name in ABOUT_LANGUAGE):
            choice = chosen_language or self.language
            body.update(_about_language(choice, language))
        body.update(extra)
        body = {name: value for name, value in body.items() if value is not None}
        for name in JOB_OWN_PARAMS:
            body.pop(name, None)
        body["audio_url"] = audio_url
        if webhook is not None:
            body["webhook_url"] = webhook.url
            body["webhook_auth_header_name"] = WEBHOOK_HEADER
            body["webhook_auth_header_value"] = webhook.secret
        return body

    def reason_to_skip(self, seconds: float, peak_dbfs: float) -> str | None:
        """Say why a call is not worth a job; None if it is.

        Args:
            seconds: Length of its WAV.
            peak_dbfs: The loudest sample of any channel, see `peak_dbfs`.
        """
        shortest = max(self.min_seconds, MIN_SECONDS)
        if seconds < shortest:
            return f"shorter than {shortest:g} s"
        if self.silence_dbfs is not None and peak_dbfs <= self.silence_dbfs:
            return f"never louder than {self.silence_dbfs:g} dBFS"
        return None


def _about_language(choice: str | None, of_call: str | None) -> Mapping[str, JsonValue]:
    match choice:
        case None:
            return {}
        case "detect":
            return _DETECT
        case "call":
            code = language_code(of_call or "")
            return _DETECT if code is None else {"language_code": code}
        case code:
            return {"language_code": language_code(code) or code}


def peak_dbfs(peak: int) -> float:
    """Convert the largest magnitude of 16-bit samples to dB of full scale.

    Args:
        peak: From 0 to 32,768.

    Returns:
        At most 0; minus infinity for silence.
    """
    return 20 * math.log10(peak / _FULL_SCALE) if peak else -math.inf


def language_code(tag: str) -> str | None:
    """Find the service's code for a language.

    Args:
        tag: As in BCP 47, such as ``en-US``, ``es-419`` or ``zh-Hans-CN``.

    Returns:
        A code such as ``en_us`` or ``es``; None if the service has none for it.
    """
    plain = tag.strip().lower().replace("_", "-")
    language, _, _ = plain.partition("-")
    language = _ALIASES.get(language, language)
    code = _REGIONAL.get(plain, language)
    return code if language in _CODES else None


def unknown_params(names: Iterable[str]) -> list[str]:
    """Return those names of parameters that are not known here.

    The service may know them all the same: it learns new ones several times a year.
    """
    return sorted(name for name in names if name not in _NAMES)


def webhook_secret(settings: Settings) -> str | None:
    """Return the secret that reports must bring; None without a key for the service.

    Unless it is set it follows from the key, so that every process of one account,
    today's and tomorrow's, knows the same.
    """
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value()
    if settings.assemblyai_api_key is None:
        return None
    key = settings.assemblyai_api_key.get_secret_value().encode()
    return hmac.digest(key, b"audiohook webhook secret 1", hashlib.sha256).hex()
