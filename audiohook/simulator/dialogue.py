"""A simulated call as a person reads it: one line a message."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

from rich.text import Text

from audiohook.protocol.timeline import SAMPLE_RATE_HZ, format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from audiohook.simulator.report import CallReport
    from audiohook.simulator.rules import Breach

_MAX_DETAIL = 120
# Parameters of `open` that are long and tell a reader little.
_LEFT_OUT = frozenset({"organizationId", "participant", "customConfig"})
_SENT, _RECEIVED = "→", "←"
_STYLES = {_SENT: "cyan", _RECEIVED: "green"}


class Dialogue:
    """Prints a call while it runs.

    Audio is not worth a line a frame: what was sent since the last line is
    summed up before the next.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._frames = 0
        self._bytes = 0
        self._audio_at = 0.0

    def sent(self, message: str | bytes, at: float) -> None:
        """Tell of a message that went out.

        Args:
            message: Text, or the bytes of a frame of audio.
            at: Seconds since the call began.
        """
        if isinstance(message, bytes):
            self._frames += 1
            self._bytes += len(message)
            self._audio_at = at
            return
        self._message(_SENT, message, at)

    def received(self, message: str | bytes, at: float) -> None:
        """Tell of a message that came in.

        Args:
            message: Text, or the bytes of a binary message.
            at: Seconds since the call began.
        """
        if isinstance(message, bytes):
            self._line(_RECEIVED, at, "binary", f"{len(message):,} bytes")
            return
        self._message(_RECEIVED, message, at)

    def breach(self, breach: Breach) -> None:
        """Tell of something that the server did wrong."""
        self._line("!", breach.at, "breach", f"{breach.rule}: {breach.text}", "red")

    def summary(self, report: CallReport) -> None:
        """Tell the figures of the call and the verdict; breaches were told before."""
        self._flush_audio()
        if not report.texts_sent:
            # There was no call; why not, was told.
            return
        seconds = report.audio_samples / SAMPLE_RATE_HZ
        channels = "+".join(report.channels) or "no channel"
        self._print(
            f"session {report.session_id}: {report.duration:.1f} s, {channels}, "
            f"{_frames(report.frames)}, {report.audio_bytes:,} bytes, "
            f"{seconds:.3f} s of audio, position "
            f"{format_duration(report.position_samples)}"
        )
        self._print(
            f"latency: opened {_milliseconds(report.opened_latency)}, "
            f"pong {_spread(report.pong_latencies)}, "
            f"closed {_milliseconds(report.closed_latency)}"
        )
        if report.ok:
            self._print("the server kept to the protocol", "green")
        else:
            count = len(report.breaches)
            self._print(f"breaches by the server: {count}", "red")

    def fault(self, text: str) -> None:
        """Tell why there was no call."""
        self._print(text, "red")

    def _message(self, arrow: str, text: str, at: float) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._line(arrow, at, "?", ascii(text))
            return
        ack = "clientseq" if arrow == _RECEIVED else "serverseq"
        words = [f"seq {_word(message.get('seq'))} {ack} {_word(message.get(ack))}"]
        if "position" in message:
            words.append(f"at {_word(message['position'])}")
        words.append(_details(message.get("parameters")))
        self._line(arrow, at, _word(message.get("type")), " ".join(words).rstrip())

    def _line(
        self, mark: str, at: float, kind: str, rest: str, style: str = ""
    ) -> None:
        self._flush_audio()
        self._write(mark, at, kind, rest, style or _STYLES.get(mark, ""))

    def _flush_audio(self) -> None:
        if not self._frames:
            return
        amount = f"{_frames(self._frames)}, {self._bytes:,} bytes"
        self._frames = self._bytes = 0
        self._write(_SENT, self._audio_at, "audio", amount, "dim")

    def _write(self, mark: str, at: float, kind: str, rest: str, style: str) -> None:
        self._print(f"{at:9.3f} {mark} {kind:<10} {rest}", style)

    def _print(self, line: str, style: str = "") -> None:
        # As `Text`, so that nothing in a message is taken for markup.
        self._console.print(Text(line, style=style), soft_wrap=True)


def _details(parameters: object) -> str:
    """Write parameters on one short line of ASCII."""
    if not isinstance(parameters, dict):
        return json.dumps(parameters)[:_MAX_DETAIL]
    words = []
    for name, value in parameters.items():
        if name in _LEFT_OUT:
            continue
        if name == "media" and isinstance(value, list):
            words.append(f"media {_media(value)}")
        else:
            words.append(f"{_word(name)} {json.dumps(value)}")
    line = ", ".join(words)
    return line if len(line) <= _MAX_DETAIL else f"{line[:_MAX_DETAIL]}…"


def _media(entries: list[object]) -> str:
    names = []
    for entry in entries:
        channels = entry.get("channels") if isinstance(entry, dict) else None
        if isinstance(channels, list):
            names.append("+".join(_word(channel) for channel in channels))
        else:
            names.append(json.dumps(entry))
    return f"[{' | '.join(names)}]"


def _word(value: object) -> str:
    """Write a value without quotes, as printable ASCII."""
    return ascii(str(value))[1:-1]


def _frames(count: int) -> str:
    return f"{count:,} frame{'' if count == 1 else 's'}"


def _milliseconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1000:.1f} ms"


def _spread(latencies: tuple[float, ...]) -> str:
    if not latencies:
        return "none"
    middle = _milliseconds(statistics.median(latencies))
    return (
        f"{middle} (median of {len(latencies)}, at most {max(latencies) * 1000:.1f} ms)"
    )
