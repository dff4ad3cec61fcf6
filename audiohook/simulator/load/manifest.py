"""What was sent, one line of JSON a call, to judge recordings by."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILED = "failed"
"""The ending of a call in which something went wrong."""

_FLUSH_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class SentGap:
    """A stretch of a call that was not sent.

    Attributes:
        kind: ``paused`` or ``discarded``.
        offset_samples: Samples per channel sent before it.
        length_samples: Its length per channel.
    """

    kind: str
    offset_samples: int
    length_samples: int


@dataclass(frozen=True, slots=True)
class SentCall:
    """One call as it was made.

    Attributes:
        number: Number in the load.
        voice: Number that its audio tells.
        session: Session id.
        conversation: Conversation id; no two calls have the same.
        channels: Channels of its audio, 0 if the server wanted none.
        audio_bytes: Bytes of audio sent.
        frame_bytes: Bytes of each frame.
        gaps: What was not sent, in order.
        ending: A word of `audiohook.simulator.load.script.Ending`, or `FAILED`.
        faults: What went wrong, in words.
        closed_at: When `closed` came, in seconds since 1970; None if it did not.
    """

    number: int
    voice: int
    session: str
    conversation: str
    channels: int
    audio_bytes: int
    frame_bytes: int
    gaps: tuple[SentGap, ...]
    ending: str
    faults: tuple[str, ...] = ()
    closed_at: float | None = None

    def to_line(self) -> str:
        """Write it as a line of a manifest, with its end."""
        value = {
            "number": self.number,
            "voice": self.voice,
            "session": self.session,
            "conversation": self.conversation,
            "channels": self.channels,
            "audioBytes": self.audio_bytes,
            "frameBytes": self.frame_bytes,
            "gaps": [
                [gap.kind, gap.offset_samples, gap.length_samples] for gap in self.gaps
            ],
            "ending": self.ending,
            "faults": self.faults,
            "closedAt": self.closed_at,
        }
        return json.dumps(value, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> SentCall:
        """Read a line of a manifest.

        Raises:
            ValueError: It is none.
        """
        try:
            value = json.loads(line)
            return cls(
                number=int(value["number"]),
                voice=int(value["voice"]),
                session=str(value["session"]),
                conversation=str(value["conversation"]),
                channels=int(value["channels"]),
                audio_bytes=int(value["audioBytes"]),
                frame_bytes=int(value["frameBytes"]),
                gaps=tuple(
                    SentGap(str(kind), int(offset), int(length))
                    for kind, offset, length in value["gaps"]
                ),
                ending=str(value["ending"]),
                faults=tuple(map(str, value["faults"])),
                closed_at=_number_or_none(value.get("closedAt")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("no call of a manifest") from error


def _number_or_none(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def make_manifest(path: Path) -> None:
    """Make an empty manifest, in place of whatever is there.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.write_bytes(b"")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def read_manifest(path: Path) -> Iterator[SentCall]:
    """Read a manifest, a call at a time.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    done = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield SentCall.from_line(line)
                done += 1
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}, line {done + 1}: {error}") from error


class ManifestWriter:
    """Adds calls to a manifest, which several processes may do at a time.

    Args:
        path: A manifest that `make_manifest` made.

    Raises:
        OSError: It cannot be written, also later on.
    """

    def __init__(self, path: Path) -> None:
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        # Whole lines in one write each, so that those of others stay whole too.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def add(self, call: SentCall) -> None:
        """Add a call; it may be written a little later."""
        line = call.to_line().encode()
        self._lines.append(line)
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what was not written yet."""
        try:
            self._flush()
        finally:
            os.close(self._fd)

    def _flush(self) -> None:
        data = b"".join(self._lines)
        self._lines.clear()
        self._waiting_bytes = 0
        while data:
            data = data[os.write(self._fd, data) :]
