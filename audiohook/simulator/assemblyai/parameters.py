"""What a request for a transcript may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from audiohook.simulator.assemblyai.account import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

# Languages of the Universal-3 family; Universal-2 takes all.
_FEW_LANGUAGES = frozenset(
    [
        "en",
        "es",
        "fr",
        "de",
        "it",
        "pt",
        "tr",
        "nl",
        "sv",
        "no",
        "da",
        "fi",
        "hi",
        "vi",
        "ar",
        "he",
        "ja",
        "zh",
    ]
)
_ALL_LANGUAGES_MODEL = "universal-2"

_MAX_KEYTERM_WORDS = 6
_MAX_KEYTERMS = 1000
_MAX_KEYTERMS_OLDER = 200

_BOOLEANS = frozenset(
    [
        "auto_chapters",
        "auto_highlights",
        "content_safety",
        "custom_topics",
        "disfluencies",
        "entity_detection",
        "filter_profanity",
        "format_text",
        "iab_categories",
        "language_detection",
        "multichannel",
        "punctuate",
        "redact_pii",
        "redact_pii_audio",
        "redact_pii_return_unredacted",
        "sentiment_analysis",
        "speaker_labels",
        "summarization",
    ]
)
_STRINGS = frozenset(
    [
        "audio_url",
        "domain",
        "language_code",
        "prompt",
        "redact_pii_audio_quality",
        "redact_pii_sub",
        "remove_audio_tags",
        "summary_model",
        "summary_type",
        "webhook_auth_header_name",
        "webhook_auth_header_value",
        "webhook_url",
    ]
)
_LISTS = frozenset(
    [
        "custom_spelling",
        "keyterms_prompt",
        "language_codes",
        "redact_pii_policies",
        "speech_models",
        "topics",
    ]
)
_INTEGERS = frozenset(
    [
        "audio_end_at",
        "audio_start_from",
        "content_safety_confidence",
        "speakers_expected",
    ]
)
_FRACTIONS = frozenset(
    ["language_confidence_threshold", "speech_threshold", "temperature"]
)
_OBJECTS = frozenset(
    [
        "keyterms_prompt_options",
        "language_detection_options",
        "redact_pii_audio_options",
        "speaker_options",
        "speech_understanding",
    ]
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the service accepts; it changes several times a year.

    Attributes:
        models: Names in `speech_models` that are taken.
        default_models: Taken without `speech_models`; none makes it a required
            parameter.
        language: What detection finds.
        language_confidence: How sure it is.
        silence_fails: Audio without voice is an error. Else it gives a transcript
            without words, which costs money.
    """

    models: tuple[str, ...] = (
        "assemblyai-stt-3-7",
        "universal-3-5-pro",
        "universal-2",
    )
    default_models: tuple[str, ...] = ("universal-3-5-pro", "universal-2")
    language: str = "en"
    language_confidence: float = 0.9821
    silence_fails: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What a job is transcribed with.

    Attributes:
        model: The first model of the list that knows the language.
        language: Code of the language.
    """

    model: str
    language: str


def choose(parameters: object, policy: Policy, retired: Set[str]) -> Choice:
    """Checks the body of a request for a transcript.

    Args:
        parameters: As it came.
        policy: What is accepted.
        retired: Models that are no longer accepted.

    Raises:
        Refusal: It is refused with 400; the text says why.
    """
    if not isinstance(parameters, dict):
        raise Refusal(400, "Invalid JSON: the body must be an object")
    _check_types(parameters)
    if not _is_web_address(parameters.get("audio_url") or ""):
        raise Refusal(400, "audio_url must be the URL of a media file")
    for part in ("name", "value"):
        header = parameters.get(f"webhook_auth_header_{part}") or ""
        if not (header.isascii() and header.isprintable()):
            raise Refusal(400, f"webhook_auth_header_{part} fits no header")
    detects = bool(parameters.get("language_detection"))
    if detects and parameters.get("language_code"):
        raise Refusal(400, "language_code is not available with language_detection")
    language = (
        policy.language if detects else str(parameters.get("language_code") or "en_us")
    )
    models = _models(parameters, policy, retired)
    _check_keyterms(parameters.get("keyterms_prompt") or (), models)
    for model in models:
        if model == _ALL_LANGUAGES_MODEL or _base(language) in _FEW_LANGUAGES:
            return Choice(model, language)
    raise Refusal(
        400, f"The models {list(models)} are not available in the language {language}"
    )


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _models(
    parameters: Mapping[str, Any], policy: Policy, retired: Set[str]
) -> tuple[str, ...]:
    """Finds the models to try, in order.

    Raises:
        Refusal: One of them is not to be had; the text names those that are.
    """
    accepted = [model for model in policy.models if model not in retired]
    advice = f'"speech_models" must be a non-empty list of {_listing(accepted)}'
    if parameters.get("speech_model") is not None:
        raise Refusal(400, f'"speech_model" is deprecated; {advice}')
    models = tuple(parameters.get("speech_models") or policy.default_models)
    if not models:
        raise Refusal(400, advice)
    for model in models:
        if model not in accepted:
            raise Refusal(
                400, f"The model {model!r} is deprecated or unknown; {advice}"
            )
    return models


def _listing(models: list[str]) -> str:
    return ", ".join(f'"{model}"' for model in models)


def _base(language: str) -> str:
    return language.partition("_")[0]


def _check_keyterms(terms: object, models: tuple[str, ...]) -> None:
    """Holds key terms against their bounds.

    Raises:
        Refusal: They exceed them.
    """
    older = _ALL_LANGUAGES_MODEL in models and len(models) == 1
    most = _MAX_KEYTERMS_OLDER if older else _MAX_KEYTERMS
    if not isinstance(terms, list):
        return
    if len(terms) > most:
        raise Refusal(400, f"keyterms_prompt must have at most {most} phrases")
    for term in terms:
        if not isinstance(term, str) or len(term.split()) > _MAX_KEYTERM_WORDS:
            raise Refusal(
                400,
                "keyterms_prompt must be a list of phrases of at most"
                f" {_MAX_KEYTERM_WORDS} words",
            )


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_fraction(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= 1


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_KINDS: tuple[tuple[frozenset[str], Callable[[object], bool], str], ...] = (
    (_BOOLEANS, _is_boolean, "a Boolean"),
    (_STRINGS, _is_string, "a String"),
    (_LISTS, _is_list, "a List"),
    (_INTEGERS, _is_integer, "an Integer"),
    (_FRACTIONS, _is_fraction, "a Number between 0 and 1"),
    (_OBJECTS, _is_object, "an Object"),
)
_CHECKS = {name: (accepts, kind) for names, accepts, kind in _KINDS for name in names}


def _check_types(parameters: Mapping[str, object]) -> None:
    """Holds each parameter against what it must be; null stands for its default.

    Raises:
        Refusal: One is not known, or of the wrong type.
    """
    for name, value in parameters.items():
        if name == "speech_model":
            continue
        if name not in _CHECKS:
            raise Refusal(400, f"Invalid endpoint schema: {name} is not known")
        accepts, kind = _CHECKS[name]
        if value is not None and not accepts(value):
            raise Refusal(400, f"{name} must be {kind}")
