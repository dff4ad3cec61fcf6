"""Those who answer a client's text message as soon as it has been read."""

from libc.stdint cimport int64_t


cdef class Hearer:
    """Answers what it can answer without the GIL, and leaves the rest alone.

    To be derived from by those who know what the messages mean.
    """

    cdef Py_ssize_t _answer(
        self,
        const char *text,
        Py_ssize_t size,
        int64_t audio_bytes,
        double now,
        char *answer,
    ) noexcept nogil:
        """Makes the answer, without effect until ``_answered``.

        Args:
            text: The message, of ``TEXT_MAX`` bytes at most.
            size: Its length.
            audio_bytes: Audio that had come before it.
            now: The time, in seconds.
            answer: Where to write a text message, of ``ANSWER_MAX`` bytes at most.

        Returns:
            The answer's length; 0 if the message has to go its usual way.
        """
        return 0

    cdef void _answered(self, int64_t audio_bytes, double now) noexcept nogil:
        """Takes in that the answer is on its way; arguments as before."""
