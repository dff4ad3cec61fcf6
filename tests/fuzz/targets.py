"""All that is fuzzed, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz import answers, disk, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CORPUS: Final = Path(__file__).parent / "corpus"
"""Folder with a folder of inputs for each target."""

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "http_head": wire.http_head,
    "proxy_header": wire.proxy_header,
    "signature": wire.signature,
    "messages": wire.messages,
    "session": wire.session,
    "frames": wire.frames,
    "pings": wire.pings,
    "journal": disk.journal,
    "spool": disk.spool,
    "wav": disk.wav,
    "transcripts": answers.transcripts,
    "webhook": answers.webhook,
}
