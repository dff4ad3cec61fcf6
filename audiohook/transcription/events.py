"""A function of AWS Lambda that has calls transcribed as they come into the bucket.

The function is `handler`. What wakes it is an event of S3, in any of these ways:

* S3 → queue → function, which is what ``deploy/cloudformation.yml`` sets up. Each
  message is a call. Those that are not done go back to the queue, and the function
  says which, so that the others of the batch are not repeated.
* S3 → function, or EventBridge → function. If a call is not done the function raises,
  and Lambda tries again: only twice, so this is for small places.

The function is paid for as long as it waits for a transcript, though most are there
in less than a minute. It submits a job and then asks how far that is, for
`PATIENCE` at most where a queue brings the event back, or as long as it has time
where nobody does so for long. Then it ends, and the next delivery goes on with the
same job. Webhooks would save that minute, and would need a public address with a
function of its own; to end at once after the submit would save it too, but each call
would then be delivered twice at least, and have its transcript later than need be.

It is safe to deliver an event any number of times, also at once: see
`audiohook.transcription.errand`. Settings come from the environment; the key for
AssemblyAI had better be in the Parameter Store (ASSEMBLYAI_API_KEY_PARAMETER), since
whoever may look at the function can read its environment.
"""

from __future__ import annotations

import functools
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import trio

from audiohook import logs
from audiohook.aws_secrets import fetch_parameter
from audiohook.elsewhere import Elsewhere, find_key, transcribing_elsewhere
from audiohook.errors import AudioHookError, UnfinishedError
from audiohook.settings import Settings, load
from audiohook.transcription.errand import Patience
from audiohook.transcription.notices import Notice, NoticeError, read_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import FilteringBoundLogger

SECONDS = 1.0

PATIENCE: Final = 60 * SECONDS
"""How long a call is waited for if a queue brings it back."""

# Of the time that Lambda gives, this is kept to end a request and let go of jobs.
_MARGIN: Final = 20 * SECONDS
# At this time before Lambda ends the process, everything is dropped.
_LAST_MOMENT: Final = 3 * SECONDS
# Events may come in batches.
_AT_ONCE: Final = 10


class LambdaContext(Protocol):
    """What Lambda says about an invocation, as far as we look."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how much time is left."""


class EventsFailedError(AudioHookError):
    """Not all calls of an event are done: it has to be delivered again."""


def handler(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Have all calls transcribed that an event tells of.

    Args:
        event: Of S3, or of a queue with such events in it.
        context: Tells how much time there is.

    Returns:
        For events of a queue, which of its messages are to come again, as Lambda
        wants it with ``ReportBatchItemFailures``; otherwise nothing of interest.

    Raises:
        EventsFailedError: An event of S3 is to come again.
        ConfigError: A setting is missing or wrong.

    Source: AWS Lambda Developer Guide, "Handling errors for an SQS event source".
    """
    deadline = context.get_remaining_time_in_millis() / 1000
    settings = load()
    log = _start_log(settings)
    try:
        key = find_key(settings, _known_parameter)
    except AudioHookError as error:
        log.error("event_failed", error=str(error))
        raise
    return trio.run(partial(_see_to, event, settings, key, deadline, log))


def _start_log(settings: Settings) -> FilteringBoundLogger:
    os.environ.update(settings.aws_environment())
    logs.configure("json", logs.LEVELS[settings.log_level])
    log: FilteringBoundLogger = structlog.get_logger(logs.OWN_LOGGERS)
    return log


# The process outlives an invocation; to read the key each time would be throttled.
_known_parameter = functools.lru_cache(maxsize=1)(fetch_parameter)


async def _see_to(
    event: Mapping[str, Any],
    settings: Settings,
    key: str,
    deadline: float,
    log: FilteringBoundLogger,
) -> dict[str, Any]:
    batch = _Batch(event)
    now = trio.current_time()
    seconds = max(deadline - _MARGIN, deadline / 2)
    if batch.comes_again:
        seconds = min(seconds, PATIENCE)
    patience = Patience(now + seconds)
    async with transcribing_elsewhere(settings, key, log=log) as elsewhere:
        with trio.move_on_at(now + max(0.0, deadline - _LAST_MOMENT)):
            await batch.see_to_all(elsewhere, patience)
    for number, error in batch.unfinished.items():
        log.warning("event_failed", message=batch.names[number], error=error)
    if batch.unfinished:
        # It may be the key that has changed.
        _known_parameter.cache_clear()
    return batch.answer()


class _Batch:
    """The events of an invocation, each with what came of it.

    Args:
        event: As Lambda hands it over.

    Attributes:
        comes_again: Whether a queue delivers each event again that failed.
        names: Ids of their messages, or empty.
        unfinished: What is wrong with events, by their number; as long as they are
            under way, that there was no time.
    """

    def __init__(self, event: Mapping[str, Any]) -> None:
        records = event.get("Records") if isinstance(event, dict) else None
        messages = [
            record
            for record in (records if isinstance(records, list) else [])
            if isinstance(record, dict) and record.get("eventSource") == "aws:sqs"
        ]
        self.comes_again = bool(messages)
        self._events: list[object] = (
            [{"Records": [message]} for message in messages] if messages else [event]
        )
        self.names = [str(message.get("messageId", "")) for message in messages] or [""]
        self.unfinished = dict.fromkeys(range(len(self._events)), "there was no time")

    async def see_to_all(self, elsewhere: Elsewhere, patience: Patience) -> None:
        limiter = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for number in range(len(self._events)):
                nursery.start_soon(
                    self._see_to_one, number, elsewhere, patience, limiter
                )

    async def _see_to_one(
        self,
        number: int,
        elsewhere: Elsewhere,
        patience: Patience,
        limiter: trio.CapacityLimiter,
    ) -> None:
        async with limiter:
            try:
                notices = read_event(self._events[number])
            except NoticeError as error:
                self.unfinished[number] = str(error)
                return
            failures = await _see_to_notices(elsewhere, notices, patience)
        if failures:
            self.unfinished[number] = "; ".join(failures)
        else:
            del self.unfinished[number]

    def answer(self) -> dict[str, Any]:
        """Return what Lambda is to be told, or raise if that is how to tell it."""
        if self.comes_again:
            failed = [{"itemIdentifier": self.names[each]} for each in self.unfinished]
            return {"batchItemFailures": failed}
        for error in self.unfinished.values():
            raise EventsFailedError(error)
        return {}


async def _see_to_notices(
    elsewhere: Elsewhere, notices: list[Notice], patience: Patience
) -> list[str]:
    """See to the objects of one event; return how each failed that is not done."""
    failures: dict[str, str] = {}
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def see_to(key: str) -> None:
        async with limiter:
            try:
                await elsewhere.errands.see_to(key, patience)
            except UnfinishedError as error:
                failures[key] = f"{key}: {error}"
            except Exception as error:  # the edge: other calls must not notice
                elsewhere.log.error("errand_failed", audio=key, exc_info=error)
                failures[key] = f"{key}: unexpected failure"

    async with trio.open_nursery() as nursery:
        for key in {each.key for each in notices if elsewhere.concerns(each)}:
            nursery.start_soon(see_to, key)
    return list(failures.values())
