"""AWS Secrets Manager, as far as it is needed: one secret, read whole."""

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


def fetch_secret(
    name: str, connect: Callable[[str], SecretsManager] | None = None
) -> bytes:
    """Read a secret. It blocks, for half a minute at the longest.

    Args:
        name: Its name or ARN.
        connect: Makes a client; boto3's if not given, which finds credentials as they
            are now.

    Raises:
        ConfigError: It cannot be read; the text is one line and does not hold it.
    """
    # Slow to import, and not everybody needs it.
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = (connect or _connect)(name)
        try:
            found = client.get_secret_value(SecretId=name)
        finally:
            client.close()
    except (BotoCoreError, ClientError) as exc:
        code = type(exc).__name__
        if isinstance(exc, ClientError):
            code = str(exc.response.get("Error", {}).get("Code") or "?")
        raise ConfigError(
            f"API_KEYS_SECRET: {name} cannot be read ({code}): is it there, in region"
            " AWS_REGION, and is secretsmanager:GetSecretValue allowed?"
        ) from exc
    if "SecretString" in found:
        return found["SecretString"].encode("utf-8", errors="replace")
    return found.get("SecretBinary", b"")


def _connect(name: str) -> SecretsManager:
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {}
    parts = name.split(":")
    if parts[0] == "arn" and len(parts) > _REGION_PLACE:
        options["region_name"] = parts[_REGION_PLACE]
    client: SecretsManager = boto3.session.Session().client(
        "secretsmanager",
        config=Config(
            connect_timeout=_CONNECT_LIMIT,
            read_timeout=_SILENCE_LIMIT,
            retries={"total_max_attempts": _TRIES, "mode": "standard"},
        ),
        **options,
    )
    return client
