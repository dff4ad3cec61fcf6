"""The command as it is typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.test_cli import run

if TYPE_CHECKING:
    from pathlib import Path


def test_all_faults_of_the_settings_have_a_line_each(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "PORT=x\nS3_BUKET=hush\nAPI_KEY hush\nCLIENT_SECRET=c2VjcmV0\nGAPS=hush\n"
        "TLS_KEY=/absent\n"
    )
    done = run(tmp_path, "check", ADMIN_PORT="")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "hush" not in done.stdout
    assert done.stdout.splitlines()[::2] == [
        "✗ .env",
        "✗ S3_BUKET",
        "✗ PORT",
        "✗ GAPS",
        "✗ CLIENT_SECRET",
        "✗ TLS_KEY",
        "✗ TLS_KEY",
    ]


def test_json_is_one_object(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--json", "--only", "ports", "--only", "spool")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {each["check"] for each in report["verdicts"]} == {"ports", "spool"}
    done = run(tmp_path, "check", "--json", PORT="x")
    assert done.returncode == 1
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["result"], verdict["what"]) == ("fault", "PORT")


def test_names_of_the_env_file_are_not_taken_for_the_environments(
    tmp_path: Path,
) -> None:
    """botocore finds AWS's names in our environment, and we have put them there."""
    (tmp_path / ".env").write_text("AWS_REGION=eu-central-1\n")
    done = run(tmp_path, "check", "--only", "settings", ADMIN_PORT="")
    assert "1 from .env, 0 of the environment" in done.stdout
    assert "who wins" not in done.stdout
    done = run(
        tmp_path, "check", "--only=settings", ADMIN_PORT="", AWS_REGION="eu-west-1"
    )
    assert "1 from .env, 1 of the environment" in done.stdout
    assert "the environment does, for AWS_REGION" in done.stdout


def test_env_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """So the command that `install-service` writes has the service's settings."""
    named = tmp_path / "service.env"
    named.write_text("PORT=x\n")
    done = run(tmp_path, "check", AUDIOHOOK_ENV_FILE=str(named))
    assert done.returncode == 1
    assert "✗ PORT" in done.stdout
    named.write_text("PORT=3000\n")
    done = run(
        *(tmp_path, "check", "--only=settings"),
        ADMIN_PORT="",
        AUDIOHOOK_ENV_FILE=str(named),
    )
    assert f"1 from {named}, 0 of the environment" in done.stdout
    assert "AUDIOHOOK_ENV_FILE" not in done.stdout


def test_usage_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--from-outside", "wss://example.com/")
    assert done.returncode == 2
    assert done.stderr.startswith("audiohook: --api-key: give the key")
    done = run(tmp_path, "check", "--only", "disk")
    assert done.returncode == 2
    assert "there is no check disk" in done.stderr


def test_from_outside_of_nobody(tmp_path: Path) -> None:
    done = run(
        *(tmp_path, "check", "--from-outside", "ws://127.0.0.1:9/", "--api-key", "hush")
    )
    assert done.returncode == 1
    assert "✗ connect to 127.0.0.1 (TCP)\n  → connection refused" in done.stdout
    assert "hush" not in done.stdout + done.stderr
