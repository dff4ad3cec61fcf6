"""Results as tables, and the README as it is made from them."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bench import report
from bench.charts import CHARTS
from bench.goals import goals
from bench.peers import OURS
from bench.records import Run
from bench.results import FOLDER, Results, read
from tests.bench.made_up import good_run, kind, live

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

README = FOLDER.parent / "README.md"


def write(folder: Path, run: Run) -> None:
    for name, value in run.kinds.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def table(run: Run, kind_name: str, title: str) -> Sequence[Sequence[str]]:
    (chapter,) = [each for each in report.CHAPTERS if each.kind == kind_name]
    (found,) = [each for each in chapter.tables(run) if title in each.title]
    return found.rows


def test_cells_are_what_was_measured() -> None:
    rows = table(good_run(), "calls", "by how many there are")
    assert ["audiohook", "0.040", "0.040", "0.040", "0.040", "0.040"] in rows
    assert ["audiohook, TLS", "-", "0.090", "0.090", "-", "-"] in rows
    assert ["Node + ws", "0.500", "0.500", "-", "-", "-"] in rows
    (ours, *_) = table(good_run(), "calls", "At 1,000 calls")
    assert ours == ["audiohook", "4.0", "1.00", "50", "100", "180", "200"]


def test_what_does_not_count_is_in_no_cell_but_told() -> None:
    wrong = live(OURS, 200, 0.01, faults=["1 recordings are not as sent"])
    run = Run({"calls": kind("calls", wrong)})
    assert table(run, "calls", "by how many there are") == []
    text = report.to_markdown(run)
    assert "does not count: ours, 200 calls: 1 recordings are not as sent" in text
    assert "0.010" not in text


def test_what_was_left_out_is_told() -> None:
    value = kind("calls", live(OURS, 200, 0.04))
    value["skipped"].append({"what": "Node + ws, 200 calls", "why": "there is no npm"})
    text = report.to_markdown(Run({"calls": value}))
    assert "left out: Node + ws, 200 calls: there is no npm" in text


def test_terminal_ends_with_the_figures_to_reach(tmp_path: Path) -> None:
    write(tmp_path, good_run())
    out = io.StringIO()
    report.show(tmp_path, Console(file=out, color_system=None))
    lines = out.getvalue().splitlines()
    (start,) = [i for i, line in enumerate(lines) if "Figures to reach" in line]
    rest = "\n".join(lines[start:])
    assert rest.count(" yes ") == len(goals(good_run()))


def test_readme_is_made_between_its_marks(tmp_path: Path) -> None:
    write(tmp_path, good_run())
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    report.write_readme(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith(f"before\n\n{report.BEGIN}\n\n")
    assert text.endswith(f"{report.END}\n\nafter\n")
    assert "old" not in text
    # Again, nothing changes.
    report.write_readme(tmp_path, readme)
    assert readme.read_text() == text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lost its marks"):
        report.write_readme(tmp_path, readme)


def test_readme_is_what_the_results_say() -> None:
    made = report.to_markdown(Run(read(FOLDER)))
    assert f"{report.BEGIN}\n\n{made}\n\n{report.END}" in README.read_text()


def test_plots_are_what_the_results_say() -> None:
    run = Run(read(FOLDER))
    drawn = {f"{chart.name}.svg": text for chart in CHARTS if (text := chart.draw(run))}
    folder = FOLDER.parent / "plots"
    assert {path.name: path.read_text() for path in folder.glob("*.svg")} == drawn


def test_results_are_written_as_they_come(tmp_path: Path) -> None:
    told: list[str] = []
    results = Results(tmp_path, "python -m bench", told.append)
    results.add("calls", live(OURS, 200, 0.04))
    results.skip("calls", "Node + ws, 200 calls", "there is no npm")
    results.skip("calls", "Node + ws, 200 calls", "there is no npm")
    value = read(tmp_path)["calls"]
    assert [record["calls"] for record in value["records"]] == [200]
    assert value["skipped"] == [
        {"what": "Node + ws, 200 calls", "why": "there is no npm"}
    ]
    assert {"date", "command", "commit", "machine", "versions"} <= value.keys()
    assert len(told) == 2
    assert results.faulty == 0
    results.add("calls", live("node", 200, 0.5, faults=["3 calls failed: late"]))
    assert results.faulty == 0
    results.add("calls", live(OURS, 200, 0.04, doubts=["the load fell behind"]))
    assert results.faulty == 0
    results.add("calls", live(OURS, 200, 0.04, faults=["3 calls failed: late"]))
    assert results.faulty == 1
    assert told[-1] == "calls: does not count: 3 calls failed: late"
