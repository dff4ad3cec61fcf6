"""What of a session changes with each usual ping, and the answer to one.

Pings are nearly all that clients say. A session that waits for nothing else lets
them be answered right where they are read, without Python. Its numbers are kept
here, once, for both ways: whoever answers changes the same numbers, and nothing
has to be handed back.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from audiohook._divert.hearer cimport ANSWER_MAX, Hearer
from audiohook.protocol._ping cimport Span, read_ping, read_samples

cdef enum:
    # Changes of the drift that may be worth an event are left to the session: from
    # a second on, less what its way of counting may differ from ours.
    DRIFT_LIMIT_SAMPLES = 8000 - 2


cdef class Allowance:
    """How much may still be said under a limit that lets bursts through.

    Args:
        per_second: How often in the long run.
        burst: How often at once.
        now: The time, in seconds.

    Attributes:
        left: What could be said at once, the last time something was.
        filled_at: When that was.
    """

    def __cinit__(self, double per_second, double burst, double now):
        self._per_second = per_second
        self._burst = burst
        self.left = burst
        self.filled_at = now

    def spend(self, double now):
        """Count something that is said, whether or not it is allowed."""
        self._spend(now)

    def wait(self, double now):
        """Tell after how many seconds one more is allowed; 0 if it is now."""
        self._fill(now)
        return max(0.0, (1 - self.left) / self._per_second)

    cdef void _spend(self, double now) noexcept nogil:
        self._fill(now)
        self.left -= 1

    cdef void _fill(self, double now) noexcept nogil:
        # A clock that goes back gives nothing, and takes nothing.
        if now > self.filled_at:
            self.left += (now - self.filled_at) * self._per_second
            if self.left > self._burst:
                self.left = self._burst
            self.filled_at = now


cdef class Answerer(Hearer):
    """The numbers of a session that a usual ping changes.

    `audiohook.protocol.session.Session` derives from it, and is the only one to
    touch them, or to have pings answered here.
    """

    def _listen(
        self,
        str session_id not None,
        Allowance allowance not None,
        *,
        double idle,
        int channels,
        bint compares,
        int64_t ahead_samples,
        int64_t from_samples,
    ):
        """Has usual pings answered from now on, as long as ``_is_listening`` is set.

        Args:
            session_id: What their ``id`` must be, to the letter.
            allowance: How many texts may be sent.
            idle: Seconds that the peer may be silent after one.
            channels: Bytes of each sample; at least 1 if positions are compared.
            compares: Whether positions are compared with the audio that has come.
            ahead_samples: By how much a position is expected to be ahead of the audio.
            from_samples: Audio from which on that holds.
        """
        cdef bytes text = session_id.encode("ascii", "replace")
        if len(text) != ID_CHARS or (compares and channels < 1):
            return
        memcpy(self._id, <const char *>text, ID_CHARS)
        self._allowance = allowance
        self._idle = idle
        self._channels_heard = channels
        self._compares = compares
        self._ahead_samples = ahead_samples
        self._from_samples = from_samples
        self._is_listening = True

    cdef Py_ssize_t _answer(
        self,
        const char *text,
        Py_ssize_t size,
        int64_t audio_bytes,
        double now,
        char *answer,
    ) noexcept nogil:
        cdef Span own, position
        cdef int64_t theirs, drift, samples
        if not self._is_listening:
            return 0
        own.at = self._id
        own.size = ID_CHARS
        if not read_ping(text, size, own, self._peer_seq + 1, self._seq, &position):
            return 0
        if self._compares:
            samples = audio_bytes // self._channels_heard
            if samples < self._from_samples or not read_samples(position, &theirs):
                return 0
            drift = theirs - samples - self._ahead_samples
            if not -DRIFT_LIMIT_SAMPLES < drift < DRIFT_LIMIT_SAMPLES:
                return 0
        # What `audiohook.protocol.messages.pong_text` returns.
        return snprintf(
            answer,
            ANSWER_MAX,
            b'{"version":"2","id":"%.36s","seq":%lld,"clientseq":%lld,'
            b'"type":"pong","parameters":{}}',
            self._id,
            <long long>(self._seq + 1),
            <long long>(self._peer_seq + 1),
        )

    cdef void _answered(self, int64_t audio_bytes, double now) noexcept nogil:
        self._now = now
        self._pinged_at = now
        self._seen_audio_bytes = audio_bytes
        self._deadline = now + self._idle
        self._peer_seq += 1
        self._seq += 1
        self._allowance._spend(now)
