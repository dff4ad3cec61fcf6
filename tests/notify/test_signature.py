from __future__ import annotations

import base64
import shutil
import subprocess
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from audiohook.notify.signature import sign
from audiohook.setting_values import decode_notify_secrets
from tests.notify.reader import OTHER_SECRET, SECRET

BODY = b'{"id":"x"}'


def signed(*texts: str, body: bytes = BODY, at: float | None = None) -> dict[str, str]:
    secrets = decode_notify_secrets(",".join(texts))
    return sign(secrets, "msg-1", int(time.time() if at is None else at), body)


def test_library_of_standard_webhooks_verifies_it() -> None:
    assert Webhook(SECRET).verify(BODY, signed(SECRET)) == {"id": "x"}


def test_receiver_with_either_secret_verifies_it_while_they_change() -> None:
    headers = signed(OTHER_SECRET, SECRET)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize(
    "headers",
    [
        signed(OTHER_SECRET),
        signed(SECRET, body=b"{}"),
        {**signed(SECRET), "webhook-id": "msg-2"},
        {**signed(SECRET), "webhook-timestamp": str(int(time.time()) + 1)},
        signed(SECRET, at=time.time() - 3600),
    ],
    ids=["secret", "body", "id", "time", "old"],
)
def test_library_refuses_what_is_not_ours(headers: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers)


def test_openssl_makes_the_same_signature() -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None
    headers = signed(SECRET, at=1_700_000_000)
    key = base64.b64decode(SECRET.removeprefix("whsec_")).hex()
    made = subprocess.run(
        [
            openssl,
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            f"hexkey:{key}",
            "-binary",
        ],
        input=b"msg-1.1700000000." + BODY,
        capture_output=True,
        check=True,
    ).stdout
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(made).decode()}"
