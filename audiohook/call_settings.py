"""What may be another for one call than for the next, and what was decided.

Three have a say in it, the first of them the most:

1. ``customConfig`` of the AudioHook integration, as far as the operator allows it,
2. what goes with the API key (`audiohook.keys`),
3. the service's own settings.

What was decided is written into the call's journal when it opens, so whoever
finishes it later decides nothing anew. A value that makes no sense never costs a
call: it is passed over, and that is written down too.

Nothing here touches a disk, a network or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from audiohook.recording.fields import Fields
from audiohook.recording.render import Layout
from audiohook.setting_values import (
    CUSTOM_CONFIG_WORDS,
    check_job_params,
    check_language,
    check_part_of_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic import JsonValue

    from audiohook.keys import KeyRecord
    from audiohook.settings import Settings


class Mode(StrEnum):
    """What becomes of a call."""

    BOTH = "record and transcribe"
    """It is stored, and transcribed if transcription is on."""
    RECORD = "record only"
    """It is stored, and nobody asks for a transcript."""
    TRANSCRIBE = "transcribe only"
    """It is stored, transcribed, and its audio deleted once the transcript is stored."""
    NEITHER = "neither"
    """Genesys is answered, and nothing of the call is kept."""


class Source(StrEnum):
    """Who decided on a setting."""

    CUSTOM_CONFIG = "customConfig"
    KEY = "key"
    SERVICE = "service"


NEITHER_WORD: Final = "neither"
"""Allows the mode of that name, which the word ``mode`` alone does not."""

NAMES: Final = tuple(word for word in CUSTOM_CONFIG_WORDS if word != NEITHER_WORD)
"""Names of the settings of a call, alike in ``customConfig`` and for a key."""

# Once one of these is asked for, it says more than any choice of a language.
ABOUT_LANGUAGE: Final = ("language_code", "language_codes", "language_detection")
"""Parameters of a job that say what is spoken."""


def _read_language(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return check_language(value)


def _read_transcription(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise ValueError("is not an object")
    return check_job_params(value)


def _read_layout(value: object) -> Layout:
    try:
        return Layout(str(value))
    except ValueError:
        raise ValueError("is none of stereo, mono and split") from None


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _read_prefix(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return check_part_of_prefix(value)


def _read_mode(value: object) -> Mode:
    words = str(value).lower().replace("-", " ").replace("_", " ")
    try:
        return Mode(words)
    except ValueError:
        known = ", ".join(repr(str(mode)) for mode in Mode)
        raise ValueError(f"is none of {known}") from None


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "language": _read_language,
    "transcription": _read_transcription,
    "layout": _read_layout,
    "keep_raw": _read_flag,
    "prefix": _read_prefix,
    "mode": _read_mode,
}

EXAMPLES: Final[Mapping[str, str]] = {
    "language": '"de"',
    "transcription": '{"speaker_labels": true}',
    "layout": '"mono"',
    "keep_raw": "false",
    "prefix": '"sales"',
    "mode": '"record only"',
}
"""What would be right, in JSON."""


def read_value(name: str, value: object) -> Any:  # noqa: ANN401 - depends on the name
    """Check one setting of a call.

    Args:
        name: One of `NAMES`.
        value: As JSON has it.

    Returns:
        It, in the form in which it is decided on.

    Raises:
        ValueError: It makes no sense; the text follows the setting's name, and does
            not hold the value.
    """
    return _READERS[name](value)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A setting in ``customConfig`` that does not count.

    Attributes:
        name: Which.
        reason: Why, in words that follow the name.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What was decided on a call when it opened.

    Attributes:
        prefix: What the keys of its objects begin with.
        layout: What becomes of two channels.
        keep_raw: Whether the audio as received is stored beside the WAV.
        mode: What becomes of it.
        bucket: Where it goes; None for wherever the service stores.
        language: What TRANSCRIBE_LANGUAGE would say; None leaves it to that.
        transcription: Laid over the parameters of every job; None takes one away.
        keep_audio_days: How long its audio is kept; None leaves it to the service.
        keep_transcripts_days: The same for its transcripts.
        sources: Who decided, by the name of the setting.
        ignored: What does not count.
    """

    prefix: str
    layout: Layout
    keep_raw: bool
    mode: Mode = Mode.BOTH
    bucket: str | None = None
    language: str | None = None
    transcription: Mapping[str, JsonValue] = field(default_factory=dict)
    keep_audio_days: int | None = None
    keep_transcripts_days: int | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()

    def describe(self) -> dict[str, object]:
        """Say it as a call's JSON has it: each setting with who decided."""
        values: dict[str, object] = {
            "prefix": self.prefix,
            "layout": self.layout,
            "keepRaw": self.keep_raw,
            "mode": self.mode,
            "bucket": self.bucket,
            "language": self.language,
            "transcription": dict(self.transcription),
            "keepAudioDays": self.keep_audio_days,
            "keepTranscriptsDays": self.keep_transcripts_days,
        }
        settings: dict[str, object] = {
            name: {"value": value, "from": self.sources.get(_SOURCE_OF.get(name, name))}
            for name, value in values.items()
            if value not in (None, {})
        }
        settings["ignored"] = [
            {"name": each.name, "reason": each.reason} for each in self.ignored
        ]
        return settings


_SOURCE_OF: Final[Mapping[str, str]] = {
    "keepRaw": "keep_raw",
    "keepAudioDays": "keep_audio_days",
    "keepTranscriptsDays": "keep_transcripts_days",
}


def read_call_settings(fields: Fields) -> CallSettings:
    """Read what a journal says was decided.

    Raises:
        ValueError: A field is missing or wrong.
    """
    sources = fields.optional_object("sources")
    ignored = [Fields(each) for each in fields.items("ignored")]
    return CallSettings(
        prefix=fields.text("prefix"),
        layout=Layout(fields.text("layout")),
        keep_raw=fields.flag("keep_raw"),
        mode=Mode(fields.text("mode")),
        bucket=fields.optional_text("bucket"),
        language=fields.optional_text("language"),
        transcription=fields.optional_object("transcription"),
        keep_audio_days=fields.optional_count("keep_audio_days"),
        keep_transcripts_days=fields.optional_count("keep_transcripts_days"),
        sources={str(name): Source(value) for name, value in sources.items()},
        ignored=tuple(
            Ignored(each.text("name"), each.text("reason")) for each in ignored
        ),
    )


def lay_over(
    lower: Mapping[str, JsonValue],
    upper: Mapping[str, JsonValue],
    *,
    language: bool,
) -> dict[str, JsonValue]:
    """Lay parameters of jobs over others.

    Args:
        lower: What gives way.
        upper: What counts.
        language: Whether a language was chosen together with the upper ones, so
            that the lower ones have nothing to say about that any more.
    """
    gone = ABOUT_LANGUAGE if language else ()
    kept = {name: value for name, value in lower.items() if name not in gone}
    return {**kept, **upper}


class Chooser:
    """Decides on each call.

    Args:
        settings: What the operator chose.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed: Collection[str] = settings.custom_config_allow
        self._bucket = settings.s3_bucket
        self._service: Mapping[str, Any] = {
            "prefix": settings.s3_key_prefix,
            "layout": Layout(settings.channel_layout),
            "keep_raw": settings.keep_raw,
            "mode": Mode.BOTH,
        }

    def choose(self, key: KeyRecord, custom_config: object) -> CallSettings:
        """Decide on a call.

        Args:
            key: What goes with its API key.
            custom_config: What came with ``open``: anything.
        """
        given, ignored = self._read(custom_config)
        values: dict[str, Any] = dict(self._service)
        sources = dict.fromkeys(values, Source.SERVICE)
        for source, chosen in (
            (Source.KEY, key.choices),
            (Source.CUSTOM_CONFIG, given),
        ):
            for name, value in chosen.items():
                values[name] = value
                sources[name] = source
        if key.prefix is not None:
            values["prefix"], sources["prefix"] = key.prefix, Source.KEY
        if "prefix" in given:
            # Below that of the operator, never in its place: one key's calls are
            # not to get among those of another.
            above = key.prefix or self._service["prefix"]
            values["prefix"] = above + given["prefix"]
            sources["prefix"] = Source.CUSTOM_CONFIG
        values["transcription"] = lay_over(
            key.choices.get("transcription", {}),
            given.get("transcription", {}),
            language="language" in given,
        )
        if key.bucket not in (None, self._bucket):
            values["bucket"], sources["bucket"] = key.bucket, Source.KEY
        if values["mode"] is Mode.TRANSCRIBE:
            # There is to be one audio less to delete.
            values["keep_raw"], sources["keep_raw"] = False, sources["mode"]
        for name in ("keep_audio_days", "keep_transcripts_days"):
            days: int | None = getattr(key, name)
            if days is not None:
                values[name], sources[name] = days, Source.KEY
        return CallSettings(**values, sources=sources, ignored=tuple(ignored))

    def _read(self, custom_config: object) -> tuple[dict[str, Any], list[Ignored]]:
        """Return what counts of a ``customConfig``, and what does not."""
        given: dict[str, Any] = {}
        ignored: list[Ignored] = []
        if not self._allowed or not isinstance(custom_config, dict):
            return given, ignored
        for name in NAMES:
            if name not in custom_config or custom_config[name] is None:
                continue
            if name not in self._allowed:
                ignored.append(Ignored(name, "is not in CUSTOM_CONFIG_ALLOW"))
                continue
            try:
                value = read_value(name, custom_config[name])
            except ValueError as error:
                ignored.append(Ignored(name, str(error)))
                continue
            if value is Mode.NEITHER and NEITHER_WORD not in self._allowed:
                reason = "may not be 'neither': that is not in CUSTOM_CONFIG_ALLOW"
                ignored.append(Ignored(name, reason))
                continue
            given[name] = value
        return given, ignored
