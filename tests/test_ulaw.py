from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook import _ulaw
from tests import reference_ulaw as reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_CODE = bytes(range(256))
EVERY_PAIR = bytes(code for a in range(256) for b in range(256) for code in (a, b))
EVERY_PCM = reference.pcm(list(range(-32768, 32768)))

STEREO: list[Callable[[bytes], object]] = [
    _ulaw.split,
    _ulaw.mix,
    _ulaw.mix_ulaw,
    _ulaw.deinterleave,
    lambda src: _ulaw.peak_rms(src, 2),
]

mono_audio = st.binary(max_size=300)
stereo_audio = st.binary(max_size=300).map(lambda src: src[: len(src) // 2 * 2])


class Audioop(Protocol):
    def ulaw2lin(self, fragment: bytes, width: int, /) -> bytes: ...
    def lin2ulaw(self, fragment: bytes, width: int, /) -> bytes: ...


@pytest.fixture
def audioop() -> Audioop:
    """The kernel that was the standard library's own, and audioop-lts's from 3.13 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: Audioop = pytest.importorskip(
            "audioop", reason="audioop-lts is not installed"
        )
        return module


def test_reference_table_has_the_known_digest() -> None:
    table = reference.decode(EVERY_CODE)
    assert hashlib.sha256(table).hexdigest() == reference.TABLE_SHA256


def test_decode_is_the_formula_for_every_code() -> None:
    assert _ulaw.decode(EVERY_CODE) == reference.decode(EVERY_CODE)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (0x00, -32124),
        (0x0F, -16764),
        (0x7E, -8),
        (0x7F, 0),
        (0x80, 32124),
        (0xC0, 1884),
        (0xFE, 8),
        (0xFF, 0),
    ],
)
def test_decode_of_values_printed_in_the_standard(code: int, value: int) -> None:
    assert _ulaw.decode(bytes([code])) == reference.pcm([value])


def test_decode_agrees_with_audioop_for_every_code(audioop: Audioop) -> None:
    assert _ulaw.decode(EVERY_CODE) == audioop.ulaw2lin(EVERY_CODE, 2)


def test_encode_is_the_formula_for_every_value() -> None:
    assert _ulaw.encode(EVERY_PCM) == reference.encode(EVERY_PCM)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, 0xFF),
        (3, 0xFF),
        (4, 0xFE),
        (-1, 0x7F),
        (-4, 0x7E),
        (32635, 0x80),
        (32767, 0x80),
        (-32635, 0x00),
        (-32768, 0x00),
    ],
)
def test_encode_at_the_edges(value: int, code: int) -> None:
    assert _ulaw.encode(reference.pcm([value])) == bytes([code])


def test_encode_agrees_with_audioop_where_14_bits_tell_all(audioop: Audioop) -> None:
    # audioop drops the two lowest bits before it looks at the sign, so that -1 is
    # -4 to it; on multiples of 4, and on all that is not negative, it is exact.
    values = [value for value in range(-32768, 32768) if value >= 0 or value % 4 == 0]
    pcm = reference.pcm(values)
    assert _ulaw.encode(pcm) == audioop.lin2ulaw(pcm, 2)


def test_every_code_survives_a_round_trip_but_negative_zero() -> None:
    expected = EVERY_CODE.replace(b"\x7f", b"\xff")
    assert _ulaw.encode(_ulaw.decode(EVERY_CODE)) == expected


def test_mix_is_the_exact_average_for_every_pair() -> None:
    assert _ulaw.mix(EVERY_PAIR) == reference.mix(EVERY_PAIR)
    assert _ulaw.mix_ulaw(EVERY_PAIR) == reference.mix_ulaw(EVERY_PAIR)


def test_every_function_at_every_length_and_alignment() -> None:
    # Lengths around the widths of vector loops, their remainders, and odd addresses.
    noise = random.Random(711).randbytes(400)
    for start in (0, 1, 2, 3):
        for length in range(140):
            source = memoryview(noise)[start : start + length]
            plain = bytes(source)
            assert _ulaw.decode(source) == reference.decode(plain)
            assert _ulaw.peak_rms(source, 1) == (reference.peak_rms(plain),)
            if length % 2 == 0:
                first, second = plain[::2], plain[1::2]
                assert _ulaw.split(source) == (
                    reference.decode(first),
                    reference.decode(second),
                )
                assert _ulaw.deinterleave(source) == (first, second)
                assert _ulaw.mix(source) == reference.mix(plain)
                assert _ulaw.mix_ulaw(source) == reference.mix_ulaw(plain)
                assert _ulaw.encode(source) == reference.encode(plain)


@given(stereo_audio)
def test_split_is_two_decodes_of_slices(src: bytes) -> None:
    assert _ulaw.split(src) == (_ulaw.decode(src[::2]), _ulaw.decode(src[1::2]))


@given(stereo_audio)
def test_deinterleave_is_two_slices(src: bytes) -> None:
    assert _ulaw.deinterleave(src) == (src[::2], src[1::2])


@given(stereo_audio)
def test_mix_ulaw_is_mix_encoded(src: bytes) -> None:
    assert _ulaw.mix_ulaw(src) == _ulaw.encode(_ulaw.mix(src))


@given(mono_audio)
def test_encode_undoes_decode(src: bytes) -> None:
    assert _ulaw.encode(_ulaw.decode(src)) == src.replace(b"\x7f", b"\xff")


@given(stereo_audio)
def test_peak_rms_is_the_formula_for_each_channel(src: bytes) -> None:
    assert _ulaw.peak_rms(src, 2) == (
        reference.peak_rms(src[::2]),
        reference.peak_rms(src[1::2]),
    )


def test_peak_rms_of_full_scale_does_not_overflow() -> None:
    src = b"\x00\x80" * 500_000
    assert _ulaw.peak_rms(src, 1) == ((32124, 32124.0),)
    assert _ulaw.peak_rms(src, 2) == ((32124, 32124.0),) * 2


def test_empty_audio_stays_empty() -> None:
    assert _ulaw.decode(b"") == b""
    assert _ulaw.decode_into(b"", bytearray()) == 0
    assert _ulaw.encode(b"") == b""
    assert _ulaw.split(b"") == (b"", b"")
    assert _ulaw.deinterleave(b"") == (b"", b"")
    assert _ulaw.mix(b"") == b""
    assert _ulaw.mix_ulaw(b"") == b""
    assert _ulaw.peak_rms(b"", 1) == ((0, 0.0),)
    assert _ulaw.peak_rms(b"", 2) == ((0, 0.0), (0, 0.0))


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_buffer_of_bytes_will_do(make: Callable[[bytes], bytes]) -> None:
    assert _ulaw.decode(make(EVERY_CODE)) == reference.decode(EVERY_CODE)
    assert _ulaw.encode(make(EVERY_PCM)) == reference.encode(EVERY_PCM)


@pytest.mark.parametrize("function", STEREO)
def test_two_channels_of_odd_length_are_refused(
    function: Callable[[bytes], object],
) -> None:
    with pytest.raises(ValueError, match="even length, not 1601 bytes"):
        function(b"\xff" * 1601)


def test_encode_of_odd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="even length, not 3 bytes"):
        _ulaw.encode(b"abc")


@pytest.mark.parametrize("channels", [0, 3, -1])
def test_peak_rms_refuses_other_channel_counts(channels: int) -> None:
    with pytest.raises(ValueError, match="1 or 2 channels"):
        _ulaw.peak_rms(b"\xff\xff", channels)


def test_a_view_with_holes_is_refused() -> None:
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        _ulaw.decode(memoryview(EVERY_CODE)[::2])


def test_none_is_refused() -> None:
    missing: Any = None
    with pytest.raises(TypeError):
        _ulaw.decode(missing)


def test_decode_into_fills_a_misaligned_slice_and_nothing_else() -> None:
    target = bytearray(b"\xaa" * 600)
    written = _ulaw.decode_into(EVERY_CODE, memoryview(target)[1:])
    assert written == 512
    assert target == b"\xaa" + reference.decode(EVERY_CODE) + b"\xaa" * 87


def test_decode_into_refuses_a_target_that_is_too_short() -> None:
    target = bytearray(511)
    with pytest.raises(ValueError, match="512 bytes; the target has room for 511"):
        _ulaw.decode_into(EVERY_CODE, target)
    assert target == bytes(511)


def test_decode_into_refuses_a_read_only_target() -> None:
    with pytest.raises(BufferError):
        _ulaw.decode_into(b"\xff", b"\0\0")


@pytest.mark.parametrize("start", [1, 99, 100, 299])
def test_decode_into_refuses_shared_memory(start: int) -> None:
    memory = memoryview(bytearray(500))
    with pytest.raises(ValueError, match="share memory"):
        _ulaw.decode_into(memory[start : start + 100], memory[100:300])


@pytest.mark.parametrize("start", [0, 300])
def test_decode_into_accepts_neighbouring_memory(start: int) -> None:
    memory = memoryview(bytearray(500))
    memory[start : start + 100] = b"\x80" * 100
    assert _ulaw.decode_into(memory[start : start + 100], memory[100:300]) == 200
    assert memory[100:300] == reference.decode(b"\x80" * 100)


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """No thread loses the GIL unless it lets go of it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("patient_interpreter")
@pytest.mark.parametrize(
    "function",
    [
        _ulaw.decode,
        _ulaw.encode,
        lambda src: _ulaw.decode_into(src, bytearray(2 * len(src))),
        lambda src: _ulaw.peak_rms(src, 1),
        *STEREO,
    ],
)
def test_other_threads_run_meanwhile(function: Callable[[bytes], object]) -> None:
    src = bytes(1 << 20)
    started, seen = threading.Event(), threading.Event()
    rounds = 2_000
    done = 0

    def work() -> None:
        nonlocal done
        started.set()
        while done < rounds and not seen.is_set():
            function(src)
            done += 1

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    seen.set()
    worker.join()
    assert done < rounds


def test_import_without_the_compiled_module_says_what_to_do() -> None:
    program = "import sys; sys.modules['audiohook._ulaw'] = None; import audiohook"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: audiohook is here without its compiled")
    assert "make build" in last
