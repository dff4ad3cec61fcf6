"""The service's answers about a job, as JSON and as captions.

Source: the service's own OpenAPI document; the fields that stand there but say
nothing about transcripts of calls are null, as in its examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from audiohook.simulator.assemblyai.account import Status
from audiohook.simulator.assemblyai.script import speak

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from audiohook.simulator.assemblyai.account import Job, Page
    from audiohook.simulator.assemblyai.parameters import Policy
    from audiohook.simulator.assemblyai.script import Utterance, Word

CAPTION_CHARS = 64
_DELETED_URL = "http://deleted_by_user"
_DELETED_TEXT = "Deleted by user."
_MAX_SEARCH_WORDS = 5
_SENTENCE_END = (".", "?", "!")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Parameters that come back as they were given, with what stands for none.
_ECHOED: Mapping[str, object] = {
    "audio_end_at": None,
    "audio_start_from": None,
    "auto_highlights": False,
    "content_safety": None,
    "custom_spelling": None,
    "custom_topics": None,
    "disfluencies": None,
    "domain": None,
    "entity_detection": None,
    "filter_profanity": None,
    "format_text": True,
    "iab_categories": None,
    "language_codes": None,
    "language_confidence_threshold": None,
    "language_detection": None,
    "multichannel": None,
    "punctuate": True,
    "redact_pii": False,
    "redact_pii_audio": None,
    "redact_pii_policies": None,
    "sentiment_analysis": None,
    "speaker_labels": None,
    "speakers_expected": None,
    "speech_models": None,
    "speech_threshold": None,
    "summarization": False,
    "temperature": None,
    "webhook_auth_header_name": None,
    "webhook_url": None,
}
# As above, but they are left out where they were not given.
_ECHOED_IF_GIVEN = (
    "keyterms_prompt",
    "keyterms_prompt_options",
    "language_detection_options",
    "prompt",
    "redact_pii_sub",
    "remove_audio_tags",
    "speaker_options",
    "speech_understanding",
    "topics",
)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Turns seconds of the stand-in's clock into dates.

    Attributes:
        epoch: The date, UTC, at which that clock showed 0.
    """

    epoch: datetime

    @classmethod
    def starting(cls, now: float) -> Calendar:
        """Makes one by which it is now what this machine's clock says."""
        return cls(datetime.now(UTC) - timedelta(seconds=now))

    def date(self, seconds: float) -> str:
        """Gives the day, such as ``2026-01-31``."""
        return (self.epoch + timedelta(seconds=seconds)).date().isoformat()

    def time(self, seconds: float) -> str:
        """Gives the time as the service writes it: UTC, without saying so."""
        moment = self.epoch + timedelta(seconds=seconds)
        return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def transcript(job: Job, policy: Policy, *, throttled: bool) -> dict[str, Any]:
    """Makes the answer to a request for a job.

    Args:
        job: The job.
        policy: What is said of a language that was detected.
        throttled: It waits only for others of its account.
    """
    given = job.parameters
    body: dict[str, Any] = {
        "id": job.id,
        "language_model": "assemblyai_default",
        "acoustic_model": "assemblyai_default",
        "speech_model": None,
        "status": job.status,
        "audio_url": job.audio_url,
        "text": None,
        "words": None,
        "utterances": None,
        "confidence": None,
        "audio_duration": None,
        "language_code": None if given.get("language_detection") else job.language,
        "language_confidence": None,
        "throttled": throttled or None,
        "webhook_auth": bool(given.get("webhook_auth_header_name")),
        "webhook_status_code": job.webhook_status,
        "error": job.error,
        **{name: given.get(name, default) for name, default in _ECHOED.items()},
        **{name: given[name] for name in _ECHOED_IF_GIVEN if name in given},
    }
    if job.deleted:
        body |= _deleted(job)
    elif job.status is Status.COMPLETED:
        body |= _result(job, policy)
    return body


def _deleted(job: Job) -> dict[str, Any]:
    """What is left of a deleted transcript: it looks like a good one."""
    return {
        "audio_url": _DELETED_URL,
        "text": _DELETED_TEXT,
        "webhook_url": _DELETED_URL if job.parameters.get("webhook_url") else None,
        "language_code": None,
        "webhook_auth_header_name": None,
    }


def _result(job: Job, policy: Policy) -> dict[str, Any]:
    """What a completed job found out."""
    voices = Voices(job)
    body = voices.base()
    body |= {
        "words": [voices.word(line, word) for line, word in voices.words()],
        "utterances": voices.utterances() if voices.told_apart else None,
        "language_code": job.language,
        "speech_model_used": job.model,
    }
    if job.parameters.get("language_detection"):
        body["language_confidence"] = policy.language_confidence
    if job.parameters.get("multichannel"):
        body["audio_channels"] = voices.channels
    return body


def list_page(
    page: Page, base_url: str, query: Mapping[str, str], limit: int, calendar: Calendar
) -> dict[str, Any]:
    """Makes a page of the list of jobs.

    Args:
        page: The jobs.
        base_url: Where the service is.
        query: What was asked for.
        limit: How many jobs a page holds at most.
        calendar: What turns times into dates.
    """
    kept = {name: query[name] for name in ("status", "created_on") if name in query}

    def url(**more: str) -> str:
        asked = {"limit": str(limit), **kept, **more}
        return f"{base_url}/v2/transcript?{urlencode(asked)}"

    jobs = page.jobs
    here = {name: query[name] for name in ("before_id", "after_id") if name in query}
    return {
        "page_details": {
            "limit": limit,
            "result_count": len(jobs),
            "current_url": url(**here),
            "prev_url": url(before_id=jobs[-1].id) if page.older else None,
            "next_url": url(after_id=jobs[0].id) if page.newer else None,
        },
        "transcripts": [
            {
                "id": job.id,
                "resource_url": f"{base_url}/v2/transcript/{job.id}",
                "status": job.status,
                "created": calendar.time(job.created),
                "completed": None if job.ended is None else calendar.time(job.ended),
                "audio_url": _DELETED_URL if job.deleted else job.audio_url,
                "error": job.error,
            }
            for job in jobs
        ],
    }


class Voices:
    """What was said in the audio of a completed job.

    Args:
        job: It has a hearing, or was deleted; then nothing was said.

    Attributes:
        channels: How many channels the audio has.
        told_apart: The speakers are told apart, so that there are utterances.
    """

    def __init__(self, job: Job) -> None:
        given = job.parameters
        self._job = job
        self._by_channel = bool(given.get("multichannel"))
        self._by_voice = bool(given.get("speaker_labels"))
        self.told_apart = self._by_channel or self._by_voice
        self._duration = 0.0
        self.channels = 0
        self._lines: list[Utterance] = []
        if job.hearing is not None:
            hearing = job.hearing
            self._duration = hearing.duration
            self.channels = len(hearing.voices)
            self._lines = speak(hearing if self._by_channel else hearing.mixed())
        # Nothing tells the voices of one channel apart: they take turns.
        self._turn = {id(line): turn for turn, line in enumerate(self._lines)}

    def base(self) -> dict[str, Any]:
        """What is told of the whole."""
        return {
            "text": " ".join(line.text for line in self._lines),
            "confidence": _confidence([word for _, word in self.words()]),
            "audio_duration": round(self._duration),
        }

    def words(self) -> list[tuple[Utterance, Word]]:
        """Gives all words in the order of their times, with their utterances."""
        found = [(line, word) for line in self._lines for word in line.words]
        return sorted(found, key=lambda each: (each[1].start_ms, each[0].channel))

    def word(self, line: Utterance, word: Word) -> dict[str, Any]:
        """Makes the entry of a word."""
        return {
            "text": word.text,
            "start": word.start_ms,
            "end": word.end_ms,
            "confidence": word.confidence,
            **self._whose(line),
        }

    def utterances(self) -> list[dict[str, Any]]:
        """Makes the entries of all utterances."""
        return [self._passage(line, line.words) for line in self._lines]

    def sentences(self) -> dict[str, Any]:
        """Makes the answer to a request for the sentences."""
        found = [
            self._passage(line, sentence)
            for line in self._lines
            for sentence in _sentences(line.words)
        ]
        return self._listing("sentences", found)

    def paragraphs(self) -> dict[str, Any]:
        """Makes the answer to a request for the paragraphs."""
        return self._listing("paragraphs", self.utterances())

    def search(self, phrases: Sequence[str]) -> dict[str, Any]:
        """Makes the answer to a search for words.

        Args:
            phrases: Each of up to five words; others match nothing.
        """
        said = [word for _, word in self.words()]
        texts = [_plain(word.text) for word in said]
        matches: list[dict[str, Any]] = []
        for phrase in phrases:
            wanted = [_plain(text) for text in phrase.split()]
            if not 0 < len(wanted) <= _MAX_SEARCH_WORDS:
                continue
            places = [
                index
                for index in range(len(texts) - len(wanted) + 1)
                if texts[index : index + len(wanted)] == wanted
            ]
            if places:
                last = len(wanted) - 1
                matches.append(
                    {
                        "text": phrase,
                        "count": len(places),
                        "timestamps": [
                            [said[index].start_ms, said[index + last].end_ms]
                            for index in places
                        ],
                        "indexes": places,
                    }
                )
        total = sum(match["count"] for match in matches)
        return {"id": self._job.id, "total_count": total, "matches": matches}

    def captions(self, kind: str, most_chars: int) -> str:
        """Makes subtitles.

        Args:
            kind: ``srt`` or ``vtt``.
            most_chars: Longest caption, unless a word is longer.
        """
        pieces = [
            piece for line in self._lines for piece in _captions(line.words, most_chars)
        ]
        comma = "," if kind == "srt" else "."
        blocks = [] if kind == "srt" else ["WEBVTT\n"]
        for number, piece in enumerate(pieces, start=1):
            head = f"{number}\n" if kind == "srt" else ""
            start = _clock(piece[0].start_ms, comma, hours=kind == "srt")
            end = _clock(piece[-1].end_ms, comma, hours=kind == "srt")
            blocks.append(f"{head}{start} --> {end}\n{_text(piece)}\n")
        return "\n".join(blocks)

    def _listing(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        base = self.base()
        return {
            "id": self._job.id,
            "confidence": base["confidence"],
            "audio_duration": base["audio_duration"],
            name: entries,
        }

    def _passage(self, line: Utterance, words: Sequence[Word]) -> dict[str, Any]:
        """Makes the entry of an utterance or of a part of one."""
        return {
            "text": _text(words),
            "start": words[0].start_ms,
            "end": words[-1].end_ms,
            "confidence": _confidence(words),
            "words": [self.word(line, word) for word in words],
            **self._whose(line),
        }

    def _whose(self, line: Utterance) -> dict[str, str | None]:
        """Names the speaker and the channel; None for what was not asked for."""
        channel = str(line.channel + 1) if self._by_channel else None
        speaker = channel
        if self._by_voice:
            letter = "A" if channel else _LETTERS[self._turn[id(line)] % 2]
            speaker = f"{channel or ''}{letter}"
        return {"speaker": speaker, "channel": channel}


def _confidence(words: Sequence[Word]) -> float:
    if not words:
        return 0.0
    return round(sum(word.confidence for word in words) / len(words), 4)


def _text(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)


def _plain(text: str) -> str:
    return re.sub(r"\W", "", text).casefold()


def _sentences(words: Sequence[Word]) -> list[list[Word]]:
    found: list[list[Word]] = [[]]
    for word in words:
        found[-1].append(word)
        if word.text.endswith(_SENTENCE_END):
            found.append([])
    return [sentence for sentence in found if sentence]


def _captions(words: Sequence[Word], most_chars: int) -> list[list[Word]]:
    found: list[list[Word]] = []
    for word in words:
        if found and len(_text([*found[-1], word])) <= most_chars:
            found[-1].append(word)
        else:
            found.append([word])
    return found


def _clock(moment_ms: int, comma: str, *, hours: bool) -> str:
    """Writes a time as captions do; without hours, unless there are any."""
    seconds, milliseconds = divmod(moment_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    rest = f"{minutes % 60:02}:{seconds:02}{comma}{milliseconds:03}"
    return f"{minutes // 60:02}:{rest}" if hours or minutes >= 60 else rest
