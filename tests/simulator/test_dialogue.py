"""What a person reads of a call, whatever its messages hold."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.rules import Rule
from tests.simulator.fake_server import FakeServer, Message, call, rules_of

if TYPE_CHECKING:
    import trio

    from audiohook.simulator.report import CallReport


def lines_of(message: str) -> list[str]:
    out = io.StringIO()
    Dialogue(Console(file=out, width=40)).received(message, 1.0)
    return out.getvalue().splitlines()


def test_parameters_are_short_and_on_one_line() -> None:
    parameters = {"reason": "error", "info": "x" * 500}
    message = {"type": "disconnect", "seq": 2, "clientseq": 1, "parameters": parameters}
    [line] = lines_of(json.dumps(message))
    assert line.startswith('    1.000 ← disconnect seq 2 clientseq 1 reason "error"')
    assert len(line) < 200


def test_media_are_named_by_their_channels() -> None:
    media = [{"channels": ["external", "internal"]}, {"channels": ["external"]}, 7]
    message = {
        "type": "opened",
        "seq": 1,
        "clientseq": 1,
        "parameters": {"media": media},
    }
    [line] = lines_of(json.dumps(message))
    assert line.endswith("media [external+internal | external | 7]")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[red]",
        "\x1b[2J",
        '["\\u001b"]',
        '{"type": "\\u001b[2J\\n", "seq": {}, "parameters": {"\\u001b": "[bold]\\n"}}',
        '{"seq": "\\u001b[2J", "clientseq": "\\n", "position": "\\u001b"}',
        '{"type": "x", "parameters": "\\u001b"}',
        '{"parameters": {"media": [{"channels": ["\\u001b"]}, {"x": "\\u001b"}]}}',
        "[" * 100_000,
    ],
)
def test_whatever_a_server_sends_is_printed_as_one_harmless_line(text: str) -> None:
    [line] = lines_of(text)
    assert line.isprintable()


async def dialogue_with(server: FakeServer) -> tuple[CallReport, list[str]]:
    """Make a call of two seconds; give its report and all that was printed."""
    out = io.StringIO()
    dialogue = Dialogue(Console(file=out, width=60))
    report = await call(server, dialogue=dialogue, duration=2, frame_ms=300)
    dialogue.summary(report)
    return report, out.getvalue().splitlines()


async def test_the_dialogue_has_a_line_a_message_and_no_line_a_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report, lines = await dialogue_with(FakeServer())
    assert [line.split()[1:3] for line in lines[:-3]] == [
        ["→", "open"],
        ["←", "opened"],
        ["→", "audio"],
        ["→", "ping"],
        ["←", "pong"],
        ["→", "ping"],
        ["←", "pong"],
        ["→", "audio"],
        ["→", "close"],
        ["←", "closed"],
    ]
    assert lines[-3].startswith(f"session {report.session_id}: 2.2 s, ")
    assert "7 frames, 32,000 bytes, 2.000 s of audio, position PT2S" in lines[-3]
    assert lines[-2].startswith("latency: opened 0.0 ms, pong 0.0 ms (median of 2")
    assert lines[-1] == "the server kept to the protocol"


async def test_each_breach_is_one_line_where_it_happened(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_ping(self, message: Message) -> None:
            await self.send_raw(b"12")

    report, lines = await dialogue_with(Server())
    assert rules_of(report) == [Rule.BINARY]
    marks = [line.split()[1:3] for line in lines[3:8]]
    assert marks == [
        ["→", "ping"],
        ["←", "binary"],
        ["!", "breach"],
        ["→", "error"],
        ["→", "close"],
    ]
    assert sum("breach " in line for line in lines) == 1
    assert lines[-1] == "breaches by the server: 1"
