"""When each notification is sent, and when it is tried again."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.breaker import Breaker
from audiohook.errors import OutboxError, ReceiverError
from audiohook.logs import Limiter
from audiohook.notify.database import Database
from audiohook.notify.letter import Letter, Settlement, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.notify.outbox import Outbox

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

PARALLEL: Final = 8
"""Requests at a time."""

LIFETIME: Final = 24 * HOURS
"""So long a notification is tried."""

_FIRST_PAUSE: Final = 5 * SECONDS
_LONGEST_PAUSE: Final = 30 * MINUTES
# How often what others have written is looked for, and what is too old.
_LOOK_INTERVAL: Final = 2 * SECONDS
_SWEEP_INTERVAL: Final = 1 * MINUTES
_PRUNE_INTERVAL: Final = 10 * MINUTES
# How often it is tried to become the sender, while another process is.
_LOCK_INTERVAL: Final = 5 * SECONDS
# How long a file that cannot be read is left alone.
_DISK_PAUSE: Final = 5 * SECONDS
_TELL_INTERVAL: Final = 10 * MINUTES


class Takes(Protocol):
    """Whoever is told, see `audiohook.notify.receiver.Receiver`."""

    async def take(self, letter: Letter) -> None:
        """Send a notification, or raise `ReceiverError`."""


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """How the notifications stand.

    Attributes:
        waiting: That wait to be sent.
        dead: That were given up; `audiohook notify --resend` sends them after all.
        oldest_seconds: For how long the oldest one waits; 0 if none does.
        active: That are being sent now.
        sent: That the receiver took so far.
        failures: Tries that failed so far.
        lost: That were never on disk, as that refused for too long.
        is_sender: Whether it is for this process to send.
        fault: Why the receiver is not asked, but for trials; None if it is.
    """

    waiting: int
    dead: int
    oldest_seconds: float
    active: int
    sent: int
    failures: int
    lost: int
    is_sender: bool
    fault: str | None


class Sender:
    """Sends what is in the outbox: one after the other of each conversation.

    What fails waits for a growing, jittered pause, and holds up nothing but what is
    told of the same conversation. If it is the receiver that fails, all wait: one
    after another tries, until something gets through. What cannot be sent in a day
    is given up, and stays in the outbox for a person to see.

    Of all processes that share an outbox one is the sender; when that ends, another
    one is.

    Args:
        outbox: What is to be sent.
        receiver: To whom.
        metrics: Counts.
        log: For lines about notifications.
        jitter: Returns numbers from 0 up to 1.
        look_interval: Seconds after which what other processes have written is looked
            for again.
    """

    def __init__(
        self,
        outbox: Outbox,
        receiver: Takes,
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        jitter: Callable[[], float] = random.random,
        look_interval: float = _LOOK_INTERVAL,
    ) -> None:
        self._outbox = outbox
        self._receiver = receiver
        self._metrics = metrics
        self._log = log
        self._noise = Limiter(log)
        self._jitter = jitter
        self._look_interval = look_interval
        self._breaker: Breaker[ReceiverError] = Breaker(jitter)
        self._in_hand: set[str] = set()
        self._is_sender = False
        self._hold_until = float("-inf")
        self._sent = 0
        self._failures = 0
        self._told_at = float("-inf")
        self._told_of_trouble = False

    def statistics(self) -> NotificationStatistics:
        """Returns how the notifications stand."""
        counts, fault = self._outbox.counts, self._breaker.fault
        oldest = 0.0
        if counts.oldest is not None:
            oldest = max(0.0, round(self._outbox.clock() - counts.oldest, 3))
        return NotificationStatistics(
            waiting=counts.waiting,
            dead=counts.dead,
            oldest_seconds=oldest,
            active=len(self._in_hand),
            sent=self._sent,
            failures=self._failures,
            lost=self._outbox.lost,
            is_sender=self._is_sender,
            fault=None if fault is None else str(fault),
        )

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Sends until cancelled.

        *Cancellation:* What is under way may arrive again, with the same id.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            await self._try_to_become_sender()
            task_status.started()
            while not self._is_sender:
                await trio.sleep(_LOCK_INTERVAL)
                await self._try_to_become_sender()
            # What kept it from being sent may be mended by now.
            await self._hasten()
            nursery.start_soon(self._sweep)
            while True:
                for letter in await self._next():
                    attempt = self._breaker.begin()
                    self._in_hand.add(letter.id)
                    nursery.start_soon(self._send, letter, attempt)

    async def wait_settled(self) -> None:
        """Waits until nothing is left that may be sent now.

        While the receiver fails as such, that is so at once.

        Raises:
            OutboxError: The file cannot be read.
        """
        while self._is_sender:
            changed, now = self._outbox.changed, self._outbox.clock()
            waits = await self._outbox.ask(lambda database: database.heads(now, 1))  # noqa: B023 - awaited
            if not self._in_hand and (self._breaker.is_open or not waits):
                return
            await changed.wait()

    # Who is next

    async def _try_to_become_sender(self) -> None:
        try:
            self._is_sender = await self._outbox.ask(Database.become_sender)
        except OutboxError as error:
            self._complain_of_disk(error)

    async def _next(self) -> list[Letter]:
        """Waits until something may be sent, and returns that."""
        while True:
            changed = self._outbox.changed
            now = trio.current_time()
            free = PARALLEL - len(self._in_hand)
            at = max(self._breaker.next_at, self._hold_until)
            wake = now + _SWEEP_INTERVAL
            if free > 0 and at <= now:
                try:
                    found, wake = await self._find(free)
                except OutboxError as error:
                    self._complain_of_disk(error)
                    wake = now + _DISK_PAUSE
                else:
                    if found:
                        return found
            elif free > 0:
                wake = min(wake, at)
            with trio.move_on_at(wake):
                await changed.wait()

    async def _find(self, free: int) -> tuple[list[Letter], float]:
        """Returns what may be sent, or else when to look again."""
        now, in_hand = self._outbox.clock(), frozenset(self._in_hand)
        is_open = self._breaker.is_open
        # Those in hand are among the first.
        limit = free + len(in_hand)

        def look(database: Database) -> tuple[list[Letter], float | None]:
            found = database.heads(now, limit, fewest_tries=is_open)
            return found, None if found else database.next_due(now)

        found, due = await self._outbox.ask(look)
        fresh = [each for each in found if each.id not in in_hand]
        pause = _SWEEP_INTERVAL if due is None else min(due - now, _SWEEP_INTERVAL)
        # One at a time as long as nobody knows whether it takes any.
        return fresh[: 1 if is_open else free], trio.current_time() + max(pause, 0.0)

    # What comes of it

    async def _send(self, letter: Letter, attempt: int) -> None:
        error: ReceiverError | None = None
        try:
            await self._receiver.take(letter)
        except ReceiverError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - the edge: others must not notice
            self._log.error("notification_failed", exc_info=exc)
            error = ReceiverError("unexpected failure", is_common=False)
        try:
            if error is None:
                settlement = await self._succeeded(letter)
            else:
                settlement = self._failed(letter, error, attempt)
            self._breaker.end(attempt)
            await self._outbox.settle(settlement).wait()
        finally:
            self._in_hand.discard(letter.id)
            self._outbox.wake()

    async def _succeeded(self, letter: Letter) -> Settlement:
        was_open = self._breaker.is_open
        self._breaker.succeed()
        self._sent += 1
        self._metrics.notifications.labels("sent").inc()
        now = self._outbox.clock()
        if was_open:
            if self._told_of_trouble:
                self._told_of_trouble = False
                self._log.info(
                    "receiver_works_again", waiting=self._outbox.counts.waiting
                )
            await self._hasten()
        return Settlement(letter.id, Standing.SENT, at=now)

    async def _hasten(self) -> None:
        """Has all be tried now that wait for their next try."""
        now = self._outbox.clock()
        try:
            await self._outbox.ask(lambda database: database.hasten(now))
        except OutboxError as error:
            self._complain_of_disk(error)

    def _failed(self, letter: Letter, error: ReceiverError, attempt: int) -> Settlement:
        self._failures += 1
        self._metrics.notifications.labels("failed").inc()
        now = self._outbox.clock()
        if error.is_common:
            self._breaker.fail(
                attempt, error, trio.current_time(), lasting=error.lasting
            )
            if error.retry_after is not None:
                until = trio.current_time() + error.retry_after
                self._hold_until = max(self._hold_until, until)
            self._tell_of_trouble()
        else:
            # It answers, so that it is worth asking.
            self._breaker.succeed()
        if error.gone or now - letter.since >= LIFETIME:
            self._metrics.notifications.labels("dead").inc()
            self._noise.write(
                logging.ERROR,
                "notification_dead",
                notification=letter.id,
                kind=letter.kind,
                error=str(error),
                tries=letter.tries + 1,
                mend="`audiohook notify --resend` sends it after all",
            )
            return Settlement(letter.id, Standing.DEAD, str(error), now)
        pause = min(_FIRST_PAUSE * 2.0 ** min(letter.tries, 16), _LONGEST_PAUSE)
        pause *= 0.5 + self._jitter() / 2
        if not self._breaker.is_open:
            self._noise.write(
                logging.WARNING,
                "notification_not_sent",
                notification=letter.id,
                kind=letter.kind,
                error=str(error),
                again_in=round(pause, 1),
            )
        return Settlement(letter.id, Standing.WAITING, str(error), now + pause)

    # What happens beside

    async def _look(self) -> None:
        """Looks for what other processes have written, and counts."""
        version: int | None = None
        while True:
            try:
                found = await self._outbox.ask(Database.version)
                if found != version:
                    version = found
                    self._outbox.wake()
                await self._outbox.count()
            except OutboxError as error:
                self._complain_of_disk(error)
            await trio.sleep(self._look_interval)

    async def _sweep(self) -> None:
        """Gives up what is too old, while the receiver fails, and clears away."""
        pruned_at = float("-inf")
        while True:
            try:
                await self._expire()
                if trio.current_time() - pruned_at >= _PRUNE_INTERVAL:
                    pruned_at = trio.current_time()
                    await self._prune()
            except OutboxError as error:
                self._complain_of_disk(error)
            await trio.sleep(_SWEEP_INTERVAL)

    async def _prune(self) -> None:
        now = self._outbox.clock()
        await self._outbox.ask(lambda database: database.prune(now))

    async def _expire(self) -> None:
        fault = self._breaker.fault
        if fault is None:
            # They are tried first.
            return
        now, reason = self._outbox.clock(), str(fault)
        dead = await self._outbox.ask(
            lambda database: database.expire(now - LIFETIME, reason, now)
        )
        if dead:
            self._metrics.notifications.labels("dead").inc(dead)
            self._log.error(
                "notifications_dead",
                notifications=dead,
                error=reason,
                mend="`audiohook notify --resend --all` sends them after all",
            )

    def _tell_of_trouble(self) -> None:
        """Says every ten minutes what is wrong, however many wait."""
        fault, now = self._breaker.fault, trio.current_time()
        if fault is None or now - self._told_at < _TELL_INTERVAL:
            return
        self._told_at = now
        self._told_of_trouble = True
        self._log.log(
            logging.ERROR if fault.lasting else logging.WARNING,
            "receiver_needs_mending" if fault.lasting else "receiver_fails",
            error=str(fault),
            waiting=self._outbox.counts.waiting,
        )

    def _complain_of_disk(self, error: OutboxError) -> None:
        self._noise.write(logging.ERROR, "outbox_refuses", error=str(error))
