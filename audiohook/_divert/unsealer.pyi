import ssl

from audiohook._divert.lane import Lane

# What the docstrings in `unsealer.pyx` say holds here.

class Unsealer:
    def read(
        self, lane: Lane, fd: int, incoming: ssl.MemoryBIO, tls: ssl.SSLObject
    ) -> None: ...
