"""How loud a recording is along its length, at a size that does not grow with it.

What comes out is a file of audiowaveform's binary format, version 2, with 8 bits a
value, which players of others read too: for each span of the recording, and in it
for each channel, the lowest and the highest sample.

Source: BBC, audiowaveform, doc/DataFormat.md.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc

import struct

from audiohook import _ulaw

# µ-law is compared as it comes, a byte a sample: with the lower bits of what is
# positive turned around, codes are in the order of what they stand for. So nothing
# is decoded but the two samples of a span that are left.
#
# Samples are gone through in rows, so that each lane of a vector has a lowest and a
# highest value of its own, and they are brought together once a span: even lanes
# are of one channel, odd ones of the other.
cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) \\
        && !defined(AUDIOHOOK_BASELINE)
    #define PEAKS_CLONES __attribute__((target_clones("avx2", "default")))
    #else
    #define PEAKS_CLONES
    #endif

    #define PEAKS_INLINE static inline __attribute__((always_inline))
    #define PEAKS_LANES 32

    PEAKS_INLINE uint8_t peaks_rank(uint8_t code) {
        return (uint8_t)(code ^ ((uint8_t)((int8_t)code >> 7) & 0x7F));
    }

    /* Lowest and highest of `samples` values, of which there is at least one; those
       of two channels stand in turns. */
    PEAKS_CLONES
    static void peaks_ulaw(const uint8_t *restrict src, size_t samples,
                           size_t channels, int16_t *low, int16_t *high) {
        uint8_t lows[PEAKS_LANES], highs[PEAKS_LANES];
        memset(lows, 0xFF, sizeof lows);
        memset(highs, 0, sizeof highs);
        size_t at = 0;
        for (; at + PEAKS_LANES <= samples; at += PEAKS_LANES) {
            for (size_t lane = 0; lane < PEAKS_LANES; lane++) {
                const uint8_t rank = peaks_rank(src[at + lane]);
                lows[lane] = rank < lows[lane] ? rank : lows[lane];
                highs[lane] = rank > highs[lane] ? rank : highs[lane];
            }
        }
        for (size_t lane = 0; at < samples; at++, lane++) {
            const uint8_t rank = peaks_rank(src[at]);
            lows[lane] = rank < lows[lane] ? rank : lows[lane];
            highs[lane] = rank > highs[lane] ? rank : highs[lane];
        }
        for (size_t width = PEAKS_LANES / 2; width >= 2; width /= 2) {
            for (size_t lane = 0; lane < width; lane++) {
                const uint8_t other_low = lows[lane + width];
                const uint8_t other_high = highs[lane + width];
                lows[lane] = other_low < lows[lane] ? other_low : lows[lane];
                highs[lane] = other_high > highs[lane] ? other_high : highs[lane];
            }
        }
        if (channels == 1) {
            lows[0] = lows[1] < lows[0] ? lows[1] : lows[0];
            highs[0] = highs[1] > highs[0] ? highs[1] : highs[0];
        }
        for (size_t channel = 0; channel < channels; channel++) {
            low[channel] = lows[channel];
            high[channel] = highs[channel];
        }
    }

    PEAKS_CLONES
    static void peaks_pcm(const uint8_t *restrict src, size_t samples,
                          size_t channels, int16_t *low, int16_t *high) {
        int16_t lows[PEAKS_LANES], highs[PEAKS_LANES], row[PEAKS_LANES];
        for (size_t lane = 0; lane < PEAKS_LANES; lane++) {
            lows[lane] = INT16_MAX;
            highs[lane] = INT16_MIN;
        }
        size_t at = 0;
        for (; at + PEAKS_LANES <= samples; at += PEAKS_LANES) {
            /* The caller's bytes may stand at an odd address. */
            memcpy(row, src + 2 * at, sizeof row);
            for (size_t lane = 0; lane < PEAKS_LANES; lane++) {
                lows[lane] = row[lane] < lows[lane] ? row[lane] : lows[lane];
                highs[lane] = row[lane] > highs[lane] ? row[lane] : highs[lane];
            }
        }
        memcpy(row, src + 2 * at, 2 * (samples - at));
        for (size_t lane = 0; at < samples; at++, lane++) {
            lows[lane] = row[lane] < lows[lane] ? row[lane] : lows[lane];
            highs[lane] = row[lane] > highs[lane] ? row[lane] : highs[lane];
        }
        for (size_t lane = channels; lane < PEAKS_LANES; lane++) {
            const size_t channel = lane % channels;
            low[channel] = lows[channel] = lows[lane] < lows[channel]
                ? lows[lane] : lows[channel];
            high[channel] = highs[channel] = highs[lane] > highs[channel]
                ? highs[lane] : highs[channel];
        }
    }
    """
    void peaks_ulaw(
        const uint8_t *src, size_t samples, size_t channels, int16_t *low, int16_t *high
    ) noexcept nogil
    void peaks_pcm(
        const uint8_t *src, size_t samples, size_t channels, int16_t *low, int16_t *high
    ) noexcept nogil


_HEADER = struct.Struct("<iIiiIi")
_VERSION = 2
_8_BITS = 1
_RATE_HZ = 8000

# Least samples of a span: 10 ms.
cdef int64_t _LEAST_SPAN = 80
# Most spans of a recording. A multiple of 2, so that they can be joined by twos.
cdef Py_ssize_t _MOST_SPANS = 32_768
cdef Py_ssize_t _FIRST_ROOM = 1024

LEAST_SPAN_SAMPLES = _LEAST_SPAN
MOST_SPANS = _MOST_SPANS

# What each code stands for, by its rank. Written once, before anybody can read it.
cdef int16_t _linear[256]


def _fill():
    pcm = _ulaw.decode(bytes(range(256)))
    for code, (value,) in enumerate(struct.iter_unpack("<h", pcm)):
        rank = code ^ 0x7F if code & 0x80 else code
        _linear[rank] = value


_fill()


cdef inline int8_t _rough(int16_t value) noexcept nogil:
    # Toward zero, as C divides and audiowaveform does: silence is 0 and not -1.
    return <int8_t>(value // 256)


cdef class Peaks:
    """Takes in a recording from its start to its end, and sums it up.

    A span has 80 samples a channel (10 ms) at first. Whenever there are 32,768
    spans they are joined by twos, so that the result is the same however the
    recording came in, and never larger than 128 KiB for two channels. To be used by
    one thread at a time.

    Args:
        channels: 1 or 2, interleaved.

    Raises:
        ValueError: ``channels`` is something else.
    """

    cdef int _channels
    cdef int64_t _span
    cdef int64_t _filled
    cdef int64_t _frames
    cdef int16_t _low[2]
    cdef int16_t _high[2]
    cdef int8_t *_spans
    cdef Py_ssize_t _count
    cdef Py_ssize_t _room

    def __cinit__(self, int channels):
        if channels not in (1, 2):
            raise ValueError(f"a recording has 1 or 2 channels, not {channels}")
        self._channels = channels
        self._span = _LEAST_SPAN
        self._room = _FIRST_ROOM
        self._spans = <int8_t *>malloc(self._room * 2 * channels)
        if self._spans == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._spans)

    @property
    def frames(self):
        """Samples per channel that were taken in."""
        return self._frames

    def add_ulaw(self, const unsigned char[::1] codes not None):
        """Take in µ-law.

        Args:
            codes: What follows, in whole frames.

        Raises:
            ValueError: They are not whole.
        """
        cdef Py_ssize_t frames = self._whole(codes.shape[0], 1)
        if frames > 0:
            with nogil:
                self._add(&codes[0], frames, False)

    def add_pcm16(self, const unsigned char[::1] pcm not None):
        """Take in int16 little-endian.

        Args:
            pcm: What follows, in whole frames, at any alignment.

        Raises:
            ValueError: They are not whole.
        """
        cdef Py_ssize_t frames = self._whole(pcm.shape[0], 2)
        if frames > 0:
            with nogil:
                self._add(&pcm[0], frames, True)

    def add_silence(self, int64_t frames):
        """Take in silence.

        Args:
            frames: Samples per channel, not negative.

        Raises:
            ValueError: They are.
        """
        if frames < 0:
            raise ValueError(f"a silence of {frames} samples")
        if frames > 0:
            with nogil:
                self._add(NULL, frames, False)

    def dat(self):
        """Return the file on what was taken in so far."""
        cdef Py_ssize_t width = 2 * self._channels
        cdef int8_t last[4]
        body = PyBytes_FromStringAndSize(<char *>self._spans, self._count * width)
        if self._filled > 0:
            self._write(last)
            body += PyBytes_FromStringAndSize(<char *>last, width)
        count = self._count + (self._filled > 0)
        head = _HEADER.pack(
            _VERSION, _8_BITS, _RATE_HZ, self._span, count, self._channels
        )
        return head + body

    cdef Py_ssize_t _whole(self, Py_ssize_t size, int sample_bytes) except -1:
        cdef int frame_bytes = self._channels * sample_bytes
        if size % frame_bytes != 0:
            raise ValueError(
                f"{size} bytes are not whole frames of {frame_bytes} bytes"
            )
        return size // frame_bytes

    cdef int _add(
        self, const uint8_t *src, int64_t frames, bint linear
    ) except -1 nogil:
        cdef int64_t take
        cdef int channels = self._channels
        cdef int channel
        cdef int16_t low[2]
        cdef int16_t high[2]
        while frames > 0:
            take = self._span - self._filled
            if take > frames:
                take = frames
            if src == NULL:
                low[0] = low[1] = high[0] = high[1] = 0
            elif linear:
                peaks_pcm(src, take * channels, channels, low, high)
                src += 2 * take * channels
            else:
                peaks_ulaw(src, take * channels, channels, low, high)
                src += take * channels
                for channel in range(channels):
                    low[channel] = _linear[low[channel]]
                    high[channel] = _linear[high[channel]]
            for channel in range(channels):
                if self._filled == 0 or low[channel] < self._low[channel]:
                    self._low[channel] = low[channel]
                if self._filled == 0 or high[channel] > self._high[channel]:
                    self._high[channel] = high[channel]
            self._filled += take
            self._frames += take
            frames -= take
            if self._filled == self._span:
                self._close_span()
        return 0

    cdef void _write(self, int8_t *target) noexcept nogil:
        cdef int channel
        for channel in range(self._channels):
            target[2 * channel] = _rough(self._low[channel])
            target[2 * channel + 1] = _rough(self._high[channel])

    cdef int _close_span(self) except -1 nogil:
        cdef Py_ssize_t width = 2 * self._channels
        cdef int8_t *larger
        if self._count == self._room:
            larger = <int8_t *>realloc(self._spans, 2 * self._room * width)
            if larger == NULL:
                with gil:
                    raise MemoryError
            self._spans = larger
            self._room *= 2
        self._write(self._spans + self._count * width)
        self._count += 1
        self._filled = 0
        if self._count == _MOST_SPANS:
            self._join()
        return 0

    cdef void _join(self) noexcept nogil:
        """Make one span of every two."""
        cdef Py_ssize_t width = 2 * self._channels
        cdef Py_ssize_t i, value
        cdef int8_t *first
        cdef int8_t *second
        cdef int8_t *target
        self._count //= 2
        self._span *= 2
        for i in range(self._count):
            first = self._spans + 2 * i * width
            second = first + width
            target = self._spans + i * width
            for value in range(0, width, 2):
                target[value] = min(first[value], second[value])
                target[value + 1] = max(first[value + 1], second[value + 1])
