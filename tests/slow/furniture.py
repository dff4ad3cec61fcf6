"""What a machine has before somebody installs the service on it: source, Python, wheels.

It has no network but its own, so what pip fetches for others lies in a folder there.
The modules of the source are those that this tree has been built with, unless a test
is run in full size: then they are compiled there, as on any new machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from tests.documents import ROOT
from tests.slow.machine import SOMEONE
from tests.slow.scale import FULL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "audiohook.example.com"
SOURCE = "~/audiohook"
"""Where the clone is."""

_WHEELS = "/srv/wheels"
_PYTHON = "/opt/python"
_DISTRIBUTIONS_OWN = Path("/usr")
# What make and pip need of a source tree.
_SOURCES = (
    "Makefile",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
_BUILDERS = ("setuptools>=77", "Cython>=3.1,<4", "pip")
_FETCH_SECONDS = 120

# Fetched without network. With this "false" modules are not built in an environment
# of their own, which would have to be made first.
_PIP = f"""\
[global]
no-index = true
find-links = {_WHEELS}
disable-pip-version-check = true
"""
_PIP_BUILT = """\
[wheel]
no-build-isolation = false
"""

# What a person does with an editor: puts in what is to stand there. `systemctl edit`
# has a line below which it belongs.
_EDITOR = """\
#!/bin/sh
for file; do :; done
if grep -q '^### Anything between' "$file"; then
    sed -i '/^### Anything between/r /run/to-be-written' "$file"
else
    cat /run/to-be-written >>"$file"
fi
"""
TO_BE_WRITTEN = "run/to-be-written"
"""What the editor puts in, below the machine's root."""

_HOSTNAME = "machine"
_HOSTS = f"""\
127.0.0.1 localhost {_HOSTNAME} {NAME}
::1 localhost
"""

# Whoever has a clone has where it came from, too.
_CLONE = """
git init --quiet --initial-branch main .
git config user.name Someone
git config user.email someone@example.com
git add --all
git commit --quiet --message Begin
git clone --quiet --bare . ../upstream.git
git remote add origin ../upstream.git
git fetch --quiet
git branch --quiet --set-upstream-to origin/main
"""


def furnish(base: Path) -> tuple[Path, list[tuple[Path, str]]]:
    """Gets ready what a machine is to have.

    Args:
        base: Folder of its own for it.

    Returns:
        What goes into the machine's root, and folders of this machine that are to be
        seen there, each with where.

    Raises:
        RuntimeError: This tree has not been built since it was changed.
    """
    root = base / "furniture"
    files = {
        "etc/hosts": (_HOSTS, 0o644),
        "etc/hostname": (f"{_HOSTNAME}\n", 0o644),
        "etc/pip.conf": (_PIP if FULL_SIZE else _PIP + _PIP_BUILT, 0o644),
        "usr/local/bin/editor": (_EDITOR, 0o755),
    }
    binds = [(_fetch_wheels(base / "wheels"), _WHEELS)]
    python = Path(sys.base_prefix)
    if python != _DISTRIBUTIONS_OWN:
        # Where a service may look, unlike homes.
        binds.append((python, _PYTHON))
        own = f"{_PYTHON}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        files["usr/local/bin/python3"] = (f'#!/bin/sh\nexec {own} "$@"\n', 0o755)
        # Where it was built to find its library is hidden as well.
        files["etc/ld.so.conf.d/00-python.conf"] = (f"{_PYTHON}/lib\n", 0o644)
    for name, (text, mode) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    source = root / "home" / SOMEONE / "audiohook"
    _copy_source(source)
    subprocess.run(["bash", "-euc", _CLONE], cwd=source, check=True)
    if not FULL_SIZE:
        _take_over_build(source)
        binds += [(each, str(each)) for each in (ROOT / ".venv", python)]
    return root, binds


def _fetch_wheels(folder: Path) -> Path:
    """Fetches what the package needs, as pip would."""
    needed = [each for each in requires("audiohook") or () if "extra ==" not in each]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--dest", str(folder)),
            *needed,
            *(_BUILDERS if FULL_SIZE else ()),
        ],
        check=True,
        timeout=_FETCH_SECONDS,
        stderr=subprocess.DEVNULL,
    )
    return folder


def _copy_source(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in _SOURCES:
        shutil.copy2(ROOT / name, folder)
    shutil.copytree(
        ROOT / "audiohook",
        folder / "audiohook",
        ignore=shutil.ignore_patterns(
            "__pycache__", *(("*.c", "*.so") if FULL_SIZE else ())
        ),
    )
    shutil.copy2(ROOT / ".gitignore", folder)


def _take_over_build(folder: Path) -> None:
    """Leaves what `make build` has made here, so that it has nothing to do there.

    Raises:
        RuntimeError: It would have, as sources are newer.
    """
    if subprocess.run(
        ["make", "--question", "build"], cwd=ROOT, check=False
    ).returncode:
        raise RuntimeError("this tree is not built as it stands: make dev")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    tag = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for module in _modules(folder):
        target = folder / "build" / tag / module.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Newer than the C that it was made of, which may have been made anew since.
        shutil.copy(module, target)


def _modules(folder: Path) -> Iterator[Path]:
    return (folder / "audiohook").rglob("*.so")
