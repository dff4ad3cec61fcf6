"""What an account at Amazon must allow, and how a bucket is kept tidy."""

from __future__ import annotations

from typing import Final

CHECK_NAME: Final = "audiohook-check-"
"""What the names begin with that `audiohook.storage.check` makes and deletes."""

# Longer than a call can wait in the spool for its last parts.
_DAYS_UNTIL_ABORT: Final = 7

_WRITE_AND_READ: Final = (
    "s3:PutObject",
    "s3:GetObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def iam_policy(
    bucket: str, prefix: str, kms_key: str | None = None, *, tags: bool = False
) -> dict[str, object]:
    """Make the least that a role has to be allowed.

    Recordings cannot be deleted with it. Names can be listed: without that S3 says
    "denied" of an object that is not there, so that after a lost answer nobody could
    tell whether it was stored; and the index is made anew from the names. Amazon
    has no such permission that ends at a prefix and does both.

    Args:
        bucket: Its name, or the ARN of an access point.
        prefix: What all keys begin with, such as ``calls/``.
        kms_key: ARN, id or alias of the key that the bucket encrypts with, if any.
        tags: Whether objects are stored with tags.

    Returns:
        A policy, to be written as JSON.

    Source: Amazon S3 User Guide, "Required permissions for Amazon S3 API
    operations"; AWS KMS Developer Guide, "Using aliases to control access".
    """
    objects = f"{_objects(bucket)}/{prefix}"
    actions = [*_WRITE_AND_READ, *(["s3:PutObjectTagging"] if tags else [])]
    statements: list[dict[str, object]] = [
        {
            "Sid": "StoreRecordings",
            "Effect": "Allow",
            "Action": actions,
            "Resource": f"{objects}*",
        },
        {
            "Sid": "KnowWhatIsThere",
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": bucket
            if bucket.startswith("arn:")
            else f"arn:aws:s3:::{bucket}",
        },
        {
            "Sid": "DeleteWhatTheCheckMade",
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": f"{objects}{CHECK_NAME}*",
        },
    ]
    if kms_key is not None:
        statements.append(
            {
                "Sid": "Encrypt",
                "Effect": "Allow",
                "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
                **_key(kms_key),
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def lifecycle_rule(prefix: str) -> dict[str, object]:
    """Make a rule that has the bucket forget uploads that nobody will finish.

    Args:
        prefix: What all keys begin with.

    Returns:
        One element of ``Rules`` in a bucket's lifecycle configuration.
    """
    return {
        "ID": "audiohook-abort-incomplete-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _DAYS_UNTIL_ABORT},
    }


def _objects(bucket: str) -> str:
    """Return what the ARNs of a bucket's objects begin with."""
    if bucket.startswith("arn:"):
        return f"{bucket}/object"
    return f"arn:aws:s3:::{bucket}"


def _key(kms_key: str) -> dict[str, object]:
    """Name a key in a statement, where only an ARN may stand."""
    if "alias/" in kms_key:
        alias = kms_key[kms_key.index("alias/") :]
        return {
            "Resource": "arn:aws:kms:*:*:key/*",
            "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}},
        }
    if kms_key.startswith("arn:"):
        return {"Resource": kms_key}
    return {"Resource": f"arn:aws:kms:*:*:key/{kms_key}"}
