from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from audiohook.simulator.dialogue import Dialogue


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
