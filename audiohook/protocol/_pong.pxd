from libc.stdint cimport int64_t

from audiohook._divert.hearer cimport Hearer

cdef enum:
    ID_CHARS = 36


cdef class Allowance:
    cdef readonly double left
    cdef readonly double filled_at
    cdef double _burst
    cdef double _per_second

    cdef void _spend(self, double now) noexcept nogil
    cdef void _fill(self, double now) noexcept nogil


cdef class Answerer(Hearer):
    cdef public double _now
    cdef public double _deadline
    cdef public double _pinged_at
    cdef public int64_t _seq
    cdef public int64_t _peer_seq
    cdef public int64_t _seen_audio_bytes
    cdef public bint _is_listening

    cdef char _id[ID_CHARS]
    cdef Allowance _allowance
    cdef double _idle
    cdef int _channels_heard
    cdef bint _compares
    cdef int64_t _ahead_samples
    cdef int64_t _from_samples
