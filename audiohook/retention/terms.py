"""For how long what is kept. Nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from audiohook.storage.layout import in_bucket
from audiohook.storage.policy import needs_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from audiohook.keys import KeyRecord
    from audiohook.settings import Settings

SECONDS_A_DAY: Final = 24 * 60 * 60.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How long things are kept.

    Attributes:
        audio_days: None if for ever.
        transcripts_days: None if for ever.
    """

    audio_days: int | None = None
    transcripts_days: int | None = None

    @property
    def call_days(self) -> int | None:
        """How long the call's JSON is kept: as long as anything of the call."""
        if self.audio_days is None or self.transcripts_days is None:
            return None
        return max(self.audio_days, self.transcripts_days)

    @property
    def first_days(self) -> int | None:
        """After how many days there is anything to be removed."""
        days = [d for d in (self.audio_days, self.transcripts_days) if d is not None]
        return min(days, default=None)

    def over(self, ended_at: float, now: float) -> Over:
        """Tell what of a call is not to be kept any longer.

        Args:
            ended_at: When it ended, in seconds since 1970.
            now: Unix time in seconds.
        """
        age = (now - ended_at) / SECONDS_A_DAY
        return Over(
            audio=self.audio_days is not None and age >= self.audio_days,
            transcripts=self.transcripts_days is not None
            and age >= self.transcripts_days,
        )

    def over_on(self, day: date, now: float) -> Over:
        """Tell what of a day's calls may have been removed by now."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return self.over(start.timestamp(), now)


@dataclass(frozen=True, slots=True)
class Over:
    """What of a call is not to be kept any longer.

    Attributes:
        audio: Whether that is so of audio.
        transcripts: Whether that is so of transcripts.
    """

    audio: bool = False
    transcripts: bool = False


def keeps_of(settings: Settings, records: Iterable[KeyRecord]) -> dict[str, Keep]:
    """Tell how long what is kept, by what keys begin with, see `layout.in_bucket`.

    What is stored says by its prefix alone for whom it was recorded. So days of an
    API key hold if it has a prefix of its own.

    Args:
        settings: Days of all others.
        records: What goes with the API keys.
    """
    default = Keep(settings.keep_audio_days, settings.keep_transcripts_days)
    keeps = {settings.s3_key_prefix: default}
    for record in records:
        keeps.setdefault(place_of(settings, record), _of(record, default))
    return keeps


def place_of(settings: Settings, record: KeyRecord) -> str:
    """Tell what the keys of an API key's calls begin with, see `layout.in_bucket`.

    Args:
        settings: Where calls go whose API key says nothing.
        record: What goes with the API key.
    """
    bucket = None if record.bucket == settings.s3_bucket else record.bucket
    return in_bucket(bucket, record.prefix or settings.s3_key_prefix)


def keep_of(keeps: Mapping[str, Keep], key: str) -> Keep:
    """Tell how long what is under a key is kept.

    Args:
        keeps: By what keys begin with; the longest that fits counts.
        key: Or the beginning of one.
    """
    fitting = [start for start in keeps if key.startswith(start)]
    return keeps[max(fitting, key=len)] if fitting else Keep()


def tells_kinds(keeps: Iterable[Keep]) -> bool:
    """Tell whether objects have to say what they are, for the rules of a bucket."""
    return any(needs_kinds(each.audio_days, each.transcripts_days) for each in keeps)


def without_prefix(
    settings: Settings, records: Iterable[tuple[str, KeyRecord]]
) -> Iterator[str]:
    """Tell which API keys have days of their own that nobody can heed.

    Args:
        settings: Days of all others.
        records: Labels of keys, and what goes with them.
    """
    default = Keep(settings.keep_audio_days, settings.keep_transcripts_days)
    for label, record in records:
        has_own = record.prefix not in (
            None,
            settings.s3_key_prefix,
        ) or record.bucket not in (None, settings.s3_bucket)
        if not has_own and _of(record, default) != default:
            yield label


def _of(record: KeyRecord, default: Keep) -> Keep:
    audio, transcripts = record.keep_audio_days, record.keep_transcripts_days
    return Keep(
        default.audio_days if audio is None else audio,
        default.transcripts_days if transcripts is None else transcripts,
    )
