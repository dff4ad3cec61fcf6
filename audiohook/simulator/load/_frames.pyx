"""Frames of audio, made and sent on time, for thousands of calls by one thread.

An `Outlet` is the sending side of one connection: audio that it makes
itself when it is due, and text that is written between. A `Metronome`
holds the outlets of all calls and sends in one pass, without the GIL, all frames
that are due; it measures how late each one is.

The audio says what it is. Each block of 8 bytes holds the number of the block and
the number of the call, 28 bits each, the lowest first, 7 bits to a byte. Bit 6 of
every byte is clear, so that neither code of silence (0x7F and 0xFF) occurs: what
is silent in a recording was not sent, and all bytes differ as 16-bit samples too.

Threads: all of one metronome's outlets belong to one thread.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #include <time.h>

    /* The bit of each byte that is always clear; carries go past it. */
    #define HOLES 0x40404040u

    /* 28 bits, 7 to a byte, around the holes. */
    static uint32_t spread(uint32_t number)
    {
        uint32_t word = 0;
        for (int i = 0; i < 4; i++) {
            uint32_t digit = number >> (7 * i) & 0x7f;
            word |= ((digit & 0x3f) | (digit & 0x40) << 1) << (8 * i);
        }
        return word;
    }

    /* Writes blocks of a call from the one numbered `*word` (spread) on. */
    static void write_blocks(unsigned char *dst, size_t blocks, uint32_t *word,
                             uint32_t call, uint64_t key)
    {
        uint64_t high = (uint64_t)call << 32, block;
        uint32_t low = *word;
        for (size_t i = 0; i < blocks; i++) {
            block = (high | low) ^ key;
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            block = __builtin_bswap64(block);
    #endif
            memcpy(dst + 8 * i, &block, 8);
            low = ((low | HOLES) + 1) & ~HOLES;
        }
        *word = low;
    }

    static double now_seconds(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    }

    /* The bucket of a latency, as in histogram.py. */
    static int bucket_of(double seconds, int last)
    {
        uint64_t us = seconds > 0 ? (uint64_t)(seconds * 1e6) : 0;
        int shift = us < 128 ? 0 : 57 - __builtin_clzll(us);
        uint64_t bucket = 64 * (uint64_t)shift + (us >> shift);
        return bucket < (uint64_t)last ? (int)bucket : last;
    }
    """
    uint32_t spread(uint32_t number) nogil
    void write_blocks(uint8_t *dst, size_t blocks, uint32_t *word, uint32_t call,
                      uint64_t key) nogil
    double now_seconds() nogil
    int bucket_of(double seconds, int last) nogil


BLOCK_BYTES = 8
MAX_NUMBER = 2**28

cdef enum:
    BLOCK = 8
    HEADER_MAX = 14
    MAX_FRAME = 64000
    BUCKETS = 2048


cdef struct Line:
    int fd              # -1: somebody else sends what is in `data`
    int error
    double due          # of the next frame, on the monotonic clock
    double interval
    int64_t left        # frames still to send
    int64_t frames      # frames made
    int64_t frame_bytes
    int64_t sent_bytes  # of audio made
    bint behind         # frames wait because the peer does not read
    Py_ssize_t place    # in the metronome, or -1
    uint32_t call
    uint32_t block
    uint64_t key
    uint8_t mask[4]
    uint8_t header[HEADER_MAX]
    int header_bytes
    uint8_t *data       # what could not be sent at once
    Py_ssize_t used
    Py_ssize_t size


cdef int keep(Line *line, const uint8_t *data, Py_ssize_t n) noexcept nogil:
    """Appends what is to be sent later; -1 without memory."""
    cdef Py_ssize_t size = line.size if line.size else 256
    cdef uint8_t *grown
    while size < line.used + n:
        size *= 2
    if size != line.size:
        grown = <uint8_t *>realloc(line.data, size)
        if grown == NULL:
            line.error = ENOMEM
            return -1
        line.data = grown
        line.size = size
    memcpy(line.data + line.used, data, n)
    line.used += n
    return 0


cdef void drop_front(Line *line, Py_ssize_t n) noexcept nogil:
    line.used -= n
    if line.used:
        memmove(line.data, line.data + n, line.used)
    else:
        # Nearly always nothing waits, and then nothing is held.
        free(line.data)
        line.data = NULL
        line.size = 0


cdef Py_ssize_t send_some(Line *line, const uint8_t *data, Py_ssize_t n) noexcept nogil:
    """Sends what goes at once; -1 after an error, which the line keeps."""
    cdef Py_ssize_t done
    while True:
        done = send(line.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if done >= 0:
            return done
        if errno == EINTR:
            continue
        if errno == EAGAIN or errno == ENOBUFS:
            return 0
        line.error = errno
        return -1


cdef void put(Line *line, const uint8_t *data, Py_ssize_t n) noexcept nogil:
    """Sends behind what waits; what does not go at once waits too."""
    cdef Py_ssize_t done = 0
    if line.error:
        return
    if line.fd >= 0 and line.used == 0:
        done = send_some(line, data, n)
    if 0 <= done < n:
        keep(line, data + done, n - done)


cdef void make_frame(Line *line, uint8_t *dst) noexcept nogil:
    memcpy(dst, line.header, line.header_bytes)
    write_blocks(
        dst + line.header_bytes,
        line.frame_bytes // BLOCK,
        &line.block,
        line.call,
        line.key,
    )
    line.frames += 1
    line.sent_bytes += line.frame_bytes
    line.left -= 1
    line.due += line.interval


cdef class Outlet:
    """The sending side of one connection.

    Args:
        fd: Connected socket, not blocking; -1 if somebody else sends what is
            made here (`peek`, `drop`), such as a TLS library.
        call: Number of the call, which its audio tells, below ``MAX_NUMBER``.
        mask: Four bytes that mask its frames of audio.
        owner: Any object; it comes back from ``Metronome.sweep``.
    """

    cdef Line line
    cdef Metronome metronome
    cdef readonly object owner

    def __cinit__(self, int fd, *, uint32_t call, bytes mask, object owner=None):
        if call >= MAX_NUMBER or len(mask) != 4:
            raise ValueError("a call number of 28 bits and a mask of 4 bytes")
        memset(&self.line, 0, sizeof(Line))
        self.line.fd = fd
        self.line.due = INFINITY
        self.line.place = -1
        self.line.call = spread(call)
        memcpy(self.line.mask, <const uint8_t *>PyBytes_AS_STRING(mask), 4)
        for i in range(BLOCK):
            self.line.key |= <uint64_t>self.line.mask[i & 3] << (8 * i)
        self.owner = owner

    def __dealloc__(self):
        free(self.line.data)

    def play(self, double first, double interval, int64_t frames, int frame_bytes):
        """Begins to send frames.

        Args:
            first: When the first is due, on the monotonic clock.
            interval: Seconds from one to the next.
            frames: How many.
            frame_bytes: Length of each, whole blocks.
        """
        cdef Line *line = &self.line
        cdef uint8_t *header = line.header
        if frame_bytes <= 0 or frame_bytes > MAX_FRAME or frame_bytes % BLOCK:
            raise ValueError("a frame has whole blocks, 64,000 bytes at most")
        if self.metronome is None:
            raise ValueError("the outlet is not in a metronome")
        line.frame_bytes = frame_bytes
        line.interval = interval
        line.left = frames
        line.due = first
        # RFC 6455, section 5.2: final, binary, masked.
        header[0] = 0x82
        if frame_bytes < 126:
            header[1] = 0x80 | frame_bytes
            line.header_bytes = 2
        else:
            header[1] = 0x80 | 126
            header[2] = frame_bytes >> 8
            header[3] = frame_bytes & 0xFF
            line.header_bytes = 4
        memcpy(header + line.header_bytes, line.mask, 4)
        line.header_bytes += 4
        self._plan()

    def hold(self):
        """Ends the playing; returns how many frames were still to send."""
        left = self.line.left
        self.line.left = 0
        self._plan()
        return left

    def write(self, data):
        """Sends bytes behind all that was made so far."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            put(&self.line, <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def flush(self):
        """Sends what waits; True if nothing does any more."""
        cdef Line *line = &self.line
        cdef Py_ssize_t done
        if line.used and line.fd >= 0 and not line.error:
            done = send_some(line, line.data, line.used)
            if done > 0:
                drop_front(line, done)
        self._plan()
        return line.used == 0

    def peek(self):
        """Returns what waits to be sent."""
        return PyBytes_FromStringAndSize(<char *>self.line.data, self.line.used)

    def drop(self, Py_ssize_t n):
        """Takes off what somebody else has sent of it."""
        if not 0 <= n <= self.line.used:
            raise ValueError("not so much waits")
        if n:
            drop_front(&self.line, n)
        self._plan()

    @property
    def waiting_bytes(self):
        """How much waits to be sent."""
        return self.line.used

    @property
    def left(self):
        """Frames that are still to be sent."""
        return self.line.left

    @property
    def frames(self):
        """Frames of audio made."""
        return self.line.frames

    @property
    def audio_bytes(self):
        """Their bytes."""
        return self.line.sent_bytes

    @property
    def error(self):
        """The ``errno`` of a failed sending, 0 if there was none."""
        return self.line.error

    cdef void _plan(self) noexcept:
        """Tells the metronome when this outlet is due."""
        cdef Line *line = &self.line
        if line.place < 0:
            return
        if line.left > 0 and not line.error and line.used == 0:
            self.metronome.due[line.place] = line.due
        else:
            self.metronome.due[line.place] = INFINITY
            # Whoever waits for the peer to read is late by no fault of ours.
            line.behind = line.left > 0


cdef class Metronome:
    """Sends all frames that are due, and measures how late they are."""

    cdef double *due
    cdef Line **lines
    cdef Py_ssize_t *seen
    cdef Py_ssize_t count
    cdef Py_ssize_t room
    cdef list outlets
    cdef uint64_t lags[BUCKETS]
    cdef readonly double largest_lag
    cdef readonly int64_t frames
    cdef readonly int64_t held_frames
    cdef uint8_t scratch[MAX_FRAME + HEADER_MAX]

    def __cinit__(self):
        self.outlets = []
        memset(self.lags, 0, sizeof(self.lags))

    def __dealloc__(self):
        free(self.due)
        free(self.lines)
        free(self.seen)

    def __len__(self):
        return self.count

    def add(self, Outlet outlet):
        """Takes an outlet in, which plays nothing yet."""
        if outlet.line.place >= 0:
            raise ValueError("the outlet is in a metronome")
        if self.count == self.room:
            self._grow()
        outlet.line.place = self.count
        outlet.metronome = self
        self.lines[self.count] = &outlet.line
        self.due[self.count] = INFINITY
        self.outlets.append(outlet)
        self.count += 1

    cdef int _grow(self) except -1:
        cdef Py_ssize_t room = 2 * self.room if self.room else 64
        cdef double *due = <double *>realloc(self.due, room * sizeof(double))
        if due == NULL:
            raise MemoryError
        self.due = due
        cdef Line **lines = <Line **>realloc(self.lines, room * sizeof(Line *))
        if lines == NULL:
            raise MemoryError
        self.lines = lines
        cdef Py_ssize_t *seen = <Py_ssize_t *>realloc(
            self.seen, room * sizeof(Py_ssize_t)
        )
        if seen == NULL:
            raise MemoryError
        self.seen = seen
        self.room = room
        return 0

    def remove(self, Outlet outlet):
        """Lets an outlet go; nothing if it is not here."""
        cdef Py_ssize_t place = outlet.line.place
        if outlet.metronome is not self or place < 0:
            return
        cdef Outlet last = self.outlets.pop()
        self.count -= 1
        if last is not outlet:
            self.outlets[place] = last
            self.lines[place] = &last.line
            self.due[place] = self.due[self.count]
            last.line.place = place
        outlet.line.place = -1
        outlet.metronome = None

    def next_due(self):
        """Returns when the next frame is due; infinite if none is."""
        cdef double first = INFINITY
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.due[i] < first:
                first = self.due[i]
        return first

    def sweep(self):
        """Sends all that is due.

        Returns:
            Owners of outlets that have sent the last of their frames, or have
            failed, or in which something waits to be sent.
        """
        cdef Py_ssize_t i, found
        with nogil:
            found = self._sweep()
        return [(<Outlet>self.outlets[self.seen[i]]).owner for i in range(found)]

    cdef Py_ssize_t _sweep(self) noexcept nogil:
        cdef double now = now_seconds()
        cdef Py_ssize_t i, found = 0
        cdef Line *line
        for i in range(self.count):
            if self.due[i] > now:
                continue
            line = self.lines[i]
            while line.due <= now and line.left > 0 and not line.used and not line.error:
                self._send_frame(line)
            if line.left > 0 and not line.used and not line.error:
                # It has caught up, if it had to.
                line.behind = False
                self.due[i] = line.due
                continue
            if line.used and line.left > 0 and line.fd >= 0:
                line.behind = True
            self.due[i] = INFINITY
            self.seen[found] = i
            found += 1
        return found

    cdef void _send_frame(self, Line *line) noexcept nogil:
        cdef double lag = now_seconds() - line.due
        cdef Py_ssize_t n
        if line.behind:
            self.held_frames += 1
        else:
            self.lags[bucket_of(lag, BUCKETS - 1)] += 1
            if lag > self.largest_lag:
                self.largest_lag = lag
        self.frames += 1
        make_frame(line, self.scratch)
        n = line.header_bytes + line.frame_bytes
        put(line, self.scratch, n)

    def lag_counts(self):
        """Returns how many frames were how late, by the buckets of a histogram."""
        return [self.lags[i] for i in range(BUCKETS)]


def audio(uint32_t call, uint32_t first_block, Py_ssize_t blocks):
    """Makes a stretch of a call's audio, as it is before it is masked.

    Args:
        call: Number of the call.
        first_block: Number of the first block, counted from 0.
        blocks: How many blocks of 8 bytes.
    """
    if call >= MAX_NUMBER or blocks < 0:
        raise ValueError("a call number of 28 bits, and not less than no blocks")
    cdef bytes made = PyBytes_FromStringAndSize(NULL, blocks * BLOCK)
    cdef uint32_t word = spread(first_block)
    write_blocks(
        <uint8_t *>PyBytes_AS_STRING(made), blocks, &word, spread(call), 0
    )
    return made
