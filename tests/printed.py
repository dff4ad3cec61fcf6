"""Whether what a page shows is what is printed, but for times, ids and numbers."""

from __future__ import annotations

import json
import re
from typing import Any

_TIME = r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(\.\d+)?Z"
# What is different each time, and what stands for it; the first that fits counts.
_DIFFERENT = (
    (rf"{_TIME}_([0-9a-f_-]{{73}}(_\d+)?|[0-9a-f]{{8}}-…)", "<name>"),
    (r"<start>_<conversation>_<participant>|<the same>", "<name>"),
    (_TIME, "<time>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"[0-9a-f]{64}", "<hash>"),
    (r"\bah_[A-Za-z0-9_-]{43}", "<token>"),
    (r"\bPT[\d.]+S\b", "<length>"),
    (r"(?<![A-Za-z0-9-])\d+(,\d+)*(\.\d+)?", "<number>"),
)
_CUT = "…"


def form(line: str) -> str:
    """Returns a line without what is different each time, and without wide spaces."""
    for pattern, name in _DIFFERENT:
        line = re.sub(pattern, name, line)
    return " ".join(line.split())


def is_form_of(shown: str, printed: str) -> bool:
    """Tells whether a line of a page, where … is any text, has the form of a printed one."""
    pattern = ".*".join(re.escape(each) for each in form(shown).split(_CUT))
    return re.fullmatch(pattern, form(printed)) is not None


def assert_printed(shown: str, printed: str) -> None:
    """Checks that every line of a page was printed, in that order."""
    rest = iter(printed.splitlines())
    for line in filter(str.strip, shown.splitlines()):
        assert any(is_form_of(line, each) for each in rest), (line, printed)


def read_shown(text: str) -> Any:  # noqa: ANN401 - JSON
    """Reads the JSON of a page, where … stands for more.

    Members of an object may stand there without its braces. What was left out of an
    object or a list is a member ``"…"``.
    """
    text = text.strip()
    if not text.startswith(("{", "[")):
        text = f"{{{text}}}"
    made: list[str] = []
    depth: list[str] = []
    for piece in re.findall(r'"(?:[^"\\]|\\.)*"|…[^"\[\]{},]*|[^"…]', text):
        if piece in "{[":
            depth.append(piece)
        elif piece in "}]":
            depth.pop()
        elif piece.startswith(_CUT):
            piece = f'"{_CUT}": null' if depth[-1] == "{" else f'"{_CUT}"'
        made.append(piece)
    return json.loads("".join(made))


def assert_alike(shown: Any, real: Any, where: str = "") -> None:  # noqa: ANN401 - JSON
    """Checks that JSON of a page has the members and types of what is really there.

    Args:
        shown: As `read_shown` gives it.
        real: What is really there.
        where: The member that is compared, for whoever reads that it failed.
    """
    if shown == _CUT:
        return
    assert type(shown) is type(real) or {type(shown), type(real)} == {int, float}, (
        where,
        shown,
        real,
    )
    if isinstance(shown, dict):
        names = shown.keys() - {_CUT}
        assert names <= real.keys(), (where, names - real.keys())
        if _CUT not in shown:
            assert names == real.keys(), (where, real.keys() - names)
        for name in names:
            assert_alike(shown[name], real[name], f"{where}.{name}")
    elif isinstance(shown, list):
        for position, each in enumerate(each for each in shown if each != _CUT):
            assert_alike(each, real[position], f"{where}[{position}]")
        assert _CUT in shown or len(shown) == len(real), (where, shown, real)
