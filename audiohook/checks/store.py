"""Whether recordings can be stored, in a folder or a bucket."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import httpx
import trio

from audiohook.call_settings import Mode
from audiohook.errors import ConfigError, UploadError
from audiohook.key_ring import known_keys
from audiohook.keys import label_of
from audiohook.retention.terms import (
    keeps_of,
    place_of,
    tells_kinds,
    without_prefix,
)
from audiohook.storage.base import BytesBlob
from audiohook.storage.check import check_prefix, check_store
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import split_bucket
from audiohook.storage.policy import (
    CHECK_NAME,
    iam_policy,
    lifecycle_rule,
    merge_policies,
    read_secret,
    retention_rules,
)
from audiohook.storing import make_store
from audiohook.verdict import Verdict, doubtful

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping

    from audiohook.checks.expectations import Expectations
    from audiohook.keys import KeyRecord
    from audiohook.settings import Settings
    from audiohook.storage.s3_buckets import S3Buckets

_TRIAL_BYTES = 64
# Of API keys, each with a bucket or a prefix of its own.
_MOST_PLACES: Final = 100


def describe_permissions(settings: Settings, *, erase: bool = False) -> str:
    """Returns the IAM policy and the lifecycle configuration for buckets, as JSON.

    It blocks if there are API keys in Secrets Manager. If those cannot be read, what
    they need is missing, and a line says so: the policy may be what lets them be read.

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
    keys, unread = known_keys(settings)
    records = {label_of(key): record for key, record in keys.items()}
    keeps = keeps_of(settings, records.values())
    tells = tells_kinds(keeps.values())
    purging = _purging(settings, records.values())
    policies: list[dict[str, object]] = []
    rules: dict[str, list[dict[str, object]]] = {settings.s3_bucket: []}
    prefixes = Counter(split_bucket(start)[0] or settings.s3_bucket for start in keeps)
    numbers: Counter[str] = Counter()
    for start, keep in sorted(keeps.items()):
        own, prefix = split_bucket(start)
        bucket = own or settings.s3_bucket
        policies.append(
            iam_policy(
                bucket,
                prefix,
                settings.s3_kms_key_id,
                tags=bool(settings.s3_tags) or tells,
                erase=erase,
                delete=start in purging,
            )
        )
        there = rules.setdefault(bucket, [])
        numbers[bucket] += 1
        name = "audiohook"
        if prefixes[bucket] > 1:
            name = f"audiohook-{numbers[bucket]}"
        there.append(lifecycle_rule(prefix, name))
        there += retention_rules(
            prefix,
            audio_days=keep.audio_days,
            transcripts_days=keep.transcripts_days,
            name=name,
        )
    policy = merge_policies(policies)
    if settings.api_keys_secret is not None:
        statements = policy["Statement"]
        assert isinstance(statements, list)
        statements.append(read_secret(settings.api_keys_secret))
    shown: dict[str, object] = {
        "policy": policy,
        "lifecycle": {"Rules": rules.pop(settings.s3_bucket)},
    }
    if rules:
        shown["lifecycle_of"] = {
            bucket: {"Rules": found} for bucket, found in rules.items()
        }
    unheeded = [
        f"API key {label} has days of its own but no prefix of its own: give it one"
        for label in sorted(without_prefix(settings, records.items()))
    ]
    if unheeded:
        shown["unheeded"] = unheeded
    if unread is not None:
        shown["unread"] = unread
    return json.dumps(shown, indent=2)


def _purging(settings: Settings, records: Iterable[KeyRecord]) -> set[str]:
    """Tell below what audio is deleted that was transcribed, see `layout.in_bucket`."""
    if "mode" in settings.custom_config_allow:
        return set(keeps_of(settings, records))
    return {
        place_of(settings, record)
        for record in records
        if record.choices.get("mode") is Mode.TRANSCRIBE
    }


async def check_storage(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Tries whatever a store has to do, in each bucket and below each prefix.

    Yields:
        A verdict on each thing, as it is tried.
    """
    # What is wrong with their sources is said by another check.
    keys, _unread = await trio.to_thread.run_sync(known_keys, settings)
    store = make_store(settings, lambda: keys)
    if isinstance(store, FolderStore):
        yield await _try_folder(store, settings)
        return
    try:
        async with httpx.AsyncClient() as http:
            purging = _purging(settings, keys.values())
            trials = check_store(
                store,
                settings.s3_key_prefix,
                http=http,
                purges=settings.s3_key_prefix in purging,
            )
            async for verdict in trials:
                yield verdict
            async for verdict in _check_others(store, settings, keys, purging, http):
                yield verdict
    finally:
        store.close()


async def _check_others(
    store: S3Buckets,
    settings: Settings,
    keys: Mapping[str, KeyRecord],
    purging: Collection[str],
    http: httpx.AsyncClient,
) -> AsyncGenerator[Verdict, None]:
    """Tries the buckets and prefixes that API keys have of their own."""
    owners: dict[str, str] = {}
    for key, record in keys.items():
        owners.setdefault(place_of(settings, record), label_of(key))
    owners.pop(settings.s3_key_prefix, None)
    tried: set[str | None] = {None}
    for number, (start, label) in enumerate(owners.items()):
        if number == _MOST_PLACES:
            more = len(owners) - number
            yield doubtful(
                f"try the places of all API keys: {more} more were not tried",
                f"to try those, name them in a file with {_MOST_PLACES} at most",
            )
            return
        bucket, prefix = split_bucket(start)
        where = f"bucket {bucket or settings.s3_bucket}, {prefix} (API key {label})"
        there, purges = store.store_of(bucket), start in purging
        if bucket in tried:
            verdict = await check_prefix(there, prefix, http=http, purges=purges)
            yield replace(verdict, what=f"{where}: {verdict.what}")
            continue
        tried.add(bucket)
        async for verdict in check_store(there, prefix, http=http, purges=purges):
            yield replace(verdict, what=f"{where}: {verdict.what}")


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
