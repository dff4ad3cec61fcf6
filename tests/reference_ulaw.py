"""G.711 µ-law in plain Python, one sample at a time: the oracle for the kernel.

Source: ITU-T G.711 in its usual 16-bit form (bias 132, clip 32635). Written for the
eye, from the words of the standard, and on purpose in another way than the kernel.
"""

from __future__ import annotations

import math

BIAS = 132
CLIP = 32635

TABLE_SHA256 = "3dab54339e520bb2c924826e3b72a917a2b612e9fd12fc867500f1d983a75827"
"""Of the 256 decoded values in order of their codes, as int16 little-endian."""


def linear(code: int) -> int:
    """Decode one byte."""
    u = ~code & 0xFF
    sign, exponent, mantissa = u & 0x80, (u >> 4) & 7, u & 15
    magnitude = (((mantissa << 3) + BIAS) << exponent) - BIAS
    return -magnitude if sign else magnitude


def code(value: int) -> int:
    """Encode one sample."""
    sign = 0x80 if value < 0 else 0
    magnitude = min(abs(value), CLIP) + BIAS
    exponent = magnitude.bit_length() - 8
    mantissa = (magnitude >> (exponent + 3)) & 15
    return ~(sign | exponent << 4 | mantissa) & 0xFF


def pcm(values: list[int]) -> bytes:
    """Lay samples out as int16 little-endian."""
    return b"".join(value.to_bytes(2, "little", signed=True) for value in values)


def decode(src: bytes) -> bytes:
    return pcm([linear(byte) for byte in src])


def encode(src: bytes) -> bytes:
    return bytes(
        code(int.from_bytes(src[i : i + 2], "little", signed=True))
        for i in range(0, len(src), 2)
    )


def average(src: bytes) -> list[int]:
    """Mix pairs of bytes; the sum of two decoded values is always even."""
    sums = [linear(a) + linear(b) for a, b in zip(src[::2], src[1::2], strict=True)]
    assert all(total % 2 == 0 for total in sums)
    return [total // 2 for total in sums]


def mix(src: bytes) -> bytes:
    return pcm(average(src))


def mix_ulaw(src: bytes) -> bytes:
    return bytes(code(value) for value in average(src))


def peak_rms(src: bytes) -> tuple[int, float]:
    """Measure one channel."""
    values = [linear(byte) for byte in src]
    if not values:
        return 0, 0.0
    energy = sum(value * value for value in values)
    return max(map(abs, values)), math.sqrt(energy / len(values))
