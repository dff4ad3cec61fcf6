"""Transcription by the bucket's events, put together from what the operator chose."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook.aws_secrets import fetch_parameter
from audiohook.errors import ConfigError
from audiohook.key_ring import keys_to_store_by
from audiohook.storage.s3 import S3Store
from audiohook.storing import make_store
from audiohook.transcribing import make_account
from audiohook.transcription.errand import Errands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.recording.herald import Herald
    from audiohook.settings import Settings
    from audiohook.transcription.notices import Notice


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Transcription in this process of what is in the bucket.

    Attributes:
        errands: Sees to one file after the other, or to many at once.
        bucket: Name of the bucket, or the ARN of an access point.
        prefix: What the keys of all calls begin with.
        log: For lines about events.
    """

    errands: Errands
    bucket: str
    prefix: str
    log: FilteringBoundLogger

    def concerns(self, notice: Notice) -> bool:
        """Tells whether an object is a WAV of ours; says so at debug if not."""
        reason = notice.reason_to_ignore(self.bucket, self.prefix)
        if reason is not None:
            self.log.debug("event_ignored", audio=notice.shown, reason=reason)
        return reason is None


def check_settings(settings: Settings) -> None:
    """Refuses settings without which nothing can be transcribed elsewhere.

    Raises:
        ConfigError: Which are missing.
    """
    if settings.s3_bucket is None:
        raise ConfigError(
            "S3_BUCKET: is not set, and only calls in a bucket can be transcribed"
            " elsewhere; for example S3_BUCKET=my-recordings"
        )
    if settings.assemblyai_api_key or settings.assemblyai_api_key_parameter:
        return
    raise ConfigError(
        "ASSEMBLYAI_API_KEY: is not set, and ASSEMBLYAI_API_KEY_PARAMETER is not"
        " either; one of them is needed"
    )


def find_key(settings: Settings, read: Callable[[str], str] | None = None) -> str:
    """Finds the key for the service; it blocks if that is in the Parameter Store.

    Args:
        settings: Have it, or say where it is.
        read: Reads a parameter; `fetch_parameter` if not given.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    check_settings(settings)
    if settings.assemblyai_api_key is not None:
        return settings.assemblyai_api_key.get_secret_value()
    return (read or fetch_parameter)(settings.assemblyai_api_key_parameter or "")


@asynccontextmanager
async def transcribing_elsewhere(
    settings: Settings,
    key: str,
    *,
    log: FilteringBoundLogger,
    herald: Herald | None = None,
) -> AsyncIterator[Elsewhere]:
    """Has what sees to files in the bucket, while the block lasts.

    Args:
        settings: What the operator chose.
        key: For the service.
        log: For lines about transcripts and events.
        herald: Told of each file that is done with.

    Raises:
        ConfigError: There is no bucket, or the file of API keys cannot be used.
    """
    check_settings(settings)
    keys = await keys_to_store_by(settings, log=log)
    store = make_store(settings, lambda: keys)
    assert isinstance(store, S3Store)
    assert settings.s3_bucket is not None
    account = make_account(settings, key)
    errands = Errands(
        account.steps,
        store=store,
        pace=account.pace,
        parameters=account.parameters,
        log=log,
        deletes=settings.delete_transcript,
        herald=herald,
    )
    try:
        yield Elsewhere(errands, settings.s3_bucket, settings.s3_key_prefix, log)
    finally:
        await account.aclose()
        store.close()
