from __future__ import annotations

import copy
import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.transcription.notices import (
    MOST_NOTICES,
    Notice,
    NoticeError,
    read_event,
    read_message,
)

NAME = "2026-11-22T14-10-44.123Z_a_b"
WAV = f"calls/{NAME}/audio/{NAME}.wav"

# Source: Amazon S3 User Guide, "Event message structure", with its own example.
EVENT: dict[str, Any] = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-west-2",
            "eventTime": "1970-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {
                "x-amz-request-id": "C3D13FE58DE4C810",
                "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5Jg",
            },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "testConfigRule",
                "bucket": {
                    "name": "amzn-s3-demo-bucket",
                    "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                    "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
                },
                "object": {
                    "key": "HappyFace.jpg",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}
HAPPY = [Notice("amzn-s3-demo-bucket", "HappyFace.jpg")]
TEST = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "amzn-s3-demo-bucket",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}
# Source: Amazon S3 User Guide, "EventBridge event message structure".
BUS = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "detail": {
        "version": "0",
        "bucket": {"name": "amzn-s3-demo-bucket1"},
        "object": {"key": "example+key", "size": 5},
        "reason": "PutObject",
    },
}


def event(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    changed = copy.deepcopy(EVENT)
    changed["Records"][0] |= changes
    return changed


def event_of(key: object) -> dict[str, Any]:
    changed = copy.deepcopy(EVENT)
    changed["Records"][0]["s3"]["object"]["key"] = key
    return changed


def in_queue(body: str) -> dict[str, Any]:
    return {"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": body}]}


def by_topic(text: str) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "n", "Message": text}


def test_event_as_amazon_documents_it() -> None:
    assert read_event(EVENT) == HAPPY
    assert read_message(json.dumps(EVENT)) == HAPPY


def test_test_event_tells_of_nothing() -> None:
    assert read_event(TEST) == []
    assert read_event({"Records": []}) == []


@pytest.mark.parametrize(
    "wrapped",
    [
        in_queue(json.dumps(EVENT)),
        by_topic(json.dumps(EVENT)),
        in_queue(json.dumps(by_topic(json.dumps(EVENT)))),
        {
            "Records": [
                {"EventSource": "aws:sns", "Sns": {"Message": json.dumps(EVENT)}}
            ]
        },
    ],
)
def test_wrappings_are_taken_off(wrapped: dict[str, Any]) -> None:
    assert read_event(wrapped) == HAPPY


def test_event_of_the_bus_has_its_key_as_it_is() -> None:
    assert read_event(BUS) == [Notice("amzn-s3-demo-bucket1", "example+key")]
    assert read_event({**BUS, "detail-type": "Object Deleted"}) == []


def test_several_records_are_all_read() -> None:
    both = {"Records": EVENT["Records"] + event_of("b").get("Records", [])}
    assert [each.key for each in read_event(both)] == ["HappyFace.jpg", "b"]


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("red%20flower.jpg", "red flower.jpg"),
        ("%C3%BC", "ü"),
        ("%FF", "\\xff"),
        ("%", "%"),
        ("%zz", "%zz"),
        ("", ""),
        ("\ud800", "\\xed\\xa0\\x80"),
    ],
)
def test_keys_are_decoded(key: str, plain: str) -> None:
    assert read_event(event_of(key))[0].key == plain


@given(st.text())
def test_keys_come_as_they_are_stored(key: str) -> None:
    assert read_event(event_of(quote_plus(key)))[0].key == key


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.6", "2.99"])
def test_minor_versions_do_not_matter(version: str) -> None:
    assert read_event(event(eventVersion=version)) == HAPPY


@pytest.mark.parametrize(
    "name", ["ObjectCreated:CompleteMultipartUpload", "s3:ObjectCreated:Copy"]
)
def test_all_ways_to_make_an_object_count(name: str) -> None:
    assert read_event(event(eventName=name)) == HAPPY


@pytest.mark.parametrize(
    "name", ["ObjectRemoved:Delete", "ObjectRestore:Post", "x", ""]
)
def test_events_of_other_kinds_tell_of_nothing(name: str) -> None:
    assert read_event(event(eventName=name)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "text",
        {},
        {"Records": {}},
        {"Records": [None]},
        {"Records": [{}]},
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"Records": [{"eventSource": "aws:kinesis"}]},
        in_queue("no JSON"),
        in_queue("[" * 100_000),
        in_queue("[]"),
        by_topic(""),
        {"Type": "Notification", "Message": 5},
        event(eventVersion="3.0"),
        event(eventVersion="20.0"),
        event(eventVersion=2.1),
        event(eventName=None),
        event(s3=None),
        event(s3={}),
        event_of(None),
        event_of(5),
        {"source": "aws.ec2", "detail": {}},
        {**BUS, "detail": {}},
    ],
)
def test_what_is_no_event_is_refused(wrong: object) -> None:
    with pytest.raises(NoticeError):
        read_event(wrong)


def test_wrappings_end_somewhere() -> None:
    body = json.dumps(EVENT)
    for _ in range(5):
        body = json.dumps(in_queue(body))
    with pytest.raises(NoticeError, match="too many"):
        read_message(body)


def test_events_are_bounded() -> None:
    many = {"Records": EVENT["Records"] * (MOST_NOTICES + 1)}
    with pytest.raises(NoticeError, match="more than 1000"):
        read_event(many)


@pytest.mark.parametrize(
    "key",
    [
        WAV,
        WAV.replace(".wav", "-external.wav"),
        WAV.replace(".wav", "-internal.wav"),
        "calls/deeper/x/audio/x.wav",
    ],
)
def test_wavs_of_calls_are_ours(key: str) -> None:
    assert Notice("b", key).reason_to_ignore("b", "calls/") is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "calls/",
        f"calls/{NAME}/audio/{NAME}.raw",
        f"calls/{NAME}/call.json",
        f"calls/{NAME}/audio/other.wav",
        f"calls/{NAME}/audio/{NAME}-3.wav",
        f"calls/{NAME}/other/{NAME}.wav",
        f"other/{NAME}/audio/{NAME}.wav",
        f"calls/../{NAME}/audio/{NAME}.wav",
        f"calls//{NAME}/audio/{NAME}.wav",
        f"/calls/{NAME}/audio/{NAME}.wav",
        "calls/./x/audio/x.wav",
        "calls/x y/audio/x y.wav",
        "calls/ü/audio/ü.wav",
        "calls/x\n/audio/x\n.wav",
        "calls/\ud800/audio/\ud800.wav",
        "calls/" + "x" * 600 + "/audio/" + "x" * 600 + ".wav",
        "calls/audio/calls.wav/",
    ],
)
def test_other_keys_are_not(key: str) -> None:
    notice = Notice("b", key)
    assert notice.reason_to_ignore("b", "calls/") is not None
    assert notice.shown.isascii()
    assert len(notice.shown) <= 200
    assert "\n" not in notice.shown


def test_other_buckets_are_not() -> None:
    assert Notice("other", WAV).reason_to_ignore("b", "calls/") is not None
    # Of an access point we do not know the bucket.
    point = "arn:aws:s3:eu-central-1:111122223333:accesspoint/calls"
    assert Notice("other", WAV).reason_to_ignore(point, "calls/") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "Records",
                        "eventSource",
                        "s3",
                        "bucket",
                        "object",
                        "key",
                        "detail",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        read_event(value)
    except NoticeError:
        return
