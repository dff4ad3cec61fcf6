"""What may happen when in a session, and what it leads to."""

# What may happen when, all of it, is `TRANSITIONS` below. Its rules:
#
# 1.  Every state has an entry for every input. An entry is a state (the input is
#     dealt with and the session is then in that state) or a verdict: IGNORE (nothing
#     happens), REFUSE (the peer broke the protocol), MISUSE (our caller did).
# 2.  A session begins with `open`. Before it, only what a client may say at any time
#     is heard: `ping`, `error`, `close` and types unknown to us. A second `open` is
#     nothing.
# 3.  Nothing takes the first sequence number from `opened`, or from the `disconnect`
#     in its place: replies that fall due earlier are held until one of them is sent.
# 4.  The first `close` is always answered, whatever went before it, and nothing that
#     the peer sends after it counts.
# 5.  Nothing is sent after `closed`.
# 6.  At most one `disconnect` is sent. After it the faults of the peer are not answered
#     any more; what belongs to an open call (audio, gaps) is still taken, since it may
#     have been under way.
# 7.  The peer closes the socket. We do it only when a timer has run out, which
#     happens only where the peer is the one to act: before `open`, while the session
#     is open, after `disconnect`, after `closed`.
# 8.  `pause` and `resume` are sent only while the session is open, and any number of
#     times; the peer's answers are told from its other words by what it has taken in.
# 9.  A fault in the sequence is signalled once. The peer's number is then adopted, so
#     that its `close` can still be understood.

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a session stands."""

    CONNECTED = "connected"
    OPENING = "opening"
    OPEN = "open"
    REJECTING = "rejecting"
    DISCONNECTING = "disconnecting"
    CLOSING = "closing"
    CLOSED = "closed"
    ENDED = "ended"


class Input(StrEnum):
    """What can happen to a session."""

    # The peer's messages.
    OPEN = "open"
    PING = "ping"
    CLOSE = "close"
    PAUSED = "paused"
    RESUMED = "resumed"
    DISCARDED = "discarded"
    UPDATE = "update"
    ERROR = "error"
    UNKNOWN = "unknown"
    AUDIO = "audio"
    # What else comes from outside.
    END = "end"
    EXPIRY = "expiry"
    # What our caller asks for.
    ACCEPT = "accept"
    DISCONNECT = "disconnect"
    CLOSED = "closed"
    PAUSE = "pause"
    RESUME = "resume"


class Verdict(Enum):
    """Why an input does not lead to a state."""

    IGNORE = "ignore"
    REFUSE = "refuse"
    MISUSE = "misuse"


IGNORE: Final = Verdict.IGNORE
REFUSE: Final = Verdict.REFUSE
MISUSE: Final = Verdict.MISUSE

TRANSITIONS: Final[Mapping[State, Mapping[Input, State | Verdict]]] = {
    # The socket is there; `open` is due.
    State.CONNECTED: {
        Input.OPEN: State.OPENING,
        Input.PING: State.CONNECTED,
        Input.CLOSE: State.CLOSING,
        Input.PAUSED: REFUSE,
        Input.RESUMED: REFUSE,
        Input.DISCARDED: REFUSE,
        Input.UPDATE: REFUSE,
        Input.ERROR: State.CONNECTED,
        Input.UNKNOWN: State.CONNECTED,
        Input.AUDIO: REFUSE,
        Input.END: State.ENDED,
        Input.EXPIRY: State.ENDED,
        Input.ACCEPT: MISUSE,
        Input.DISCONNECT: State.REJECTING,
        Input.CLOSED: MISUSE,
        Input.PAUSE: MISUSE,
        Input.RESUME: MISUSE,
    },
    # `open` came; our caller decides and then accepts or disconnects.
    State.OPENING: {
        Input.OPEN: IGNORE,
        Input.PING: State.OPENING,
        Input.CLOSE: State.CLOSING,
        Input.PAUSED: State.OPENING,
        Input.RESUMED: State.OPENING,
        Input.DISCARDED: State.OPENING,
        Input.UPDATE: State.OPENING,
        Input.ERROR: State.OPENING,
        Input.UNKNOWN: State.OPENING,
        Input.AUDIO: REFUSE,
        Input.END: State.ENDED,
        Input.EXPIRY: IGNORE,
        Input.ACCEPT: State.OPEN,
        Input.DISCONNECT: State.REJECTING,
        Input.CLOSED: MISUSE,
        Input.PAUSE: MISUSE,
        Input.RESUME: MISUSE,
    },
    # `opened` was sent. Whether the peer holds its audio back is a flag, not a state:
    # audio may be under way either way, and nothing else depends on it.
    State.OPEN: {
        Input.OPEN: IGNORE,
        Input.PING: State.OPEN,
        Input.CLOSE: State.CLOSING,
        Input.PAUSED: State.OPEN,
        Input.RESUMED: State.OPEN,
        Input.DISCARDED: State.OPEN,
        Input.UPDATE: State.OPEN,
        Input.ERROR: State.OPEN,
        Input.UNKNOWN: State.OPEN,
        Input.AUDIO: State.OPEN,
        Input.END: State.ENDED,
        Input.EXPIRY: State.ENDED,
        Input.ACCEPT: MISUSE,
        Input.DISCONNECT: State.DISCONNECTING,
        Input.CLOSED: MISUSE,
        Input.PAUSE: State.OPEN,
        Input.RESUME: State.OPEN,
    },
    # `disconnect` was sent in place of `opened`; `close` is due.
    State.REJECTING: {
        Input.OPEN: IGNORE,
        Input.PING: State.REJECTING,
        Input.CLOSE: State.CLOSING,
        Input.PAUSED: IGNORE,
        Input.RESUMED: IGNORE,
        Input.DISCARDED: IGNORE,
        Input.UPDATE: IGNORE,
        Input.ERROR: State.REJECTING,
        Input.UNKNOWN: State.REJECTING,
        Input.AUDIO: IGNORE,
        Input.END: State.ENDED,
        Input.EXPIRY: State.ENDED,
        Input.ACCEPT: IGNORE,
        Input.DISCONNECT: IGNORE,
        Input.CLOSED: MISUSE,
        Input.PAUSE: IGNORE,
        Input.RESUME: IGNORE,
    },
    # `disconnect` was sent after `opened`; `close` is due.
    State.DISCONNECTING: {
        Input.OPEN: IGNORE,
        Input.PING: State.DISCONNECTING,
        Input.CLOSE: State.CLOSING,
        Input.PAUSED: State.DISCONNECTING,
        Input.RESUMED: State.DISCONNECTING,
        Input.DISCARDED: State.DISCONNECTING,
        Input.UPDATE: State.DISCONNECTING,
        Input.ERROR: State.DISCONNECTING,
        Input.UNKNOWN: State.DISCONNECTING,
        Input.AUDIO: State.DISCONNECTING,
        Input.END: State.ENDED,
        Input.EXPIRY: State.ENDED,
        Input.ACCEPT: MISUSE,
        Input.DISCONNECT: IGNORE,
        Input.CLOSED: MISUSE,
        Input.PAUSE: IGNORE,
        Input.RESUME: IGNORE,
    },
    # `close` came; our caller makes the call durable and then says so.
    State.CLOSING: {
        Input.OPEN: IGNORE,
        Input.PING: IGNORE,
        Input.CLOSE: IGNORE,
        Input.PAUSED: IGNORE,
        Input.RESUMED: IGNORE,
        Input.DISCARDED: IGNORE,
        Input.UPDATE: IGNORE,
        Input.ERROR: IGNORE,
        Input.UNKNOWN: IGNORE,
        Input.AUDIO: IGNORE,
        Input.END: State.ENDED,
        Input.EXPIRY: IGNORE,
        Input.ACCEPT: IGNORE,
        Input.DISCONNECT: IGNORE,
        Input.CLOSED: State.CLOSED,
        Input.PAUSE: IGNORE,
        Input.RESUME: IGNORE,
    },
    # `closed` was sent; the peer closes the socket.
    State.CLOSED: {
        Input.OPEN: IGNORE,
        Input.PING: IGNORE,
        Input.CLOSE: IGNORE,
        Input.PAUSED: IGNORE,
        Input.RESUMED: IGNORE,
        Input.DISCARDED: IGNORE,
        Input.UPDATE: IGNORE,
        Input.ERROR: IGNORE,
        Input.UNKNOWN: IGNORE,
        Input.AUDIO: IGNORE,
        Input.END: State.ENDED,
        Input.EXPIRY: State.ENDED,
        Input.ACCEPT: IGNORE,
        Input.DISCONNECT: IGNORE,
        Input.CLOSED: IGNORE,
        Input.PAUSE: IGNORE,
        Input.RESUME: IGNORE,
    },
    # The socket is gone, or is to be dropped.
    State.ENDED: dict.fromkeys(Input, IGNORE),
}
