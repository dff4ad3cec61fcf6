"""Whatever a client says, in whatever pieces it comes: the recording is as it should.

The model is a list of samples. What is compared is what came through the socket, the
WebSocket, the session, the spool, the rendering and the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.protocol.messages import Closed, Pong, Updated
from tests.house import KEY, house
from tests.reference_frames import BINARY, CONTINUATION, PING, PONG, frame
from tests.reference_ulaw import decode
from tests.slow.peer import Peer, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.house import House, Recording

# Longer than the pump takes to come by, so that what was sent is dealt with alone.
_WAIT_SECONDS = 0.06
_SIZES = [0, 1, 2, 62, 63, 64, 160, 800, 8000, 16_383, 16_384, 32_000]


@dataclass(frozen=True)
class Step:
    """Something that a client does.

    Attributes:
        what: ``audio``, ``wait`` for the server, or a type of message.
        samples: Of each channel: sent, or missing.
        pieces: Fragments of which audio consists, with a ping between.
    """

    what: str
    samples: int = 0
    pieces: int = 1


@dataclass(frozen=True)
class Script:
    """One call.

    Attributes:
        channels: As offered.
        steps: What the client does.
        cuts: Lengths of the packets in which it comes; then all the rest in one.
        closes: Whether it closes, or drops the connection.
    """

    channels: tuple[str, ...]
    steps: Sequence[Step]
    cuts: Sequence[int]
    closes: bool


steps = st.one_of(
    st.builds(
        Step, st.just("audio"), st.sampled_from(_SIZES), st.sampled_from([1, 1, 2, 3])
    ),
    st.builds(Step, st.sampled_from(["discarded", "resumed"]), st.integers(0, 3000)),
    st.builds(Step, st.sampled_from(["paused", "ping", "update", "error", "dtmf"])),
    st.just(Step("wait")),
)
scripts = st.builds(
    Script,
    st.sampled_from(
        [("external", "internal"), ("internal", "external"), ("internal",)]
    ),
    st.lists(steps, max_size=12),
    st.lists(st.integers(1, 4000), max_size=20),
    st.booleans(),
)


@dataclass
class Play:
    """A script on its way.

    Attributes:
        peer: Who says it.
        raw: Audio that the recording has to hold.
        samples: The same with silence where some is missing; None is a gap of one.
        gaps: What is missing, as ``call.json`` is to tell it.
        answers: Types of the messages that are due.
    """

    peer: Peer
    script: Script
    raw: bytearray = field(default_factory=bytearray)
    linear: bytearray = field(default_factory=bytearray)
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    answers: list[type] = field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.script.channels)

    def bytes_to_send(self) -> list[bytes]:
        """All of it, parted where the client waits."""
        pieces = [b""]
        for step in self.script.steps:
            if step.what == "wait":
                pieces.append(b"")
            else:
                pieces[-1] += self._perform(step)
        if self.script.closes:
            self.answers.append(Closed)
            pieces[-1] += self.peer.text("close", parameters={"reason": "end"})
        return pieces

    def _perform(self, step: Step) -> bytes:
        match step.what:
            case "audio":
                return self._audio(step)
            case "discarded" | "resumed":
                return self._gap(step)
            case "ping":
                self.answers.append(Pong)
            case "update":
                self.answers.append(Updated)
        more: dict[str, dict[str, Any]] = {
            "update": {"language": "fr-CA"},
            "error": {"code": 500, "message": "x"},
        }
        return self.peer.text(step.what, parameters=more.get(step.what, {}))

    def _audio(self, step: Step) -> bytes:
        start = len(self.raw)
        audio = bytes(
            (start + number * 7 + number // 251) % 256
            for number in range(step.samples * self.width)
        )
        self.raw += audio
        self.linear += decode(audio)
        size = -(-len(audio) // step.pieces)
        data = b""
        for number in range(step.pieces):
            last = number == step.pieces - 1
            data += frame(
                CONTINUATION if number else BINARY,
                audio[number * size : (number + 1) * size],
                fin=last,
            )
            if not last:
                data += frame(PING, b"between")
        return data

    def _gap(self, step: Step) -> bytes:
        kind = "paused" if step.what == "resumed" else "discarded"
        if step.samples:
            self.gaps.append((kind, len(self.linear) // 2 // self.width, step.samples))
            self.linear += bytes(2 * self.width * step.samples)
        text = f"PT{step.samples / 8000:.6f}S"
        return self.peer.text(
            step.what, parameters={"start": "PT0S", "discarded": text}
        )

    async def run(self) -> None:
        peer = self.peer
        await peer.upgrade()
        offer = {"type": "audio", "format": "PCMU", "rate": 8000}
        media = [offer | {"channels": list(self.script.channels)}]
        await peer.say("open", parameters=peer.open_parameters(media=media))
        await peer.hear_opened()
        cuts = iter(self.script.cuts)
        for data in self.bytes_to_send():
            while cut := next(cuts, 0):
                assert await peer.send(data[:cut])
                data = data[cut:]
                if not data:
                    break
                await trio.lowlevel.checkpoint()
            assert await peer.send(data)
            await trio.sleep(_WAIT_SECONDS)
        for due in self.answers:
            told = await self._hear()
            assert isinstance(told, due), (told, due)
        # Nothing may be on its way to us, or the kernel would reset the connection
        # and throw away what we have sent.
        await peer.stream.send_eof()
        with trio.fail_after(30):
            while await peer.next_frame() is not None:
                pass
        peer.drop()

    async def _hear(self) -> object:
        """The next message that is no answer to a ping of the WebSocket."""
        peer = self.peer
        while True:
            with trio.fail_after(30):
                got = await peer.next_frame()
            assert got is not None
            if got[0] != PONG:
                break
        peer._reader.data[:0] = frame(got[0], got[1], mask=None)
        return await peer.hear()

    def compare(self, recording: Recording) -> None:
        facts = recording.facts
        assert recording.audio(".raw") == self.raw
        assert recording.audio(".wav")[44:] == self.linear
        gaps = [
            (gap["kind"], gap["startSamples"], gap["lengthSamples"])
            for gap in facts["gaps"]
        ]
        assert gaps == self.gaps
        assert facts["ended"]["complete"] is self.script.closes
        assert len(facts["languageChanges"]) == self.answers.count(Updated)


@settings(max_examples=10)
@given(calls=st.lists(scripts, min_size=1, max_size=4))
def test_recording_is_that_of_the_model(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Script]
) -> None:
    folder = tmp_path_factory.mktemp("recordings")
    plays: dict[str, Play] = {}

    async def play_all(it: House) -> None:
        async with trio.open_nursery() as nursery:
            for number, script in enumerate(calls):
                peer = Peer(Target(it.port, KEY.encode(), b"", b""), number)
                plays[peer.session_id] = Play(peer, script)
                nursery.start_soon(plays[peer.session_id].run)

    async def all_of_it() -> None:
        async with house(folder) as it:
            try:
                await play_all(it)
            finally:
                for play in plays.values():
                    play.peer.drop()
            await it.settle()
            for recording in it.recordings():
                plays.pop(recording.facts["sessionId"]).compare(recording)

    trio.run(all_of_it)
    assert not plays
