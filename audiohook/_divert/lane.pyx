"""A call's connection: read from its socket, and its audio written to its file.

Threads: a lane belongs to the thread of the event loop, except for its spill
buffer and file descriptor while a batch that holds it is being written.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.stdint cimport int64_t
from libc.stdlib cimport free

from audiohook._divert.diverter cimport AT_HEAD, KEEP_AUDIO, Diverter
from audiohook._divert.hearer cimport TEXT_MAX, Hearer
from audiohook._divert.room cimport SPARE_ROOM, Room, add, clear, drop_front

cdef extern from "<sys/types.h>" nogil:
    ctypedef long off_t

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)

cdef enum:
    READS_A_SWEEP = 8
    REST_LIMIT = 262144
    ROUND_ROOM = 8192
    FINAL_TEXT = 0x81


cdef class Pool:
    """What the lanes of a fleet have in common.

    Attributes:
        waiting: Audio of all of them that is not in its file yet, in bytes.
        limit: Beyond so much, new messages are dropped.
        patient: Whether lanes with much unwritten audio are left unread.
    """


cdef class Lane(Diverter):
    """The bytes of one connection, parted into audio and the rest.

    Args:
        fd: Socket to read in a sweep, or -1 if bytes only come by ``feed``.
        max_message_bytes: Binary messages longer than this are handed on.
        audio_limit_bytes: Audio that may wait for the disk before new messages
            are dropped (and told of by ``take_drops``).
        owner: Any object; it comes back from ``Fleet.sweep`` as ``lane.owner``.

    Attributes:
        hearer: Who answers a text message that came alone, or None.
        sending: Whether half a frame is on its way, so that none may follow it yet.
    """

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
        self.max_message = max_message_bytes
        self.audio_limit = audio_limit_bytes
        self.owner = owner
        self.buffered = &self.own_buffered

    def __dealloc__(self):
        free(self.spill.data)

    # Its file.

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

    # Its socket.

    def end(self):
        """Says that the peer will send no more."""
        self.eof = True

    def detach(self):
        """Forgets the socket, which is about to be closed."""
        self.fd = -1

    def fail(self, int error):
        """Says that reading failed, with an ``errno`` other than 0."""
        self.error = error

    def answer(self, send, double now):
        """Has the hearer answer the text message that came alone, if it can.

        Args:
            send: Called with the answer's frame; False if it cannot be sent now.
            now: The time, in seconds.

        Returns:
            Whether it is answered; otherwise nothing has happened.
        """
        cdef Frame frame
        if not self._make_answer(now, &frame):
            return False
        if not send(PyBytes_FromStringAndSize(<char *>frame.data + frame.start, frame.size)):
            return False
        self.hearer._answered(self._next_mark(), now)
        self._drop_text()
        return True

    @property
    def broken(self):
        """True if no more will come after what waits to be handed on."""
        return self.error != 0 or self.out_of_memory

    @property
    def congested(self):
        """True while so much waits, for a task or for the disk, not to read more."""
        return self._is_congested()

    @property
    def unwritten_bytes(self):
        """Whole messages' audio that is not in the file yet."""
        return self.audio_bytes - self.written_bytes

    @property
    def settled_bytes(self):
        """Audio in the file before anything of which the call does not know yet.

        It ends at the first text message that was not popped. What was dropped is
        known once ``take_drops`` has told of it.
        """
        cdef int64_t mark = self._next_mark()
        return mark if mark < self.written_bytes else self.written_bytes

    cdef bint _is_full(self) noexcept nogil:
        return self._waiting_audio() + self.max_message > self.audio_limit or (
            self.index >= 0 and self.pool.waiting > self.pool.limit
        )

    cdef void _note_kept(self, Py_ssize_t n) noexcept nogil:
        self.buffered[0] += n

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

    cdef bint _make_answer(self, double now, Frame *frame) noexcept nogil:
        """Writes a frame with the hearer's answer; False if it has none."""
        cdef unsigned char text[TEXT_MAX]
        cdef Py_ssize_t n
        if (
            self.hearer is None
            or self.sending
            or self.error != 0
            or self.out_of_memory
            # What was dropped before it has to be told first.
            or self.drops.used > 0
        ):
            return False
        n = self._copy_lone_text(text, TEXT_MAX)
        if n <= 0:
            return False
        n = self.hearer._answer(
            <char *>text, n, self._next_mark(), now, <char *>frame.data + ANSWER_HEAD
        )
        if n <= 0:
            return False
        # RFC 6455, 5.2: a whole text message, not masked.
        if n < 126:
            frame.start = 2
            frame.data[2] = FINAL_TEXT
            frame.data[3] = <unsigned char>n
        else:
            frame.start = 0
            frame.data[0] = FINAL_TEXT
            frame.data[1] = 126
            frame.data[2] = <unsigned char>(n >> 8)
            frame.data[3] = <unsigned char>(n & 0xFF)
        frame.size = ANSWER_HEAD - frame.start + n
        return True

    cdef bint _answer(self, double now) noexcept nogil:
        """Answers the text message that came alone; False if it is still there."""
        cdef Frame frame
        cdef ssize_t n
        if not self._make_answer(now, &frame):
            return False
        while True:
            n = send(
                self.fd, frame.data + frame.start, frame.size, MSG_DONTWAIT | MSG_NOSIGNAL
            )
            if n >= 0 or errno != EINTR:
                break
        if n == 0 or (n < 0 and errno == EAGAIN):
            return False
        if n < frame.size:
            # It is gone; or half a frame is on its way to one that has not read for
            # minutes.
            self.error = EPIPE
        self.hearer._answered(self._next_mark(), now)
        self._drop_text()
        return True

    cdef bint _is_congested(self) noexcept nogil:
        if self.rest.used - self.rest_start >= REST_LIMIT:
            return True
        # Audio that comes faster than the disk takes it waits in the network. From
        # a disk that refuses or hangs it must not: pings would wait behind it.
        return (
            self.mode == KEEP_AUDIO
            and self.index >= 0
            and self.pool.patient
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
        rest.used = rest.size = rest.wanted = 0
        if tail and add(&rest, self.audio.data + n, tail) < 0:
            # Stay as we were: the next batch tries again.
            return False
        free(self.spill.data)
        self.spill = self.audio
        self.spill.used = n
        self.spill_done = 0
        # As much comes until the next time. Grown in steps, each lane would have its
        # audio copied once more on the way.
        rest.wanted = (self.audio.used + ROUND_ROOM - 1) // ROUND_ROOM * ROUND_ROOM
        if rest.wanted > SPARE_ROOM:
            rest.wanted = 0
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
