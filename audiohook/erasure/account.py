"""What the transcription service has of a call, and its removal there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from audiohook.errors import TranscriptError
from audiohook.transcription.base import TranscriptFault, TranscriptStatus
from audiohook.transcription.ledger import Query, search

if TYPE_CHECKING:
    from collections.abc import Collection

    from audiohook.erasure.order import Asked
    from audiohook.transcription.assemblyai import AssemblyAI
    from audiohook.transcription.base import TranscriptPage

SECONDS = 1.0
MINUTES = 60 * SECONDS

# The clocks of two machines, and the time that a request takes.
_SLACK: Final = 5 * MINUTES
_ENDED: Final = frozenset({TranscriptStatus.COMPLETED, TranscriptStatus.ERROR})


class Account:
    """The account at the service.

    Args:
        service: Sends requests.
    """

    def __init__(self, service: AssemblyAI) -> None:
        self._service = service

    async def forget(self, transcript_id: str) -> bool:
        """Have the service forget a job, and make sure that it has.

        Returns:
            False if it still runs: it cannot be deleted before it has ended.

        Raises:
            TranscriptError: The service did not do as asked.

        Source: AssemblyAI's API, tried: to delete a job that runs is answered as if
        there were none, and it keeps its text in the end.
        """
        try:
            await self._service.delete(transcript_id)
        except TranscriptError as error:
            if error.fault != TranscriptFault.NOT_FOUND:
                raise
        try:
            found = await self._service.get(transcript_id)
        except TranscriptError as error:
            if error.fault == TranscriptFault.NOT_FOUND:
                return True
            raise
        if found.deleted:
            return True
        if found.status in _ENDED:
            # It has ended just now.
            await self._service.delete(transcript_id)
            return (await self._service.get(transcript_id)).deleted
        return False

    async def look_up(
        self, asked: Collection[Asked], known: Collection[str]
    ) -> list[str]:
        """Look for jobs of which nobody knows whether they were made.

        Args:
            asked: What was asked for.
            known: Ids of jobs that are known.

        Returns:
            Ids of others that are there.

        Raises:
            TranscriptError: The list could not be read.
        """
        found: set[str] = set()
        while True:
            queries = [
                Query(each.audio_url, each.at - _SLACK, frozenset({*known, *found}))
                for each in asked
            ]
            more = {each for each in await search(self._page, queries) if each}
            if not more - found:
                return sorted(found)
            found |= more

    async def _page(self, before_id: str | None) -> TranscriptPage:
        return await self._service.list_page(before_id=before_id)
