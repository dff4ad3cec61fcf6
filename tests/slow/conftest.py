"""Stores that slow tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faultproxy import FaultProxy
from tests.seaweed import seaweed as seaweed
from tests.slow.bucket import Bucket, Mortal, mortal_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trio

    from tests.seaweed import Seaweed


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    """An empty bucket of a store that lives."""
    bucket = Bucket(seaweed)
    bucket.create()
    return bucket


@pytest.fixture
async def proxy(seaweed: Seaweed, nursery: trio.Nursery) -> FaultProxy:
    """Stands before that store."""
    proxy = FaultProxy(seaweed.port)
    await nursery.start(proxy.serve)
    return proxy


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    """A store that a test may kill; it has not been started."""
    with mortal_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def mortal_proxy(mortal: Mortal, nursery: trio.Nursery) -> FaultProxy:
    """Stands before that one."""
    proxy = FaultProxy(mortal.port)
    await nursery.start(proxy.serve)
    return proxy
