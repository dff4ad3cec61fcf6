"""A queue of Amazon SQS, by boto3 in threads of its own.

A message that was received is hidden from others for a while; unless it is deleted
by then it comes again. Foreign exceptions end here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NotRequired, Protocol, TypedDict, TypeVar
from urllib.parse import urlsplit

import trio
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError

from audiohook.errors import ConfigError, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

SECONDS = 1

MOST_MESSAGES: Final = 10
"""Most messages that are received at once. Source: SQS API, ``ReceiveMessage``."""

LONGEST_HIDDEN: Final = 12 * 60 * 60 * SECONDS
"""Longest time that a message can be hidden, from when it was received."""

# While this waits, a process that is told to end has to wait too.
_LONG_POLL: Final = 10 * SECONDS
_THREADS: Final = 8
_CONNECT_LIMIT: Final = 10 * SECONDS
_MESSAGE_LIMIT: Final = 200

_MENDS: Final[Mapping[str, str]] = {
    "AccessDenied": "allow sqs:ReceiveMessage, sqs:DeleteMessage,"
    " sqs:ChangeMessageVisibility and sqs:GetQueueAttributes on it to this user or"
    " role",
    "AccessDeniedException": "allow its sqs: actions to this user or role",
    "AWS.SimpleQueueService.NonExistentQueue": "correct --queue or AWS_REGION",
    "QueueDoesNotExist": "correct --queue or AWS_REGION",
    "InvalidAddress": "correct --queue",
    "InvalidClientTokenId": "correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew the credentials, or give the machine a role",
    "RequestExpired": "set the clock of this machine",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was received.

    Attributes:
        id: Its id.
        receipt: What it is deleted by.
        body: Anything.
        receives: How often it was received, this time included.
    """

    id: str
    receipt: str
    body: str
    receives: int


class ReceivedMessage(TypedDict):
    """A message as boto3 tells it."""

    MessageId: str
    ReceiptHandle: str
    Body: str
    Attributes: NotRequired[dict[str, str]]


class ReceivedMessages(TypedDict):
    """Answer to ``ReceiveMessage``."""

    Messages: NotRequired[list[ReceivedMessage]]


class QueueAttributes(TypedDict):
    """Answer to ``GetQueueAttributes``."""

    Attributes: NotRequired[dict[str, str]]


class SqsClient(Protocol):
    """The calls that we use. Source: botocore, ``data/sqs/2012-11-05``."""

    def receive_message(
        self,
        *,
        QueueUrl: str,
        MaxNumberOfMessages: int,
        WaitTimeSeconds: int,
        VisibilityTimeout: int,
        AttributeNames: Sequence[str],
    ) -> ReceivedMessages:
        """Wait for messages."""

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> object:
        """Delete a message."""

    def change_message_visibility(
        self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int
    ) -> object:
        """Say when a message comes again."""

    def get_queue_attributes(
        self, *, QueueUrl: str, AttributeNames: Sequence[str]
    ) -> QueueAttributes:
        """Ask how a queue is set up."""

    def close(self) -> None:
        """Close idle connections."""


class Queue:
    """One queue.

    Args:
        url: Its address.
        connect: Makes the client; it may block.
    """

    def __init__(
        self, url: str, *, connect: Callable[[str], SqsClient] | None = None
    ) -> None:
        self._url = url
        self._connect = connect or make_client
        self._client: SqsClient | None = None
        self._threads = trio.CapacityLimiter(_THREADS)
        # The long poll must not keep a thread from whoever wants to delete.
        self._receivers = trio.CapacityLimiter(1)

    async def connect(self) -> None:
        """Makes the client; nothing is sent as yet.

        Raises:
            ConfigError: The address or AWS's settings cannot be used.
        """
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "--queue: is not the address of a queue; for example"
                " --queue https://sqs.eu-central-1.amazonaws.com/111122223333/calls"
            )
        try:
            self._client = await trio.to_thread.run_sync(
                self._connect, self._url, limiter=self._threads
            )
        except (BotoCoreError, ValueError) as exc:
            raise ConfigError(
                f"AWS's settings cannot be used ({type(exc).__name__}): correct"
                " AWS_REGION"
            ) from exc

    async def most_receives(self) -> int | None:
        """Returns after how many receives a message is put aside; None for never.

        Raises:
            QueueError: The queue did not do as asked.
        """
        names = ["RedrivePolicy"]

        def ask(client: SqsClient) -> QueueAttributes:
            return client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)

        found = await self._call(ask, self._threads)
        policy = found.get("Attributes", {}).get(names[0])
        if policy is None:
            return None
        try:
            return int(json.loads(policy)["maxReceiveCount"])
        except (ValueError, KeyError, TypeError):
            return None

    async def receive(self, most: int, hidden: int) -> list[Message]:
        """Waits for messages for ten seconds.

        Args:
            most: How many at most.
            hidden: How long others do not see them, in seconds.

        Raises:
            QueueError: The queue did not do as asked.

        *Cancellation:* After those ten seconds; messages that come by then come
        again later.
        """

        def receive(client: SqsClient) -> ReceivedMessages:
            return client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(most, MOST_MESSAGES),
                WaitTimeSeconds=_LONG_POLL,
                VisibilityTimeout=hidden,
                AttributeNames=["ApproximateReceiveCount"],
            )

        found = await self._call(receive, self._receivers)
        return [_message(each) for each in found.get("Messages", [])]

    async def delete(self, message: Message) -> None:
        """Deletes a message.

        Raises:
            QueueError: The queue did not do as asked.
        """

        def delete(client: SqsClient) -> None:
            client.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)

        await self._call(delete, self._threads)

    async def hide(self, message: Message, seconds: float) -> None:
        """Says when a message comes again, counted from now.

        Raises:
            QueueError: The queue did not do as asked.
        """
        whole = min(max(0, round(seconds)), LONGEST_HIDDEN)

        def hide(client: SqsClient) -> None:
            client.change_message_visibility(
                QueueUrl=self._url,
                ReceiptHandle=message.receipt,
                VisibilityTimeout=whole,
            )

        await self._call(hide, self._threads)

    def close(self) -> None:
        """Closes idle connections."""
        if self._client is not None:
            self._client.close()

    async def _call(
        self, work: Callable[[SqsClient], T], limiter: trio.CapacityLimiter
    ) -> T:
        if self._client is None:
            await self.connect()
        assert self._client is not None
        return await trio.to_thread.run_sync(
            partial(_guarded, self._client, work), limiter=limiter
        )


def _guarded(client: SqsClient, work: Callable[[SqsClient], T]) -> T:
    try:
        return work(client)
    except ClientError as exc:
        raise _refusal(exc) from exc
    except ConnectionError as exc:
        raise QueueError(
            f"the queue cannot be reached ({type(exc).__name__}): is AWS_REGION right?"
        ) from exc
    except BotoCoreError as exc:
        raise QueueError(
            f"the queue cannot be asked ({type(exc).__name__}): check AWS_REGION and the"
            " credentials of this machine",
            retryable=False,
        ) from exc


def _refusal(error: ClientError) -> QueueError:
    details = error.response.get("Error", {})
    code = str(details.get("Code") or "?")
    mend = _MENDS.get(code)
    if mend is not None:
        return QueueError(f"the queue refuses ({code}): {mend}", retryable=False)
    message = " ".join(str(details.get("Message") or "").split())[:_MESSAGE_LIMIT]
    return QueueError(f"the queue fails ({code}): {message}")


def _message(found: ReceivedMessage) -> Message:
    receives = found.get("Attributes", {}).get("ApproximateReceiveCount", "1")
    return Message(
        found["MessageId"],
        found["ReceiptHandle"],
        found["Body"],
        int(receives) if receives.isdecimal() else 1,
    )


def make_client(url: str) -> SqsClient:
    """Makes a client from AWS's standard settings; nothing is sent as yet.

    Args:
        url: Of a queue; if it is not Amazon's, requests go to its host.

    Raises:
        BotoCoreError: A setting is wrong.
        ValueError: The address is none.
    """
    # Slow to import, and not everybody needs it.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_LIMIT,
        read_timeout=3 * _LONG_POLL,
        max_pool_connections=_THREADS + 1,
        tcp_keepalive=True,
        retries={"total_max_attempts": 3, "mode": "standard"},
    )
    parts = urlsplit(url)
    more: dict[str, Any] = {}
    if not (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        more["endpoint_url"] = f"{parts.scheme}://{parts.netloc}"
    client: SqsClient = boto3.session.Session().client("sqs", config=config, **more)
    return client
