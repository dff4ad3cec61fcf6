"""One round of an order of erasure: all that can be found goes, and is looked for again.

What is on the local disk is removed; what is in the stores is looked for, written
down, and removed, with all its versions; the transcription service is told to forget;
the index forgets; then all of it is looked for again. Whatever a round does can be
done again, so a process that is killed at any point loses nothing but time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from audiohook.erasure import local
from audiohook.erasure.order import Listed, Transcript, TranscriptGone, listed
from audiohook.erasure.places import Search, transcripts_of
from audiohook.storage.traces import WHY_KEPT, remove_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from audiohook.erasure.account import Account
    from audiohook.erasure.ledger import ErasureRecord, Work
    from audiohook.erasure.order import Named, OrderFact, Wanted
    from audiohook.erasure.places import Place
    from audiohook.storage.traces import Kept, Traces

T = TypeVar("T")


class IndexHold(Protocol):
    """The index, as far as it has to forget."""

    async def erase(self, conversation: str, session: str | None = None) -> int:
        """Forget a conversation, or one session of it, to the last byte."""


class EventHold(Protocol):
    """Genesys' events, as far as they have to be forgotten."""

    async def erase(self, conversation: str) -> int:
        """Forget what came of a conversation; returns how many events that were."""


class Teller(Protocol):
    """Whoever tells others what becomes of calls."""

    async def forget(self, conversation: str) -> None:
        """Tell nobody any more what was to be told of a conversation."""

    async def tell(self, wanted: Wanted, record: ErasureRecord) -> None:
        """Tell that it was erased; when this returns that is on the disk."""


class WaitError(Exception):
    """A round has come as far as it can for now."""

    def __init__(
        self, why: str, kept: Iterable[Kept] = (), *, mending: bool = False
    ) -> None:
        super().__init__(why)
        self.why = why
        self.kept = tuple(_told(each) for each in kept)
        self.mending = mending


class Rounds:
    """Makes rounds.

    Args:
        spool: The spool's folder.
        places: Returns all that recordings may be in.
        index: Has to forget.
        account: At the transcription service; None without a key.
        teller: Tells of each order that is done, if anybody wants to know.
        events: What Genesys has told; has to forget, too.
        threads: For what blocks.
    """

    def __init__(
        self,
        *,
        spool: Path,
        places: Callable[[], Sequence[Place]],
        index: IndexHold,
        account: Account | None,
        teller: Teller | None,
        events: EventHold | None,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._spool = spool
        self._search = Search(places)
        self._index = index
        self._account = account
        self._teller = teller
        self._events = events
        self._threads = threads

    async def make(self, work: Work) -> None:
        """Remove all that can be found, and look whether anything is left.

        Raises:
            WaitError: Something is left that cannot be removed now.
            UploadError: The store did not do as asked.
            TranscriptError: The service did not do as asked.
            CallIndexError: The index, or what keeps events, did not do as asked.
            OutboxError: What keeps notifications did not do as asked.
            ErasureError: The spool's disk refused.
        """
        await self._clear_local(work)
        # Whoever else removes a call writes down first what is known of it, so all
        # of that is in the order by now, and may not have been when it was taken.
        await self._blocking(work.refresh)
        doubtful = await self._find(work)
        # Where it is listed, what was asked for may be found late.
        running = await self._forget_transcripts(work)
        kept = await self._remove_objects(work)
        wanted = work.record.wanted
        await self._index.erase(wanted.conversation, wanted.session)
        if self._events is not None and wanted.session is None:
            # They name conversations alone, of which other sessions may stay.
            await self._events.erase(wanted.conversation)
        is_whole = wanted.session is None and work.record.verified is None
        if self._teller is not None and is_whole:
            # What was told of it is forgotten, and then that it was erased is told.
            await self._teller.forget(wanted.conversation)
        if running:
            raise WaitError(f"{running} transcription jobs have to end first", kept)
        if self._account is None and work.record.transcripts.keys() - work.record.gone:
            ids = work.record.transcripts.keys() - work.record.gone
            raise WaitError(
                f"ASSEMBLYAI_API_KEY is not set, and {len(ids)} transcripts may be"
                " at AssemblyAI",
                kept,
                mending=True,
            )
        if kept or doubtful:
            both = [*kept, *doubtful]
            raise WaitError(
                f"{len(both)} things in the store cannot be removed", both, mending=True
            )
        await self._verify(work)

    async def _clear_local(self, work: Work) -> None:
        """Remove what the local disk has.

        Raises:
            WaitError: Somebody still has a call in hand.
        """
        left = await self._blocking(
            partial(
                local.clear,
                self._spool,
                work.record.wanted,
                lambda facts: work.note(*facts),
            )
        )
        if left.live:
            raise WaitError("the call is live")
        if left.held:
            raise WaitError("another process has the call in hand")

    async def _find(self, work: Work) -> list[Kept]:
        """Find recordings in the stores, and write down what there is of them."""
        found = await self._search.find(work.record.wanted)
        new = [each for each in found.named if each not in work.record.named]
        await self._note(work, *new)
        for named in work.record.named:
            traces = self._traces(named)
            there = await traces.below(named.folder)
            facts: list[OrderFact] = [listed(each) for each in there]
            facts += await transcripts_of(traces, there)
            await self._note(work, *(each for each in facts if _is_news(work, each)))
        return found.doubtful

    async def _forget_transcripts(self, work: Work) -> int:
        """Have the service forget all jobs.

        Returns:
            How many still run.
        """
        record = work.record
        if self._account is None:
            return 0
        if record.asked:
            ids = await self._account.look_up(record.asked, record.transcripts)
            await self._note(work, *(Transcript(each) for each in ids))
        running = 0
        for transcript_id in record.transcripts.keys() - record.gone:
            if await self._account.forget(transcript_id):
                await self._note(work, TranscriptGone(transcript_id))
            else:
                running += 1
        return running

    async def _remove_objects(self, work: Work) -> list[Kept]:
        """Remove all that was found in the stores.

        Returns:
            What cannot be removed.
        """
        kept: list[Kept] = []
        for named in work.record.named:
            traces = self._traces(named)
            there = await traces.below(named.folder)
            left = await remove_all(traces, there)
            work.progressed |= len(left) < len(there)
            if not left:
                keys = {each.key for each in work.record.listed}
                inside = [key for key in keys if key.startswith(f"{named.folder}/")]
                await traces.tidy(named.folder, inside)
            kept += left
        return kept

    async def _verify(self, work: Work) -> None:
        """Look for all of it again.

        Raises:
            WaitError: There is something.
        """
        wanted = work.record.wanted
        if not (await self._blocking(local.look, self._spool, wanted)).is_empty:
            raise WaitError("there is something on the local disk again")
        for named in work.record.named:
            there = await self._traces(named).below(named.folder)
            if there:
                raise WaitError("there is something in the store again")
        before = work.record
        await self._blocking(work.refresh)
        if work.record.ordered != before.ordered:
            raise WaitError("it was asked for once more")
        if work.record.leads != before.leads:
            raise WaitError("more of it has turned up")

    def _traces(self, named: Named) -> Traces:
        place = self._search.place(named.place)
        if place is None:
            raise WaitError(
                f"recordings are in {named.place}, which is not among the settings",
                mending=True,
            )
        return place.traces

    async def _note(self, work: Work, *facts: OrderFact) -> None:
        if facts:
            await self._blocking(work.note, *facts)

    async def _blocking(self, work: Callable[..., T], *values: object) -> T:
        return await trio.to_thread.run_sync(
            partial(work, *values), limiter=self._threads
        )


def _is_news(work: Work, fact: OrderFact) -> bool:
    record = work.record
    if isinstance(fact, Listed):
        return fact not in record.listed
    return not isinstance(fact, Transcript) or fact.id not in record.transcripts


def _told(kept: Kept) -> str:
    """Say in a line what could not be removed, and why."""
    version = f" (version {kept.trace.version})" if kept.trace.version else ""
    return f"{kept.trace.kind} {kept.trace.key}{version}: {WHY_KEPT[kept.reason]}" + (
        "" if kept.until is None else f" until {kept.until}"
    )
