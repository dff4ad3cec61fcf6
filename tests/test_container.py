"""Dockerfile and compose.yaml, against the code that they run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from audiohook.cli import app
from audiohook.settings import Settings, describe, load
from tests.documents import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def options(words: list[str]) -> dict[str, Any]:
    """Has the parser of our command line take these words."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return root.commands[words[0]].make_context(words[0], words[1:]).params


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for each in describe():
        monkeypatch.delenv(each.name, raising=False)
    for name, value in SERVICES["audiohook"]["environment"].items():
        monkeypatch.setenv(name, value)
    return load(env_file=ROOT / "nonesuch.env")


def test_service_takes_its_environment(settings: Settings) -> None:
    known = {each.name for each in describe()}
    assert SERVICES["audiohook"]["environment"].keys() <= known
    assert settings.s3_bucket == "calls"
    assert f"-bucket={settings.s3_bucket}" in SERVICES["store"]["command"].split()
    assert settings.aws_endpoint_url_s3 == "http://store:8333"
    store = SERVICES["store"]["environment"]
    assert settings.aws_access_key_id is not None
    assert settings.aws_access_key_id.get_secret_value() == store["AWS_ACCESS_KEY_ID"]


def test_stand_in_is_the_one_that_is_asked(settings: Settings) -> None:
    found = options(SERVICES["assemblyai"]["command"])
    assert settings.assemblyai_base_url == f"http://assemblyai:{found['port']}"
    assert settings.assemblyai_api_key is not None
    assert found["key"] == [settings.assemblyai_api_key.get_secret_value()]


def test_caller_has_key_and_secret_of_the_service(settings: Settings) -> None:
    found = options(SERVICES["caller"]["command"])
    assert found["uri"] == f"ws://audiohook:{settings.port}/"
    environment = SERVICES["audiohook"]["environment"]
    assert found["api_key"] == environment["API_KEY"]
    assert found["client_secret"] == environment["CLIENT_SECRET"]


def test_what_waits_outlives_the_container() -> None:
    (mount,) = SERVICES["audiohook"]["volumes"]
    name, place = mount.split(":")
    assert name in COMPOSE["volumes"]
    assert f"RECORDINGS_DIR={place}" in DOCKERFILE
    assert f"VOLUME {place}" in DOCKERFILE


def test_time_to_stop_is_that_of_the_unit() -> None:
    unit = (ROOT / "audiohook" / "units" / "audiohook.service").read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert SERVICES["audiohook"]["stop_grace_period"] == f"{int(seconds) // 60}m"


def test_image_is_made_of_what_is_there_and_let_in() -> None:
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in IGNORED, source


def test_image_does_not_run_as_root() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 993:993$", last, re.MULTILINE)
    assert "--uid 993 --gid 993" in last
    assert "build-essential" not in last


def test_dockerfile_is_sound() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_health_check_is_python() -> None:
    (script,) = re.findall(
        r'CMD \["python3", "-c", "(.*)"\]$', DOCKERFILE, re.MULTILINE
    )
    source = script.replace('\\"', '"')
    assert sys.version_info >= (3, 11)
    compile(source, "HEALTHCHECK", "exec")
    assert "/health" in source
