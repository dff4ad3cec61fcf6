"""The CloudFormation template: that it is sound, and allows what is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiohook.storage.policy import iam_policy, lifecycle_rule

TEMPLATE = Path(__file__).parent.parent / "deploy" / "cloudformation.yml"
MIB_64 = 64 * 1024

# What the code asks of Amazon, by the module that asks.
TRANSCRIBER = {
    # storage/s3.py: read, fetch, head, read_range, presign; put, replace, swap.
    "s3:GetObject",
    "s3:PutObject",
    # storage/s3.py, an upload in parts that fails.
    "s3:AbortMultipartUpload",
    # That a missing object is told apart from a forbidden one.
    "s3:ListBucket",
    # elsewhere.py
    "ssm:GetParameter",
    # sqs.py, and Lambda for itself.
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
}


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's own tags as what they are put on."""


def _tag(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _tag)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    value: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)
    return value


def statements(template: dict[str, Any], resource: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = template["Resources"][resource]["Properties"][
        "PolicyDocument"
    ]["Statement"]
    return found


def actions(statement: dict[str, Any]) -> set[str]:
    value = statement["Action"]
    return {value} if isinstance(value, str) else set(value)


def test_template_is_sound() -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("cfn-lint"),
            "--non-zero-exit-code",
            "informational",
            TEMPLATE,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_recorder_may_do_what_the_check_says(template: dict[str, Any]) -> None:
    wanted = iam_policy("${BucketName}", "${KeyPrefix}")["Statement"]
    assert isinstance(wanted, list)
    found = statements(template, "RecorderPolicy")
    assert [each["Sid"] for each in found] == [each["Sid"] for each in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        theirs_actions = theirs["Action"]
        assert actions(ours) == actions({"Action": theirs_actions}), ours["Sid"]
        assert (
            ours["Resource"].replace("arn:${AWS::Partition}", "arn:aws")
            == theirs["Resource"]
        )


def test_transcriber_may_do_what_the_code_asks_for(template: dict[str, Any]) -> None:
    found = statements(template, "TranscriberPolicy")
    assert set().union(*map(actions, found)) == TRANSCRIBER
    # Recordings can be neither deleted nor their rights changed.
    assert not any(
        "*" in action or "Delete" in action.split(":")[1]
        for each in found
        for action in actions(each)
        if action.startswith("s3:")
    )
    assert all(each["Resource"] not in ("*", "arn:aws:s3:::*") for each in found)


def test_nobody_else_may_do_anything(template: dict[str, Any]) -> None:
    for name, resource in template["Resources"].items():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        own = resource["Properties"].get("Policies", [])
        allowed = {
            action
            for policy in own
            for each in policy["PolicyDocument"]["Statement"]
            for action in actions(each)
        }
        assert allowed <= {"logs:CreateLogStream", "logs:PutLogEvents"}, name
        assert resource["Properties"]["ManagedPolicyArns"] == ["TranscriberPolicy"]


def test_bucket_that_is_there_already_is_left_alone(template: dict[str, Any]) -> None:
    made = {
        name
        for name, each in template["Resources"].items()
        if each.get("Condition") == "MakesBucket"
    }
    assert made == {"Bucket", "BucketPolicy"}
    # Nothing else that is made needs what is not: all go by the bucket's name.
    text = TEMPLATE.read_text()
    assert text.count("!Ref Bucket\n") == 1
    assert "!GetAtt Bucket" not in text


def test_bucket_is_kept_tidy_and_shut(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["Bucket"]
    assert bucket["DeletionPolicy"] == "Retain"
    (rule,) = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    wanted = lifecycle_rule("KeyPrefix")
    assert rule["Id"] == wanted["ID"]
    assert (
        rule["AbortIncompleteMultipartUpload"]
        == wanted["AbortIncompleteMultipartUpload"]
    )
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {
        True
    }


def test_queue_takes_whole_events_and_brings_them_back(
    template: dict[str, Any],
) -> None:
    queue = template["Resources"]["Queue"]["Properties"]
    function = template["Resources"]["Function"]["Properties"]
    assert queue["MaximumMessageSize"] >= MIB_64
    # Source: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS".
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert function["Handler"] == "audiohook.transcription.events.handler"
    events = template["Resources"]["FunctionEvents"]["Properties"]
    assert events["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_no_secret_is_in_it(template: dict[str, Any]) -> None:
    variables = template["Resources"]["Function"]["Properties"]["Environment"]
    assert "ASSEMBLYAI_API_KEY" not in variables["Variables"]
    assert "ASSEMBLYAI_API_KEY_PARAMETER" in variables["Variables"]
