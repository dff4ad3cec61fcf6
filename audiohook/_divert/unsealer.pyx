"""TLS in the process: what has come on a socket, decrypted into a lane.

The library that decrypts is Python's `ssl`, over memory buffers. All that is around
it is done here, since a live call's share of a pass is a few microseconds: the bytes
go through buffers that all connections share, and nothing is asked twice.
"""

import ssl

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, ENOMEM, EPROTO, errno
from libc.stdlib cimport free, malloc

from audiohook._divert.lane cimport SCRATCH, Lane

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    int MSG_DONTWAIT

cdef enum:
    # A TLS record holds at most so much plain text (RFC 8446, 5.1), so that whatever
    # has been decrypted is taken whole.
    RECORD = 16384

cdef object WantRead = ssl.SSLWantReadError
cdef object Ended = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
cdef object TlsError = ssl.SSLError


cdef class Unsealer:
    """Reads sockets, one after the other, and feeds lanes with what that decrypts to.

    It has the buffers for it, and so belongs to the thread of one event loop.
    """

    cdef unsigned char *sealed
    cdef bytearray opened

    def __cinit__(self):
        self.opened = bytearray(RECORD)
        self.sealed = <unsigned char *>malloc(SCRATCH)
        if self.sealed == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.sealed)

    def read(self, Lane lane not None, int fd, incoming, tls):
        """Decrypts what has come into a lane, without waiting.

        Args:
            lane: It.
            fd: The socket.
            incoming: Buffer from which ``tls`` takes what has come.
            tls: The TLS of the connection, once its handshake is done.
        """
        cdef ssize_t n
        cdef bint ended
        if lane.eof or lane.error or lane.out_of_memory or lane._is_congested():
            return
        while True:
            n = recv(fd, self.sealed, SCRATCH, MSG_DONTWAIT)
            if n >= 0 or errno != EINTR:
                break
        # OpenSSL is not told: it would take that for a fault where TLS was not ended
        # as well, and send nothing more to a peer that may yet listen.
        ended = n == 0
        if n > 0:
            incoming.write(PyBytes_FromStringAndSize(<char *>self.sealed, n))
        elif n < 0 and errno != EAGAIN:
            lane.error = errno
            return
        # Application data may have come together with the handshake.
        elif not ended and not incoming.pending:
            return
        try:
            self._open_all(lane, incoming, tls)
        except WantRead:
            pass
        except Ended:
            lane.eof = True
        except TlsError:
            lane.error = EPROTO
        except MemoryError:
            lane.error = ENOMEM
        if ended:
            lane.eof = True

    cdef _open_all(self, Lane lane, incoming, tls):
        """Feeds a lane with all whole records that are there."""
        cdef Py_ssize_t n
        while True:
            n = tls.read(RECORD, self.opened)
            if n == 0:  # the peer said goodbye
                lane.eof = True
                return
            lane._parse(<const unsigned char *>PyByteArray_AS_STRING(self.opened), n)
            if lane.out_of_memory:
                raise MemoryError
            if not incoming.pending:
                return
