"""What peers are made of; nothing is fetched here."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from bench.peers import install
from bench.peers.install import MissingError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(install, "FOLDER", tmp_path / "built")
    monkeypatch.setenv(install.NO_APT, "1")
    for function in (install.build_c, install.debian_packages):
        function.cache_clear()
    return tmp_path


def test_program_that_does_not_compile_is_told(folder: Path) -> None:
    source = folder / "broken.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(MissingError, match="nothing"):
        install.build_c(source)
    # Nothing half made is left.
    assert list((folder / "built" / "programs").iterdir()) == []


def test_compiler_that_is_not_there_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder / "any.c"
    source.write_text("int main(void) { return 0; }\n")
    monkeypatch.setenv("CC", str(folder / "no-compiler"))
    with pytest.raises(MissingError, match="there is no no-compiler"):
        install.build_c(source)


def test_program_is_built_once_for_each_source(folder: Path) -> None:
    source = folder / "any.c"
    source.write_text("int main(void) { return 0; }\n")
    made = install.build_c(source)
    changed_at = made.stat().st_mtime_ns
    install.build_c.cache_clear()
    assert install.build_c(source) == made
    assert made.stat().st_mtime_ns == changed_at
    source.write_text("int main(void) { return 1; }\n")
    install.build_c.cache_clear()
    assert install.build_c(source) != made


def test_program_of_no_package_that_may_be_installed_is_told() -> None:
    with pytest.raises(MissingError, match="not installed here: no-package"):
        install.program("no-program-of-this-name", "no-package")


def test_program_that_is_there_is_found() -> None:
    assert install.program("sh", "no-package") == shutil.which("sh")


def test_command_that_fails_is_told_by_its_error() -> None:
    script = "echo fetching; echo 'ERROR: no such thing' >&2; echo bye >&2; exit 3"
    with pytest.raises(MissingError, match="sh failed: ERROR: no such thing"):
        install._run(["sh", "-c", script], 10.0)


def test_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(MissingError, match="sleep took more than 0 s"):
        install._run(["sleep", "60"], 0.05)
