"""The environment by which boto3 finds a store, and nothing of this machine's own."""

from __future__ import annotations

from typing import Final

REGION: Final = "us-east-1"

ALONE: Final = {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What keeps boto3 from looking elsewhere."""

NOBODY: Final = ("key", "hush")
"""The keys of one whom no store knows."""

NOWHERE: Final = "http://127.0.0.1:9"
"""Where no store is."""


def environment(
    url: str = NOWHERE, keys: tuple[str, str] = NOBODY, **more: str
) -> dict[str, str]:
    """Makes the environment in which boto3 finds a store.

    Args:
        url: Where it is.
        keys: Access key and secret.
        **more: Other variables.
    """
    return {
        **ALONE,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        **more,
    }
