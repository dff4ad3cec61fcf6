"""The errors that pass from one room of the package to another.

The tree::

    AudioHookError
    ├── ConfigError                a setting is missing, unknown or wrong
    ├── ProtocolError
    │   ├── LocalProtocolError     we were about to break the protocol (a bug)
    │   └── RemoteProtocolError    the peer broke it; carries the answer to send
    ├── AuthenticationError        a request that must not become a session
    ├── ControlError               a live call cannot be made to do as asked
    ├── SpoolError                 the local disk did not do as asked
    ├── UploadError                the store did not do as asked
    │   ├── KeyExistsError         the key is taken by something else
    │   ├── UploadGoneError        the upload in parts is no longer there
    │   └── JobHeldError           somebody else has the job in hand
    ├── CallIndexError             the index of recordings did not do as asked
    ├── ErasureError               an erasure cannot be begun or gone on with
    ├── OutboxError                what is to be told could not be kept on disk
    ├── ReceiverError              the receiver of notifications did not take one
    ├── TranscriptError            the transcription service did not do as asked
    ├── UnfinishedError            a job that a later try goes on with
    └── QueueError                 the queue of events did not do as asked

What only one room raises and catches is defined there. Foreign exceptions are
translated at the border of the one module that talks to the outside world in
question, with ``raise … from``; from None where the cause holds what nobody may read,
such as a secret or a caller's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Longest path that is shown whole; Linux knows none over 4,096.
_SHOWN_CHARS: Final = 512


def in_one_line(path: Path) -> str:
    """Write a path as it can stand in an error's one line.

    Linux lets names of files hold line breaks, escapes of a terminal, and bytes that
    are no text.
    """
    text = str(path)
    if not text.isprintable():
        text = ascii(text)
    if len(text) > _SHOWN_CHARS:
        text = f"{text[: _SHOWN_CHARS // 2]}…{text[-_SHOWN_CHARS // 2 :]}"
    return text


class AudioHookError(Exception):
    """Root of all errors that say what is wrong in words for people."""


class ConfigError(AudioHookError):
    """A setting is missing, unknown or wrong; the text names it and the mend."""


class ProtocolError(AudioHookError):
    """Somebody broke the AudioHook protocol."""


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that the protocol does not allow now."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Attributes:
        info: Text that may be sent to the peer in ``disconnect``; it never
            holds personal data, since Genesys logs it.
    """

    def __init__(self, info: str) -> None:
        super().__init__(info)
        self.info = info


class AuthenticationError(AudioHookError):
    """A request that must not become a session.

    Every such request gets the same answer, so the reason is for our own
    metrics only and is drawn from a fixed set of words.

    Attributes:
        reason: A short, fixed word such as ``unknown_key`` or ``expired``.
        http_status: Status of the refusal, 401 unless the request was malformed.
    """

    def __init__(self, reason: str, http_status: int = 401) -> None:
        super().__init__(reason)
        self.reason = reason
        self.http_status = http_status


class ControlError(AudioHookError):
    """A live call cannot be made to do as asked.

    Attributes:
        fault: Why, a word of `audiohook.control.ControlFault`.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


class SpoolError(AudioHookError):
    """The local disk did not do as asked.

    Attributes:
        full: True if the disk (or quota) has no room left, which passes.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class UploadError(AudioHookError):
    """The store did not do as asked.

    Attributes:
        retryable: False if trying again cannot help before somebody mends it.
        fault: What kind of failure it is, a word of
            `audiohook.storage.base.StoreFault`.
    """

    def __init__(
        self, message: str, *, retryable: bool = True, fault: str = "other"
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.fault = fault


class KeyExistsError(UploadError):
    """The key is taken by an object that is not the one we were storing.

    Attributes:
        key: Which.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} exists and holds something else", retryable=False)
        self.key = key


class UploadGoneError(UploadError):
    """An upload in parts is no longer there: it must be begun anew.

    Attributes:
        key: Of the object that it was to become.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: the upload in parts is gone; it must begin anew")
        self.key = key


class JobHeldError(UploadError):
    """Somebody else has the job in hand.

    Attributes:
        seconds: After so many, nobody has it any more if he has died by now.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class CallIndexError(AudioHookError):
    """The index of recordings did not do as asked.

    Attributes:
        damaged: True if its file has to be made anew.
        costly: True if the question takes too long to be answered.
        busy: True if another process is at it, which passes.
    """

    def __init__(
        self,
        message: str,
        *,
        damaged: bool = False,
        costly: bool = False,
        busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.damaged = damaged
        self.costly = costly
        self.busy = busy


class ErasureError(AudioHookError):
    """An erasure cannot be begun or gone on with.

    Attributes:
        busy: True if there are too many, which passes.
        live: True if the call is live, and was not to be ended.
    """

    def __init__(self, message: str, *, busy: bool = False, live: bool = False) -> None:
        super().__init__(message)
        self.busy = busy
        self.live = live


class OutboxError(AudioHookError):
    """What is to be told could not be kept on the local disk.

    Attributes:
        damaged: True if its file is of no use any more.
    """

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged


class ReceiverError(AudioHookError):
    """The receiver of notifications did not take one.

    Attributes:
        is_common: True if any other would have met the same.
        lasting: True if that stays so until somebody has mended something.
        gone: True if it wants no more of them.
        retry_after: Seconds that it asks to be left alone, if it says so.
    """

    def __init__(
        self,
        message: str,
        *,
        is_common: bool,
        lasting: bool = False,
        gone: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.is_common = is_common
        self.lasting = lasting
        self.gone = gone
        self.retry_after = retry_after


class TranscriptError(AudioHookError):
    """The transcription service did not do as asked.

    Attributes:
        retryable: False if trying again cannot help before somebody mends it.
        fault: What kind of failure it is, a word of
            `audiohook.transcription.base.TranscriptFault`.
        retry_after: Seconds that the service asks to be left alone, if it says so.
        outcome_unknown: True if the request may have been carried out nonetheless:
            a job may have been made, and will be billed. False if it surely was not.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        fault: str = "other",
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.fault = fault
        self.retry_after = retry_after
        self.outcome_unknown = outcome_unknown


class UnfinishedError(AudioHookError):
    """A job that is not at its end, and that a later try goes on with.

    Attributes:
        seconds: A try before that is of no use.
        is_common: True if other jobs would have met the same.
    """

    def __init__(
        self, message: str, *, seconds: float = 0.0, is_common: bool = False
    ) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.is_common = is_common


class QueueError(AudioHookError):
    """The queue of events did not do as asked.

    Attributes:
        retryable: False if trying again cannot help before somebody mends it.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
