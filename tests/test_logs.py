"""The log's two forms, its manners towards hostile text, and its limiter."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING, get_args

import pytest
import structlog

from audiohook import logs
from audiohook.logs import Limiter, configure
from audiohook.setting_values import LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "a\nb\x1b[2Jc\x9bd\u202ee\x7f\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    levels = logging.root.level, logging.getLogger(logs.OWN_LOGGERS).level
    logger_class = logging.getLoggerClass()
    yield
    structlog.reset_defaults()
    logging.setLoggerClass(logger_class)
    logging.root.setLevel(levels[0])
    logging.getLogger(logs.OWN_LOGGERS).setLevel(levels[1])


def logger() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audiohook.test")
    return log


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    logger().bind(call="c1").info("call_opened", channels=2, path=None)
    (line,) = lines(stream)
    timestamp = line.pop("timestamp")
    assert line == {
        "event": "call_opened",
        "level": "info",
        "call": "c1",
        "channels": 2,
        "path": None,
    }
    assert isinstance(timestamp, str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", timestamp)


@pytest.mark.parametrize(
    ("stream", "journal", "is_json"),
    [
        (io.StringIO(), False, True),
        (Terminal(), False, False),
        (Terminal(), True, True),
    ],
)
def test_auto_is_console_in_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, journal: bool, is_json: bool
) -> None:
    if journal:
        monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    configure(stream=stream)
    logger().info("hello")
    assert stream.getvalue().startswith("{") == is_json


@pytest.mark.parametrize(
    ("stream", "no_color", "colored"),
    [(Terminal(), "", True), (Terminal(), "1", False), (io.StringIO(), "", False)],
)
def test_console_colours_in_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, no_color: str, colored: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    configure("console", stream=stream)
    logger().info("hello")
    assert ("\x1b[" in stream.getvalue()) == colored


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_hostile_text_stays_on_its_line(log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    configure(log_format, stream=stream)
    logger().info(
        HOSTILE,
        text=HOSTILE,
        inner={"k": [HOSTILE]},
        raw=HOSTILE.encode("utf-8", "surrogatepass"),
    )
    logger().info("custom", value=Hostile())
    logging.getLogger("wsproto").warning("peer said %s", HOSTILE)
    written = stream.getvalue()
    assert written.count("\n") == 3
    assert written.replace("\n", "").isprintable()


class Hostile:
    def __repr__(self) -> str:
        return HOSTILE


def test_hostile_text_in_json_is_kept() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    logger().info("x", text=HOSTILE)
    assert lines(stream)[0]["text"] == HOSTILE


def test_console_leaves_ordinary_text_alone() -> None:
    stream = io.StringIO()
    configure("console", stream=stream)
    logger().info("hello", name="Jürgen", count=3, path="/a/b")
    assert re.search(r"hello +count=3 name=Jürgen path=/a/b$", stream.getvalue())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_traceback_shows_no_local_variables(log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    configure(log_format, stream=stream)
    password = "hu" + "sh"
    try:
        raise ValueError("bad\x1b[2J " + str(len(password)))
    except ValueError:
        logger().exception("call_failed")
    written = stream.getvalue()
    assert "Traceback" in written
    assert "ValueError: bad" in written
    assert "\x1b" not in written
    assert "hush" not in written
    if log_format == "console":
        assert written.count("\n") > 3


def test_stack_keeps_its_lines_in_console() -> None:
    stream = io.StringIO()
    configure("console", stream=stream)
    logger().info("here", stack_info=True)
    assert stream.getvalue().count("\n") > 3


def test_libraries_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    configure("json", logging.DEBUG, stream=stream)
    for name in ("trio-websocket", "wsproto", "botocore.endpoint"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble %d", 7)
    logger().debug("ours")
    assert [(line.get("logger"), line["event"]) for line in lines(stream)] == [
        ("trio-websocket", "trouble 7"),
        ("wsproto", "trouble 7"),
        ("botocore.endpoint", "trouble 7"),
        (None, "ours"),
    ]


def test_traceback_of_a_library_is_rendered_too() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("botocore").exception("failed")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert "ValueError: bad" in str(line["exception"])


def test_level_holds_for_ours_and_theirs() -> None:
    stream = io.StringIO()
    configure("json", logging.ERROR, stream=stream)
    logger().warning("no")
    logging.getLogger("wsproto").warning("no")
    logger().error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_log_that_cannot_be_written_harms_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    configure("json", stream=Broken())
    logger().info("lost")
    assert "BrokenPipeError" in capsys.readouterr().err


def test_configured_twice_writes_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("json", stream=first)
    log = logger()
    configure("json", stream=second)
    log.info("hello")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure("json", stream=stream)
    return stream


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(logger(), lines=2, interval=60, clock=clock)


def written(stream: io.StringIO) -> list[dict[str, object]]:
    found = lines(stream)
    stream.seek(0)
    stream.truncate()
    for line in found:
        del line["timestamp"]
    return found


def test_limiter_counts_what_it_holds_back(
    stream: io.StringIO, clock: Clock, limiter: Limiter
) -> None:
    for number in range(5):
        limiter.write(logging.INFO, "refused", number=number)
    line = {"event": "refused", "level": "info"}
    assert written(stream) == [{**line, "number": 0}, {**line, "number": 1}]
    clock.now += 59.9
    limiter.write(logging.WARNING, "refused", number=5)
    limiter.write(logging.INFO, "refused", number=6)
    assert written(stream) == []
    clock.now += 0.1
    limiter.write(logging.INFO, "refused", number=7)
    assert written(stream) == [
        {"event": "refused", "level": "warning", "held_back": 5, "seconds": 60.0},
        {**line, "number": 7},
    ]


def test_limiter_keeps_events_apart(stream: io.StringIO, limiter: Limiter) -> None:
    for _ in range(3):
        limiter.write(logging.INFO, "a")
        limiter.write(logging.INFO, "b")
    assert [line["event"] for line in written(stream)] == ["a", "b", "a", "b"]


def test_limiter_count_follows_with_another_event(
    stream: io.StringIO, clock: Clock, limiter: Limiter
) -> None:
    for _ in range(3):
        limiter.write(logging.INFO, "a")
    clock.now += 100
    written(stream)
    limiter.write(logging.INFO, "b")
    first, second = written(stream)
    assert (first["event"], first["held_back"], first["seconds"]) == ("a", 1, 100.0)
    assert second["event"] == "b"


def test_limiter_says_nothing_of_nothing(
    stream: io.StringIO, clock: Clock, limiter: Limiter
) -> None:
    for _ in range(5):
        limiter.write(logging.INFO, "a")
        clock.now += 60
    limiter.flush()
    assert len(written(stream)) == 5


def test_limiter_flush_begins_anew(
    stream: io.StringIO, clock: Clock, limiter: Limiter
) -> None:
    for _ in range(4):
        limiter.write(logging.INFO, "a")
    clock.now += 5
    written(stream)
    limiter.flush()
    (line,) = written(stream)
    assert (line["held_back"], line["seconds"]) == (2, 5.0)
    limiter.flush()
    limiter.write(logging.INFO, "a")
    assert len(written(stream)) == 1


def test_level_changes_for_loggers_that_exist() -> None:
    stream = io.StringIO()
    configure("json", logging.WARNING, stream=stream)
    log = logger().bind(session="s")
    log.info("a")
    log.log(logging.INFO, "b")
    logs.set_level(logging.DEBUG)
    log.debug("c")
    logging.getLogger("trio").info("d")
    logs.set_level(logging.ERROR)
    log.warning("e")
    logging.getLogger("trio").warning("f")
    log.error("g")
    assert [line["event"] for line in lines(stream)] == ["c", "g"]


def test_levels_are_those_of_the_setting() -> None:
    assert set(logs.LEVELS) == set(get_args(get_args(LogLevel)[0]))


def record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, "x", None, None)


def test_library_that_floods_is_held_back_and_counted() -> None:
    clock = Clock()
    limit = logs.LibraryLimit(lines=2, interval=60.0, clock=clock)
    assert [limit.filter(record("trio")) for _ in range(5)] == [True] * 2 + [False] * 3
    assert limit.filter(record("botocore"))
    clock.now += 60.0
    later = record("trio")
    assert limit.filter(later)
    assert later.__dict__["held_back"] == 3
    clock.now += 60.0
    latest = record("trio")
    assert limit.filter(latest)
    assert "held_back" not in latest.__dict__


@pytest.mark.parametrize("name", ["audiohook", "audiohook.spool"])
def test_own_lines_are_not_held_back_by_the_handler(name: str) -> None:
    limit = logs.LibraryLimit(lines=1)
    assert all(limit.filter(record(name)) for _ in range(100))


@pytest.mark.parametrize(
    ("name", "is_told"), [("trio.serve_listeners", False), ("botocore", True)]
)
def test_traceback_of_a_connection_not_accepted_is_left_out(
    name: str, is_told: bool
) -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logging.getLogger(name).exception("accept returned EMFILE")
    assert ("exception" in lines(stream)[0]) == is_told


def test_number_of_held_back_lines_is_written() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    library = logging.getLogger("trio.serve_listeners")
    (limit,) = logging.getLogger().handlers[0].filters
    assert isinstance(limit, logs.LibraryLimit)
    clock = limit._clock = Clock()
    for _ in range(15):
        library.error("accept returned EMFILE")
    assert len(lines(stream)) == 10
    clock.now += 60.0
    library.error("accept returned EMFILE")
    assert lines(stream)[-1]["held_back"] == 5
