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


_BRANCH = '''"""All that there is."""


def sign(number: int) -> int:
    """Return -1 for what is below nothing, and 1 for all else."""
    if number < 0:
        return -1
    return 1
'''
# A package with each place of which `.ci/branches.py` wants to know.
_PACKAGE = (
    "audiohook/protocol/small.py",
    "audiohook/recording/small.py",
    "audiohook/storage/upload.py",
    "audiohook/transcription/job.py",
)
# Named as those that `make fuzz` asks for.
_TESTS = {
    "tests/test_divert.py": "wsproto_alone",
    "tests/protocol/test_pong.py": "slow_way",
}


def link_sources(folder: Path) -> None:
    """Makes a folder into such a tree, by links; nothing of ``tests`` is in it."""
    for name in _SHARED:
        (folder / name).symlink_to(ROOT / name)
    link_environment(folder)


def write_small(folder: Path) -> None:
    """Makes a folder into a tree whose package and tests are as small as can be."""
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".ci").mkdir()
    (folder / ".ci" / "branches.py").symlink_to(ROOT / ".ci" / "branches.py")
    for name in _PACKAGE:
        _write(folder / name, _BRANCH)
    _write(folder / "bench" / "small.py", _BRANCH)
    imports = [name.removesuffix(".py").replace("/", ".") for name in _PACKAGE]
    for name, what in _TESTS.items():
        _write(folder / name, _tests(what, imports))
    link_environment(folder)


def _tests(what: str, imports: list[str]) -> str:
    named = "\n".join(
        f"from {module} import sign as sign_{number}"
        for number, module in enumerate(imports)
    )
    signs = ", ".join(f"sign_{number}" for number in range(len(imports)))
    return (
        f"import pytest\n\n{named}\n\n\n"
        f"def test_{what}() -> None:\n"
        f"    for sign in ({signs}):\n"
        f"        assert sign(7) == -sign(-7)\n\n\n"
        f"@pytest.mark.slow\n"
        f"def test_{what}_slowly() -> None:\n"
        f"    assert sign_0(0) == 1\n"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (path.parent / "__init__.py").write_text('"""Small."""\n')
    package = path.parent.parent / "__init__.py"
    if path.parent.parent.name in ("audiohook", "tests"):
        package.write_text('"""Small."""\n')


def link_environment(folder: Path) -> None:
    """Gives a tree the environment of this one, which is not made anew for it."""
    (environment := folder / ".venv").mkdir()
    for path in (ROOT / ".venv").iterdir():
        if path.name not in _STAMPS:
            (environment / path.name).symlink_to(path)
    # To make, it is as new as can be.
    for name in _STAMPS:
        (environment / name).touch()
