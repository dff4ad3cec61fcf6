"""The kernel beside its peers: audioop (up to Python 3.12) and NumPy's look-up.

Run with ``python -m pytest bench/test_kernel.py --benchmark-only -q`` and compare
within a group. ``gb_per_second`` counts bytes of µ-law in every group: those that go
in for decode, split and mix, those that come out for encode. All start from
``bytes``, end in ``bytes``, and are checked to end in the same.
"""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import pytest

from audiohook import _ulaw
from tests import reference_ulaw as reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

Result = TypeVar("Result")

# One message of audio; what a core keeps close by; what an upload reads at once.
SIZES = [1_600, 64 * 1024, 1024 * 1024]


class Peer(Protocol):
    """One way to do what the kernel does."""

    @property
    def name(self) -> str: ...
    def decode(self, src: bytes) -> bytes: ...
    def split(self, src: bytes) -> tuple[bytes, bytes]: ...
    def mix(self, src: bytes) -> bytes: ...
    def encode(self, pcm: bytes) -> bytes: ...


class Kernel:
    name = "kernel"

    # Methods rather than the functions themselves, so that each peer pays for one
    # call in Python.
    def decode(self, src: bytes) -> bytes:
        return _ulaw.decode(src)

    def split(self, src: bytes) -> tuple[bytes, bytes]:
        return _ulaw.split(src)

    def mix(self, src: bytes) -> bytes:
        return _ulaw.mix(src)

    def encode(self, pcm: bytes) -> bytes:
        return _ulaw.encode(pcm)


class AudioopModule(Protocol):
    def ulaw2lin(self, fragment: bytes, width: int, /) -> bytes: ...
    def lin2ulaw(self, fragment: bytes, width: int, /) -> bytes: ...
    def tomono(
        self, fragment: bytes, width: int, left: float, right: float, /
    ) -> bytes: ...


class Audioop:
    name = "audioop"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.module: AudioopModule = pytest.importorskip(
                "audioop",
                reason="audioop left Python with 3.13: pip install audioop-lts",
            )

    def decode(self, src: bytes) -> bytes:
        return self.module.ulaw2lin(src, 2)

    def split(self, src: bytes) -> tuple[bytes, bytes]:
        pcm = self.module.ulaw2lin(src, 2)
        tomono = self.module.tomono
        return tomono(pcm, 2, 1, 0), tomono(pcm, 2, 0, 1)

    def mix(self, src: bytes) -> bytes:
        return self.module.tomono(self.module.ulaw2lin(src, 2), 2, 0.5, 0.5)

    def encode(self, pcm: bytes) -> bytes:
        return self.module.lin2ulaw(pcm, 2)


class Numpy:
    name = "numpy"

    # `take` is two to three times as fast as indexing with an array.
    linear: NDArray[np.int16] = np.array(
        [reference.linear(code) for code in range(256)], "<i2"
    )
    halves: NDArray[np.int16] = linear >> 1
    # By the bits of the sample, read as a number without sign.
    codes: NDArray[np.uint8] = np.array(
        [reference.code(value) for value in (*range(32768), *range(-32768, 0))], "u1"
    )

    def decode(self, src: bytes) -> bytes:
        return self.linear.take(np.frombuffer(src, "u1")).tobytes()

    def split(self, src: bytes) -> tuple[bytes, bytes]:
        samples = np.frombuffer(src, "u1")
        first, second = samples[0::2], samples[1::2]
        return self.linear.take(first).tobytes(), self.linear.take(second).tobytes()

    def mix(self, src: bytes) -> bytes:
        samples = np.frombuffer(src, "u1")
        first, second = samples[0::2], samples[1::2]
        return (self.halves.take(first) + self.halves.take(second)).tobytes()

    def encode(self, pcm: bytes) -> bytes:
        return self.codes.take(np.frombuffer(pcm, "<u2")).tobytes()


@pytest.fixture(params=[Kernel, Audioop, Numpy], ids=["kernel", "audioop", "numpy"])
def peer(request: pytest.FixtureRequest) -> Peer:
    make: Callable[[], Peer] = request.param
    return make()


@pytest.fixture(params=SIZES)
def ulaw(request: pytest.FixtureRequest) -> bytes:
    """Noise, so that no peer gains from a value it has just seen."""
    size: int = request.param
    return random.Random(size).randbytes(size)


def measure(
    benchmark: BenchmarkFixture,
    operation: str,
    function: Callable[[bytes], Result],
    source: bytes,
    *,
    name: str,
    ulaw_bytes: int,
) -> Result:
    benchmark.group = f"{operation}, {ulaw_bytes} bytes"
    result: Result = benchmark(function, source)
    if benchmark.stats is not None:
        benchmark.extra_info |= {
            "operation": operation,
            "name": name,
            "bytes": ulaw_bytes,
            "gb_per_second": round(ulaw_bytes / benchmark.stats.stats.min / 1e9, 3),
        }
    return result


def test_decode(benchmark: BenchmarkFixture, peer: Peer, ulaw: bytes) -> None:
    result = measure(
        benchmark, "decode", peer.decode, ulaw, name=peer.name, ulaw_bytes=len(ulaw)
    )
    assert result == _ulaw.decode(ulaw)


def test_split(benchmark: BenchmarkFixture, peer: Peer, ulaw: bytes) -> None:
    result = measure(
        benchmark, "split", peer.split, ulaw, name=peer.name, ulaw_bytes=len(ulaw)
    )
    assert result == _ulaw.split(ulaw)


def test_mix(benchmark: BenchmarkFixture, peer: Peer, ulaw: bytes) -> None:
    result = measure(
        benchmark, "mix", peer.mix, ulaw, name=peer.name, ulaw_bytes=len(ulaw)
    )
    assert result == _ulaw.mix(ulaw)


def test_encode(benchmark: BenchmarkFixture, peer: Peer, ulaw: bytes) -> None:
    pcm = _ulaw.decode(ulaw)
    result = measure(
        benchmark, "encode", peer.encode, pcm, name=peer.name, ulaw_bytes=len(ulaw)
    )
    assert result == _ulaw.encode(pcm)
