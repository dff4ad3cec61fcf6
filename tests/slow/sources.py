"""A source tree like this one, in which what is made is made for a test alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_SHARED = (
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "audiohook",
    "deploy",
    "docs",
    "pyproject.toml",
    "setup.py",
)
# What the Makefile touches once it has made that.
_STAMPS = ("python", "built", "dev")


def link_sources(folder: Path) -> None:
    """Makes a folder into such a tree, by links; nothing of ``tests`` is in it."""
    for name in _SHARED:
        (folder / name).symlink_to(ROOT / name)
    # The environment is this one's, and stays so: to make, it is as new as can be.
    (environment := folder / ".venv").mkdir()
    for path in (ROOT / ".venv").iterdir():
        if path.name not in _STAMPS:
            (environment / path.name).symlink_to(path)
    for name in _STAMPS:
        (environment / name).touch()
