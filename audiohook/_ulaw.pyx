"""G.711 µ-law over whole buffers, in one pass, with the GIL released.

PCM is linear 16-bit, signed, little-endian. Where a buffer holds two channels
they are interleaved sample by sample, channel 0 first. Sources may be any
contiguous buffer of unsigned bytes (``bytes``, ``bytearray``, ``memoryview``,
read-only or not, at any alignment).

Source: ITU-T G.711, tables 2a and 2b, scaled to 16 bits: bias 132, so that every
decoded value is a multiple of 4 and the range is ±32124.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport sqrt
from libc.stdint cimport uint8_t, uint16_t, uint64_t

# Both directions are computed rather than looked up, because arithmetic on equal
# lanes is what a compiler can turn into vector code, and a look-up is not.
# Measured (EPYC Zen 4, gcc 12 -O3, GB/s of µ-law, buffers of 64 KiB and in cache):
#
#                                        decode   decode and split
#   256 entries of int16, a look-up each    2.0-3.4   1.9-2.3
#   65,536 entries, a look-up per pair      3.2-3.6   2.9-3.1
#   formula with a variable shift           0.9       0.6
#   exponent through float (SSE2 / AVX2)    3.1 / 7.2   2.9 / 5.4
#   three selects, 16 bits (SSE2 / AVX2)    3.6 / 7.9   3.3 / 6.5    <- this one
#
# The AVX2 clone doubles every figure for one attribute, and the plain one runs
# on any x86-64. It needs the loader's ifunc, which glibc has and musl has not.
# aarch64 needs no clone: vectors (NEON) are part of its baseline.
cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "audiohook._ulaw writes int16 in host order and needs a little-endian host"
    #endif

    #if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) \\
        && !defined(AUDIOHOOK_BASELINE)
    #define ULAW_CLONES __attribute__((target_clones("avx2", "default")))
    #else
    #define ULAW_CLONES
    #endif

    /* A clone only vectorises what is inlined into it. */
    #define ULAW_INLINE static inline __attribute__((always_inline))

    ULAW_INLINE int16_t ulaw_linear(uint8_t code) {
        const uint16_t u = (uint8_t)~code;
        uint16_t magnitude = (uint16_t)(((u & 0x0F) << 3) + 132);
        /* << exponent, bit by bit: 16-bit lanes have no shift per lane. */
        magnitude = (u & 0x10) ? (uint16_t)(magnitude << 1) : magnitude;
        magnitude = (u & 0x20) ? (uint16_t)(magnitude << 2) : magnitude;
        magnitude = (u & 0x40) ? (uint16_t)(magnitude << 4) : magnitude;
        magnitude = (uint16_t)(magnitude - 132);
        const uint16_t sign = (uint16_t)-(u >> 7);
        return (int16_t)((magnitude ^ sign) - sign);
    }

    ULAW_INLINE uint8_t ulaw_code(int16_t linear) {
        const int32_t sign = linear >> 15;
        int32_t magnitude = (linear ^ sign) - sign;
        magnitude = magnitude > 32635 ? 32635 : magnitude;
        /* An integer below 2**24 is exact as a float, and a float's exponent
           and first four fraction bits are the segment and step we look for;
           134 is the float exponent (biased by 127) of 128, the first segment. */
        const float biased = (float)(magnitude + 132);
        uint32_t bits;
        memcpy(&bits, &biased, sizeof bits);
        return (uint8_t)~(((bits >> 19) - (134u << 4)) | ((uint32_t)sign & 0x80u));
    }

    /* Decoded values are multiples of 4: halving first stays within 16-bit
       lanes and loses nothing. */
    ULAW_INLINE int16_t ulaw_average(uint8_t first, uint8_t second) {
        return (int16_t)((int16_t)(ulaw_linear(first) >> 1)
                         + (int16_t)(ulaw_linear(second) >> 1));
    }

    /* PCM is moved by memcpy since a caller's slice may stand at an odd address;
       it compiles to one plain (vector) move. */
    ULAW_INLINE void ulaw_put(uint8_t *pcm, size_t i, int16_t linear) {
        memcpy(pcm + 2 * i, &linear, 2);
    }

    ULAW_INLINE int16_t ulaw_get(const uint8_t *pcm, size_t i) {
        int16_t linear;
        memcpy(&linear, pcm + 2 * i, 2);
        return linear;
    }

    ULAW_CLONES
    static void ulaw_decode(const uint8_t *restrict src, uint8_t *restrict pcm,
                            size_t samples) {
        for (size_t i = 0; i < samples; i++)
            ulaw_put(pcm, i, ulaw_linear(src[i]));
    }

    ULAW_CLONES
    static void ulaw_split(const uint8_t *restrict src, uint8_t *restrict first,
                           uint8_t *restrict second, size_t frames) {
        for (size_t i = 0; i < frames; i++) {
            ulaw_put(first, i, ulaw_linear(src[2 * i]));
            ulaw_put(second, i, ulaw_linear(src[2 * i + 1]));
        }
    }

    ULAW_CLONES
    static void ulaw_mix(const uint8_t *restrict src, uint8_t *restrict pcm,
                         size_t frames) {
        for (size_t i = 0; i < frames; i++)
            ulaw_put(pcm, i, ulaw_average(src[2 * i], src[2 * i + 1]));
    }

    ULAW_CLONES
    static void ulaw_mix_codes(const uint8_t *restrict src, uint8_t *restrict codes,
                               size_t frames) {
        for (size_t i = 0; i < frames; i++)
            codes[i] = ulaw_code(ulaw_average(src[2 * i], src[2 * i + 1]));
    }

    ULAW_CLONES
    static void ulaw_encode(const uint8_t *restrict pcm, uint8_t *restrict codes,
                            size_t samples) {
        for (size_t i = 0; i < samples; i++)
            codes[i] = ulaw_code(ulaw_get(pcm, i));
    }

    ULAW_CLONES
    static void ulaw_deinterleave(const uint8_t *restrict src,
                                  uint8_t *restrict first,
                                  uint8_t *restrict second, size_t frames) {
        for (size_t i = 0; i < frames; i++) {
            first[i] = src[2 * i];
            second[i] = src[2 * i + 1];
        }
    }

    /* Peak and sum of squares of one channel or of two interleaved ones. */
    typedef struct {
        uint16_t peak;
        uint64_t energy;
    } ulaw_level;

    ULAW_INLINE void ulaw_measure(ulaw_level *level, uint8_t code) {
        const int16_t linear = ulaw_linear(code);
        const uint16_t magnitude = (uint16_t)(linear < 0 ? -linear : linear);
        level->peak = level->peak > magnitude ? level->peak : magnitude;
        level->energy += (uint32_t)magnitude * magnitude;
    }

    ULAW_CLONES
    static void ulaw_levels_mono(const uint8_t *src, size_t samples,
                                 ulaw_level *levels) {
        ulaw_level only = {0, 0};
        for (size_t i = 0; i < samples; i++)
            ulaw_measure(&only, src[i]);
        levels[0] = only;
    }

    ULAW_CLONES
    static void ulaw_levels_stereo(const uint8_t *src, size_t frames,
                                   ulaw_level *levels) {
        ulaw_level first = {0, 0}, second = {0, 0};
        for (size_t i = 0; i < frames; i++) {
            ulaw_measure(&first, src[2 * i]);
            ulaw_measure(&second, src[2 * i + 1]);
        }
        levels[0] = first;
        levels[1] = second;
    }
    """
    ctypedef struct ulaw_level:
        uint16_t peak
        uint64_t energy

    void ulaw_decode(const uint8_t *src, uint8_t *pcm, size_t samples) noexcept nogil
    void ulaw_split(
        const uint8_t *src, uint8_t *first, uint8_t *second, size_t frames
    ) noexcept nogil
    void ulaw_mix(const uint8_t *src, uint8_t *pcm, size_t frames) noexcept nogil
    void ulaw_mix_codes(
        const uint8_t *src, uint8_t *codes, size_t frames
    ) noexcept nogil
    void ulaw_encode(const uint8_t *pcm, uint8_t *codes, size_t samples) noexcept nogil
    void ulaw_deinterleave(
        const uint8_t *src, uint8_t *first, uint8_t *second, size_t frames
    ) noexcept nogil
    void ulaw_levels_mono(
        const uint8_t *src, size_t samples, ulaw_level *levels
    ) noexcept nogil
    void ulaw_levels_stereo(
        const uint8_t *src, size_t frames, ulaw_level *levels
    ) noexcept nogil


cdef inline bytes _uninitialised(Py_ssize_t length):
    # Nobody else holds the object before it is returned, so writing into it is
    # allowed, and it spares clearing or copying what is about to be written.
    return PyBytes_FromStringAndSize(NULL, length)


cdef inline uint8_t *_memory(bytes target) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(target)


cdef inline const uint8_t *_start(const unsigned char[::1] src) noexcept nogil:
    # An empty view has no element whose address could be taken.
    return &src[0] if src.shape[0] > 0 else NULL


cdef inline Py_ssize_t _frames(const unsigned char[::1] src) except -1:
    if src.shape[0] % 2 != 0:
        raise ValueError(
            f"two-channel audio must have an even length, not {src.shape[0]} bytes"
        )
    return src.shape[0] // 2


def decode(const unsigned char[::1] src not None):
    """Turn µ-law into PCM; channels stay interleaved as they are.

    Args:
        src: µ-law, one byte a sample.

    Returns:
        int16 little-endian, ``2 * len(src)`` bytes.
    """
    cdef Py_ssize_t samples = src.shape[0]
    cdef bytes pcm = _uninitialised(2 * samples)
    cdef uint8_t *target = _memory(pcm)
    if samples > 0:
        with nogil:
            ulaw_decode(_start(src), target, samples)
    return pcm


def decode_into(const unsigned char[::1] src not None, unsigned char[::1] dst not None):
    """Turn µ-law into PCM in memory of the caller's.

    Args:
        src: µ-law, one byte a sample.
        dst: Writable, at least ``2 * len(src)`` bytes, apart from ``src``; bytes
            beyond those are left alone.

    Returns:
        The number of bytes written, ``2 * len(src)``.

    Raises:
        ValueError: ``dst`` is too short, or shares memory with ``src``.
    """
    cdef Py_ssize_t samples = src.shape[0]
    cdef const uint8_t *source
    cdef uint8_t *target
    if dst.shape[0] < 2 * samples:
        raise ValueError(
            f"{samples} bytes of µ-law decode to {2 * samples} bytes; "
            f"the target has room for {dst.shape[0]}"
        )
    if samples > 0:
        source = &src[0]
        target = &dst[0]
        if source < target + 2 * samples and target < source + samples:
            raise ValueError("source and target share memory")
        with nogil:
            ulaw_decode(source, target, samples)
    return 2 * samples


def split(const unsigned char[::1] src not None):
    """Turn two-channel µ-law into one PCM buffer a channel, in one pass.

    Args:
        src: µ-law, two channels interleaved.

    Returns:
        Channel 0 and channel 1, each int16 little-endian, ``len(src)`` bytes.

    Raises:
        ValueError: The length is odd.
    """
    cdef Py_ssize_t frames = _frames(src)
    cdef bytes first = _uninitialised(2 * frames)
    cdef bytes second = _uninitialised(2 * frames)
    cdef uint8_t *first_target = _memory(first)
    cdef uint8_t *second_target = _memory(second)
    if frames > 0:
        with nogil:
            ulaw_split(_start(src), first_target, second_target, frames)
    return first, second


def mix(const unsigned char[::1] src not None):
    """Mix two-channel µ-law down to mono PCM: the average of both channels.

    The average is exact, as decoded values are multiples of 4.

    Args:
        src: µ-law, two channels interleaved.

    Returns:
        int16 little-endian, ``len(src)`` bytes.

    Raises:
        ValueError: The length is odd.
    """
    cdef Py_ssize_t frames = _frames(src)
    cdef bytes pcm = _uninitialised(2 * frames)
    cdef uint8_t *target = _memory(pcm)
    if frames > 0:
        with nogil:
            ulaw_mix(_start(src), target, frames)
    return pcm


def mix_ulaw(const unsigned char[::1] src not None):
    """Mix two-channel µ-law down to mono µ-law: the average, encoded again.

    Args:
        src: µ-law, two channels interleaved.

    Returns:
        µ-law, ``len(src) // 2`` bytes.

    Raises:
        ValueError: The length is odd.
    """
    cdef Py_ssize_t frames = _frames(src)
    cdef bytes codes = _uninitialised(frames)
    cdef uint8_t *target = _memory(codes)
    if frames > 0:
        with nogil:
            ulaw_mix_codes(_start(src), target, frames)
    return codes


def encode(const unsigned char[::1] pcm not None):
    """Turn PCM into µ-law; channels stay interleaved as they are.

    Magnitudes above 32635 are clipped, and -1, -2 and -3 become 0x7F, the
    negative zero.

    Args:
        pcm: int16 little-endian, at any alignment.

    Returns:
        µ-law, ``len(pcm) // 2`` bytes.

    Raises:
        ValueError: The length is odd.
    """
    cdef Py_ssize_t samples = pcm.shape[0] // 2
    cdef bytes codes
    cdef uint8_t *target
    if pcm.shape[0] % 2 != 0:
        raise ValueError(
            f"16-bit PCM must have an even length, not {pcm.shape[0]} bytes"
        )
    codes = _uninitialised(samples)
    target = _memory(codes)
    if samples > 0:
        with nogil:
            ulaw_encode(_start(pcm), target, samples)
    return codes


def deinterleave(const unsigned char[::1] src not None):
    """Take two-channel µ-law apart without decoding it.

    Args:
        src: µ-law, two channels interleaved.

    Returns:
        Channel 0 and channel 1, each µ-law, ``len(src) // 2`` bytes.

    Raises:
        ValueError: The length is odd.
    """
    cdef Py_ssize_t frames = _frames(src)
    cdef bytes first = _uninitialised(frames)
    cdef bytes second = _uninitialised(frames)
    cdef uint8_t *first_target = _memory(first)
    cdef uint8_t *second_target = _memory(second)
    if frames > 0:
        with nogil:
            ulaw_deinterleave(_start(src), first_target, second_target, frames)
    return first, second


def peak_rms(const unsigned char[::1] src not None, int channels):
    """Measure how loud each channel is.

    Args:
        src: µ-law; channels interleaved if there are two.
        channels: 1 or 2.

    Returns:
        For each channel the greatest magnitude (0 to 32124) and the root of the
        mean square of its PCM values; ``(0, 0.0)`` where there is no audio.

    Raises:
        ValueError: ``channels`` is neither 1 nor 2, or the length is odd for 2.
    """
    cdef ulaw_level levels[2]
    cdef Py_ssize_t frames
    if channels == 1:
        frames = src.shape[0]
    elif channels == 2:
        frames = _frames(src)
    else:
        raise ValueError(f"audio has 1 or 2 channels, not {channels}")
    if frames == 0:
        return ((0, 0.0),) * channels
    with nogil:
        if channels == 1:
            ulaw_levels_mono(_start(src), frames, levels)
        else:
            ulaw_levels_stereo(_start(src), frames, levels)
    return tuple(
        [
            (levels[channel].peak, sqrt(<double>levels[channel].energy / frames))
            for channel in range(channels)
        ]
    )
