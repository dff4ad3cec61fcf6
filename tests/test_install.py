from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from audiohook import install, service
from audiohook.cli.app import app
from audiohook.errors import ConfigError
from audiohook.index import keeper
from audiohook.install import Installation
from audiohook.setting_sources import name_of
from audiohook.settings import Settings, setting_names

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = Path("/opt/audiohook/bin/audiohook")


def run(*arguments: str) -> tuple[int, str]:
    """Runs ``audiohook install-service``; its exit code and what it prints."""
    found = CliRunner().invoke(app, ["install-service", *arguments])
    if isinstance(found.exception, ConfigError):
        raise found.exception
    return found.exit_code, found.output


def sections(unit: str) -> dict[str, list[str]]:
    """Reads a unit file: lines by section, without comments."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def test_one_service_gets_its_port_from_a_socket_unit() -> None:
    files = Installation(executable=EXECUTABLE).files()
    assert [str(path) for path in files] == [
        "etc/systemd/system/audiohook.service",
        "etc/systemd/system/audiohook.socket",
        "etc/sysusers.d/audiohook.conf",
        "usr/local/sbin/audiohook",
    ]


def test_instances_share_a_port_by_themselves() -> None:
    installation = Installation(executable=EXECUTABLE, instances=3)
    files = installation.files()
    assert [str(path) for path in files] == [
        "etc/systemd/system/audiohook@.service",
        "etc/sysusers.d/audiohook.conf",
        "usr/local/sbin/audiohook",
        "etc/sysctl.d/audiohook.conf",
    ]
    steps = installation.next_steps()
    assert steps[-1] == (
        "systemctl enable --now"
        " audiohook@0.service audiohook@1.service audiohook@2.service"
    )
    assert "sysctl -p /etc/sysctl.d/audiohook.conf" in steps


def test_everything_that_differs_here_is_put_in() -> None:
    for instances in (0, 2):
        files = Installation(
            executable=Path("/srv/venv/bin/audiohook"),
            user="calls",
            state="tapes",
            env_file=Path("/etc/calls.env"),
            port=3000 if instances else 443,
            instances=instances,
        ).files()
        text = "".join(
            line
            for unit in files.values()
            for line in unit.splitlines(keepends=True)
            if not line.startswith("#")
        )
        for ours in ("/opt/audiohook", "/etc/audiohook/audiohook.env", "%S/audiohook"):
            assert ours not in text
        assert "ExecStart=/srv/venv/bin/audiohook serve --env-file /etc/calls.env" in (
            text
        )
        assert " --require-key\n" in text
        assert "User=calls\nGroup=calls\n" in text
        assert "StateDirectory=tapes\n" in text
        assert "RECORDINGS_DIR=%S/tapes\n" in text
        assert 'u calls - "AudioHook Monitor server" /var/lib/tapes' in text
        if not instances:
            assert "ListenStream=443\n" in text
        assert Path("etc/sysusers.d/calls.conf") in files
        command = files[install.COMMAND_PATH]
        assert "--uid=calls --gid=calls" in command
        assert "--property=StateDirectory=tapes" in command
        assert "--property=WorkingDirectory=/var/lib/tapes" in command
        assert "--setenv=RECORDINGS_DIR=/var/lib/tapes" in command
        assert "--setenv=AUDIOHOOK_ENV_FILE=/etc/calls.env" in command
        assert '-- /srv/venv/bin/audiohook "$@"' in command


def test_command_has_what_the_service_has() -> None:
    files = Installation(executable=EXECUTABLE).files()
    service = sections(files[install.UNITS_FOLDER / install.SERVICE])["Service"]
    command = files[install.COMMAND_PATH]
    alike = ("LoadCredential=", "StateDirectory", "UMask=", "LimitNOFILE=", "LimitCORE")
    for line in (line for line in service if line.startswith(alike)):
        assert f"--property={line} " in command, line
    assert command.count("LoadCredential=") == sum(
        line.startswith("LoadCredential=") for line in service
    )


def test_secrets_may_each_be_a_credential() -> None:
    unit = Installation(executable=EXECUTABLE).files()[
        install.UNITS_FOLDER / install.SERVICE
    ]
    names = {
        line.partition("=")[2].partition(":")[0]
        for line in sections(unit)["Service"]
        if line.startswith("LoadCredential=")
    }
    secret = {
        name_of(attribute, info)
        for attribute, info in Settings.model_fields.items()
        if "SecretStr" in str(info.annotation) and "dict" not in str(info.annotation)
    }
    assert secret - names == set()
    assert names - set(setting_names()) == set()


def test_units_of_the_other_kind_make_room_for_the_port(tmp_path: Path) -> None:
    """They would have the port: what is started beside them would end at once."""
    one = Installation(executable=EXECUTABLE)
    many = Installation(executable=EXECUTABLE, instances=2)
    assert not any("disable" in step for step in many.next_steps(tmp_path))
    assert not any("disable" in step for step in one.next_steps(tmp_path))
    install.write(one, tmp_path)
    steps = many.next_steps(tmp_path)
    leave = steps.index("systemctl disable --now audiohook.socket audiohook.service")
    assert leave < len(steps) - 1
    install.write(many, tmp_path)
    steps = one.next_steps(tmp_path)
    assert steps[-3:] == [
        "systemctl stop 'audiohook@*.service'",
        "systemctl disable audiohook@.service",
        "systemctl enable --now audiohook.socket audiohook.service",
    ]


def test_both_services_are_hardened_alike() -> None:
    one = Installation(executable=EXECUTABLE).files()
    many = Installation(executable=EXECUTABLE, instances=2).files()
    service = sections(one[install.UNITS_FOLDER / install.SERVICE])
    template = sections(many[install.UNITS_FOLDER / install.TEMPLATE])
    assert set(template["Service"]) - set(service["Service"]) == {
        "CPUAffinity=%i",
        "Environment=REUSE_PORT=true",
        "Environment=ADMIN_PORT=909%i",
    }
    assert set(service["Service"]) <= set(template["Service"])


def test_stop_is_given_longer_than_a_drain_takes() -> None:
    unit = Installation(executable=EXECUTABLE).files()[
        install.UNITS_FOLDER / install.SERVICE
    ]
    (stop,) = [
        line for line in sections(unit)["Service"] if line.startswith("TimeoutStopSec")
    ]
    # Closing comes last. Only a disk that hangs takes longer, to seal, and for that
    # the service asks for more time.
    longest = (
        Settings.model_fields["drain_timeout"].default
        + service._GOODBYE_DEADLINE
        + service._SETTLE_DEADLINE
        + service._LAST_REQUESTS_DEADLINE
        + service._LAST_WORDS_DEADLINE
        + keeper._CLOSE_PATIENCE
    )
    assert longest < int(stop.partition("=")[2])


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "audiohook" / "units").iterdir()), ids=lambda unit: unit.name
)
def test_units_for_readers_are_those_of_the_package(unit: Path) -> None:
    """They are links, so that there is one text only."""
    is_users = unit.name == install.USERS
    for_readers = "audiohook.sysusers.conf" if is_users else unit.name
    package = unit.read_text()
    assert (ROOT / "deploy" / for_readers).resolve() == unit.resolve()
    # And both are what is written for an installation in /opt/audiohook.
    written = {
        **Installation(executable=EXECUTABLE).files(),
        **Installation(executable=EXECUTABLE, instances=2).files(),
    }
    assert package in written.values()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"executable": Path("audiohook")}, "executable: audiohook is not an absolute"),
        ({"executable": Path("/opt/a b/audiohook")}, "executable: /opt/a b/audiohook"),
        ({"executable": Path("/opt/%n/audiohook")}, "executable: /opt/%n/audiohook"),
        ({"env_file": Path("/etc/x\nUser=root")}, "--env-file: /etc/x"),
        ({"user": "Root"}, "--user: may hold small letters"),
        ({"user": ""}, "--user: may hold small letters"),
        ({"user": "a" * 32}, "--user: may hold small letters"),
        ({"state": "../etc"}, "--state: may hold small letters"),
        ({"state": "a/b"}, "--state: may hold small letters"),
        ({"port": 0}, "--port: must be from 1 to 65535"),
        ({"port": 65_536}, "--port: must be from 1 to 65535"),
        ({"instances": -1}, "--instances: must be from 0 to 10"),
        ({"instances": 11}, "--instances: must be from 0 to 10"),
        ({"instances": 2, "port": 443}, "--port: instances share the PORT"),
    ],
)
def test_what_a_unit_cannot_say_is_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Installation(**{"executable": EXECUTABLE, **changes})
    assert str(caught.value).startswith(line)


# The command.


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A command that an installation may name."""
    command = tmp_path / "bin" / "audiohook"
    command.parent.mkdir()
    command.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(command.with_name("python3")))
    return command


@pytest.mark.parametrize("options", [(), ("--instances", "2")])
def test_dry_run_shows_every_file_and_writes_none(
    own: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    root = tmp_path / "root"
    code, shown = run("--dry-run", "--root", str(root), *options)
    assert code == 0
    assert not root.exists()
    files = Installation(
        executable=own, instances=int(options[1]) if options else 0
    ).files()
    assert len(files) == 4
    for path, text in files.items():
        assert f"# {root / path}\n{text}" in shown
    assert f"ExecStart={own} serve" in shown


def test_files_are_written_below_a_root_for_all_to_read(
    own: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    code, shown = run("--root", str(root))
    assert code == 0
    files = Installation(executable=own).files()
    for path, text in files.items():
        assert (root / path).read_text() == text
        mode = 0o755 if path == install.COMMAND_PATH else 0o644
        assert stat.S_IMODE((root / path).stat().st_mode) == mode
        assert f"wrote {root / path}" in shown
    written = [path for path in root.rglob("*") if path.is_file()]
    assert len(written) == len(files)
    assert "As root on the machine that this is for, type next:" in shown
    for step in Installation(executable=own).next_steps():
        assert f"    {step}\n" in shown


def test_files_that_are_there_are_replaced(own: Path, tmp_path: Path) -> None:
    unit = tmp_path / install.UNITS_FOLDER / install.SERVICE
    unit.parent.mkdir(parents=True)
    unit.write_text("old")
    unit.chmod(0o600)
    assert run("--root", str(tmp_path))[0] == 0
    assert unit.read_text().startswith("# One instance")
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644


def test_file_that_cannot_be_written_is_one_line(own: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no folder")
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\)"):
        run("--root", str(tmp_path))
    assert (tmp_path / "etc").read_text() == "no folder"


def test_half_written_file_is_not_left(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", fail)
    with pytest.raises(ConfigError, match="No space left"):
        run("--root", str(tmp_path / "root"))
    assert [p for p in (tmp_path / "root").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("hidden", ["/home/me/venv", "/root/venv", "/tmp/venv"])
def test_program_where_the_service_cannot_look_is_refused(
    monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setattr(sys, "prefix", hidden)
    with pytest.raises(ConfigError, match=f"{hidden} is below .* cannot see"):
        install.check_reachable(Installation(executable=EXECUTABLE))


def test_command_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.raises(ConfigError, match="executable: there is no"):
        run("--dry-run")
