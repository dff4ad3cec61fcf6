"""What is known of one job, kept in the store, where every machine can see it.

In the spool a journal belongs to one process. Where events of the store have calls
transcribed, any number of processes may come to the same call at the same time, and
the one that asked for a transcript may be gone before the answer. So the facts of a
job are an object of the store, beside the recording, and nobody writes it but in
place of exactly what he has read: of two that come at once, one learns that he is
late before he has asked for anything.

Whoever has a job in hand says so in there, and renews it. He counts as dead once it
was not renewed for the length of a lease, by the clock of the store, so that the
clocks of machines do not matter. A request for a transcript is sent soon after the
intent was stored, or not at all, so that none is on its way from somebody who
counts as dead; but for one whose whole machine stood still between the two for
longer than the lease.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final

import trio

from audiohook.errors import JobHeldError, KeyExistsError, UploadError
from audiohook.recording.fields import Fields
from audiohook.recording.journal import decode, encode
from audiohook.recording.transcripts import (
    AudioUploaded,
    JobRecord,
    TranscriptAgain,
    TranscriptDeleted,
    TranscriptFailed,
    TranscriptGivenUp,
    TranscriptIntended,
    TranscriptParked,
    TranscriptPlanned,
    TranscriptRefused,
    TranscriptStored,
    TranscriptSubmitted,
)
from audiohook.storage.layout import job_key

if TYPE_CHECKING:
    from audiohook.recording.transcripts import TranscriptFact
    from audiohook.storage.base import Version, VersionedStore

SECONDS = 1.0
MINUTES = 60 * SECONDS

LEASE: Final = 4 * MINUTES
"""So long after he wrote last, somebody who has a job in hand counts as dead.

A request for a transcript is sent at most `_FRESH` after its intent began to be
stored, and gets two minutes; the rest is slack.
"""

SCHEMA_VERSION: Final = 1

_FRESH: Final = 30 * SECONDS
_RENEWAL: Final = 1 * MINUTES
# The store is slow, or somebody else writes as well; both end.
_TRIES: Final = 5

_FACTS: Final = (
    AudioUploaded,
    TranscriptAgain,
    TranscriptDeleted,
    TranscriptFailed,
    TranscriptGivenUp,
    TranscriptIntended,
    TranscriptParked,
    TranscriptPlanned,
    TranscriptRefused,
    TranscriptStored,
    TranscriptSubmitted,
)


class JobObject:
    """The facts of one job, in the store. Make it with `open`.

    Until it is claimed it can only be looked at. One task at a time may use it.

    Attributes:
        record: What the facts say; None if there is no such job as yet.
        is_settled: Whether nothing is left to be done, not even to tell others.
    """

    def __init__(
        self, store: VersionedStore, wav_key: str, found: Version | None
    ) -> None:
        self._store = store
        self._wav_key = wav_key
        self._key = job_key(wav_key)
        self._own = secrets.token_hex(16)
        self._sequence = 0
        self._tag: str | None = None
        self._facts: list[TranscriptFact] = []
        self._holder: str | None = None
        self._held_until = 0.0
        self._is_dirty = False
        self._written_at = 0.0
        self.record: JobRecord | None = None
        self.is_settled = False
        if found is not None:
            self._read(found)

    @classmethod
    async def open(cls, store: VersionedStore, wav_key: str) -> JobObject:
        """Look at the job of a WAV file.

        Raises:
            UploadError: The store did not do as asked, or what is there cannot be
                understood; then nothing must be asked for on its account.
        """
        return cls(store, wav_key, await store.fetch(job_key(wav_key)))

    @property
    def held_for(self) -> float:
        """How long somebody else may have it in hand, in seconds; 0 if nobody has."""
        if self._holder in (None, self._own):
            return 0.0
        return max(0.0, self._held_until - trio.current_time())

    @property
    def renew_at(self) -> float:
        """When it has to be renewed, in Trio's time."""
        return self._written_at + _RENEWAL

    async def claim(self, planned: TranscriptPlanned) -> JobRecord:
        """Take the job in hand.

        Args:
            planned: What is to be done, unless that was decided before.

        Returns:
            Its record.

        Raises:
            JobHeldError: Somebody else has it in hand.
            UploadError: The store did not do as asked.
        """
        if self.held_for:
            raise JobHeldError(f"{self._wav_key} is in other hands", self.held_for)
        if self.record is None:
            self._take_in(planned)
        self._holder = self._own
        try:
            await self._write()
        except JobHeldError:
            self._holder = "somebody else"
            raise
        return self._known()

    def note(self, *facts: TranscriptFact) -> None:
        """Take facts in; `claim` or `commit` writes them."""
        for fact in facts:
            self._take_in(fact)
            if isinstance(fact, TranscriptAgain):
                self.is_settled = False

    async def commit(self, *facts: TranscriptFact) -> None:
        """Write facts, and all before them.

        When it returns, what was written last is at most half a minute old.

        Raises:
            JobHeldError: Somebody else has taken the job over.
            UploadError: The store did not do as asked. A request that was to be
                made then is known not to have been made.
        """
        self.note(*facts)
        if not self._is_dirty:
            return
        try:
            for _ in range(_TRIES):
                await self._write()
                if trio.current_time() - self._written_at < _FRESH:
                    return
            raise UploadError("the store takes too long to note what is to be done")
        except UploadError:
            if any(isinstance(fact, TranscriptIntended) for fact in facts):
                self._take_in(TranscriptRefused(self._wav_key))
            raise

    async def renew(self) -> None:
        """Say that it is still in hand.

        Raises:
            JobHeldError: Somebody else has taken the job over.
            UploadError: The store did not do as asked.
        """
        self._is_dirty = True
        await self.commit()

    async def release(self) -> None:
        """Put it down, so that others need not wait.

        Raises:
            JobHeldError: Somebody else has taken the job over.
            UploadError: The store did not do as asked.
        """
        if self._holder == self._own:
            self._holder = None
            await self._write()

    async def settle(self) -> None:
        """Note that nothing is left to be done, and put it down.

        Raises:
            JobHeldError: Somebody else has taken the job over.
            UploadError: The store did not do as asked.
        """
        self.is_settled = True
        await self.release()

    def _known(self) -> JobRecord:
        assert self.record is not None
        return self.record

    def _read(self, found: Version) -> None:
        self._tag = found.tag
        self._held_until = trio.current_time() + LEASE - found.age
        try:
            fields = Fields(json.loads(found.data))
            if fields.count("schemaVersion") != SCHEMA_VERSION:
                raise ValueError("of another version")
            if fields.text("audio") != self._wav_key:
                raise ValueError("of another file")
            self._sequence = fields.count("sequence")
            self._holder = fields.optional_text("holder")
            self.is_settled = fields.flag("settled")
            for value in fields.items("facts"):
                self._take_in(self._fact(value))
            if self.record is None:
                raise ValueError("nothing is decided")
        except (ValueError, RecursionError) as exc:
            raise UploadError(
                f"{self._key} cannot be understood ({exc}): nothing is asked for"
                " before it is mended or removed",
                retryable=False,
            ) from exc
        self._is_dirty = False

    def _fact(self, value: object) -> TranscriptFact:
        fact = decode(json.dumps(value).encode())
        if not isinstance(fact, _FACTS) or fact.key != self._wav_key:
            raise ValueError("a fact of another kind")
        return fact

    def _take_in(self, fact: TranscriptFact) -> None:
        """Apply a fact, and keep as many as say the same as all of them."""
        self._is_dirty = True
        if self.record is None:
            if not isinstance(fact, TranscriptPlanned):
                raise ValueError("nothing is decided")
            self.record = JobRecord(fact)
            self._facts = [fact]
            return
        self.record.apply(fact)
        obsolete = _OBSOLETE.get(type(fact), ())
        self._facts = [each for each in self._facts if not isinstance(each, obsolete)]
        says_nothing = isinstance(fact, TranscriptRefused) or (
            isinstance(fact, TranscriptParked) and fact.reason is None
        )
        if not says_nothing:
            self._facts.append(fact)

    async def _write(self) -> None:
        """Store what is known, if it is still ours to do so."""
        for _ in range(_TRIES):
            began = trio.current_time()
            self._sequence += 1
            try:
                self._tag = await self._store.swap(
                    self._key, self._encode(), self._tag, metadata={}
                )
            except KeyExistsError:
                await self._catch_up()
            else:
                self._is_dirty = False
                self._written_at = began
                return
        raise UploadError(f"{self._key} changes too often")

    async def _catch_up(self) -> None:
        """Learn who was faster: it may have been our own request.

        Raises:
            JobHeldError: It was somebody else.
        """
        found = await self._store.fetch(self._key)
        holder: object = None
        if found is not None:
            try:
                holder = Fields(json.loads(found.data)).anything("holder")
            except (ValueError, RecursionError):
                holder = None
        if found is None or holder != self._own:
            seconds = 0.0
            if found is not None and holder is not None:
                seconds = max(0.0, LEASE - found.age)
            raise JobHeldError(f"{self._wav_key} is in other hands", seconds)
        self._tag = found.tag

    def _encode(self) -> bytes:
        facts: list[Any] = [json.loads(encode(fact)) for fact in self._facts]
        value = {
            "schemaVersion": SCHEMA_VERSION,
            "audio": self._wav_key,
            "holder": self._holder,
            "settled": self.is_settled,
            "sequence": self._sequence,
            "facts": facts,
        }
        return (json.dumps(value, indent=2) + "\n").encode()


# What a fact leaves without meaning, so that the object does not grow with each try.
_OBSOLETE: Final[dict[type, tuple[type, ...]]] = {
    TranscriptPlanned: (TranscriptPlanned,),
    AudioUploaded: (AudioUploaded,),
    TranscriptIntended: (TranscriptIntended,),
    TranscriptRefused: (TranscriptIntended,),
    TranscriptSubmitted: (TranscriptIntended, TranscriptParked),
    TranscriptParked: (TranscriptParked,),
    # All but the ids of what was paid for.
    TranscriptAgain: (
        AudioUploaded,
        TranscriptAgain,
        TranscriptFailed,
        TranscriptGivenUp,
        TranscriptIntended,
        TranscriptParked,
        TranscriptStored,
    ),
}
