"""How the log looks and where it goes.

Everything goes to standard error through one handler of the standard library:
our own lines, which are structlog's, and those of the libraries we use. The
handler also stands between a call and a log that cannot be written: it says so
and goes on, and the call is none the wiser.

Text that came from a peer may hold line breaks or terminal commands. JSON
escapes them; for the console they are escaped here.

What a peer can cause at will is limited: our own lines by a `Limiter`, those of
the libraries in the handler.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from structlog.typing import (
        EventDict,
        ExcInfo,
        FilteringBoundLogger,
        Processor,
        WrappedLogger,
    )

SECONDS = 1.0
MINUTES = 60 * SECONDS

LogFormat = Literal["auto", "json", "console"]

OWN_LOGGERS = "audiohook"
"""Root of our loggers' names; what is not below it counts as a library's."""

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""Levels by the words of the setting ``LOG_LEVEL``."""

# Trio tells by it that a connection could not be accepted, such as for want of files.
_ACCEPTING = "trio.serve_listeners"
# Lines of one kind in an interval, before the rest is only counted.
_LINES = 10
_INTERVAL = 1 * MINUTES


def configure(
    log_format: LogFormat = "auto",
    level: int = logging.INFO,
    *,
    stream: TextIO | None = None,
) -> None:
    """Set up the log of this process; for the command line to call, once.

    Args:
        log_format: ``json`` is one object a line, ``console`` is for reading in
            a terminal; ``auto`` is ``console`` in a terminal and ``json``
            elsewhere, also under systemd.
        level: Least level of our own lines that is written. Libraries are heard
            from WARNING on, or from this if it is higher.
        stream: Where to write instead of standard error.
    """
    stream = sys.stderr if stream is None else stream
    in_terminal = stream.isatty() and "JOURNAL_STREAM" not in os.environ
    if log_format == "json" or (log_format == "auto" and not in_terminal):
        renderers = _json_renderers()
    else:
        renderers = _console_renderers(
            colors=in_terminal and not os.environ.get("NO_COLOR")
        )
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.addFilter(LibraryLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(allow=("held_back",)),
                *shared,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    structlog.configure(
        processors=[
            # Not by structlog's own class of loggers: those that are bound to a
            # call by then would keep the level of old.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def set_level(level: int) -> None:
    """Choose what is written from now on, also by loggers that exist.

    Args:
        level: Least level of our own lines. Libraries are heard from WARNING on,
            or from this if it is higher.
    """
    logging.getLogger().setLevel(max(level, logging.WARNING))
    logging.getLogger(OWN_LOGGERS).setLevel(level)


class Limiter:
    """Keeps lines that a peer can provoke from flooding the log.

    In each interval the first lines of an event name are written; the rest are
    counted, and the count follows as one line once the interval is over: the
    same event with ``held_back`` and ``seconds``. It is written by the next
    line of any event, or by `flush`.

    Not to be shared between threads. Event names must come from a fixed set:
    each is remembered for one interval.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        *,
        lines: int = _LINES,
        interval: float = _INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a limiter.

        Args:
            log: Where lines go.
            lines: Lines of one event name written in an interval.
            interval: Its length in seconds; it begins with the first line.
            clock: Gives the time in seconds.
        """
        self._log = log
        self._lines = lines
        self._interval = interval
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def write(self, level: int, event: str, **values: object) -> None:
        """Write a line, unless there were too many of the kind.

        Args:
            level: Level of the line, as `logging` numbers them.
            event: Event name.
            **values: What belongs to the event.
        """
        now = self._clock()
        self._close_windows(now, self._interval)
        window = self._windows.setdefault(event, _Window(now))
        if window.written < self._lines:
            window.written += 1
            self._log.log(level, event, **values)
        else:
            window.held_back += 1
            window.level = max(window.level, level)

    def flush(self) -> None:
        """Write the counts of what was held back so far, as at the end."""
        self._close_windows(self._clock(), 0)

    def _close_windows(self, now: float, least_age: float) -> None:
        for event, window in list(self._windows.items()):
            age = now - window.began
            if age < least_age:
                continue
            del self._windows[event]
            if window.held_back:
                self._log.log(
                    window.level,
                    event,
                    held_back=window.held_back,
                    seconds=round(age, 3),
                )


@dataclass(slots=True)
class _Window:
    began: float
    written: int = 0
    held_back: int = 0
    level: int = logging.NOTSET


class LibraryLimit(logging.Filter):
    """Keeps libraries from flooding the log, whatever makes them complain.

    A listener that is out of files complains ten times a second with a traceback,
    which is left out, and so may a client about each connection that it loses. In each interval the
    first lines of each logger are let through. The first of a later interval
    tells as ``held_back`` how many there were besides.
    """

    def __init__(
        self,
        *,
        lines: int = _LINES,
        interval: float = _INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a filter for a handler.

        Args:
            lines: Lines of one logger let through in an interval.
            interval: Its length in seconds; it begins with the first line.
            clock: Gives the time in seconds.
        """
        super().__init__()
        self._lines = lines
        self._interval = interval
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        # Libraries also log from worker threads.
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written."""
        name = record.name
        if name == OWN_LOGGERS or name.startswith(OWN_LOGGERS + "."):
            return True
        now = self._clock()
        with self._lock:
            window = self._windows.get(name)
            if window is None or now - window.began >= self._interval:
                if window is not None and window.held_back:
                    record.held_back = window.held_back
                window = self._windows[name] = _Window(now)
            if window.written < self._lines:
                window.written += 1
                if name == _ACCEPTING:
                    # The line itself says what failed; where, is no fault of ours.
                    record.exc_info = None
                return True
            window.held_back += 1
            return False


def _json_renderers() -> list[Processor]:
    # Tracebacks as text: structlog's richer forms show local variables, and
    # those may be secrets.
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]


def _console_renderers(*, colors: bool) -> list[Processor]:
    return [
        _escape_values,
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=_plain_traceback
        ),
    ]


def _escape_values(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    for key, value in event_dict.items():
        if key == "exc_info":  # rendered, and escaped, by `_plain_traceback`
            continue
        text = value if isinstance(value, str) else repr(value)
        if not text.isprintable():
            event_dict[key] = _escape_lines(text) if key == "stack" else _escape(text)
    return event_dict


def _plain_traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    """Render a traceback without local variables, and without terminal commands."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    sio.write(_escape_lines(text.getvalue()))


def _escape_lines(text: str) -> str:
    return "\n".join(map(_escape, text.split("\n")))


def _escape(text: str) -> str:
    """Spell every character that a terminal might obey instead of show."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
