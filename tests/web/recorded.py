"""Recordings as they lie in a store, made up: any length, any words, any malice."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audiohook import _ulaw
from audiohook.recording._peaks import Peaks
from audiohook.recording.wav import Encoding, header

if TYPE_CHECKING:
    from pathlib import Path

CONVERSATION = "11111111-1111-4111-8111-111111111111"
PARTICIPANT = "22222222-2222-4222-8222-222222222222"
NAME = f"2026-11-22T14-10-44.123Z_{CONVERSATION}_{PARTICIPANT}"
RATE_HZ = 8000

BIDI = "\u202e"
HOSTILE = f"</script><img src=x onerror=\"document.title='owned'\">{BIDI}gpj.exe"


@dataclass
class Made:
    """A recording.

    Attributes:
        name: Its name.
        seconds: How long it is.
        words: What is said: channel from 1 on, start and end in ms, and the word.
        stops: Gaps: kind, start and length in seconds.
        changes: What ``call.json`` has that is not usual.
        peaks: Whether it has what a waveform is drawn from.
        script: How its transcript stands.
    """

    name: str = NAME
    seconds: float = 4.0
    words: list[tuple[int, int, int, str]] = field(
        default_factory=lambda: [
            (1, 500, 900, "Good"),
            (1, 900, 1400, "morning"),
            (2, 1500, 1900, "Hello"),
            (2, 2500, 3100, "there"),
        ]
    )
    stops: list[tuple[str, float, float]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    peaks: bool = True
    script: dict[str, Any] = field(default_factory=lambda: {"status": "completed"})

    def audio(self) -> bytes:
        """µ-law of a second over and over: a tone, of a loudness of its own a side."""
        second = b"".join(
            value.to_bytes(2, "little", signed=True)
            for i in range(RATE_HZ)
            for value in (
                int(20_000 * math.sin(i * 0.3) * math.sin(math.pi * i / RATE_HZ)),
                int(6_000 * math.sin(i * 0.2) * math.cos(math.pi * i / RATE_HZ)),
            )
        )
        frames = round(self.seconds * RATE_HZ)
        whole = _ulaw.encode(second) * math.ceil(self.seconds)
        return whole[: 2 * frames]

    def transcript(self) -> bytes:
        """JSON as AssemblyAI has it: a turn for each change of the channel."""
        utterances: list[dict[str, Any]] = []
        for channel, start, end, text in self.words:
            word = {"text": text, "start": start, "end": end, "channel": str(channel)}
            word["speaker"] = str(channel)
            if not utterances or utterances[-1]["channel"] != str(channel):
                utterances.append({**word, "words": [], "text": ""})
            last = utterances[-1]
            last["words"].append(word)
            last["end"] = end
            last["text"] = " ".join(each["text"] for each in last["words"])
        return json.dumps(
            {"id": "t", "multichannel": True, "utterances": utterances}
        ).encode()

    def files(self) -> dict[str, bytes]:
        """All its files by their keys, ``call.json`` last."""
        start = f"calls/{self.name}/audio/{self.name}"
        codes = self.audio()
        frames = len(codes) // 2
        wav = header(Encoding.PCM16, 2, frames) + _ulaw.decode(codes)
        files = {f"{start}.wav": wav, f"{start}.raw": codes}
        if self.peaks:
            peaks = Peaks(2)
            peaks.add_ulaw(codes)
            files[f"{start}.dat"] = peaks.dat()
        objects = [_about(key, data) for key, data in files.items()]
        script = {
            "audio": f"{start}.wav",
            "id": "t",
            "reason": None,
            "model": "m",
            "objects": [],
            **self.script,
        }
        if script.get("status") == "completed":
            key = f"calls/{self.name}/transcripts/{self.name}.json"
            files[key] = self.transcript()
            script["objects"] = [_about(key, files[key])]
        call: dict[str, Any] = {
            "schemaVersion": 1,
            "sessionId": "33333333-3333-4333-8333-333333333333",
            "conversationId": CONVERSATION,
            "participant": {
                "id": PARTICIPANT,
                "ani": "tel:+4930123456",
                "aniName": "Zoë +4930123456",
                "dnis": "tel:+4940999888",
            },
            "language": "de-DE",
            "customConfig": {"desk": "+49301234567"},
            "media": {
                "format": "PCMU",
                "rate": 8000,
                "channels": ["external", "internal"],
            },
            "recording": {"encoding": "pcm16", "layout": "stereo", "gaps": "silence"},
            "start": "2026-11-22T14:10:44.123Z",
            "duration": self.seconds,
            "ended": {"reason": "end", "complete": True, "paused": False},
            "gaps": [
                {
                    "kind": kind,
                    "start": at,
                    "length": length,
                    "storedSamplesBefore": round(at * RATE_HZ),
                }
                for kind, at, length in self.stops
            ],
            "objects": objects,
            "transcripts": [script] if self.script else [],
        }
        call.update(self.changes)
        data = json.dumps(call, ensure_ascii=False).encode(errors="surrogatepass")
        files[f"calls/{self.name}/call.json"] = data
        return files

    def write(self, root: Path) -> None:
        """Puts all of it into a folder."""
        for key, data in self.files().items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _about(key: str, data: bytes) -> dict[str, Any]:
    return {
        "key": key,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
