"""Signatures by which a receiver knows that a notification is ours.

They are those of Standard Webhooks, since for those there are libraries in most
languages, and since they cover the id as well: who has caught an old one cannot
send it again under another id.

Source: Standard Webhooks specification 1.0, "Signature scheme".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def sign(
    secrets: Sequence[bytes], identity: str, epoch: int, body: bytes
) -> dict[str, str]:
    """Make the headers of a request.

    Args:
        secrets: One, or two while one takes the other's place: the receiver may know
            either.
        identity: Id of the notification.
        epoch: When it is sent, in seconds since 1970.
        body: What is sent.
    """
    signed = b"%s.%d.%s" % (identity.encode("ascii"), epoch, body)
    signatures = [
        "v1,"
        + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode("ascii")
        for secret in secrets
    ]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(epoch),
        "webhook-signature": " ".join(signatures),
    }
