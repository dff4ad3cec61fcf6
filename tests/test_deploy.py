"""What is watched with: the dashboard and the alerts, against what is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.admin.reading import samples
from tests.admin.watched import FakeService, app_of, client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]

_NAME = re.compile(r"\b(?:audiohook|process)_[a-z0-9_]+\b")
_LABELS = re.compile(r"((?:audiohook|process)_[a-z0-9_]+)\{([^}]*)\}")
_MATCH = re.compile(r'([a-z]+)(=~|!=|=)"([^"]*)"')
# Prometheus adds them; the dashboard asks for them by its variables.
_ADDED = {"job", "instance"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for rule in ALERTS:
        yield rule["expr"]


@pytest.fixture
async def told(tmp_path: Path) -> dict[str, dict[str, set[str]]]:
    """Returns what the admin port tells: values by label by name."""
    (tmp_path / ".spool").mkdir()
    async with client_of(app_of(FakeService(), tmp_path)) as client:
        text = (await client.get("/metrics")).text
    found: dict[str, dict[str, set[str]]] = {}
    for name in samples(text):
        bare, _, labels = name.partition("{")
        values = found.setdefault(bare, {})
        for pair in filter(None, labels.rstrip("}").split(",")):
            label, _, value = pair.partition("=")
            values.setdefault(label, set()).add(value)
    return found


async def test_what_is_asked_for_is_told(told: dict[str, dict[str, set[str]]]) -> None:
    asked = {name for query in queries() for name in _NAME.findall(query)}
    assert len(asked) > 40
    assert asked - told.keys() == set()


async def test_words_that_are_asked_for_exist(
    told: dict[str, dict[str, set[str]]],
) -> None:
    for query in queries():
        for name, matches in _LABELS.findall(query):
            for label, how, value in _MATCH.findall(matches):
                if label in _ADDED:
                    continue
                words = value.split("|") if how == "=~" else [value]
                assert set(words) <= told[name][label], query


async def test_everything_that_is_told_is_shown(
    told: dict[str, dict[str, set[str]]],
) -> None:
    shown = {
        name
        for panel in panels()
        for target in panel["targets"]
        for name in _NAME.findall(target["expr"])
    }
    missing = {
        name
        for name in told
        if name not in shown
        # Histograms are shown by their buckets.
        and not name.endswith(("_sum", "_count"))
        and not name.startswith("python_")
    }
    assert missing == set()


def test_panels_lie_beside_each_other_and_say_their_units() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["runbook"]) > 40
        # Somebody has been told of every alert that a runbook sends him to.
        for named in re.findall(r"\bAudiohook[A-Z]\w+", rule["annotations"]["runbook"]):
            assert named in names
