"""RFC 6455 framing, only as far as needed to take audio out of a byte stream.

A :class:`Diverter` follows the frames that a client sends; whole binary messages
it unmasks into the call's audio buffer, and every other byte goes on untouched.
What it does not know for certain to be right (a reserved bit, no mask, a wasteful
length, a message over the limit, a fragment out of turn) it hands on from the first
byte of the frame in question, so that the WebSocket library refuses it in its own
words.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from audiohook._divert.room cimport add, clear, drop_front, make_room

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Eight bytes a step: gcc makes vector instructions of this loop. */
    static void unmask(unsigned char *dst, const unsigned char *src, size_t n,
                       const unsigned char *mask, unsigned phase)
    {
        unsigned char m[8];
        uint64_t key, word;
        size_t i;
        for (i = 0; i < 8; i++) m[i] = mask[(phase + i) & 3];
        memcpy(&key, m, 8);
        for (i = 0; i + 8 <= n; i += 8) {
            memcpy(&word, src + i, 8);
            word ^= key;
            memcpy(dst + i, &word, 8);
        }
        for (; i < n; i++) dst[i] = src[i] ^ m[i & 7];
    }
    """
    void unmask(unsigned char *dst, const unsigned char *src, size_t n,
                const unsigned char *mask, unsigned phase) nogil


cdef enum:
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10


cdef class Diverter:
    """The bytes of one client, parted into audio and the rest."""

    def __cinit__(self):
        self.place = AT_HEAD
        self.message = NO_MESSAGE
        self.mode = PASS_AUDIO
        self.channels = 1

    def __dealloc__(self):
        free(self.audio.data)
        free(self.rest.data)
        free(self.marks.data)
        free(self.drops.data)

    # The HTTP head, which comes before any frame.

    def peek(self):
        """Returns the bytes that wait to be handed on, and leaves them there."""
        return PyBytes_FromStringAndSize(
            <char *>self.rest.data + self.rest_start, self.rest.used - self.rest_start
        )

    def start_frames(self, Py_ssize_t head_bytes):
        """Says that the first frame begins ``head_bytes`` into what ``peek`` shows.

        Raises:
            ValueError: Frames have begun already, or so many bytes are not there.
        """
        cdef Py_ssize_t have = self.rest.used - self.rest_start
        cdef bytes after
        if self.place != AT_HEAD or head_bytes < 0 or head_bytes > have:
            raise ValueError("frames begin once, after a head that has been read")
        after = self.peek()[head_bytes:]
        self.rest.used = self.rest_start + head_bytes
        self.place = AT_HEADER
        self.feed(after)

    # What becomes of audio.

    def ignore(self):
        """Takes binary messages out from the next frame on, and forgets them."""
        self.channels = 1
        self.mode = IGNORE_AUDIO

    def append(self, data):
        """Adds audio that came the slow way, through the WebSocket library.

        That is in order only once everything is handed on.

        Raises:
            ValueError: Audio is still being taken out, or it is longer than may
                wait for the disk.
            MemoryError: There is no memory for it.
        """
        cdef Py_buffer view
        if self.place != HANDS_OFF:
            raise ValueError("audio would get out of order")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len > self.audio_limit:
                raise ValueError("longer than may wait for the disk")
            self._begin_taken()
            self._take(<const unsigned char *>view.buf, view.len)
            self._end_taken()
        finally:
            PyBuffer_Release(&view)
        if self.out_of_memory:
            raise MemoryError

    # The way of the bytes.

    def feed(self, data):
        """Parses bytes that were read from the peer.

        Raises:
            MemoryError: There is no memory for them; the lane is of no more use.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                self._parse(<const unsigned char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if self.out_of_memory:
            raise MemoryError

    @property
    def rest_bytes(self):
        """Bytes that wait to be handed on."""
        return self.rest.used - self.rest_start

    @property
    def hands_off(self):
        """True once everything is handed on, because of a fault or a close frame."""
        return self.place == HANDS_OFF

    def take(self, Py_ssize_t most):
        """Takes up to ``most`` of the bytes to be handed on; empty if none wait."""
        cdef Py_ssize_t n = self.rest.used - self.rest_start
        cdef bytes data
        if n > most:
            n = most
        if n <= 0:
            return b""
        data = PyBytes_FromStringAndSize(<char *>self.rest.data + self.rest_start, n)
        self.rest_start += n
        if self.rest_start == self.rest.used:
            # Text is rare, so that a lane keeps no memory for it in between.
            clear(&self.rest)
            self.rest_start = 0
        return data

    def pop_mark(self):
        """Returns where in the audio the next text message stood.

        Text messages come in order, so the first call belongs to the first
        message that the WebSocket library delivers.

        Returns:
            Audio bytes before the message. Without a mark (everything is handed
            on) it is all the audio there is, since none can come past it.
        """
        cdef int64_t mark
        if self.marks.used == 0:
            return self.audio_bytes
        memcpy(&mark, self.marks.data, sizeof(mark))
        drop_front(&self.marks, sizeof(mark))
        if self.marks.used == 0:
            clear(&self.marks)
        return mark

    def peek_text(self):
        """Returns the text message that is all there is to hand on.

        It stays where it is. There is none if anything else waits as well, if an
        earlier text message has not been popped, if it came in fragments, or if
        it is not UTF-8: that is for the WebSocket library.
        """
        cdef const unsigned char *at = NULL
        cdef Py_ssize_t length = self._find_lone_text(&at)
        cdef bytes payload
        if length < 0:
            return None
        payload = PyBytes_FromStringAndSize(NULL, length)
        unmask(<unsigned char *>PyBytes_AS_STRING(payload), at, length, at - 4, 0)
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def drop_text(self):
        """Forgets the text message that ``peek_text`` has shown, and its mark."""
        self._drop_text()

    @property
    def next_mark(self):
        """What ``pop_mark`` would return."""
        return self._next_mark()

    def take_drops(self):
        """Returns ``(audio_bytes_before, dropped_bytes)`` of each loss, once."""
        cdef int64_t pair[2]
        cdef Py_ssize_t at = 0
        cdef list found = []
        while at < self.drops.used:
            memcpy(pair, self.drops.data + at, sizeof(pair))
            found.append((pair[0], pair[1]))
            at += sizeof(pair)
        drop_front(&self.drops, self.drops.used)
        return found

    cdef Py_ssize_t _find_lone_text(self, const unsigned char **payload) noexcept nogil:
        """Finds what ``peek_text`` shows, still masked, behind the four bytes of its mask.

        Returns:
            Its length; -1 if there is no such text.
        """
        cdef const unsigned char *h = self.rest.data + self.rest_start
        cdef Py_ssize_t n = self.rest.used - self.rest_start
        cdef Py_ssize_t start = 6
        cdef Py_ssize_t length
        if (
            self.marks.used != sizeof(int64_t)
            or self.place != AT_HEADER
            or self.header_used != 0
            or self.message != NO_MESSAGE
            or n < start
            or h[0] != (0x80 | OP_TEXT)
        ):
            return -1
        length = h[1] & 0x7F
        if length == 126:
            length = h[2] << 8 | h[3]
            start = 8
        # A longer one is no message that is in a hurry.
        if length > 65535 - start or n != start + length:
            return -1
        payload[0] = h + start
        return length

    cdef Py_ssize_t _copy_lone_text(
        self, unsigned char *text, Py_ssize_t most
    ) noexcept nogil:
        """Copies what ``_find_lone_text`` finds; -1 as well if it is too long."""
        cdef const unsigned char *at = NULL
        cdef Py_ssize_t length = self._find_lone_text(&at)
        if length > most:
            return -1
        if length > 0:
            unmask(text, at, length, at - 4, 0)
        return length

    cdef void _drop_text(self) noexcept nogil:
        clear(&self.marks)
        clear(&self.rest)
        self.rest_start = 0

    cdef int64_t _next_mark(self) noexcept nogil:
        cdef int64_t mark
        if self.marks.used == 0:
            return self.audio_bytes
        memcpy(&mark, self.marks.data, sizeof(mark))
        return mark

    cdef void _parse(self, const unsigned char *data, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t step
        while n > 0:
            if self.place == AT_HEADER:
                step = self._gather_header(data, n)
            elif self.place == AT_HEAD or self.place == HANDS_OFF:
                self._pass(data, n)
                return
            else:
                step = n if <uint64_t>n <= self.remaining else <Py_ssize_t>self.remaining
                if self.place == IN_AUDIO:
                    self._take(data, step)
                elif self.place == IN_PASSED:
                    self._pass(data, step)
                self.remaining -= step
                if self.remaining == 0:
                    self._end_frame()
            data += step
            n -= step

    cdef Py_ssize_t _gather_header(
        self, const unsigned char *data, Py_ssize_t n
    ) noexcept nogil:
        """Adds to the header until it is whole or wrong; returns bytes used."""
        cdef Py_ssize_t used = 0
        while used < n:
            self.header[self.header_used] = data[used]
            self.header_used += 1
            used += 1
            if self._judge_header():
                break
        return used

    cdef bint _judge_header(self) noexcept nogil:
        """Acts on the header as far as it is there; True if it was dealt with."""
        cdef unsigned char *h = self.header
        cdef int have = self.header_used
        cdef int opcode = h[0] & 0x0F
        cdef int length_bytes
        cdef uint64_t length
        cdef int i

        if have == 1:
            # A reserved bit, a reserved opcode, a fragment out of turn, or a
            # control frame in fragments.
            if (
                h[0] & 0x70
                or not self._may_come(opcode)
                or (opcode >= OP_CLOSE and not h[0] & 0x80)
            ):
                self._let_go()
                return True
            return False
        # No mask, or a control frame that is too long.
        if not h[1] & 0x80 or (opcode >= OP_CLOSE and (h[1] & 0x7F) > 125):
            self._let_go()
            return True
        length = h[1] & 0x7F
        length_bytes = 2 if length == 126 else 8 if length == 127 else 0
        if have < 2 + length_bytes:
            return False
        if length_bytes:
            length = 0
            for i in range(length_bytes):
                length = length << 8 | h[2 + i]
            if length < (126 if length_bytes == 2 else 65536) or length >> 63:
                self._let_go()
                return True
        if have < 6 + length_bytes:
            return False

        for i in range(4):
            self.mask[i] = h[2 + length_bytes + i]
        self.final = h[0] & 0x80 != 0
        self.remaining = length
        self._begin_frame(opcode, length)
        return True

    cdef bint _may_come(self, int opcode) noexcept nogil:
        if opcode == OP_CLOSE or opcode == OP_PING or opcode == OP_PONG:
            return True
        if opcode == OP_CONTINUATION:
            return self.message != NO_MESSAGE
        if opcode == OP_TEXT or opcode == OP_BINARY:
            return self.message == NO_MESSAGE
        return False

    cdef void _begin_frame(self, int opcode, uint64_t length) noexcept nogil:
        cdef bint take = False
        if opcode == OP_CLOSE:
            # Nothing after a close frame is data (RFC 6455, 5.5.1).
            self._let_go()
            return
        if opcode == OP_BINARY:
            take = self.mode != PASS_AUDIO and self._fits(length)
            if take and self.final and length % <uint64_t>self.channels != 0:
                take = False
            elif self.mode != PASS_AUDIO and not take:
                self._let_go()
                return
            if take:
                self._begin_taken()
        elif opcode == OP_CONTINUATION and self.message == TAKEN_MESSAGE:
            take = self._fits(length)
            if take and self.final:
                take = (self.message_bytes + length) % <uint64_t>self.channels == 0
            if not take:
                self._let_go()
                return
        if opcode == OP_TEXT:
            self._mark()
        if opcode == OP_TEXT or (opcode == OP_BINARY and not take):
            self.message = PASSED_MESSAGE
        if take:
            self.phase = 0
            self.place = IN_SKIPPED if self.dropping else IN_AUDIO
            self.message_bytes += <Py_ssize_t>length
            self.header_used = 0
        else:
            self.place = IN_PASSED
            self._pass_header()
        if opcode >= OP_CLOSE:
            # A control frame does not end the message that it stands in.
            self.final = False
        if self.remaining == 0:
            self._end_frame()

    cdef bint _fits(self, uint64_t length) noexcept nogil:
        cdef uint64_t have = self.message_bytes if self.message == TAKEN_MESSAGE else 0
        return length <= <uint64_t>self.max_message - have

    cdef void _end_frame(self) noexcept nogil:
        cdef bint taken = self.place == IN_AUDIO or self.place == IN_SKIPPED
        self.place = AT_HEADER
        self.header_used = 0
        if self.final:
            if taken:
                self._end_taken()
            self.message = NO_MESSAGE

    cdef void _begin_taken(self) noexcept nogil:
        self.message = TAKEN_MESSAGE
        self.message_bytes = 0
        # A whole message is kept or dropped, never a part of one.
        self.dropping = self.mode == IGNORE_AUDIO or (
            self.mode == KEEP_AUDIO and self._is_full()
        )

    cdef bint _is_full(self) noexcept nogil:
        """True if another message may find no place; for those who write audio."""
        return False

    cdef void _take(self, const unsigned char *data, Py_ssize_t n) noexcept nogil:
        if self.place != IN_AUDIO:
            # ``append``: already unmasked.
            self.message_bytes += n
            if not self.dropping and add(&self.audio, data, n) < 0:
                self.out_of_memory = True
            return
        if make_room(&self.audio, n) < 0:
            self.out_of_memory = True
            return
        unmask(self.audio.data + self.audio.used, data, n, self.mask, self.phase)
        self.audio.used += n
        self.phase = (self.phase + <unsigned int>(n & 3)) & 3

    cdef void _end_taken(self) noexcept nogil:
        self.messages += 1
        self.message = NO_MESSAGE
        if self.mode == IGNORE_AUDIO:
            # It may have begun while audio was still kept.
            self.audio.used = self.committed
            self.ignored_bytes += self.message_bytes
        elif self.dropping:
            self._note_drop(self.message_bytes)
        else:
            self.committed = self.audio.used
            self.audio_bytes += self.message_bytes
            self._note_kept(self.message_bytes)
        self.message_bytes = 0

    cdef void _note_kept(self, Py_ssize_t n) noexcept nogil:
        """Counts audio that waits to be written; for those who write it."""

    cdef void _note_drop(self, int64_t n) noexcept nogil:
        cdef int64_t pair[2]
        if n == 0:
            return
        self.dropped_bytes += n
        if self.drops.used > 0:
            memcpy(pair, self.drops.data + self.drops.used - sizeof(pair), sizeof(pair))
            if pair[0] == self.audio_bytes:
                pair[1] += n
                memcpy(self.drops.data + self.drops.used - sizeof(pair), pair, sizeof(pair))
                return
        pair[0] = self.audio_bytes
        pair[1] = n
        if add(&self.drops, <unsigned char *>pair, sizeof(pair)) < 0:
            self.out_of_memory = True

    cdef void _mark(self) noexcept nogil:
        cdef int64_t mark = self.audio_bytes
        if add(&self.marks, <unsigned char *>&mark, sizeof(mark)) < 0:
            self.out_of_memory = True

    cdef void _pass(self, const unsigned char *data, Py_ssize_t n) noexcept nogil:
        if add(&self.rest, data, n) < 0:
            self.out_of_memory = True

    cdef void _pass_header(self) noexcept nogil:
        self._pass(self.header, self.header_used)
        self.header_used = 0

    cdef void _let_go(self) noexcept nogil:
        """Hands on the frame whose header is at hand, and all that follows.

        Fragments that were taken from the message it stands in are put back as
        one fragment with an all-zero mask, so that the WebSocket library knows
        of the open message and judges the frame as if it had seen all of it.
        """
        cdef unsigned char frame[HEADER_MAX]
        cdef Py_ssize_t n = self.audio.used - self.committed
        cdef int i
        if self.message == TAKEN_MESSAGE:
            frame[0] = OP_BINARY
            frame[1] = 0x80 | 127
            for i in range(8):
                frame[2 + i] = (<uint64_t>n >> (56 - 8 * i)) & 0xFF
            i = 10
            if n < 126:
                frame[1] = 0x80 | <unsigned char>n
                i = 2
            elif n < 65536:
                frame[1] = 0x80 | 126
                frame[2] = <unsigned char>(n >> 8)
                frame[3] = <unsigned char>(n & 0xFF)
                i = 4
            frame[i] = frame[i + 1] = frame[i + 2] = frame[i + 3] = 0
            self._pass(frame, i + 4)
            if n:
                self._pass(self.audio.data + self.committed, n)
            self.audio.used = self.committed
            if self.dropping and self.mode == KEEP_AUDIO:
                self._note_drop(self.message_bytes)
            self.message = PASSED_MESSAGE
            self.message_bytes = 0
        self._pass_header()
        self.place = HANDS_OFF
