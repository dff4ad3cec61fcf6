"""The checks that need nobody else: each with a fault planted, and found by name."""

from __future__ import annotations

import base64
import json
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.checks import Expectations, clock, machine, ports, spool
from audiohook.checks.settings import exposed
from audiohook.checks.spool import file_system_of, judge_syncs
from audiohook.errors import ConfigError
from tests.checks.certificates import Authorities
from tests.checks.tools import checked, judged
from tests.house import KEY, house

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = base64.b64encode(b"a secret of some length, not shown").decode()
GOOD_MOUNTS = "22 1 0:21 / / rw - ext4 /dev/vda rw\n"


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authorities:
    """A public authority, as far as this process knows."""
    found = Authorities(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(found.roots))
    return found


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on, and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_machine_that_is_right_has_a_mark_on_each_line(
    tmp_path: Path, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(clock, "kernel_is_synchronised", lambda: True)
    mounts = tmp_path / "mounts"
    mounts.write_text(GOOD_MOUNTS)
    monkeypatch.setattr(spool, "MOUNTS", mounts)
    unit = tmp_path / "audiohook.service"
    unit.touch()
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path)
    monkeypatch.setattr(machine, "UNITS", (unit,))
    chain, key = authorities.issue("audiohook.example.com")
    code, out = await judged(
        Expectations("audiohook.example.com", env_file=Path(os.devnull)),
        *("settings", "keys", "tls", "machine", "ports", "clock", "spool", "storage"),
        api_key=KEY,
        client_secret=SECRET,
        host="127.0.0.1",
        port=0,
        admin_port=0,
        tls_certificate=chain,
        tls_key=key,
        recordings_dir=tmp_path / "recordings",
        max_calls=10,
        spool_low_water_mib=1,
    )
    assert code == 0
    lines = out.splitlines()
    assert len(lines) > 15
    assert all(line.startswith("✓ ") for line in lines), out
    assert SECRET not in out
    assert KEY not in out


async def test_check_of_no_such_name_is_one_line() -> None:
    with pytest.raises(ConfigError, match="--only: there is no check disk; there are"):
        await checked("disk")


# Where settings come from.


async def test_name_that_looks_misspelt_in_the_environment_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("S3_BUKET", "hush")
    code, out = await checked("settings")
    assert code == 0
    assert (
        "! S3_BUKET in the environment\n"
        "  → is not a setting and is passed over; did you mean S3_BUCKET?" in out
    )
    assert "hush" not in out


@pytest.mark.parametrize(
    ("mode", "words"), [(0o644, "may read it"), (0o666, "may change it")]
)
async def test_env_file_that_others_may_read_is_told(
    tmp_path: Path, mode: int, words: str
) -> None:
    path = tmp_path / "my.env"
    path.write_text("PORT=3001\n")
    path.chmod(mode)
    _, out = await judged(Expectations(env_file=path), "settings")
    assert f"! keep {path} to its owner\n  → everybody on this machine {words}" in out
    path.chmod(0o600)
    _, out = await judged(Expectations(env_file=path), "settings")
    assert "!" not in out
    assert f"1 from {path}" in out


async def test_environment_that_overrides_the_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.env"
    path.write_text("GAPS=cut\n")
    path.chmod(0o600)
    monkeypatch.setenv("GAPS", "silence")
    _, out = await judged(Expectations(env_file=path), "settings")
    assert "the environment does, for GAPS" in out


# Keys.


async def test_key_without_a_secret_is_told() -> None:
    code, out = await checked("keys", api_key=KEY)
    assert code == 0
    assert "! API keys: 1, of which 0 with a client secret\n  → without" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not one JSON object"),
        ("{}", "holds no key"),
        ('{"a": "?"}', "entry 1 (key ca978112): the secret is not base64"),
    ],
)
async def test_keys_file_that_cannot_be_used_is_told(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    code, out = await checked("keys", api_keys_file=path)
    assert code == 1
    assert f"✗ API_KEYS_FILE\n  → {path} {words}" in out


@pytest.mark.parametrize("name", ["api_keys_file", "api_tokens_file"])
async def test_file_of_secrets_that_others_may_read_is_told(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"key": SECRET}))
    path.chmod(0o644)
    _, out = await checked("keys", **{name: path})
    assert f"! keep {name.upper()} to its owner\n  → everybody" in out


async def test_tokens_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    code, out = await checked("keys", api_tokens_file=tmp_path / "absent.json")
    assert code == 1
    assert "✗ API_TOKENS_FILE\n" in out


# The certificate.


async def tls_lines(
    pair: tuple[Path, Path], name: str | None = None
) -> tuple[int, str]:
    chain, key = pair
    expected = Expectations(name, env_file=Path(os.devnull))
    return await judged(expected, "tls", tls_certificate=chain, tls_key=key)


async def test_certificate_that_is_right(authorities: Authorities) -> None:
    code, out = await tls_lines(authorities.issue())
    assert code == 0
    assert [line[0] for line in out.splitlines()] == ["✓"] * 4
    assert "✓ TLS_CERTIFICATE is for localhost" in out


FAULTS = {
    "self-signed": ({"self_signed": True}, "✗ TLS_CERTIFICATE leads", "it is self-"),
    "no chain": (
        {"with_chain": False},
        "✗ TLS_CERTIFICATE leads",
        "the file holds one certificate without its chain",
    ),
    "expired": ({"begins": -9, "days": -1}, "✗ TLS_CERTIFICATE is g", "it has expired"),
    "not valid yet": ({"begins": 3}, "✗ TLS_CERTIFICATE is good from", "yet to come"),
    "ends soon": ({"days": 29}, "! TLS_CERTIFICATE is good until", "29 days are left"),
    "weak": ({"rsa_bits": 1024}, "✗ use TLS_CERTIFICATE", "its key is too short"),
    "passphrase": (
        {"passphrase": b"hush"},
        "✗ use TLS_CERTIFICATE",
        "is protected by a passphrase, which nobody can type at a start",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_of_a_certificate_is_told(
    authorities: Authorities, fault: str
) -> None:
    wrong, line, mend = FAULTS[fault]
    code, out = await tls_lines(authorities.issue(**wrong))  # type: ignore[arg-type]
    assert code == (0 if line.startswith("!") else 1)
    (told,) = [part for part in out.split("\n✓ ") if line in part]
    assert mend in told


async def test_authority_that_nobody_knows_is_told(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    others = Authorities(tmp_path / "other")
    code, out = await tls_lines(others.issue())
    assert code == 1
    assert "a public authority must have issued it" in out


async def test_certificate_for_another_name_is_told(authorities: Authorities) -> None:
    code, out = await tls_lines(authorities.issue("a.example.com"), "b.example.com")
    assert code == 1
    assert "✗ TLS_CERTIFICATE is for a.example.com\n  → and not for b.example" in out


async def test_key_of_another_certificate_is_told(authorities: Authorities) -> None:
    chain, key = authorities.issue()
    kept = key.read_bytes()
    authorities.issue()
    key.write_bytes(kept)
    code, out = await tls_lines((chain, key))
    assert code == 1
    assert "the key is that of another certificate" in out


async def test_file_that_is_no_certificate_is_told(authorities: Authorities) -> None:
    chain, key = authorities.issue()
    chain.write_text("nonsense")
    code, out = await tls_lines((chain, key))
    assert code == 1
    assert "is no PEM file" in out


async def test_key_that_others_may_read_is_told(authorities: Authorities) -> None:
    chain, key = authorities.issue()
    key.chmod(0o644)
    code, out = await tls_lines((chain, key))
    assert code == 0
    assert "! keep TLS_KEY to its owner" in out


# The machine.


async def test_too_few_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    code, out = await checked("machine", max_calls=400)
    assert code == 1
    assert "✗ open files: 1,024 allow 384 calls at a time\n  → MAX_CALLS is 400" in out
    assert "lower it to 384, or raise LimitNOFILE (ulimit -Hn) to 1,056" in out
    code, out = await checked("machine")
    assert code == 0
    assert "! open files: 1,024 allow 384 calls" in out


async def test_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    _, out = await checked("machine")
    assert "! run as a user of its own\n  → this is root" in out


async def test_missing_manager_and_missing_unit_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path / "none")
    _, out = await checked("machine")
    assert "✓ systemd does not run here\n  → see that something starts" in out
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path)
    monkeypatch.setattr(machine, "UNITS", (tmp_path / "none",))
    _, out = await checked("machine")
    assert "`audiohook install-service` writes one" in out


# Ports.


async def test_port_that_somebody_else_has_is_told(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_LOOK_SECONDS", 0.2)
    code, out = await checked("ports", host="127.0.0.1", port=taken, admin_port=0)
    assert code == 1
    assert (
        f"port {taken} (PORT)\n  → another program does: PORT: {taken} is in u" in out
    )


async def test_admin_port_that_somebody_else_has_is_told(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_LOOK_SECONDS", 0.2)
    code, out = await checked("ports", host="127.0.0.1", port=0, admin_port=taken)
    assert code == 1
    assert f"port {taken} (ADMIN_PORT)\n  → another program does" in out


async def test_ports_of_a_service_of_ours_are_told_apart(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        code, out = await checked(
            "ports",
            host="127.0.0.1",
            port=it.port,
            admin_port=it.service.admin_port,
        )
    assert code == 0
    assert out.count(": a service of ours does so already") == 2


async def test_port_of_a_service_of_ours_with_tls_is_told_apart(
    tmp_path: Path, authorities: Authorities
) -> None:
    chain, key = authorities.issue()
    tls: dict[str, Any] = {"tls_certificate": chain, "tls_key": key}
    async with house(tmp_path / "house", **tls) as it:
        code, out = await checked(
            "ports", host="127.0.0.1", port=it.port, admin_port=0, **tls
        )
    assert code == 0
    assert "(PORT): a service of ours does so already" in out


async def test_address_of_another_machine_is_told() -> None:
    code, out = await checked("ports", host="192.0.2.1", port=0, admin_port=0)
    assert code == 1
    assert "✗ listen on 192.0.2.1, port any (PORT)\n  → is no address of this" in out


async def test_admin_port_for_everybody_is_told() -> None:
    flags = {"host": "127.0.0.1", "port": 0, "admin_port": 0, "admin_host": "0.0.0.0"}
    _, out = await checked("ports", **flags)
    assert "! keep the admin port to friends: ADMIN_HOST is 0.0.0.0\n  → other" in out
    assert "there is no ADMIN_PASSWORD: set one" in out
    _, out = await checked("ports", **flags, admin_password="a long pass phrase 47")
    assert "✓ keep the admin port to friends" in out
    assert "a long pass phrase" not in out


# The spool.


async def test_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "recordings"
    path.write_text("in the way")
    code, out = await checked("spool", recordings_dir=path)
    assert code == 1
    assert f"→ {path} is no folder: set RECORDINGS_DIR to one" in out


async def test_folder_that_may_not_be_written_to_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not even root writes there.
    code, out = await checked("spool", recordings_dir="/proc/self/task")
    assert code == 1
    assert "RECORDINGS_DIR must be a folder that this user may write to" in out


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tmpfs", "is memory"),
        ("nfs4", "is another machine's"),
        ("overlay", "goes with its container"),
    ],
)
async def test_file_system_that_is_no_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"{GOOD_MOUNTS}23 22 0:22 / {tmp_path} rw - {kind} x rw\n")
    monkeypatch.setattr(spool, "MOUNTS", mounts)
    code, out = await checked("spool", recordings_dir=tmp_path)
    assert code == 0
    assert f"! the spool is on {kind}\n  → which {words}" in out


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_file_system_is_what_the_kernel_says() -> None:
    assert file_system_of(Path("/dev/shm/x"), spool.MOUNTS) == "tmpfs"
    assert file_system_of(Path("/proc/self"), spool.MOUNTS) == "proc"
    assert file_system_of(Path("/"), Path("/absent")) == ""


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"{GOOD_MOUNTS}nonsense\n23 22 0:22 / /a\\040b rw - xfs x rw\n")
    assert file_system_of(Path("/a b/c"), mounts) == "xfs"
    assert file_system_of(Path("/a/c"), mounts) == "ext4"


async def test_disk_without_room_is_told(tmp_path: Path) -> None:
    code, out = await checked(
        "spool", recordings_dir=tmp_path, spool_low_water_mib=10**9
    )
    assert code == 1
    assert "with less than 1000000000 MiB no call is taken" in out


async def test_disk_with_room_for_less_than_max_calls_is_told(tmp_path: Path) -> None:
    _, out = await checked("spool", recordings_dir=tmp_path, max_calls=100_000_000)
    assert "calls of 10 minutes (MAX_CALLS) need" in out
    assert "! room for " in out
    # And it would not be fast enough either.
    assert "MiB a second\n  → 100,000,000 calls (MAX_CALLS) write" in out


@pytest.mark.parametrize(
    ("seconds", "ok", "warns"),
    [(0.001, True, False), (0.2, True, True), (1.5, False, False)],
)
def test_slow_syncs_are_told(seconds: float, ok: bool, warns: bool) -> None:
    verdict = judge_syncs([seconds, seconds, seconds * 2])
    assert (verdict.ok, verdict.warns) == (ok, warns)
    assert verdict.what.startswith(f"sync in {seconds * 1000:.1f} ms")


async def test_disk_without_inodes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    values = list(real)
    values[7] = 100  # f_favail
    few = os.statvfs_result((*values[:10], real.f_fsid))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    _, out = await checked("spool", recordings_dir=tmp_path, spool_low_water_mib=1)
    assert "! room for 100 files" in out


async def test_what_was_put_aside_is_told(tmp_path: Path) -> None:
    (tmp_path / ".spool" / "aside" / "x").mkdir(parents=True)
    code, out = await checked("spool", recordings_dir=tmp_path)
    assert code == 0
    assert "! nothing is put aside: 1\n  → look at reason.txt" in out


async def test_call_that_waits_for_long_is_told(tmp_path: Path) -> None:
    call = tmp_path / ".spool" / "22222222-2222-4222-8222-222222222222"
    call.mkdir(parents=True)
    (call / "audio.ulaw").write_bytes(b"x")
    _, out = await checked("spool", recordings_dir=tmp_path)
    assert "✓ calls in the spool: 1" in out
    os.utime(call / "audio.ulaw", (0, 0))
    _, out = await checked("spool", recordings_dir=tmp_path)
    assert "! calls in the spool: 1" in out
    assert "`audiohook recover` finishes" in out


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_trials_leave_nothing_behind(tmp_path: Path) -> None:
    await checked("spool", recordings_dir=tmp_path / "recordings")
    assert entries(tmp_path) == []


def test_modes_are_looked_at_of_files_only(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o666)
    assert exposed(path) == ""
    assert exposed(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("held", "code", "told"),
    [
        (
            b'{"a-key": "", "another": ""}',
            0,
            "✓ read the API keys of API_KEYS_SECRET: 2",
        ),
        (b"{", 1, "✗ API_KEYS_SECRET\n  → audiohook/keys is not JSON"),
        (
            b'{"a-key": {"secret": "", "bucket": "acme"}}',
            1,
            "bucket goes with S3_BUCKET, which is not set",
        ),
        (None, 1, "✗ API_KEYS_SECRET\n  → audiohook/keys cannot be read (Denied)"),
    ],
)
async def test_keys_in_secrets_manager_are_read(
    monkeypatch: pytest.MonkeyPatch, held: bytes | None, code: int, told: str
) -> None:
    def fetch(name: str) -> bytes:
        if held is None:
            raise ConfigError(f"API_KEYS_SECRET: {name} cannot be read (Denied)")
        return held

    monkeypatch.setattr("audiohook.key_ring.fetch_secret", fetch)
    found, out = await checked("keys", api_keys_secret="audiohook/keys")
    assert found == code
    assert told in out
    # Nobody is told that there is no key if nobody knows.
    assert "no API key is set" not in out
