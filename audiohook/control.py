"""What others may do to a live call: pause and resume its recording, and end it.

However many ask, the peer is asked once, and each of them gets the same answer.
The recording stops where the peer says ``paused``, which stands in the stream
between the last audio that counts and the silence; what is said once the answer
is there is in no file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import ControlError
from audiohook.protocol.state import State
from audiohook.recording.journal import ControlFact, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.protocol.session import Session

SECONDS = 1.0
MINUTES = 60 * SECONDS

# A peer answers at once; its words lie here for an ingest interval at most.
ANSWER_DEADLINE: Final = 5 * SECONDS
# When a peer that has not answered is asked again.
_ASK_AGAIN: Final = 2 * SECONDS
# How long a pause waits for a session that goes on where another was cut off.
_COMES_AGAIN: Final = 5 * MINUTES
# What a call may have in its journal of this kind. A payment takes two.
_MOST_FACTS: Final = 1000


class ControlFault(StrEnum):
    """Why a live call cannot be made to do as asked."""

    NOT_OPEN = "not_open"
    """It is not open yet; try again."""
    NOT_RECORDED = "not_recorded"
    """Nothing is recorded of it."""
    OVER = "over"
    """It ends, or has ended."""
    NO_ANSWER = "no_answer"
    """The peer has not answered in time."""
    TOO_OFTEN = "too_often"
    """It has been paused and resumed more often than any real call."""


class Held(StrEnum):
    """What becomes of a call's audio."""

    RECORDING = "recording"
    PAUSED = "paused"
    PAUSED_BY_CLIENT = "paused_by_client"
    """Nobody asked here; Genesys holds it back for reasons of its own."""
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants something of a call.

    Attributes:
        by: Name of the token.
        reason: What they said of it, or None; bounded and printable.
    """

    by: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands.

    Attributes:
        held: What becomes of its audio.
        since: When that began, if somebody asked for it: UTC with milliseconds.
        asker: Who asked for it.
    """

    held: Held
    since: str | None = None
    asker: Asker | None = None


class Pauses:
    """Pauses that are in force, by conversation.

    A client that has lost its connection comes again in another session, which
    knows nothing of the pause; what was to be kept out would be in that one.
    """

    def __init__(self) -> None:
        self._askers: dict[str, Asker] = {}
        # Sessions of a conversation that are there now: there may be one for each
        # participant, and one that its client has given up.
        self._here: Counter[str] = Counter()
        # Of conversations that have no call now: until when they may come again.
        self._until: dict[str, float] = {}

    def come(self, conversation: str) -> None:
        """Notes that a session of a conversation is there, until it leaves."""
        self._here[conversation] += 1

    def begin(self, conversation: str, asker: Asker) -> None:
        """Notes that a conversation is paused."""
        self._askers[conversation] = asker

    def end(self, conversation: str) -> None:
        """Notes that it is not any more."""
        self._askers.pop(conversation, None)
        self._until.pop(conversation, None)

    def leave(self, conversation: str, now: float) -> None:
        """Notes that a session of a conversation is over, which may come again."""
        self._here[conversation] -= 1
        if not self._here[conversation]:
            del self._here[conversation]
            if conversation in self._askers:
                self._until[conversation] = now + _COMES_AGAIN
        for other in [each for each, until in self._until.items() if until < now]:
            self.end(other)

    def take(self, conversation: str, now: float) -> Asker | None:
        """Returns who has paused a conversation of which a session comes, if any."""
        if self._until.get(conversation, now) < now:
            self.end(conversation)
        self._until.pop(conversation, None)
        return self._askers.get(conversation)


class CallControl:
    """One live call, for those who may interfere with it.

    Args:
        session: Its session.
        say: Has sent what the session has to say.
        disconnect: Asks the peer to close.
        note: Writes a fact down.
        held: Told who wants the call paused, and None when nobody does any more.
        samples: Returns the samples of each channel that have come.
        clock: Unix time in seconds.

    Attributes:
        asker: Who has asked for the pause that is in force, or is on its way.
    """

    def __init__(
        self,
        session: Session,
        *,
        say: Callable[[], None],
        disconnect: Callable[[], None],
        note: Callable[[ControlFact], None],
        held: Callable[[Asker | None], None],
        samples: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._say = say
        self._disconnect = disconnect
        self._note = note
        self._held = held
        self._samples = samples
        self._clock = clock
        self._lock = trio.Lock()
        self._news = trio.Event()
        self._facts = 0
        self._asked_at = 0.0
        self._since: str | None = None
        self._end: Asker | None = None
        self._over = trio.Event()
        self.asker: Asker | None = None

    @property
    def standing(self) -> Standing:
        """How the call stands now."""
        session = self._session
        if self._over.is_set():
            return Standing(Held.ENDED, self._since, self._end)
        if self._end is not None or session.state not in (
            State.CONNECTED,
            State.OPENING,
            State.OPEN,
        ):
            return Standing(Held.ENDING, self._since, self._end)
        if session.is_held and session.is_paused:
            return Standing(Held.PAUSED, self._since, self.asker)
        return Standing(Held.PAUSED_BY_CLIENT if session.is_paused else Held.RECORDING)

    def begin_paused(self, asker: Asker) -> None:
        """Takes note that the peer was asked to hold its audio back from the start."""
        self._write("pause", asker)
        self.asker = asker
        self._asked_at = trio.current_time()

    async def pause(self, asker: Asker) -> Standing:
        """Stops the recording; if it is stopped already, that is all.

        Returns:
            How the call stands, once its peer has answered.

        Raises:
            ControlError: It cannot be; the peer may still do it later if it is
                ``NO_ANSWER``.
        """
        return await self._hold(asker, wanted=True)

    async def resume(self, asker: Asker) -> Standing:
        """Goes on with the recording; otherwise as :meth:`pause`."""
        return await self._hold(asker, wanted=False)

    async def end(self, asker: Asker) -> Standing:
        """Asks the peer to close; if that was asked already, that is all.

        Returns:
            How the call stands once it has ended, or after some seconds, when it
            will do so soon.

        Raises:
            ControlError: The call is not open yet.
        """
        if self._session.state in (State.CONNECTED, State.OPENING):
            raise ControlError(ControlFault.NOT_OPEN)
        if self.standing.held not in (Held.ENDING, Held.ENDED):
            self._write("end", asker)
            self._end = asker
            self._held(None)
            self._disconnect()
        with trio.move_on_after(ANSWER_DEADLINE):
            await self._over.wait()
        return self.standing

    def answered(self) -> None:
        """Tells those who wait that the peer has said something about its audio."""
        self._news.set()
        self._news = trio.Event()

    def over(self) -> None:
        """Tells those who wait that the call has ended."""
        self._over.set()
        self.answered()

    def insist(self) -> None:
        """Asks again for a pause that the peer has ended by itself."""
        if self._session.pause(now=trio.current_time()) == 0:
            self._asked_at = trio.current_time()
            self._say()

    async def _hold(self, asker: Asker, *, wanted: bool) -> Standing:
        with trio.move_on_after(ANSWER_DEADLINE):
            # One after the other: who comes later finds done what he asks for.
            async with self._lock:
                self._check()
                if wanted or self._session.is_held:
                    await self._bring_about(asker, wanted=wanted)
                return self.standing
        self._check()
        raise ControlError(ControlFault.NO_ANSWER)

    def _check(self) -> None:
        session = self._session
        if session.state in (State.CONNECTED, State.OPENING):
            raise ControlError(ControlFault.NOT_OPEN)
        if self.standing.held in (Held.ENDING, Held.ENDED):
            raise ControlError(ControlFault.OVER)
        if session.media is None or session.is_probe:
            raise ControlError(ControlFault.NOT_RECORDED)

    async def _bring_about(self, asker: Asker, *, wanted: bool) -> None:
        session = self._session
        if session.is_held is not wanted:
            self._write("pause" if wanted else "resume", asker)
            if wanted:
                self.asker = asker
            self._held(asker if wanted else None)
            await self._ask(wanted=wanted)
        while not session.has_answered:
            news = self._news
            with trio.move_on_at(self._asked_at + _ASK_AGAIN) as patience:
                await news.wait()
            self._check()
            if patience.cancelled_caught:
                await self._ask(wanted=wanted)

    async def _ask(self, *, wanted: bool) -> None:
        """Asks the peer, as soon as that is not too often."""
        ask = self._session.pause if wanted else self._session.resume
        while (wait := ask(now=trio.current_time())) > 0:
            await trio.sleep(wait)
            self._check()
        self._check()
        self._asked_at = trio.current_time()
        self._say()

    def _write(self, action: str, asker: Asker) -> None:
        if self._facts >= _MOST_FACTS and action != "end":
            raise ControlError(ControlFault.TOO_OFTEN)
        self._facts += 1
        self._since = utc_text(self._clock())
        self._note(
            ControlFact(action, asker.by, asker.reason, self._since, self._samples())
        )
