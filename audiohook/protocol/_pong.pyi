from audiohook._divert.hearer import Hearer

# What the docstrings in `_pong.pyx` say holds here.

class Allowance:
    def __init__(self, per_second: float, burst: float, now: float) -> None: ...
    @property
    def left(self) -> float: ...
    @property
    def filled_at(self) -> float: ...
    def spend(self, now: float) -> None: ...
    def wait(self, now: float) -> float: ...

class Answerer(Hearer):
    _now: float
    _deadline: float
    _pinged_at: float
    _seq: int
    _peer_seq: int
    _seen_audio_bytes: int
    _is_listening: bool
    def _listen(
        self,
        session_id: str,
        allowance: Allowance,
        *,
        idle: float,
        channels: int,
        compares: bool,
        ahead_samples: int,
        from_samples: int,
    ) -> None: ...
