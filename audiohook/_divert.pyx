"""RFC 6455 framing, only as far as needed to take audio out of a byte stream.

A :class:`Lane` stands between one socket and the WebSocket library. It follows
the frames that a client sends; whole binary messages it unmasks into the call's
audio buffer, and every other byte goes on untouched. What it does not know for
certain to be right (a reserved bit, no mask, a wasteful length, a message over
the limit, a fragment out of turn) it hands on from the first byte of the frame
in question, so that the library refuses it in its own words.

A :class:`Fleet` holds many lanes and reads them all in one pass without the
GIL. A :class:`Batch` carries their audio to the files in a worker thread.

Threads: a lane belongs to the thread of the event loop, except for its spill
buffer and file descriptor while a batch that holds it is being written.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cdef extern from "<sys/types.h>" nogil:
    ctypedef long off_t

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    int MSG_DONTWAIT

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)

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
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    HEADER_MAX = 14
    FIRST_ROOM = 4096
    SCRATCH = 131072
    READS_A_SWEEP = 8
    REST_LIMIT = 262144
    SPARE_ROOM = 32768


cdef struct Room:
    unsigned char *data
    Py_ssize_t used
    Py_ssize_t size


cdef int make_room(Room *room, Py_ssize_t more) noexcept nogil:
    """Makes sure that ``more`` bytes fit behind what is used; -1 without memory."""
    cdef Py_ssize_t size
    cdef unsigned char *data
    if room.used + more <= room.size:
        return 0
    size = room.size if room.size > 0 else FIRST_ROOM
    while size < room.used + more:
        size *= 2
    data = <unsigned char *>realloc(room.data, size)
    if data == NULL:
        return -1
    room.data = data
    room.size = size
    return 0


cdef int add(Room *room, const unsigned char *data, Py_ssize_t n) noexcept nogil:
    if make_room(room, n) < 0:
        return -1
    memcpy(room.data + room.used, data, n)
    room.used += n
    return 0


cdef void drop_front(Room *room, Py_ssize_t n) noexcept nogil:
    room.used -= n
    if room.used > 0:
        memmove(room.data, room.data + n, room.used)
    elif room.size > SPARE_ROOM:
        # A burst is over: a quiet lane gives its memory back.
        free(room.data)
        room.data = NULL
        room.size = 0


cdef void clear(Room *room) noexcept nogil:
    """Gives the memory back."""
    free(room.data)
    room.data = NULL
    room.used = room.size = 0


cdef class Lane:
    """The bytes of one connection, parted into audio and the rest.

    Args:
        fd: Socket to read in a sweep, or -1 if bytes only come by ``feed``.
        max_message_bytes: Binary messages longer than this are handed on.
        audio_limit_bytes: Audio that may wait for the disk before new messages
            are dropped (and told of by ``take_drops``).
        owner: Any object; it comes back from ``Fleet.sweep`` as ``lane.owner``.
    """

    cdef readonly int fd
    cdef readonly int error
    cdef readonly bint eof
    cdef readonly int write_error
    cdef readonly int64_t audio_bytes
    cdef readonly int64_t written_bytes
    cdef readonly int64_t dropped_bytes
    cdef readonly int64_t ignored_bytes
    cdef readonly int64_t messages
    cdef public object owner

    cdef Place place
    cdef Message message
    cdef Mode mode
    cdef bint final
    cdef bint dropping
    cdef bint out_of_memory
    cdef bint writing_now
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
    cdef Room spill
    cdef Py_ssize_t spill_done
    cdef bint hurried
    cdef int file_fd
    cdef Room rest
    cdef Py_ssize_t rest_start
    cdef Room marks
    cdef Room drops
    cdef Py_ssize_t index
    cdef int64_t *buffered
    cdef int64_t own_buffered
    cdef Fleet fleet

    def __cinit__(
        self,
        int fd=-1,
        *,
        Py_ssize_t max_message_bytes=65536,
        Py_ssize_t audio_limit_bytes=1048576,
        object owner=None,
    ):
        if max_message_bytes <= 0 or audio_limit_bytes < max_message_bytes:
            raise ValueError("audio_limit_bytes must hold a message of max_message_bytes")
        self.fd = fd
        self.file_fd = -1
        self.index = -1
        self.place = AT_HEAD
        self.message = NO_MESSAGE
        self.mode = PASS_AUDIO
        self.channels = 1
        self.max_message = max_message_bytes
        self.audio_limit = audio_limit_bytes
        self.owner = owner
        self.buffered = &self.own_buffered

    def __dealloc__(self):
        free(self.audio.data)
        free(self.spill.data)
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

    def keep(self, int channels, int file_fd=-1):
        """Takes binary messages out from the next frame on.

        Args:
            channels: Interleaved channels; a message that is not a whole number
                of ``channels`` bytes is handed on.
            file_fd: File that batches write the audio to, from offset 0.
        """
        if channels < 1:
            raise ValueError("channels must be at least 1")
        self.channels = channels
        self.file_fd = file_fd
        self.mode = KEEP_AUDIO

    def close_file(self):
        """Writes nothing any more from the next batch on.

        A batch that is under way (see ``writing``) may still use the file.
        """
        self.file_fd = -1

    def hurry(self):
        """Has all its audio written by the next batch, and by each after it."""
        self.hurried = True

    @property
    def writing(self):
        """True while a batch holds the lane."""
        return self.writing_now

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

    def end(self):
        """Says that the peer will send no more."""
        self.eof = True

    def detach(self):
        """Forgets the socket, which is about to be closed."""
        self.fd = -1

    def fail(self, int error):
        """Says that reading failed, with an ``errno`` other than 0."""
        self.error = error

    @property
    def broken(self):
        """True if no more will come after what waits to be handed on."""
        return self.error != 0 or self.out_of_memory

    @property
    def rest_bytes(self):
        """Bytes that wait to be handed on."""
        return self.rest.used - self.rest_start

    @property
    def congested(self):
        """True while so much waits, for a task or for the disk, not to read more."""
        return self._is_congested()

    @property
    def hands_off(self):
        """True once everything is handed on, because of a fault or a close frame."""
        return self.place == HANDS_OFF

    @property
    def unwritten_bytes(self):
        """Whole messages' audio that is not in the file yet."""
        return self.audio_bytes - self.written_bytes

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
        cdef unsigned char *h = self.rest.data + self.rest_start
        cdef Py_ssize_t n = self.rest.used - self.rest_start
        cdef Py_ssize_t start = 6
        cdef Py_ssize_t length
        cdef bytes payload
        if (
            self.marks.used != sizeof(int64_t)
            or self.place != AT_HEADER
            or self.header_used != 0
            or self.message != NO_MESSAGE
            or n < start
            or h[0] != (0x80 | OP_TEXT)
        ):
            return None
        length = h[1] & 0x7F
        if length == 126:
            length = h[2] << 8 | h[3]
            start = 8
        # A longer one is no message that is in a hurry.
        if length > 65535 - start or n != start + length:
            return None
        payload = PyBytes_FromStringAndSize(NULL, length)
        unmask(<unsigned char *>PyBytes_AS_STRING(payload), h + start, length,
               h + start - 4, 0)
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def drop_text(self):
        """Forgets the text message that ``peek_text`` has shown, and its mark."""
        clear(&self.marks)
        clear(&self.rest)
        self.rest_start = 0

    @property
    def next_mark(self):
        """What ``pop_mark`` would return."""
        cdef int64_t mark
        if self.marks.used == 0:
            return self.audio_bytes
        memcpy(&mark, self.marks.data, sizeof(mark))
        return mark

    @property
    def settled_bytes(self):
        """Audio in the file before anything of which the call does not know yet.

        It ends at the first text message that was not popped. What was dropped is
        known once ``take_drops`` has told of it.
        """
        cdef int64_t mark = self.next_mark
        return mark if mark < self.written_bytes else self.written_bytes

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
            self.mode == KEEP_AUDIO
            and (
                self._waiting_audio() + self.max_message > self.audio_limit
                or self._over_total()
            )
        )

    cdef bint _over_total(self) noexcept nogil:
        return self.buffered[0] > 0 and self.index >= 0 and (
            self.buffered[0] > self.fleet.buffer_limit
        )

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
            self.buffered[0] += self.message_bytes
        self.message_bytes = 0

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

    cdef void _receive(self, unsigned char *scratch) noexcept nogil:
        """Reads what has come, without waiting, at most some buffers full."""
        cdef ssize_t n
        cdef int i
        for i in range(READS_A_SWEEP):
            if self.eof or self.error or self._is_congested():
                return
            n = recv(self.fd, scratch, SCRATCH, MSG_DONTWAIT)
            if n > 0:
                self._parse(scratch, n)
                if n < SCRATCH:
                    return
            elif n == 0:
                self.eof = True
            elif errno == EINTR:
                continue
            elif errno == EAGAIN:
                return
            else:
                self.error = errno

    cdef bint _is_congested(self) noexcept nogil:
        if self.rest.used - self.rest_start >= REST_LIMIT:
            return True
        # Audio that comes faster than the disk takes it waits in the network. From
        # a disk that refuses or hangs it must not: pings would wait behind it.
        return (
            self.mode == KEEP_AUDIO
            and self.index >= 0
            and self.fleet.patient
            and self.write_error == 0
            and self._waiting_audio() > self.audio_limit / 2
        )

    cdef Py_ssize_t _waiting_audio(self) noexcept nogil:
        return self.audio.used + self.spill.used - self.spill_done

    cdef bint _has_news(self) noexcept nogil:
        return (
            self.rest.used > self.rest_start
            or self.eof
            or self.error != 0
            or self.out_of_memory
        )

    cdef Py_ssize_t _whole_units(self, Py_ssize_t unit) noexcept nogil:
        """How much of the audio to write so that the file ends with a whole unit.

        All of it if that is less than two units, since what comes so slowly would
        be old before the next batch.
        """
        cdef int64_t end = self.written_bytes + self.committed
        cdef int64_t n = end // unit * unit - self.written_bytes
        return self.committed if self.hurried or n < 2 * unit else <Py_ssize_t>n

    cdef bint _prepare_spill(self, Py_ssize_t n) noexcept nogil:
        """Moves ``n`` bytes of whole messages to the spill buffer, if it is free."""
        cdef Py_ssize_t tail
        cdef Room rest
        if self.writing_now or self.file_fd < 0:
            return False
        if self.spill.used > self.spill_done:
            return True
        if n == 0:
            return False
        tail = self.audio.used - n
        rest.data = NULL
        rest.used = rest.size = 0
        if tail and add(&rest, self.audio.data + n, tail) < 0:
            # Stay as we were: the next batch tries again.
            return False
        free(self.spill.data)
        self.spill = self.audio
        self.spill.used = n
        self.spill_done = 0
        self.audio = rest
        self.committed -= n
        return True

    cdef void _empty_spill(self) noexcept nogil:
        """Forgets what was written; what was not is the next batch's first."""
        drop_front(&self.spill, self.spill_done)
        self.spill_done = 0
        if self.spill.used == 0:
            # A lane needs it only now and then, and all lanes together half of
            # what they hold otherwise.
            clear(&self.spill)

    cdef void _write(self) noexcept nogil:
        """Writes the spill buffer to the file; runs in a worker thread."""
        cdef ssize_t n
        self.write_error = 0
        while self.spill_done < self.spill.used:
            n = pwrite(
                self.file_fd,
                self.spill.data + self.spill_done,
                self.spill.used - self.spill_done,
                <off_t>self.written_bytes,
            )
            if n > 0:
                self.spill_done += n
                self.written_bytes += n
            elif n < 0 and errno == EINTR:
                continue
            else:
                self.write_error = errno
                return


cdef class Batch:
    """Audio of many lanes on its way to their files.

    Made by :meth:`Fleet.batch` or :meth:`Batch.of` in the thread of the event
    loop; ``write`` runs in a worker thread; ``finish`` is called in the loop's
    thread again, whatever happened.
    """

    cdef list lanes
    cdef void **table
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity

    def __cinit__(self, Py_ssize_t capacity):
        self.lanes = []
        self.capacity = capacity
        self.table = <void **>malloc(max(capacity, 1) * sizeof(void *))
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)

    def __len__(self):
        return self.count

    cdef void _consider(self, Lane lane, Py_ssize_t n):
        if self.count < self.capacity and lane._prepare_spill(n):
            lane.writing_now = True
            self.lanes.append(lane)
            self.table[self.count] = <void *>lane
            self.count += 1

    def write(self):
        """Writes each lane's audio at its place in its file. Blocks.

        A failure is noted in the lane (``write_error``), which keeps what could
        not be written for a later batch.
        """
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.count):
                (<Lane>self.table[i])._write()

    def finish(self):
        """Gives the lanes back.

        Returns:
            The lanes that could not write all they had.
        """
        cdef Lane lane
        cdef list failed = []
        for lane in self.lanes:
            lane.writing_now = False
            lane.buffered[0] -= lane.spill_done
            lane._empty_spill()
            if lane.write_error:
                failed.append(lane)
        self.lanes = []
        self.count = 0
        return failed


cdef class Fleet:
    """All the lanes that one pump reads.

    Args:
        buffer_limit_bytes: Audio of all lanes together that may wait for the
            disk; beyond it new messages are dropped.
        write_unit_bytes: Files grow by so much, or by a multiple, as far as
            ``due_batch`` has the choice. A file that grows by whole pages costs three
            quarters of one that does not: the kernel need not clear the rest of a
            page, nor look for it again.

    Attributes:
        pressing: Whether a lane had so much audio in the last sweep that it should
            be written at once.
        patient: Whether lanes with much unwritten audio are left unread; to be
            set to False while the disk hangs.
    """

    cdef list lanes
    cdef void **table
    cdef Py_ssize_t capacity
    cdef unsigned char *scratch
    cdef readonly int64_t buffer_limit
    cdef readonly bint pressing
    cdef public bint patient
    cdef int64_t waiting
    cdef Py_ssize_t write_unit

    def __cinit__(
        self, *, int64_t buffer_limit_bytes=536870912, Py_ssize_t write_unit_bytes=1
    ):
        if write_unit_bytes < 1:
            raise ValueError("write_unit_bytes must be at least 1")
        self.lanes = []
        self.buffer_limit = buffer_limit_bytes
        self.write_unit = write_unit_bytes
        self.patient = True
        self.scratch = <unsigned char *>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)
        free(self.scratch)

    def __len__(self):
        return len(self.lanes)

    @property
    def buffered_bytes(self):
        """Audio of all lanes that is not in its file yet."""
        return self.waiting

    def add(self, Lane lane not None):
        """Takes a lane into the sweep.

        Raises:
            ValueError: It is in a sweep already.
            MemoryError: There is no memory for it.
        """
        cdef Py_ssize_t capacity
        cdef void **table
        cdef Py_ssize_t count = len(self.lanes)
        if lane.index >= 0:
            raise ValueError("the lane is in a sweep already")
        if count == self.capacity:
            capacity = 2 * self.capacity if self.capacity else 64
            table = <void **>realloc(self.table, capacity * sizeof(void *))
            if table == NULL:
                raise MemoryError
            self.table = table
            self.capacity = capacity
        self.lanes.append(lane)
        self.table[count] = <void *>lane
        lane.index = count
        lane.fleet = self
        self.waiting += lane.own_buffered
        lane.own_buffered = 0
        lane.buffered = &self.waiting

    def remove(self, Lane lane not None):
        """Takes a lane out of the sweep; a lane that is not in it is left alone.

        A lane that a batch still holds may be removed; what it holds counts as
        waiting until the batch is finished.
        """
        cdef Py_ssize_t last = len(self.lanes) - 1
        cdef Lane moved
        if lane.index < 0 or lane.fleet is not self:
            return
        moved = self.lanes[last]
        self.lanes[lane.index] = moved
        self.table[lane.index] = <void *>moved
        moved.index = lane.index
        self.lanes.pop()
        lane.index = -1
        # The lane keeps its reference to this fleet, and so the counter that a
        # batch in flight will lower stays alive.

    def forget(self, Lane lane not None):
        """Stops counting a removed lane's audio that will never be written."""
        if lane.index < 0 and lane.fleet is self and not lane.writing_now:
            self.waiting -= lane.unwritten_bytes
            lane.own_buffered = 0
            lane.buffered = &lane.own_buffered
            lane.fleet = None

    def read(self, Lane lane not None):
        """Reads what has come on one lane's socket, without waiting."""
        with nogil:
            lane._receive(self.scratch)

    def sweep(self):
        """Reads what has come on every lane's socket, without waiting.

        Lanes with ``fd`` -1 are left out; who feeds them looks after them.

        Returns:
            The lanes with something for their task: bytes to hand on, an end or
            an error.
        """
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(self.lanes)
        cdef Py_ssize_t found = 0
        cdef Lane lane
        cdef void **news
        cdef list result = []
        if count == 0:
            return result
        news = <void **>malloc(count * sizeof(void *))
        if news == NULL:
            raise MemoryError
        try:
            with nogil:
                self.pressing = False
                for i in range(count):
                    if (<Lane>self.table[i]).fd >= 0:
                        (<Lane>self.table[i])._receive(self.scratch)
                    if (<Lane>self.table[i]).audio.used > (<Lane>self.table[i]).audio_limit / 4:
                        self.pressing = True
                    if (<Lane>self.table[i])._has_news():
                        news[found] = self.table[i]
                        found += 1
            for i in range(found):
                lane = <Lane>news[i]
                result.append(lane)
        finally:
            free(news)
        return result

    def batch(self):
        """Gathers all the audio of all lanes for one pass of writing."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            batch._consider(lane, lane.committed)
        return batch

    def due_batch(self):
        """Gathers the audio of all lanes that fills whole units of their files."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            batch._consider(lane, lane._whole_units(self.write_unit))
        return batch

    def hurried_batch(self):
        """Gathers all the audio of the lanes that are in a hurry."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            if lane.hurried:
                batch._consider(lane, lane.committed)
        return batch


def batch_of(lanes):
    """Gathers the audio of some lanes, in a fleet or not, for one pass of writing."""
    cdef Batch batch = Batch(len(lanes))
    cdef Lane lane
    for lane in lanes:
        batch._consider(lane, lane.committed)
    return batch
