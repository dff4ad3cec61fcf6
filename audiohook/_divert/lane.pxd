from libc.stdint cimport int64_t

from audiohook._divert.diverter cimport Diverter
from audiohook._divert.hearer cimport ANSWER_MAX, Hearer
from audiohook._divert.room cimport Room

cdef enum:
    # What one system call reads at most.
    SCRATCH = 131072
    # Of a frame from a server, at most.
    ANSWER_HEAD = 4


cdef struct Frame:
    unsigned char data[ANSWER_HEAD + ANSWER_MAX]
    Py_ssize_t start
    Py_ssize_t size


cdef class Pool:
    cdef int64_t waiting
    cdef int64_t limit
    cdef bint patient


cdef class Lane(Diverter):
    cdef readonly int fd
    cdef readonly int error
    cdef readonly bint eof
    cdef readonly int write_error
    cdef readonly int64_t written_bytes
    cdef public object owner
    cdef public Hearer hearer
    cdef public bint sending

    cdef bint writing_now
    cdef Room spill
    cdef Py_ssize_t spill_done
    cdef bint hurried
    cdef int file_fd
    cdef Py_ssize_t index
    cdef int64_t own_buffered
    cdef int64_t *buffered
    cdef Pool pool

    cdef void _receive(self, unsigned char *scratch) noexcept nogil
    cdef bint _make_answer(self, double now, Frame *frame) noexcept nogil
    cdef bint _answer(self, double now) noexcept nogil
    cdef bint _is_congested(self) noexcept nogil
    cdef Py_ssize_t _waiting_audio(self) noexcept nogil
    cdef bint _has_news(self) noexcept nogil
    cdef Py_ssize_t _whole_units(self, Py_ssize_t unit) noexcept nogil
    cdef bint _prepare_spill(self, Py_ssize_t n) noexcept nogil
    cdef void _empty_spill(self) noexcept nogil
    cdef void _write(self) noexcept nogil
