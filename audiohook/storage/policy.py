"""What an account at Amazon must allow, and how a bucket is kept tidy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from audiohook.storage.layout import FileKind

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECK_NAME: Final = "audiohook-check-"
"""What the names begin with that `audiohook.storage.check` makes and deletes."""

KIND_TAG: Final = "audiohook-kind"
"""Tag of objects that says what they are, see `layout.FileKind`."""

# Longer than a call can wait in the spool for its last parts.
_DAYS_UNTIL_ABORT: Final = 7

_WRITE_AND_READ: Final = (
    "s3:PutObject",
    "s3:GetObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)

# The last two only to say why something cannot be erased.
_ERASE: Final = (
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObjectVersion",
    "s3:GetObjectRetention",
    "s3:GetObjectLegalHold",
)


def iam_policy(
    bucket: str,
    prefix: str,
    kms_key: str | None = None,
    *,
    tags: bool = False,
    erase: bool = False,
    delete: bool = False,
) -> dict[str, object]:
    """Make the least that a role has to be allowed.

    Recordings cannot be deleted with it, unless that is asked for. Names can be
    listed: without that S3 says "denied" of an object that is not there, so that
    after a lost answer nobody could tell whether it was stored; and the index is
    made anew from the names. Amazon has no such permission that ends at a prefix
    and does both.

    Args:
        bucket: Its name, or the ARN of an access point.
        prefix: What all keys begin with, such as ``calls/``.
        kms_key: ARN, id or alias of the key that the bucket encrypts with, if any.
        tags: Whether objects are stored with tags.
        erase: Whether calls may be erased with all their versions.
        delete: Whether audio is deleted with all its versions, once transcribed.

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
            "Resource": _arn(bucket),
        },
        {
            "Sid": "DeleteWhatTheCheckMade",
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": f"{objects}{CHECK_NAME}*",
        },
    ]
    if erase or delete:
        statements += [
            {
                "Sid": "EraseCalls" if erase else "DeleteTranscribedAudio",
                "Effect": "Allow",
                "Action": [*_ERASE],
                "Resource": f"{objects}*",
            },
            {
                "Sid": "KnowEveryVersion",
                "Effect": "Allow",
                "Action": ["s3:ListBucketVersions"],
                "Resource": _arn(bucket),
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


def merge_policies(policies: Iterable[dict[str, Any]]) -> dict[str, object]:
    """Make one policy of those for several buckets and prefixes.

    Args:
        policies: As `iam_policy` makes them.

    Returns:
        One in which a statement is for all that it was for in any of them.
    """
    merged: dict[str, dict[str, Any]] = {}
    for policy in policies:
        for each in policy["Statement"]:
            known = merged.setdefault(each["Sid"], {**each})
            resources = dict.fromkeys(_listed(known) + _listed(each))
            if len(resources) > 1:
                known["Resource"] = list(resources)
    return {"Version": "2012-10-17", "Statement": list(merged.values())}


def read_secret(name: str) -> dict[str, object]:
    """Make the statement that lets a role read a secret in Secrets Manager.

    Args:
        name: Its name or ARN.

    Source: AWS Secrets Manager User Guide: an ARN ends with a hyphen and six
    characters that Amazon chooses.
    """
    arn = f"arn:aws:secretsmanager:*:*:secret:{name}-??????"
    return {
        "Sid": "ReadApiKeys",
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": name if name.startswith("arn:") else arn,
    }


def _listed(statement: dict[str, Any]) -> list[str]:
    found = statement["Resource"]
    return list(found) if isinstance(found, list) else [found]


def lifecycle_rule(prefix: str, name: str = "audiohook") -> dict[str, object]:
    """Make a rule that has the bucket forget uploads that nobody will finish.

    Args:
        prefix: What all keys begin with.
        name: What the name of the rule begins with.

    Returns:
        One element of ``Rules`` in a bucket's lifecycle configuration.
    """
    return {
        "ID": f"{name}-abort-incomplete-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _DAYS_UNTIL_ABORT},
    }


def retention_rules(
    prefix: str,
    *,
    audio_days: int | None,
    transcripts_days: int | None,
    name: str = "audiohook",
) -> list[dict[str, object]]:
    """Make rules that have the bucket forget what was kept for its time.

    All calls begin with the same prefix, and a rule knows no endings. So what is
    kept for how long is told by a tag that objects get if it has to be told, see
    `needs_kinds`. Old versions go a day after they were replaced or deleted.

    Args:
        prefix: What the keys begin with.
        audio_days: Days that audio is kept; None for ever.
        transcripts_days: Days that transcripts are kept; None for ever.
        name: What the names of the rules begin with.

    Returns:
        Elements of ``Rules`` in a bucket's lifecycle configuration.

    Source: Amazon S3 User Guide, "Lifecycle configuration elements": a rule for
    markers of deleted objects takes no tags.
    """
    if audio_days is None and transcripts_days is None:
        return []
    rules = []
    if not needs_kinds(audio_days, transcripts_days):
        rules.append(_expiry(f"{name}-all", {"Prefix": prefix}, audio_days))
    else:
        call_days = None
        if audio_days is not None and transcripts_days is not None:
            call_days = max(audio_days, transcripts_days)
        rules += [
            _expiry(f"{name}-{kind}", _tagged(prefix, kind), days)
            for kind, days in (
                (FileKind.AUDIO, audio_days),
                (FileKind.TRANSCRIPT, transcripts_days),
                (FileKind.CALL, call_days),
            )
            if days is not None
        ]
    rules.append(
        {
            "ID": f"{name}-delete-markers",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
    )
    return rules


def needs_kinds(audio_days: int | None, transcripts_days: int | None) -> bool:
    """Tell whether rules have to tell what an object is."""
    return audio_days != transcripts_days


def _expiry(name: str, which: dict[str, object], days: int | None) -> dict[str, object]:
    return {
        "ID": name,
        "Status": "Enabled",
        "Filter": which,
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }


def _tagged(prefix: str, kind: str) -> dict[str, object]:
    tag = {"Key": KIND_TAG, "Value": str(kind)}
    return {"And": {"Prefix": prefix, "Tags": [tag]}}


def _arn(bucket: str) -> str:
    return bucket if bucket.startswith("arn:") else f"arn:aws:s3:::{bucket}"


def _objects(bucket: str) -> str:
    """Return what the ARNs of a bucket's objects begin with."""
    if bucket.startswith("arn:"):
        return f"{bucket}/object"
    return _arn(bucket)


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
