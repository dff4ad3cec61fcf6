from __future__ import annotations

import json
from typing import Any

import pytest

from audiohook.storage.policy import iam_policy, lifecycle_rule


def statements(policy: dict[str, object]) -> dict[str, Any]:
    assert policy["Version"] == "2012-10-17"
    listed: Any = policy["Statement"]
    return {each["Sid"]: each for each in listed}


def test_policy_allows_writing_and_reading_below_the_prefix_only() -> None:
    policy = statements(iam_policy("recordings", "calls/"))
    assert policy.keys() == {
        "StoreRecordings",
        "KnowWhatIsThere",
        "DeleteWhatTheCheckMade",
    }
    store = policy["StoreRecordings"]
    assert store["Resource"] == "arn:aws:s3:::recordings/calls/*"
    assert store["Action"] == [
        "s3:PutObject",
        "s3:GetObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
    ]
    assert all(each["Effect"] == "Allow" for each in policy.values())


def test_policy_allows_to_delete_only_what_the_check_made() -> None:
    delete = statements(iam_policy("recordings", "calls/"))["DeleteWhatTheCheckMade"]
    assert delete["Action"] == "s3:DeleteObject"
    assert delete["Resource"] == "arn:aws:s3:::recordings/calls/audiohook-check-*"


def test_policy_allows_to_list_what_is_there() -> None:
    policy = statements(iam_policy("recordings", "calls/"))
    find = policy["KnowWhatIsThere"]
    # Without the first, S3 answers "denied" for an object that is not there.
    assert find["Action"] == ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    assert find["Resource"] == "arn:aws:s3:::recordings"


def test_policy_for_an_access_point_names_it_and_its_objects() -> None:
    point = "arn:aws:s3:eu-central-1:123456789012:accesspoint/calls"
    policy = statements(iam_policy(point, "calls/"))
    assert policy["StoreRecordings"]["Resource"] == f"{point}/object/calls/*"
    assert policy["KnowWhatIsThere"]["Resource"] == point


def test_policy_allows_tags_where_there_are_any() -> None:
    store = statements(iam_policy("b", "calls/", tags=True))["StoreRecordings"]
    assert "s3:PutObjectTagging" in store["Action"]


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (
            "arn:aws:kms:eu-central-1:1:key/0123",
            {"Resource": "arn:aws:kms:eu-central-1:1:key/0123"},
        ),
        ("0123", {"Resource": "arn:aws:kms:*:*:key/0123"}),
        (
            "arn:aws:kms:eu-central-1:1:alias/recordings",
            {
                "Resource": "arn:aws:kms:*:*:key/*",
                "Condition": {
                    "ForAnyValue:StringEquals": {
                        "kms:ResourceAliases": "alias/recordings"
                    }
                },
            },
        ),
    ],
)
def test_policy_allows_to_encrypt_with_a_key(
    key: str, named: dict[str, object]
) -> None:
    encrypt = statements(iam_policy("b", "calls/", key))["Encrypt"]
    assert encrypt == {
        "Sid": "Encrypt",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        **named,
    }


def test_policy_and_rule_can_be_written_as_json() -> None:
    assert json.dumps([iam_policy("b", "calls/", "key"), lifecycle_rule("calls/")])


def test_rule_gives_up_uploads_below_the_prefix_after_a_week() -> None:
    rule = lifecycle_rule("calls/")
    assert rule["Filter"] == {"Prefix": "calls/"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rule["Status"] == "Enabled"
