"""Transcription by events that a queue brings: ``audiohook worker``.

A message is an event of the bucket, and stays in the queue until the transcript of
its call is stored. Meanwhile it is hidden from others, again and again for a short
while, so that it comes back soon if this process dies. What fails goes back with a
growing pause; what cannot be understood goes back too, and is never deleted: the
queue puts it aside after as many receives as its redrive policy says.

If the service or the account or the bucket is at fault, nothing more is received, and
what is in hand stays there and tries again, one after the other, until something gets
through. So a bad key puts nothing aside, however long it takes to be mended.
"""

from __future__ import annotations

import math
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.breaker import Breaker
from audiohook.errors import AudioHookError, QueueError, UnfinishedError
from audiohook.transcription.errand import Outcome, Patience
from audiohook.transcription.notices import NoticeError, read_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.elsewhere import Elsewhere
    from audiohook.sqs import Message

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

HIDDEN: Final = 2 * MINUTES
"""So long a message is hidden from others at a time."""

_RENEWAL: Final = HIDDEN / 3
# Amazon hides no message for more than twelve hours in all.
_PATIENCE: Final = 11 * HOURS
# A message that failed comes back after so long, and then later each time.
_FIRST_DELAY: Final = 30 * SECONDS
_LONGEST_DELAY: Final = 15 * MINUTES
# After the queue itself has failed.
_FIRST_PAUSE: Final = 1 * SECONDS
_LONGEST_PAUSE: Final = 30 * SECONDS
# After SIGTERM, for a request that is under way.
_DRAIN: Final = 30 * SECONDS
_GIVE_BACK: Final = 10 * SECONDS
# How often a fault that all calls meet is told.
_TELL_INTERVAL: Final = 1 * MINUTES


class MessageQueue(Protocol):
    """A queue, see `audiohook.sqs.Queue`."""

    async def most_receives(self) -> int | None:
        """Return after how many receives a message is put aside; None for never."""

    async def receive(self, most: int, hidden: int) -> list[Message]:
        """Wait for messages for a while."""

    async def delete(self, message: Message) -> None:
        """Delete a message."""

    async def hide(self, message: Message, seconds: float) -> None:
        """Say when a message comes again."""


@dataclass(slots=True)
class WorkerStatistics:
    """What a worker has done.

    Attributes:
        received: Messages received.
        completed: Transcripts stored.
        failed: Files that will not get one.
        left_alone: Files that were at their end, or are none of our business.
        returned: Messages that went back into the queue.
        active: Messages in hand.
    """

    received: int = 0
    completed: int = 0
    failed: int = 0
    left_alone: int = 0
    returned: int = 0
    active: int = 0

    def count(self, outcome: Outcome) -> None:
        """Count what came of a file."""
        match outcome:
            case Outcome.COMPLETED:
                self.completed += 1
            case Outcome.FAILED:
                self.failed += 1
            case Outcome.LEFT_ALONE:
                self.left_alone += 1


class Worker:
    """Has calls transcribed that a queue tells of.

    Args:
        queue: Where events come from.
        elsewhere: Transcribes.
        log: For lines about messages.
        parallel: Most messages in hand at a time.
        jitter: Returns numbers from 0 up to 1.

    Attributes:
        statistics: What it has done so far.
    """

    def __init__(
        self,
        queue: MessageQueue,
        elsewhere: Elsewhere,
        *,
        log: FilteringBoundLogger,
        parallel: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._elsewhere = elsewhere
        self._log = log
        self._parallel = parallel
        self._breaker: Breaker[AudioHookError] = Breaker(jitter)
        self._patiences: set[Patience] = set()
        self._most_receives: int | None = None
        self._stopping = False
        self._told_at = -math.inf
        self._change = trio.Event()
        self.statistics = WorkerStatistics()

    def stop(self) -> None:
        """Has it receive nothing more, and give back what is not done."""
        self._stopping = True
        for patience in self._patiences:
            patience.end()
        self._wake()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Works until it is stopped and nothing is in hand.

        Raises:
            QueueError: The queue cannot be used, and somebody has to mend that.

        *Cancellation:* Messages go back at once.
        """
        self._most_receives = await self._queue.most_receives()
        self._log.info("worker_started", most_receives=self._most_receives)
        if self._most_receives is None:
            self._log.warning(
                "queue_without_redrive",
                mend="set a redrive policy, or what cannot be done comes for ever",
            )
        task_status.started()
        async with trio.open_nursery() as nursery:
            while not self._stopping:
                most = await self._wait_room()
                if most:
                    await self._receive(most, nursery)

    async def _wait_room(self) -> int:
        """Waits until messages may be received; how many."""
        while not self._stopping:
            free = self._parallel - self.statistics.active
            if self._breaker.is_open:
                # Those in hand try, or else a single one does.
                free = 0 if self.statistics.active else 1
            at = self._breaker.next_at if free > 0 else math.inf
            if at <= trio.current_time():
                return free
            await self._wait_change(at)
        return 0

    async def _wait_change(self, until: float) -> None:
        with trio.move_on_at(until):
            await self._change.wait()

    async def _wait_trial(self, patience: Patience) -> int:
        """Waits until the service may be tried; the attempt, or 0 if there is no time."""
        while trio.current_time() < patience.until:
            at = self._breaker.next_at
            if at <= trio.current_time():
                return self._breaker.begin()
            await self._wait_change(min(at, patience.until))
        return 0

    async def _receive(self, most: int, nursery: trio.Nursery) -> None:
        attempt = self._breaker.begin()
        messages = await self._receive_surely(most)
        if not messages:
            self._breaker.end(attempt)
        for message in messages:
            self.statistics.received += 1
            self.statistics.active += 1
            nursery.start_soon(self._take, message, attempt)

    async def _receive_surely(self, most: int) -> list[Message]:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._queue.receive(most, round(HIDDEN))
            except QueueError as error:
                if not error.retryable:
                    raise
                self._log.warning("queue_fails", error=str(error))
            if self._stopping:
                return []
            await self._wait_change(trio.current_time() + pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take(self, message: Message, attempt: int) -> None:
        """Sees to one message, whatever comes of it."""
        back: float | None = 0.0
        patience = Patience(trio.current_time() + _PATIENCE)
        self._patiences.add(patience)
        if self._stopping:
            patience.end()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_hidden, message)
                back = await self._see_to(message, patience, attempt)
                nursery.cancel_scope.cancel()
        finally:
            self._patiences.discard(patience)
            with trio.move_on_after(_GIVE_BACK, shield=True):
                await self._put_back_or_delete(message, back)
            self.statistics.active -= 1
            self._breaker.end(attempt)
            self._wake()

    async def _see_to(
        self, message: Message, patience: Patience, attempt: int
    ) -> float | None:
        """Has the calls of a message transcribed.

        Returns:
            After how many seconds the message is to come again; None if never.
        """
        try:
            notices = read_message(message.body)
        except NoticeError as error:
            return self._returned(message, str(error), 0.0)
        failure: UnfinishedError | None = None
        for key in {each.key for each in notices if self._elsewhere.concerns(each)}:
            try:
                self._succeeded(await self._see_to_file(key, patience, attempt))
            except UnfinishedError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - the edge: other calls must not notice
                self._log.error("errand_failed", audio=key, exc_info=error)
                failure = UnfinishedError("unexpected failure")
        if failure is None:
            return None
        if self._stopping:
            return 0.0
        return self._returned(message, str(failure), failure.seconds)

    async def _see_to_file(self, key: str, patience: Patience, attempt: int) -> Outcome:
        """Has one call transcribed, and waits while nothing gets through at all."""
        while True:
            try:
                return await self._elsewhere.errands.see_to(key, patience)
            except UnfinishedError as error:
                if not error.is_common:
                    raise
                failure = error
                self._note_fault(error, attempt)
            finally:
                self._breaker.end(attempt)
                self._wake()
            attempt = await self._wait_trial(patience)
            if not attempt:
                raise failure

    def _succeeded(self, outcome: Outcome) -> None:
        self.statistics.count(outcome)
        if outcome is Outcome.LEFT_ALONE:
            return
        if self._breaker.is_open:
            self._log.info("transcription_works_again")
        self._breaker.succeed()
        self._told_at = -math.inf
        self._wake()

    def _note_fault(self, error: UnfinishedError, attempt: int) -> None:
        now = trio.current_time()
        self._breaker.fail(attempt, error, now, lasting=True)
        if now - self._told_at >= _TELL_INTERVAL:
            self._told_at = now
            self._log.error(
                "transcription_needs_mending",
                error=str(error),
                in_hand=self.statistics.active,
            )

    def _returned(self, message: Message, reason: str, seconds: float) -> float:
        """Says that a message goes back; returns for how long it is hidden."""
        most, receives = self._most_receives, message.receives
        delay = min(_FIRST_DELAY * 2.0 ** min(receives - 1, 16), _LONGEST_DELAY)
        about = {"message": message.id, "receives": receives, "error": reason}
        if most is not None and receives >= most:
            self._log.error("message_put_aside", **about)
        else:
            self._log.warning("message_returned", **about)
        return max(delay, seconds)

    async def _keep_hidden(self, message: Message) -> None:
        while True:
            await trio.sleep(_RENEWAL)
            try:
                await self._queue.hide(message, HIDDEN)
            except QueueError as error:
                # If it comes again meanwhile, its job is in our hands nonetheless.
                self._log.debug("message_not_hidden", error=str(error))

    async def _put_back_or_delete(self, message: Message, back: float | None) -> None:
        try:
            if back is None:
                await self._queue.delete(message)
            else:
                self.statistics.returned += 1
                await self._queue.hide(message, back)
        except QueueError as error:
            # It comes again; then it is left alone, or done.
            self._log.warning(
                "message_not_settled", message=message.id, error=str(error)
            )

    def _wake(self) -> None:
        self._change.set()
        self._change = trio.Event()


async def work_until_told(worker: Worker, log: FilteringBoundLogger) -> None:
    """Runs a worker until SIGTERM or SIGINT.

    What is under way at the service gets half a minute; the second signal ends it
    at once. In either case messages go back.

    Raises:
        QueueError: The queue cannot be used, and somebody has to mend that.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for _ in signals:
                    if nursery.cancel_scope.deadline < math.inf:
                        nursery.cancel_scope.cancel()
                    nursery.cancel_scope.deadline = trio.current_time() + _DRAIN
                    log.info("worker_stopping", in_hand=worker.statistics.active)
                    worker.stop()

            nursery.start_soon(listen)
            await worker.run()
            nursery.cancel_scope.cancel()
    done = worker.statistics
    log.info(
        "worker_stopped",
        received=done.received,
        completed=done.completed,
        failed=done.failed,
        left_alone=done.left_alone,
        returned=done.returned,
    )
