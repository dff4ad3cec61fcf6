"""Whether recordings can be stored, in a folder or a bucket."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import httpx

from audiohook.authentication import configured_keys
from audiohook.errors import ConfigError, UploadError
from audiohook.keys import label_of
from audiohook.retention.terms import keeps_of, tells_kinds, without_prefix
from audiohook.storage.base import BytesBlob
from audiohook.storage.check import check_store
from audiohook.storage.folder import FolderStore
from audiohook.storage.policy import (
    CHECK_NAME,
    iam_policy,
    lifecycle_rule,
    retention_rules,
)
from audiohook.storing import make_store
from audiohook.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings

_TRIAL_BYTES = 64


def describe_permissions(settings: Settings, *, erase: bool = False) -> str:
    """Returns the IAM policy and the lifecycle configuration for a bucket, as JSON.

    Args:
        settings: What the operator chose.
        erase: Whether calls may be erased.

    Raises:
        ConfigError: There is no bucket, or the file of API keys cannot be used.
    """
    if settings.s3_bucket is None:
        raise ConfigError(
            "S3_BUCKET: is not set; permissions are for a bucket, for example"
            " S3_BUCKET=my-recordings"
        )
    keys = configured_keys(settings)
    records = {label_of(key): record for key, record in keys.items()}
    in_bucket = [
        each for each in records.values() if each.bucket in (None, settings.s3_bucket)
    ]
    keeps = keeps_of(settings, in_bucket)
    policy = iam_policy(
        settings.s3_bucket,
        settings.s3_key_prefix,
        settings.s3_kms_key_id,
        tags=bool(settings.s3_tags) or tells_kinds(keeps.values()),
        erase=erase,
    )
    rules: list[dict[str, object]] = []
    for number, (prefix, keep) in enumerate(sorted(keeps.items()), start=1):
        name = "audiohook" if len(keeps) == 1 else f"audiohook-{number}"
        rules.append(lifecycle_rule(prefix, name))
        rules += retention_rules(
            prefix,
            audio_days=keep.audio_days,
            transcripts_days=keep.transcripts_days,
            name=name,
        )
    shown: dict[str, object] = {"policy": policy, "lifecycle": {"Rules": rules}}
    unheeded = sorted(without_prefix(settings, records.items()))
    if unheeded:
        shown["unheeded"] = [
            f"API key {label} has days of its own but no prefix of its own: give it one"
            for label in unheeded
        ]
    return json.dumps(shown, indent=2)


async def check_storage(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Tries whatever a store has to do.

    Yields:
        A verdict on each thing, as it is tried.
    """
    store = make_store(settings)
    if isinstance(store, FolderStore):
        yield await _try_folder(store, settings)
        return
    try:
        async with httpx.AsyncClient() as http:
            async for verdict in check_store(store, settings.s3_key_prefix, http=http):
                yield verdict
    finally:
        store.close()


async def _try_folder(store: FolderStore, settings: Settings) -> Verdict:
    """Stores a small object in the folder, reads it back, and deletes it."""
    key = f"{settings.s3_key_prefix}{CHECK_NAME}{secrets.token_hex(8)}"
    data = secrets.token_bytes(_TRIAL_BYTES)
    path = settings.recordings_dir / key
    what = f"store in the folder {settings.recordings_dir}"
    mend = "RECORDINGS_DIR must be a folder that this user may write to"
    try:
        await store.put(key, BytesBlob(data), metadata={}, token=key)
        same = await store.read(key) == data
        path.unlink()
    except (UploadError, OSError) as error:
        return Verdict(ok=False, what=f"{what}: {error}", mend=mend)
    if not same:
        return Verdict(ok=False, what=f"{what}: it reads back otherwise", mend=mend)
    return Verdict(ok=True, what=what)
