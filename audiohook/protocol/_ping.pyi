# What the docstrings in `_ping.pyx` say holds here.

def read_usual_ping(
    text: str, session_id: str, seq: int, serverseq: int
) -> str | None: ...
