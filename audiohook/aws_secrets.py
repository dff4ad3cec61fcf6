"""Secrets that AWS keeps: one of Secrets Manager, or a parameter of Parameter Store.

Each is read whole, by a client of its own, with the credentials that boto3 finds then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NotRequired, Protocol, TypedDict

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.0

# What Amazon answers within, with one try more.
_CONNECT_LIMIT: Final = 5 * SECONDS
_SILENCE_LIMIT: Final = 8 * SECONDS
_TRIES: Final = 2
# Where an ARN has its region.
_REGION_PLACE: Final = 3


class FoundSecret(TypedDict):
    """Answer to ``GetSecretValue``."""

    SecretString: NotRequired[str]
    SecretBinary: NotRequired[bytes]


class SecretsManager(Protocol):
    """The call that we use. Source: botocore, ``data/secretsmanager``."""

    def get_secret_value(self, *, SecretId: str) -> FoundSecret:
        """Read a secret."""

    def close(self) -> None:
        """Close connections."""


class Parameter(TypedDict):
    """A parameter as the store tells it."""

    Value: str


class FoundParameter(TypedDict):
    """Answer to ``GetParameter``."""

    Parameter: Parameter


class ParameterStore(Protocol):
    """The call that we use. Source: botocore, ``data/ssm``."""

    def get_parameter(self, *, Name: str, WithDecryption: bool) -> FoundParameter:
        """Read a parameter."""

    def close(self) -> None:
        """Close connections."""


def fetch_secret(
    name: str, connect: Callable[[str], SecretsManager] | None = None
) -> bytes:
    """Read a secret. It blocks, for half a minute at the longest.

    Args:
        name: Its name or ARN.
        connect: Makes a client; boto3's if not given.

    Raises:
        ConfigError: It cannot be read; the text is one line and does not hold it.
    """
    # Slow to import, and not everybody needs it.
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = (connect or _secrets_manager)(name)
        try:
            found = client.get_secret_value(SecretId=name)
        finally:
            client.close()
    except (BotoCoreError, ClientError) as exc:
        raise _fault(
            exc, f"API_KEYS_SECRET: {name}", "secretsmanager:GetSecretValue"
        ) from exc
    if "SecretString" in found:
        return found["SecretString"].encode("utf-8", errors="replace")
    return found.get("SecretBinary", b"")


def fetch_parameter(
    name: str, connect: Callable[[str], ParameterStore] | None = None
) -> str:
    """Read a parameter, decrypted. It blocks, for half a minute at the longest.

    Args:
        name: Its name or ARN.
        connect: Makes a client; boto3's if not given.

    Returns:
        Its value, without spaces around it.

    Raises:
        ConfigError: It cannot be read; the text is one line and does not hold it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = (connect or _parameter_store)(name)
        try:
            found = client.get_parameter(Name=name, WithDecryption=True)
        finally:
            client.close()
    except (BotoCoreError, ClientError) as exc:
        raise _fault(
            exc, f"ASSEMBLYAI_API_KEY_PARAMETER: {name}", "ssm:GetParameter"
        ) from exc
    return found["Parameter"]["Value"].strip()


def _fault(error: Exception, where: str, action: str) -> ConfigError:
    """Say what to look after when something could not be read."""
    from botocore.exceptions import ClientError

    code = type(error).__name__
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code") or "?")
    return ConfigError(
        f"{where} cannot be read ({code}): is it there, in region AWS_REGION, and is"
        f" {action} allowed?"
    )


def _secrets_manager(name: str) -> SecretsManager:
    client: SecretsManager = _client("secretsmanager", name)
    return client


def _parameter_store(name: str) -> ParameterStore:
    client: ParameterStore = _client("ssm", name)
    return client


def _client(service: str, name: str) -> Any:  # noqa: ANN401 - boto3 has no types
    """Make a client for the region that an ARN names, else for the machine's own."""
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {}
    parts = name.split(":")
    if parts[0] == "arn" and len(parts) > _REGION_PLACE:
        options["region_name"] = parts[_REGION_PLACE]
    return boto3.session.Session().client(
        service,
        config=Config(
            connect_timeout=_CONNECT_LIMIT,
            read_timeout=_SILENCE_LIMIT,
            retries={"total_max_attempts": _TRIES, "mode": "standard"},
        ),
        **options,
    )
