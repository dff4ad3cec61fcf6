from libc.stdint cimport int64_t, uint64_t

from audiohook._divert.room cimport Room

# Where the parser stands in the byte stream.
cdef enum Place:
    AT_HEAD      # before the first frame: the HTTP request
    AT_HEADER    # a frame header is being gathered
    IN_AUDIO     # inside the payload of a binary frame that is taken out
    IN_SKIPPED   # inside the payload of a binary frame that nobody wants
    IN_PASSED    # inside the payload of a frame that is handed on
    HANDS_OFF    # everything is handed on from here to the end

# Which data message is open, that is, begun and not yet finished.
cdef enum Message:
    NO_MESSAGE
    TAKEN_MESSAGE
    PASSED_MESSAGE

# What becomes of binary messages.
cdef enum Mode:
    PASS_AUDIO
    KEEP_AUDIO
    IGNORE_AUDIO

cdef enum:
    HEADER_MAX = 14


cdef class Diverter:
    cdef readonly int64_t audio_bytes
    cdef readonly int64_t dropped_bytes
    cdef readonly int64_t ignored_bytes
    cdef readonly int64_t messages

    cdef Place place
    cdef Message message
    cdef Mode mode
    cdef bint final
    cdef bint dropping
    cdef bint out_of_memory
    cdef unsigned char header[HEADER_MAX]
    cdef int header_used
    cdef unsigned char mask[4]
    cdef unsigned int phase
    cdef uint64_t remaining
    cdef int channels
    cdef Py_ssize_t max_message
    cdef Py_ssize_t audio_limit
    cdef Py_ssize_t message_bytes
    cdef Room audio
    cdef Py_ssize_t committed
    cdef Room rest
    cdef Py_ssize_t rest_start
    cdef Room marks
    cdef Room drops

    cdef Py_ssize_t _find_lone_text(self, const unsigned char **payload) noexcept nogil
    cdef Py_ssize_t _copy_lone_text(
        self, unsigned char *text, Py_ssize_t most
    ) noexcept nogil
    cdef void _drop_text(self) noexcept nogil
    cdef int64_t _next_mark(self) noexcept nogil
    cdef void _parse(self, const unsigned char *data, Py_ssize_t n) noexcept nogil
    cdef Py_ssize_t _gather_header(
        self, const unsigned char *data, Py_ssize_t n
    ) noexcept nogil
    cdef bint _judge_header(self) noexcept nogil
    cdef bint _may_come(self, int opcode) noexcept nogil
    cdef void _begin_frame(self, int opcode, uint64_t length) noexcept nogil
    cdef bint _fits(self, uint64_t length) noexcept nogil
    cdef void _end_frame(self) noexcept nogil
    cdef void _begin_taken(self) noexcept nogil
    cdef bint _is_full(self) noexcept nogil
    cdef void _take(self, const unsigned char *data, Py_ssize_t n) noexcept nogil
    cdef void _end_taken(self) noexcept nogil
    cdef void _note_kept(self, Py_ssize_t n) noexcept nogil
    cdef void _note_drop(self, int64_t n) noexcept nogil
    cdef void _mark(self) noexcept nogil
    cdef void _pass(self, const unsigned char *data, Py_ssize_t n) noexcept nogil
    cdef void _pass_header(self) noexcept nogil
    cdef void _let_go(self) noexcept nogil
