"""A receiver that believes nothing: published libraries read what it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook

if TYPE_CHECKING:
    from cloudevents.core.base import BaseCloudEvent

    from tests.transcription.scripted_server import Heard

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazfOvZ6cUYA="


def verify(heard: Heard, secret: str = SECRET) -> None:
    """Checks a request's signature, and that it is of now."""
    Webhook(secret).verify(heard.body, heard.headers, json_parse=False)


def read(headers: dict[str, str], body: bytes) -> BaseCloudEvent:
    """Reads a request as any user of CloudEvents would."""
    return from_structured_event(HTTPMessage(headers, body))


def data_of(event: BaseCloudEvent) -> dict[str, Any]:
    data = event.get_data()
    assert isinstance(data, dict)
    return data
