"""Our own pause of a session: what was asked of the peer, and what it answered.

Two pauses are independent of each other: the client's, and the one we ask for.
Audio flows only while neither holds, and the client tells of both by the same
messages. What it had taken in when it spoke shows from ``serverseq``.

Source: Genesys AudioHook protocol reference, "pause", "resume", "paused" and
"resumed"; the rates are those that implementations of servers report.
"""

from __future__ import annotations

from typing import Final

from audiohook.protocol._pong import Allowance

# Messages of each kind a second, and at once. The peer counts them as they arrive,
# and the network may bring them closer together than they were sent; so one fewer
# at once than the 4 and the 25 that are allowed.
PAUSES_PER_SECOND: Final = 2.0
PAUSES_BURST: Final = 3
TEXTS_PER_SECOND: Final = 5.0
TEXTS_BURST: Final = 24


class Hold:
    """What we want of a peer's audio, and whether it knows.

    Args:
        now: The time, in seconds.

    Attributes:
        wanted: Whether the peer is to hold its audio back on our word.
        texts: How many messages of any kind may be sent.
    """

    __slots__ = ("_asked_seq", "_kinds", "texts", "wanted")

    def __init__(self, now: float) -> None:
        self.wanted = False
        # The message that the peer has not answered yet.
        self._asked_seq: int | None = None
        self.texts = Allowance(TEXTS_PER_SECOND, TEXTS_BURST, now)
        self._kinds = {
            wanted: Allowance(PAUSES_PER_SECOND, PAUSES_BURST, now)
            for wanted in (True, False)
        }

    @property
    def is_settled(self) -> bool:
        """Whether the peer has answered what it was asked last."""
        return self._asked_seq is None

    def note_text(self, now: float) -> None:
        """Count a text message of ours, of whatever kind."""
        self.texts.spend(now)

    def wait(self, now: float, *, wanted: bool) -> float:
        """Tell after how many seconds the peer may be asked; 0 if it is now."""
        return max(self._kinds[wanted].wait(now), self.texts.wait(now))

    def ask(self, seq: int, now: float, *, wanted: bool) -> None:
        """Note that the peer is asked.

        Args:
            seq: Number of the message.
            now: The time, in seconds.
            wanted: Whether it is to hold its audio back.
        """
        self._kinds[wanted].spend(now)
        self.wanted = wanted
        self._asked_seq = seq

    def settle(self, serverseq: int, *, about_pause: bool, paused: bool) -> bool:
        """Take in a message of the peer, once its meaning has been taken in.

        Args:
            serverseq: What the peer had taken in of ours.
            about_pause: Whether it is ``paused`` or ``resumed``.
            paused: Whether the peer holds its audio back now.

        Returns:
            Whether the peer has answered thereby.
        """
        if self._asked_seq is None or serverseq < self._asked_seq:
            return False
        # One that was silent already may leave it at that, and just goes on.
        if not about_pause and not (self.wanted and paused):
            return False
        self._asked_seq = None
        return True
