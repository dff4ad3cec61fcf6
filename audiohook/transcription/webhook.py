"""Reports of AssemblyAI that a job has ended, which only save us from asking.

A report is one way to learn of it; a slow poll is the other, as reports get lost.
Nothing that a report says is believed: it makes us ask for the job ourselves.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from audiohook.transcription.base import is_transcript_id
from audiohook.transcription.parameters import WEBHOOK_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.transcription.parameters import Webhook

# They hold an id and a word.
_MOST_BYTES: Final = 16 * 1024

_OK: Final = 200
_BAD_REQUEST: Final = 400


class WebhookDesk:
    """Takes the reports, at the path of the address that they are sent to.

    A report with our secret is answered with 200 even if its job is unknown here. It
    may be that of another process behind the same address, or its transcript may be
    stored already; to refuse it would only have it sent again, or, with a status
    from 400 to 499, have the sender take our address for a wrong one.

    Args:
        webhook: Where reports go, and the secret that they bring.
        tell: Told the id of each job that has ended; returns whether it is known.
        count: Told what each report was, in one word.

    Source: AssemblyAI, "Webhooks for pre-recorded audio".
    """

    def __init__(
        self,
        webhook: Webhook,
        tell: Callable[[str], bool],
        count: Callable[[str], None],
    ) -> None:
        self._path = (urlsplit(webhook.url).path or "/").encode()
        self._secret = webhook.secret.encode()
        self._header = WEBHOOK_HEADER.lower().encode()
        self._tell = tell
        self._count = count

    @property
    def path(self) -> bytes:
        """The path."""
        return self._path

    @property
    def most_bytes(self) -> int:
        """Longest body."""
        return _MOST_BYTES

    def admits(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request brings the secret, once."""
        given = [value for name, value in headers if name == self._header]
        known = len(given) == 1 and hmac.compare_digest(given[0], self._secret)
        if not known:
            self._count("refused")
        return known

    def take(self, body: bytes) -> int:
        """Take a report; return the HTTP status to answer with."""
        try:
            report = json.loads(body)
        except (ValueError, RecursionError):
            report = None
        if not isinstance(report, dict):
            self._count("malformed")
            return _BAD_REQUEST
        # One on redacted audio names no job.
        transcript_id = report.get("transcript_id")
        known = is_transcript_id(transcript_id) and self._tell(str(transcript_id))
        self._count("taken" if known else "unknown")
        return _OK
