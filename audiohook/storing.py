"""The way from the spool to the store, put together from what the operator chose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audiohook.erasure.ledger import Ledger
from audiohook.index.keeper import INDEX_FOLDER, CallIndex
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.spool import Spool
from audiohook.recording.wav import Encoding
from audiohook.retention.terms import keeps_of, place_of, tells_kinds
from audiohook.storage.delivery import Deliveries
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import in_bucket
from audiohook.storage.s3_buckets import S3Buckets
from audiohook.storage.s3_client import S3Options
from audiohook.storage.upload import Uploader
from audiohook.transcribing import make_planner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from audiohook.keys import KeyRecord
    from audiohook.metrics import Metrics
    from audiohook.recording.spooled import SpooledCall
    from audiohook.settings import Settings
    from audiohook.storage.s3 import S3Store
    from audiohook.transcribing import Transcribing

MIB = 1024 * 1024

SPOOL_FOLDER = ".spool"
"""Name of the spool, below the folder of the recordings."""


def make_deliveries(
    uploader: Uploader,
    transcribing: Transcribing | None,
    *,
    metrics: Metrics,
    log: FilteringBoundLogger,
) -> Deliveries:
    """Makes what brings calls to the store, and then to whoever transcribes them."""
    delivered: Callable[[SpooledCall], None] | None = None
    if transcribing is not None:
        delivered = transcribing.jobs.add
    return Deliveries(uploader, metrics=metrics, log=log, delivered=delivered)


def make_store(
    settings: Settings, keys: Callable[[], Mapping[str, KeyRecord]] = dict
) -> FolderStore | S3Buckets:
    """Makes the store that the settings name: a bucket, or else a folder.

    Args:
        settings: What the operator chose.
        keys: Returns the API keys as they are now, whose days decide about tags; who
            stores nothing need not know them.
    """
    if settings.s3_bucket is None:
        return FolderStore(settings.recordings_dir)
    return S3Buckets(
        settings.s3_bucket,
        options=S3Options(
            encryption=settings.s3_encryption,
            kms_key_id=settings.s3_kms_key_id,
            storage_class=settings.s3_storage_class,
            tags=settings.s3_tags,
            tags_kinds=_tags_kinds(settings, keys),
        ),
    )


def _tags_kinds(
    settings: Settings, keys: Callable[[], Mapping[str, KeyRecord]]
) -> Callable[[], bool]:
    """Return what tells whether objects get tags that rules of a bucket go by."""
    latest: tuple[Mapping[str, KeyRecord], bool] | None = None

    def tell() -> bool:
        nonlocal latest
        known = keys()
        # Ten thousand keys are looked through once, not for each object.
        if latest is None or latest[0] is not known:
            keeps = keeps_of(settings, known.values())
            latest = known, tells_kinds(keeps.values())
        return latest[1]

    return tell


def places_of(
    settings: Settings, keys: Callable[[], Mapping[str, KeyRecord]]
) -> Callable[[], list[str]]:
    """Returns what tells the beginnings of the keys of all calls.

    Args:
        settings: Say where calls go whose API key says nothing.
        keys: Returns the API keys as they are now.
    """

    def places() -> list[str]:
        found = {settings.s3_key_prefix: None}
        for record in keys().values():
            found[place_of(settings, record)] = None
        return list(found)

    return places


def make_index(
    settings: Settings,
    store: FolderStore | S3Store,
    keys: Callable[[], Mapping[str, KeyRecord]] = dict,
    *,
    log: FilteringBoundLogger,
) -> CallIndex:
    """Makes the index of what is in the store.

    Args:
        settings: What the operator chose.
        store: The store.
        keys: Returns the API keys, which may have calls elsewhere; who only looks
            something up need not know them.
        log: For what an operator must see.
    """
    ledger = make_ledger(settings)
    return CallIndex(
        settings.recordings_dir / SPOOL_FOLDER / INDEX_FOLDER,
        store,
        places=places_of(settings, keys),
        is_deep="prefix" in settings.custom_config_allow,
        log=log,
        is_erased=lambda entry: ledger.is_erased(
            entry.conversation, entry.session, entry.started_at
        ),
    )


def make_ledger(settings: Settings) -> Ledger:
    """Makes what knows which calls are to be erased, or were."""
    return Ledger(settings.recordings_dir / SPOOL_FOLDER)


def make_storage(
    settings: Settings, keys: Callable[[], Mapping[str, KeyRecord]]
) -> tuple[Spool, FolderStore | S3Store, Uploader]:
    """Makes the spool, the store, and what brings calls from one to the other.

    Args:
        settings: What the operator chose.
        keys: Returns the API keys as they are now.
    """
    spool = Spool(
        settings.recordings_dir / SPOOL_FOLDER,
        low_water_bytes=settings.spool_low_water_mib * MIB,
    )
    store = make_store(settings, keys)
    uploader = Uploader(
        store,
        spool,
        prefix=settings.s3_key_prefix,
        encoding=Encoding(settings.wav_encoding),
        layout=Layout(settings.channel_layout),
        gaps=Gaps(settings.gaps),
        keep_raw=settings.keep_raw,
        keep_peaks=settings.keep_peaks,
        plan_transcripts=make_planner(settings).plan,
    )
    return spool, store, uploader


def typed_key(settings: Settings, typed: str) -> str:
    """Makes a key of what somebody typed: a key, or how a shell or AWS names it."""
    bucket = settings.s3_bucket
    if bucket is not None:
        if not typed.startswith("s3://"):
            return typed.strip("/")
        # It may be that of an API key.
        named, _, key = typed.removeprefix("s3://").partition("/")
        return in_bucket(None if named == bucket else named, key.strip("/"))
    # As a shell completes it, from wherever it was typed.
    path = Path(typed).resolve()
    root = settings.recordings_dir.resolve()
    if path.is_relative_to(root) and path != root:
        return path.relative_to(root).as_posix()
    return typed.strip("/")
