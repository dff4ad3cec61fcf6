"""What an event of a bucket says: which objects have come.

Amazon hands the same event on in several wrappings: as it is, in a message of a
queue, in a notification that a topic has put around it, or as an event of the
event bus. Nothing here is trusted: an event is as large as its sender likes, and its
keys are whatever somebody has stored under.

Source: Amazon S3 User Guide, "Event message structure" and "Using EventBridge";
Amazon SNS Developer Guide, "Amazon SNS message and JSON formats"; AWS Lambda
Developer Guide, "Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from audiohook.errors import AudioHookError, UploadError
from audiohook.storage.base import check_key
from audiohook.storage.layout import is_wav_key

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NOTICES: Final = 1000
"""Most objects in one event. Amazon puts one in each."""

# Source: the guide named above: readers compare the major version only.
_MAJOR_VERSION: Final = "2"
_CREATED: Final = "ObjectCreated:"
_BUS_CREATED: Final = "Object Created"
_TEST: Final = "s3:TestEvent"
_SHOWN: Final = 200
# A topic in front of a queue is one wrapping, a queue in front of a function another.
_MOST_WRAPPINGS: Final = 4


class NoticeError(AudioHookError):
    """An event that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An object that has come to be.

    Attributes:
        bucket: Name of its bucket.
        key: Its key; anything.
    """

    bucket: str
    key: str

    def reason_to_ignore(self, bucket: str, prefix: str) -> str | None:
        """Say why it is none of our business; None if it is.

        Args:
            bucket: Ours: its name, or the ARN of an access point, whose bucket's
                name is not known.
            prefix: What all of our keys begin with.
        """
        if self.bucket != bucket and not bucket.startswith("arn:"):
            return "it is in another bucket"
        if not self.key.startswith(prefix):
            return "its key does not begin with S3_KEY_PREFIX"
        try:
            check_key(self.key)
        except UploadError:
            return "its key is none of ours"
        return None if is_wav_key(self.key) else "it is no WAV of a call"

    @property
    def shown(self) -> str:
        """Its key, fit for a log."""
        return ascii(self.key)[1:-1][:_SHOWN]


def read_event(event: object) -> list[Notice]:
    """Find the objects that an event tells of.

    Args:
        event: JSON, parsed.

    Returns:
        Those that have come to be; none for a test event and for events of other
        kinds.

    Raises:
        NoticeError: It is no event of a bucket, or of a later time.
    """
    notices = list(_unwrap(event, _MOST_WRAPPINGS))
    if len(notices) > MOST_NOTICES:
        raise NoticeError(f"an event of more than {MOST_NOTICES} objects")
    return notices


def read_message(body: str) -> list[Notice]:
    """Find the objects that the body of a message tells of, see `read_event`."""
    return read_event(_parse(body))


def _parse(text: object) -> object:
    if not isinstance(text, str):
        raise NoticeError("not an event: it is no text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoticeError("not an event: it is no JSON") from None


def _unwrap(event: object, wrappings: int) -> Iterable[Notice]:
    if not isinstance(event, dict):
        raise NoticeError("not an event: it is no JSON object")
    if event.get("Event") == _TEST:
        return
    if event.get("Type") == "Notification" and "Message" in event:
        yield from _unwrap_text(event["Message"], wrappings)
    elif isinstance(event.get("detail"), dict):
        yield from _from_bus(event)
    elif isinstance(event.get("Records"), list):
        for record in event["Records"]:
            yield from _from_record(record, wrappings)
    else:
        raise NoticeError("not an event of a bucket")


def _unwrap_text(text: object, wrappings: int) -> Iterable[Notice]:
    if not wrappings:
        raise NoticeError("an event in too many wrappings")
    return _unwrap(_parse(text), wrappings - 1)


def _from_record(record: object, wrappings: int) -> Iterable[Notice]:
    match record:
        case {"eventSource": "aws:sqs", "body": text}:
            yield from _unwrap_text(text, wrappings)
        case {"EventSource": "aws:sns", "Sns": {"Message": text}}:
            yield from _unwrap_text(text, wrappings)
        case {
            "eventSource": "aws:s3",
            "eventVersion": str(version),
            "eventName": str(name),
            "s3": details,
        }:
            if version.partition(".")[0] != _MAJOR_VERSION:
                raise NoticeError(
                    f"an event of version {ascii(version)[:20]}, which this release"
                    f" does not know: only {_MAJOR_VERSION}.x"
                )
            # Some senders put the service in front.
            if name.removeprefix("s3:").startswith(_CREATED):
                notice = _read_details(details)
                yield Notice(notice.bucket, _unquote(notice.key))
        case _:
            raise NoticeError("not an event of a bucket")


def _from_bus(event: dict[str, Any]) -> Iterable[Notice]:
    """Read an event of EventBridge, where keys are as they are."""
    if event.get("source") != "aws.s3":
        raise NoticeError("not an event of a bucket")
    if event.get("detail-type") == _BUS_CREATED:
        yield _read_details(event["detail"])


def _read_details(details: object) -> Notice:
    match details:
        case {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}:
            return Notice(bucket, key)
    raise NoticeError("an event without the bucket or the key of its object")


def _unquote(key: str) -> str:
    plain = unquote_to_bytes(key.replace("+", " ").encode("utf-8", "surrogatepass"))
    # What is not UTF-8 is none of our keys, but no reason to refuse the others.
    return plain.decode("utf-8", "backslashreplace")
