"""What is kept of one call: its place in the spool, from `open` to the seal.

What happens to the recording afterwards is not the call's business: it is handed on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from audiohook.errors import SpoolError
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, Gap, GapKind
from audiohook.recording.dialogue import Keep
from audiohook.recording.journal import (
    ClosedFact,
    ContinuedSession,
    GapFact,
    Media,
    Opened,
    Participant,
    utc_text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook._divert import Lane
    from audiohook.authentication import Credentials
    from audiohook.call_notes import CallNotes
    from audiohook.call_settings import CallSettings
    from audiohook.call_surroundings import Surroundings
    from audiohook.control import Asker
    from audiohook.protocol.events import OpenReceived
    from audiohook.protocol.session import Session
    from audiohook.recording.journal import (
        ControlFact,
        LanguageFact,
        PausedFact,
        TextFact,
    )
    from audiohook.recording.spooled import SpooledCall

SECONDS = 1.0

# ``opened`` is due 5 s after ``open``; a disk that is slow, or hangs, gets this much of
# it. The rest is for the way here and back.
_CREATE_DEADLINE = 4.3 * SECONDS
# ``closed`` is due 10 s after ``close``; a disk that refuses gets this much of it.
_FLUSH_DEADLINE = 4 * SECONDS
_FLUSH_PAUSE = 0.5 * SECONDS


class CallRecording:
    """The audio of one call and what is known of it, on its way to the disk.

    Args:
        lane: Where the audio comes from.
        session: Knows what of it is missing.
        credentials: Who asked for the call.
        surroundings: What all calls share.
        notes: What is told of the call.
    """

    __slots__ = (
        "_around",
        "_credentials",
        "_end_bytes",
        "_end_told",
        "_has_last_words",
        "_lane",
        "_notes",
        "_sealed",
        "_session",
        "_spooled",
    )

    def __init__(
        self,
        lane: Lane,
        session: Session,
        *,
        credentials: Credentials,
        surroundings: Surroundings,
        notes: CallNotes,
    ) -> None:
        self._lane = lane
        self._session = session
        self._credentials = credentials
        self._around = surroundings
        self._notes = notes
        self._spooled: SpooledCall | None = None
        self._sealed = False
        # Whether something is written after the seal.
        self._has_last_words = surroundings.keep_dialogue is not Keep.NO
        # All the audio there is, and whether what never got to its file has been
        # written down.
        self._end_bytes: int | None = None
        self._end_told = False

    @property
    def is_begun(self) -> bool:
        """Whether there is one."""
        return self._spooled is not None

    @property
    def is_sealed(self) -> bool:
        """Whether it is on disk whole."""
        return self._sealed

    @property
    def is_doubtful(self) -> bool:
        """Whether it can never be told any more that it is on disk whole."""
        return self._spooled is not None and self._spooled.is_doubtful

    @property
    def started_at(self) -> str | None:
        """When the audio began, in UTC with milliseconds; None if there is none."""
        return None if self._spooled is None else self._spooled.record.opened.started_at

    @property
    def language(self) -> str | None:
        """As the peer last said, or None."""
        if self._spooled is None:
            return None
        record = self._spooled.record
        changes = record.languages
        return changes[-1].language if changes else record.opened.language

    @property
    def folder(self) -> Path | None:
        """Where the audio is; None if there is none."""
        return None if self._spooled is None else self._spooled.folder

    async def begin(self, event: OpenReceived, settings: CallSettings | None) -> bool:
        """Makes a place for the audio, and has it go there.

        Args:
            event: What the call is; it has media.
            settings: What was decided on it.

        Returns:
            Whether there is one; otherwise the disk refused.
        """
        with trio.move_on_after(_CREATE_DEADLINE):
            self._spooled = await self._create(event, settings)
        if self._spooled is None:
            return False
        assert event.media is not None
        self._lane.keep(len(event.media.channels), self._spooled.audio_fd)
        self._around.opened(self._spooled, self._settled_bytes)
        return True

    async def _create(
        self, event: OpenReceived, settings: CallSettings | None
    ) -> SpooledCall | None:
        try:
            return await self._around.spool.create(self._first_fact(event, settings))
        except SpoolError as error:
            self._notes.noise(logging.ERROR, "cannot_record", error=str(error))
            return None

    def _first_fact(self, event: OpenReceived, settings: CallSettings | None) -> Opened:
        parameters = event.parameters
        media = event.media
        assert media is not None
        party = parameters.participant
        return Opened(
            session_id=self._credentials.session_id,
            organization_id=self._credentials.organization_id,
            correlation_id=self._credentials.correlation_id,
            conversation_id=parameters.conversation_id,
            participant=Participant(
                id=party.id, ani=party.ani, ani_name=party.ani_name, dnis=party.dnis
            ),
            language=parameters.language,
            custom_config=parameters.custom_config,
            media=Media(
                format=media.format,
                channels=tuple(str(channel) for channel in media.channels),
                rate=media.rate,
            ),
            started_at=utc_text(self._around.clock()),
            start_samples=event.start_samples,
            continued_sessions=tuple(
                ContinuedSession(before.id, before.serverseq, before.clientseq)
                for before in parameters.continued_sessions
            ),
            key_label=self._credentials.key_id,
            retry_attempt=self._credentials.retry_attempt,
            settings=settings,
        )

    # What is known

    def write(
        self, fact: GapFact | LanguageFact | PausedFact | ControlFact | TextFact
    ) -> None:
        """Writes a fact down, if there is a recording."""
        if self._spooled is None:
            return
        try:
            self._around.spool.append(self._spooled, fact)
        except SpoolError as error:
            self._notes.noise(logging.ERROR, "fact_not_written", error=str(error))

    def note_gap(self, gap: Gap, asker: Asker | None = None) -> None:
        """Writes down that audio is missing.

        Args:
            gap: Where.
            asker: Who has asked for it, if anybody on our side.
        """
        self._notes.gaps += 1
        metrics = self._around.metrics
        metrics.gaps.labels(gap.kind).inc()
        metrics.gap_seconds.labels(gap.kind).inc(gap.length_samples / SAMPLE_RATE_HZ)
        self.write(
            GapFact(
                gap.kind,
                gap.offset_samples,
                gap.length_samples,
                by=None if asker is None else asker.by,
                reason=None if asker is None else asker.reason,
            )
        )

    def note_drops(self) -> None:
        """Writes down audio that came while the disk could not take it."""
        for before, dropped in self._lane.take_drops():
            self._lose(before, dropped)

    def _settled_bytes(self) -> int:
        """Tells how much audio has all its gaps, and is in the file."""
        self.note_drops()
        return self._lane.settled_bytes

    def _lose(self, before_bytes: int, lost_bytes: int) -> None:
        media = self._session.media
        if media is None:
            return
        channels = len(media.channels)
        self._notes.lost_bytes += lost_bytes
        self._around.metrics.lost_bytes.inc(lost_bytes)
        gap = Gap(GapKind.LOST, before_bytes // channels, lost_bytes // channels)
        self._session.add_lost(gap.offset_samples, gap.length_samples)
        self.note_gap(gap)

    def _last_gap_bytes(self) -> int:
        media, gaps = self._session.media, self._session.timeline.gaps
        return gaps[-1].offset_samples * len(media.channels) if media and gaps else 0

    # Its end

    async def seal(self, reason: str, audio_bytes: int, *, until: float) -> None:
        """Ends the recording, as the peer has asked; see `is_sealed`.

        Args:
            reason: The peer's word for it.
            audio_bytes: All the audio there is.
            until: How long a disk that refuses is tried again.
        """
        self._end_bytes = audio_bytes
        while not await self._try_to_seal(reason, complete=True):
            # A disk may be well again before the peer gives up.
            if trio.current_time() >= until or self.is_doubtful:
                break
            await trio.sleep(_FLUSH_PAUSE)

    async def seal_rest(self, reason: str) -> None:
        """Seals the recording of a call that did not come to ``close``."""
        if self._spooled is None or self._sealed:
            return
        self._lane.ignore()
        await self._try_to_seal(reason, complete=False)

    async def hand_over(self) -> None:
        """Hands a recording on whose messages are kept, now that there are no more.

        The last of them, ``closed``, is sent after the call is sealed.
        """
        if not self._has_last_words or self._spooled is None or not self._sealed:
            return
        try:
            await self._around.spool.commit(self._spooled)
        except SpoolError as error:
            self._notes.noise(logging.WARNING, "dialogue_not_whole", error=str(error))
        self._around.sealed(self._spooled)

    def let_go(self) -> None:
        """Gives up the lane, and a recording that could not be sealed.

        What is on disk of that is found by whoever looks for leftovers next.
        """
        if self._spooled is None or self._sealed:
            self._around.pump.release(self._lane)
        else:
            # A disk that hangs may still be writing to its file.
            self._around.pump.release(self._lane, unused=self._spooled.release)

    async def _try_to_seal(self, reason: str, *, complete: bool) -> bool:
        """Brings the audio and the last facts to the disk, as far as it lets us.

        Returns:
            Whether all of it is there; otherwise it may be tried again.
        """
        assert self._spooled is not None
        if self._end_bytes is None:
            self._end_bytes = self._lane.audio_bytes
        audio_bytes = self._end_bytes
        if not self._end_told:
            await self._flush()
            # From here on the file may be closed, and its number given to another.
            await self._around.pump.stop_writing(self._lane)
            self.note_drops()
        stored = self._spooled.record.whole_frames(
            min(audio_bytes, self._lane.written_bytes)
        )
        if stored < audio_bytes and not self._end_told:
            # What is missing before the last gap shows from that gap's place.
            begin = max(stored, self._last_gap_bytes())
            self._lose(begin, audio_bytes - begin)
        self._end_told = True
        fact = ClosedFact(
            reason=reason,
            stored_bytes=stored,
            ended_at=utc_text(self._around.clock()),
            complete=complete and self._notes.lost_bytes == 0,
        )
        try:
            await self._around.spool.seal(self._spooled, fact)
        except SpoolError as error:
            self._notes.noise(logging.ERROR, "cannot_seal", error=str(error))
            return False
        self._sealed = True
        if not self._has_last_words:
            self._around.sealed(self._spooled)
        return True

    async def _flush(self) -> None:
        """Waits until the audio is in its file, or the disk has had its chance."""
        with trio.move_on_after(_FLUSH_DEADLINE):
            while True:
                try:
                    await self._around.pump.flush(self._lane)
                except SpoolError:
                    await trio.sleep(_FLUSH_PAUSE)
                else:
                    return
