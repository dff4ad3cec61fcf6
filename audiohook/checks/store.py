"""Whether recordings can be stored, in a folder or a bucket."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import httpx

from audiohook.errors import ConfigError, UploadError
from audiohook.storage.base import BytesBlob
from audiohook.storage.check import check_store
from audiohook.storage.folder import FolderStore
from audiohook.storage.policy import CHECK_NAME, iam_policy, lifecycle_rule
from audiohook.storing import make_store
from audiohook.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings

_TRIAL_BYTES = 64


def describe_permissions(settings: Settings) -> str:
    """Returns the IAM policy and the lifecycle rule for a bucket, as JSON.

    Raises:
        ConfigError: There is no bucket.
    """
    if settings.s3_bucket is None:
        raise ConfigError(
            "S3_BUCKET: is not set; permissions are for a bucket, for example"
            " S3_BUCKET=my-recordings"
        )
    policy = iam_policy(
        settings.s3_bucket,
        settings.s3_key_prefix,
        settings.s3_kms_key_id,
        tags=bool(settings.s3_tags),
    )
    rule = lifecycle_rule(settings.s3_key_prefix)
    return json.dumps({"policy": policy, "lifecycle": rule}, indent=2)


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
