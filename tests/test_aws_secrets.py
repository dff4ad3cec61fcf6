"""Secrets that AWS keeps: how they are asked for, and what is said if they are not got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError

from audiohook.aws_secrets import fetch_parameter, fetch_secret
from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_ARN = (
    "arn:aws:secretsmanager:eu-west-3:111122223333:secret:audiohook/keys-a1b2c3"
)
PARAMETER_ARN = "arn:aws:ssm:eu-west-3:111122223333:parameter/audiohook/key"


@dataclass
class Vault:
    """Both stores, holding one thing."""

    held: Any = None
    fault: Exception | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    closed: int = 0

    def connect(self, name: str) -> Vault:
        self.asked.append(("connect", name))
        return self

    def get_secret_value(self, *, SecretId: str) -> Any:  # noqa: ANN401
        return self._answer("secret", SecretId)

    def get_parameter(self, *, Name: str, WithDecryption: bool) -> Any:  # noqa: ANN401
        return self._answer("parameter", Name, WithDecryption)

    def close(self) -> None:
        self.closed += 1

    def _answer(self, *asked: object) -> Any:  # noqa: ANN401
        self.asked.append(asked)
        if self.fault is not None:
            raise self.fault
        return self.held


@pytest.mark.parametrize(
    ("held", "content"),
    [
        ({"SecretString": '{"k": null} ü'}, '{"k": null} ü'.encode()),
        ({"SecretString": "\ud800"}, b"?"),
        ({"SecretBinary": b"\x00\xff"}, b"\x00\xff"),
        ({}, b""),
    ],
)
def test_secret_is_read_whole(held: dict[str, Any], content: bytes) -> None:
    vault = Vault(held)
    assert fetch_secret("audiohook/keys", vault.connect) == content
    assert vault.asked == [("connect", "audiohook/keys"), ("secret", "audiohook/keys")]
    assert vault.closed == 1


def test_parameter_is_read_decrypted_and_without_spaces() -> None:
    vault = Vault({"Parameter": {"Value": " hush\n"}})
    assert fetch_parameter("/audiohook/key", vault.connect) == "hush"
    assert vault.asked[-1] == ("parameter", "/audiohook/key", True)
    assert vault.closed == 1


FETCHES = [
    (fetch_secret, "API_KEYS_SECRET: x", "secretsmanager:GetSecretValue"),
    (fetch_parameter, "ASSEMBLYAI_API_KEY_PARAMETER: x", "ssm:GetParameter"),
]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (
            ClientError(
                {"Error": {"Code": "AccessDeniedException", "Message": "hush"}}, "Get"
            ),
            "AccessDeniedException",
        ),
        (ClientError({}, "Get"), "?"),
        (
            EndpointConnectionError(endpoint_url="https://hush"),
            "EndpointConnectionError",
        ),
    ],
)
@pytest.mark.parametrize(("fetch", "where", "action"), FETCHES)
def test_fault_is_one_line_that_says_what_to_look_after(
    fetch: Callable[..., object], where: str, action: str, fault: Exception, code: str
) -> None:
    vault = Vault(fault=fault)
    with pytest.raises(ConfigError) as caught:
        fetch("x", vault.connect)
    assert str(caught.value) == (
        f"{where} cannot be read ({code}): is it there, in region AWS_REGION, and is"
        f" {action} allowed?"
    )
    assert vault.closed == 1


@pytest.mark.parametrize("fetch", [fetch_secret, fetch_parameter])
def test_client_that_cannot_be_made_is_a_fault_too(
    fetch: Callable[..., object],
) -> None:
    def refuse(_: str) -> Vault:
        raise NoRegionError

    with pytest.raises(ConfigError, match=r": x cannot be read \(NoRegionError\)"):
        fetch("x", refuse)


@pytest.mark.parametrize(
    ("fetch", "service", "name", "region"),
    [
        (fetch_secret, "secretsmanager", SECRET_ARN, "eu-west-3"),
        (fetch_secret, "secretsmanager", "audiohook/keys", None),
        (fetch_parameter, "ssm", PARAMETER_ARN, "eu-west-3"),
        (fetch_parameter, "ssm", "/audiohook/key", None),
    ],
)
def test_arn_says_which_region_is_asked_and_no_answer_is_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[..., object],
    service: str,
    name: str,
    region: str | None,
) -> None:
    made: list[tuple[str, str | None, float]] = []

    def client(_: object, service: str, *, config: Any, **more: Any) -> Vault:  # noqa: ANN401
        longest = config.connect_timeout + config.read_timeout
        tries = config.retries["total_max_attempts"]
        made.append((service, more.get("region_name"), longest * tries))
        return Vault({"SecretString": "", "Parameter": {"Value": ""}})

    monkeypatch.setattr(boto3.session.Session, "client", client)
    fetch(name)
    assert made == [(service, region, 26.0)]
