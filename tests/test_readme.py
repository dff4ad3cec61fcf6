from __future__ import annotations

from pathlib import Path

from audiohook.settings import describe

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for setting in describe():
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    return "\n".join(rows)


def test_settings_of_the_readme_are_those_of_the_code() -> None:
    assert settings_table() in README.read_text()
