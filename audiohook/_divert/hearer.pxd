from libc.stdint cimport int64_t

cdef enum:
    # What a hearer may be shown, and what it may say, in bytes.
    TEXT_MAX = 512
    ANSWER_MAX = 512


cdef class Hearer:
    cdef Py_ssize_t _answer(
        self,
        const char *text,
        Py_ssize_t size,
        int64_t audio_bytes,
        double now,
        char *answer,
    ) noexcept nogil
    cdef void _answered(self, int64_t audio_bytes, double now) noexcept nogil
