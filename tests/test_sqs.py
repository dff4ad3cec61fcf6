from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
)

from audiohook.errors import ConfigError, QueueError
from audiohook.sqs import LONGEST_HIDDEN, Message, Queue, make_client

URL = "https://sqs.eu-central-1.amazonaws.com/111122223333/calls"
MESSAGE = Message("m", "receipt", "{}", 1)


class Client:
    """boto3's client: answers or raises what it is told."""

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method
        def call(**parameters: Any) -> Any:  # noqa: ANN401 - any answer
            self.asked.append((name, parameters))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return call


def queue(answer: object = None) -> tuple[Queue, Client]:
    client = Client(answer)
    return Queue(URL, connect=lambda _: client), client


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "so\nit is"}}, "Receive")


async def test_messages_are_read() -> None:
    messages, client = queue(
        {
            "Messages": [
                {
                    "MessageId": "m",
                    "ReceiptHandle": "r",
                    "Body": "b",
                    "Attributes": {"ApproximateReceiveCount": "3"},
                },
                {"MessageId": "n", "ReceiptHandle": "s", "Body": ""},
            ]
        }
    )
    assert await messages.receive(50, 120) == [
        Message("m", "r", "b", 3),
        Message("n", "s", "", 1),
    ]
    ((name, asked),) = client.asked
    assert name == "receive_message"
    # More are refused.
    assert (asked["MaxNumberOfMessages"], asked["VisibilityTimeout"]) == (10, 120)


async def test_empty_answer_is_no_message() -> None:
    messages, _ = queue({})
    assert await messages.receive(1, 120) == []


@pytest.mark.parametrize(
    ("seconds", "whole"), [(-1, 0), (0, 0), (0.6, 1), (1e9, LONGEST_HIDDEN)]
)
async def test_message_is_hidden_for_whole_seconds(seconds: float, whole: int) -> None:
    messages, client = queue()
    await messages.hide(MESSAGE, seconds)
    assert client.asked[0][1]["VisibilityTimeout"] == whole


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (json.dumps({"maxReceiveCount": 5}), 5),
        (json.dumps({"maxReceiveCount": "5"}), 5),
        ("{}", None),
        ("no JSON", None),
        (None, None),
    ],
)
async def test_redrive_policy_is_read(policy: str | None, most: int | None) -> None:
    attributes = {} if policy is None else {"RedrivePolicy": policy}
    messages, _ = queue({"Attributes": attributes})
    assert await messages.most_receives() == most


@pytest.mark.parametrize(
    ("error", "retryable", "text"),
    [
        (refusal("AccessDenied"), False, "sqs:ChangeMessageVisibility"),
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), False, "--queue"),
        (refusal("InvalidClientTokenId"), False, "AWS_ACCESS_KEY_ID"),
        (refusal("InternalError"), True, "so it is"),
        (EndpointConnectionError(endpoint_url="x"), True, "AWS_REGION"),
        (NoCredentialsError(), False, "credentials"),
    ],
)
async def test_failures_say_in_one_line_how_to_mend_them(
    error: Exception, retryable: bool, text: str
) -> None:
    messages, _ = queue(error)
    with pytest.raises(QueueError) as caught:
        await messages.delete(MESSAGE)
    assert caught.value.retryable is retryable
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "calls", "sqs://calls", "https://"])
async def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--queue"):
        await Queue(url).connect()


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (URL, "https://sqs.eu-central-1.amazonaws.com"),
        ("http://127.0.0.1:5000/123456789012/calls", "http://127.0.0.1:5000"),
    ],
)
def test_queue_of_another_is_asked_at_its_own_place(
    monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    client = make_client(url)
    assert client.meta.endpoint_url == endpoint  # type: ignore[attr-defined]
    client.close()
