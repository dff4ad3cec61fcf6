"""The usual ping, read without a JSON document in between.

Pings are nearly all that clients say: 2,000 a second at 10,000 calls. What is read
here is a message with just the members of a ping, in any order and spacing, written
in printable ASCII and without escapes. Anything else is left to
`audiohook.protocol.messages`, whether it is wrong or only unusual.
"""

from cpython.unicode cimport PyUnicode_FromStringAndSize
from libc.stdint cimport int64_t
from libc.string cimport memcmp

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

# The members; each must be there once.
cdef enum:
    VERSION = 1
    ID = 2
    TYPE = 4
    SEQ = 8
    SERVERSEQ = 16
    POSITION = 32
    PARAMETERS = 64
    ALL = 127
    # A number with so many digits is exact in whatever counts.
    MAX_DIGITS = 15
    MAX_DURATION_CHARS = 40
    SAMPLE_RATE_HZ = 8000
    # Longer than this (31 years) is nonsense, and not exact in a double of Python.
    MAX_SECONDS = 1000000000
    # Parts of a second that are looked at.
    FINEST = 1000000000


cdef struct Reader:
    const char *at
    const char *end


cdef bint equals(Span span, const char *text, Py_ssize_t size) noexcept nogil:
    return span.size == size and memcmp(span.at, text, <size_t>size) == 0


cdef void skip_space(Reader *r) noexcept nogil:
    while r.at < r.end and (
        r.at[0] == c" " or r.at[0] == c"\n" or r.at[0] == c"\r" or r.at[0] == c"\t"
    ):
        r.at += 1


cdef bint take(Reader *r, char what) noexcept nogil:
    """Passes over one character and the space around it."""
    skip_space(r)
    if r.at == r.end or r.at[0] != what:
        return False
    r.at += 1
    skip_space(r)
    return True


cdef bint take_string(Reader *r, Span *span) noexcept nogil:
    skip_space(r)
    if r.at == r.end or r.at[0] != c'"':
        return False
    r.at += 1
    span.at = r.at
    while r.at < r.end and r.at[0] != c'"':
        if r.at[0] < c" " or r.at[0] > c"~" or r.at[0] == c"\\":
            return False
        r.at += 1
    if r.at == r.end:
        return False
    span.size = r.at - span.at
    r.at += 1
    return True


cdef bint take_number(Reader *r, int64_t *number) noexcept nogil:
    cdef const char *start
    skip_space(r)
    start = r.at
    number[0] = 0
    while r.at < r.end and c"0" <= r.at[0] <= c"9":
        if r.at - start == MAX_DIGITS:
            return False
        number[0] = number[0] * 10 + (r.at[0] - c"0")
        r.at += 1
    # JSON knows no leading zeros; a point or an exponent ends in a fault later on.
    return r.at > start and (start[0] != c"0" or r.at - start == 1)


cdef bint take_parameters(Reader *r) noexcept nogil:
    """Passes over ``{}`` or ``{"rtt": "…"}``; what the latter says is of no use."""
    cdef Span span
    if not take(r, c"{"):
        return False
    if take(r, c"}"):
        return True
    return (
        take_string(r, &span)
        and equals(span, b"rtt", 3)
        and take(r, c":")
        and take_string(r, &span)
        and take(r, c"}")
    )


cdef bint is_duration(Span span) noexcept nogil:
    """Tells whether it is what `audiohook.protocol.messages.Duration` takes."""
    cdef Py_ssize_t i
    cdef Py_ssize_t points = 0
    if span.size < 4 or span.size > MAX_DURATION_CHARS:
        return False
    if span.at[0] != c"P" or span.at[1] != c"T" or span.at[span.size - 1] != c"S":
        return False
    for i in range(2, span.size - 1):
        if span.at[i] == c".":
            points += 1
        elif not c"0" <= span.at[i] <= c"9":
            return False
    return points <= 1 and span.at[span.size - 2] != c"."


cdef int take_member(
    Reader *r, Span session_id, int64_t seq, int64_t serverseq, Span *position
) noexcept nogil:
    """Passes over one member; returns which it is, 0 if it is not as expected."""
    cdef Span name, value
    cdef int64_t number
    if not take_string(r, &name) or not take(r, c":"):
        return 0
    if equals(name, b"version", 7):
        return VERSION if take_string(r, &value) and equals(value, b"2", 1) else 0
    if equals(name, b"id", 2):
        if take_string(r, &value) and equals(value, session_id.at, session_id.size):
            return ID
        return 0
    if equals(name, b"type", 4):
        return TYPE if take_string(r, &value) and equals(value, b"ping", 4) else 0
    if equals(name, b"seq", 3):
        return SEQ if take_number(r, &number) and number == seq else 0
    if equals(name, b"serverseq", 9):
        return SERVERSEQ if take_number(r, &number) and number <= serverseq else 0
    if equals(name, b"position", 8):
        return POSITION if take_string(r, position) and is_duration(position[0]) else 0
    if equals(name, b"parameters", 10):
        return PARAMETERS if take_parameters(r) else 0
    return 0


cdef bint read_ping(
    const char *text,
    Py_ssize_t size,
    Span session_id,
    int64_t seq,
    int64_t serverseq,
    Span *position,
) noexcept nogil:
    """Reads a ping that is just as it should be; see `read_usual_ping`.

    Args:
        position: Where in ``text`` its position is, if it is such a ping.

    Returns:
        Whether it is.
    """
    cdef Reader r
    cdef int member
    cdef int seen = 0
    r.at = text
    r.end = text + size
    position.at = NULL
    position.size = 0
    if not take(&r, c"{"):
        return False
    while True:
        member = take_member(&r, session_id, seq, serverseq, position)
        if member == 0 or seen & member:
            return False
        seen |= member
        if not take(&r, c","):
            break
    return seen == ALL and take(&r, c"}") and r.at == r.end


cdef bint read_samples(Span duration, int64_t *samples) noexcept nogil:
    """Turns what `is_duration` takes into samples, rounded down.

    Returns:
        False if it is longer than any sane one. What is beyond nine decimals is left
        off, so that the result may be one too low.
    """
    cdef Py_ssize_t i
    cdef int64_t seconds = 0
    cdef int64_t decimals = 0
    cdef int64_t unit = 1
    cdef bint after_point = False
    for i in range(2, duration.size - 1):
        if duration.at[i] == c".":
            after_point = True
        elif not after_point:
            seconds = seconds * 10 + (duration.at[i] - c"0")
            if seconds > MAX_SECONDS:
                return False
        elif unit < FINEST:
            decimals = decimals * 10 + (duration.at[i] - c"0")
            unit *= 10
    samples[0] = seconds * SAMPLE_RATE_HZ + decimals * SAMPLE_RATE_HZ // unit
    return True


def read_usual_ping(str text not None, str session_id not None, int64_t seq,
                    int64_t serverseq):
    """Reads a ping that is just as it should be.

    Args:
        text: Content of one text frame.
        session_id: What its ``id`` must be, to the letter.
        seq: What its ``seq`` must be.
        serverseq: What its ``serverseq`` must not exceed.

    Returns:
        Its ``position``; None if the text is anything else, or is such a ping in a
        spelling that is left to `audiohook.protocol.messages`.
    """
    cdef Span own, position
    cdef const char *start
    cdef Py_ssize_t size
    if not text.isascii():
        return None
    own.at = PyUnicode_AsUTF8AndSize(session_id, &own.size)
    start = PyUnicode_AsUTF8AndSize(text, &size)
    if not read_ping(start, size, own, seq, serverseq, &position):
        return None
    return PyUnicode_FromStringAndSize(position.at, position.size)
