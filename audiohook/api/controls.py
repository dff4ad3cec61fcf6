"""What the API does with live calls: pause their recording, resume it, end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import trio

from audiohook.api.models import Controlled, ControlledSession, ControlRequest
from audiohook.api.problems import Code, ProblemError
from audiohook.control import Asker, ControlFault
from audiohook.errors import ControlError
from audiohook.index.search import Query
from audiohook.protocol.messages import NIL_UUID

if TYPE_CHECKING:
    from audiohook.api.operations import Ask
    from audiohook.api.presence import Presence
    from audiohook.api.surroundings import Surroundings
    from audiohook.call import Call
    from audiohook.control import Standing

Action = Literal["pause", "resume", "end"]


class Controls:
    """Does what is asked of live calls.

    Args:
        surroundings: What the API knows of the service.
        presence: Knows which calls are live.
    """

    def __init__(self, surroundings: Surroundings, presence: Presence) -> None:
        self._around = surroundings
        self._presence = presence

    async def pause(self, ask: Ask) -> Controlled:
        """Stops the recording of a live call."""
        return await self._control(ask, "pause")

    async def resume(self, ask: Ask) -> Controlled:
        """Goes on with it."""
        return await self._control(ask, "resume")

    async def end(self, ask: Ask) -> Controlled:
        """Asks Genesys to end the session."""
        return await self._control(ask, "end")

    async def _control(self, ask: Ask, action: Action) -> Controlled:
        conversation = ask.path["conversation"].lower()
        if conversation == NIL_UUID:
            raise ProblemError(Code.PROBE)
        calls = self._presence.live_of(conversation)
        if not calls:
            raise ProblemError(await self._absence(conversation))
        reason = cast("ControlRequest", ask.body).reason or None
        asker = Asker(ask.token, reason)
        outcomes: dict[Call, Standing | ControlFault] = {}

        async def control(call: Call) -> None:
            try:
                outcomes[call] = await getattr(call.control, action)(asker)
            except ControlError as error:
                outcomes[call] = ControlFault(error.fault)

        # All sessions that are live: one that a client has given up may be among
        # them, and the audio may be in either.
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(control, call)
        faults = [each for each in outcomes.values() if isinstance(each, ControlFault)]
        self._around.log.info(
            "call_controlled",
            action=action,
            token=ask.token,
            conversation=conversation,
            sessions=len(calls),
            faults=sorted(faults),
        )
        # One that is over meanwhile records nothing; all others count.
        worse = [each for each in faults if each is not ControlFault.OVER]
        if worse or len(faults) == len(calls):
            raise ProblemError(Code(worse[0] if worse else faults[0]))
        done = [
            _controlled(call.session_id, each)
            for call, each in outcomes.items()
            if not isinstance(each, ControlFault)
        ]
        return Controlled(conversation=conversation, sessions=done)

    async def _absence(self, conversation: str) -> Code:
        """Tell why a conversation has no live call here."""
        if self._presence.spooled_of(conversation):
            return Code.OVER
        others = await self._presence.elsewhere_of(conversation)
        if any(other.held for other in others):
            return Code.ELSEWHERE
        query = Query(conversation=conversation)
        if others or await self._around.index.search(query, 1):
            return Code.OVER
        return Code.NOT_FOUND


def _controlled(session: str, standing: Standing) -> ControlledSession:
    asker = standing.asker
    return ControlledSession(
        session=session,
        held=standing.held,
        since=None if asker is None else standing.since,
        by=None if asker is None else asker.by,
        reason=None if asker is None else asker.reason,
    )
