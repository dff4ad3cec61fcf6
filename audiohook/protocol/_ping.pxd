from libc.stdint cimport int64_t


cdef struct Span:
    const char *at
    Py_ssize_t size


cdef bint read_ping(
    const char *text,
    Py_ssize_t size,
    Span session_id,
    int64_t seq,
    int64_t serverseq,
    Span *position,
) noexcept nogil
cdef bint read_samples(Span duration, int64_t *samples) noexcept nogil
