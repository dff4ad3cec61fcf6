"""Stores that tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audiohook.storage.s3 import S3Store
from audiohook.storage.s3_client import S3Options
from tests.aws import ALONE, environment
from tests.faultproxy import FaultProxy
from tests.seaweed import BUCKET, OWNER, Seaweed
from tests.seaweed import seaweed as seaweed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trio

    MakeStore = Callable[..., S3Store]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which AWS's settings are those that the test makes."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def make_store(aws: pytest.MonkeyPatch) -> Iterator[MakeStore]:
    """Makes stores, which look for the environment when they are first used."""
    made: list[S3Store] = []

    def make(
        url: str,
        *,
        keys: tuple[str, str] = OWNER,
        bucket: str = BUCKET,
        parallel: int = 8,
        options: S3Options | None = None,
    ) -> S3Store:
        for name, value in environment(url, keys).items():
            aws.setenv(name, value)
        made.append(S3Store(bucket, parallel=parallel, options=options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
async def proxy(seaweed: Seaweed, nursery: trio.Nursery) -> FaultProxy:
    """Stands before the store, and does nothing unless it is told to."""
    proxy = FaultProxy(seaweed.port)
    await nursery.start(proxy.serve)
    return proxy


@pytest.fixture
def s3(seaweed: Seaweed, make_store: MakeStore) -> S3Store:
    """The store without anything before it."""
    return make_store(seaweed.url)


@pytest.fixture
def store(proxy: FaultProxy, make_store: MakeStore) -> S3Store:
    """The store behind the proxy; it does not wait long."""
    limits = S3Options(connect_limit=2.0, silence_limit=2.0)
    return make_store(proxy.url, options=limits)
