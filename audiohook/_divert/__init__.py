"""Audio is taken out of WebSocket streams here, many of them in one pass, in C.

Each module has one job: `diverter` parts the bytes of one client, `lane` reads a
socket and writes a file, `batch` and `fleet` do that for many calls at a time. A
`hearer` answers what needs no task to be woken; an `unsealer` reads TLS.
"""

from audiohook._divert.batch import Batch, batch_of
from audiohook._divert.fleet import Fleet
from audiohook._divert.hearer import Hearer
from audiohook._divert.lane import Lane
from audiohook._divert.unsealer import Unsealer

__all__ = ["Batch", "Fleet", "Hearer", "Lane", "Unsealer", "batch_of"]
