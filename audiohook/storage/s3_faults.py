"""What a store's failure means, and what is to be done about it, in one line."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from botocore import exceptions as boto

from audiohook.errors import UploadError, UploadGoneError
from audiohook.storage.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import Mapping

_MESSAGE_LIMIT: Final = 200
_INTERNAL_ERROR: Final = 500
_SERVICE_UNAVAILABLE: Final = 503


class LostAnswerError(UploadError):
    """The request may have been carried out, or may not."""


class KeyTakenError(UploadError):
    """There is an object under the key; whose, remains to be seen."""


class ConflictError(UploadError):
    """Another request to the same key was under way."""


class NotFoundError(UploadError):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go.

    Attributes:
        bucket: As it was given.
        region: That requests are signed for.
        endpoint: Address of the store.
    """

    bucket: str
    region: str
    endpoint: str

    @property
    def host(self) -> str:
        """Host and port, without a user or a path."""
        parts = urlsplit(self.endpoint)
        return (parts.hostname or "?") + (f":{parts.port}" if parts.port else "")


# Nobody needs it but who erases calls, and the policy is without it unless asked.
_ERASING: Final = "ListObjectVersions"


class _Rule(NamedTuple):
    fault: StoreFault
    retryable: bool
    text: str


_NO_BUCKET = _Rule(
    StoreFault.NO_BUCKET,
    False,
    "bucket {bucket} does not exist in region {region}: create it or correct S3_BUCKET",
)
_OTHER_REGION = _Rule(
    StoreFault.NO_BUCKET,
    False,
    "bucket {bucket} is not in region {region}: correct AWS_REGION{found}",
)
_NO_NAME = _Rule(
    StoreFault.NO_BUCKET, False, "{bucket} is no name of a bucket: correct S3_BUCKET"
)
_DENIED = _Rule(
    StoreFault.DENIED,
    False,
    "{operation} in bucket {bucket} is denied: allow it to this user or role"
    " (`{policy}` prints a policy){message}",
)
_BAD_KEY = _Rule(
    StoreFault.BAD_KEY_OR_SECRET,
    False,
    "the store does not know the access key: correct AWS_ACCESS_KEY_ID",
)
_BAD_SECRET = _Rule(
    StoreFault.BAD_KEY_OR_SECRET,
    False,
    "the secret does not belong to the access key: correct AWS_SECRET_ACCESS_KEY",
)
_EXPIRED = _Rule(
    StoreFault.BAD_KEY_OR_SECRET,
    False,
    "the temporary credentials have expired or are not valid ({code}): renew them,"
    " or give the machine a role",
)
_CLOCK = _Rule(
    StoreFault.CLOCK,
    False,
    "the clock of this machine is wrong{skew}: set it, for example with"
    " `timedatectl set-ntp true`",
)
_ENCRYPTION = _Rule(
    StoreFault.ENCRYPTION,
    False,
    "the KMS key of bucket {bucket} cannot be used ({code}): enable it, and allow"
    " kms:GenerateDataKey and kms:Decrypt to this user or role{message}",
)
_BUSY = _Rule(
    StoreFault.BUSY, True, "the store at {host} asks for fewer requests ({code})"
)
_FAILS = _Rule(StoreFault.AWAY, True, "the store at {host} fails ({code}){message}")
_DAMAGED = _Rule(
    StoreFault.AWAY, True, "{operation}: damaged on the way to {host} ({code})"
)
_NOT_ABLE = _Rule(
    StoreFault.OTHER,
    False,
    "the store at {host} cannot do {operation} as it is needed ({code}): use one"
    " that takes If-None-Match and x-amz-checksum-crc32{message}",
)
_NO_STORE = _Rule(
    StoreFault.OTHER,
    False,
    "{host} does not answer as S3 does ({code}): correct AWS_ENDPOINT_URL_S3",
)
_UNKNOWN = _Rule(
    StoreFault.OTHER, False, "{operation} in bucket {bucket} failed ({code}){message}"
)

# Source: Amazon S3 API Reference, "Error responses", and botocore's throttling
# codes; a code that is only a number is botocore's, of an answer without a body.
_RULES: Final[Mapping[str, _Rule]] = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_NAME,
    "PermanentRedirect": _OTHER_REGION,
    "TemporaryRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "301": _OTHER_REGION,
    "307": _OTHER_REGION,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "UnauthorizedAccess": _DENIED,
    "MethodNotAllowed": _DENIED,
    "401": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _BAD_KEY,
    "SignatureDoesNotMatch": _BAD_SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidSecurity": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "ThrottledException": _BUSY,
    "RequestThrottled": _BUSY,
    "RequestThrottledException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "TooManyRequests": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "429": _BUSY,
    "503": _BUSY,
    "RequestTimeout": _FAILS,
    "IncompleteBody": _DAMAGED,
    "BadDigest": _DAMAGED,
    "InvalidDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "XAmzContentChecksumMismatch": _DAMAGED,
    "NotImplemented": _NOT_ABLE,
    "501": _NOT_ABLE,
    "400": _NO_STORE,
    "404": _NO_STORE,
    "405": _NO_STORE,
}

_UNUSABLE_BUNDLE: Final = ("No such file", "Permission denied", "NO_CERTIFICATE")
_SYSTEM_WORDS: Final = (
    "Connection refused",
    "Network is unreachable",
    "No route to host",
    "Name or service not known",
    "No address associated with hostname",
    "Temporary failure in name resolution",
)

_ABOUT_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
)
# Whoever hands credentials out may be back soon.
_FETCHING_CREDENTIALS: Final = (
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.LoginError,
)


def translate(
    error: Exception, place: Place, *, operation: str, key: str
) -> UploadError:
    """Say what a failure of boto3 means.

    Args:
        error: What was raised; nothing of it is shown but the store's own message.
        place: Where the request went.
        operation: The call, as S3 names it.
        key: The object in question.

    Returns:
        The error to raise: one of the classes above where the caller has to decide
        something, else a plain one.
    """
    if isinstance(error, boto.ClientError):
        if error.operation_name != operation:
            # Credentials are fetched in the middle of a call.
            return _credential_fault(error.operation_name)
        return _refusal(error, place, operation, key)
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return _transport_fault(error, place)
    return _setting_fault(error, place, operation)


def _refusal(
    error: boto.ClientError, place: Place, operation: str, key: str
) -> UploadError:
    """Judge an answer of the store."""
    details = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code = str(details.get("Code") or "?")
    status = int(meta.get("HTTPStatusCode") or 0)
    message = " ".join(str(details.get("Message") or "").split())[:_MESSAGE_LIMIT]
    special = _special(code, status, operation, key, place)
    if special is not None:
        return special
    headers = meta.get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region")
    rule = _rule(code, status, message)
    text = rule.text.format(
        bucket=place.bucket,
        region=place.region,
        host=place.host,
        operation=operation,
        code=code,
        policy=f"audiohook check --iam{' --erase' * (operation == _ERASING)}",
        message=f"; it says: {message}" if message else "",
        found=f" to {region}" if region else "",
        skew=_skew(headers.get("date")),
    )
    # After a 500 nobody knows what was done before it failed.
    kind = LostAnswerError if rule is _FAILS else UploadError
    return kind(text, retryable=rule.retryable, fault=rule.fault)


def _special(
    code: str, status: int, operation: str, key: str, place: Place
) -> UploadError | None:
    """Return the error for an answer that asks for a decision, if it is one."""
    if code in {"PreconditionFailed", "412"}:
        return KeyTakenError(f"{key} exists", retryable=False)
    if code in {"ConditionalRequestConflict", "OperationAborted", "409"}:
        return ConflictError(
            f"{key}: another request to it is under way", fault=StoreFault.BUSY
        )
    if code in {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}:
        return UploadGoneError(key)
    if code == "NoSuchKey" or (operation == "HeadObject" and status == 404):
        return NotFoundError(f"{key} is not in bucket {place.bucket}", retryable=False)
    return None


def _rule(code: str, status: int, message: str) -> _Rule:
    if code.startswith("KMS.") or "kms:" in message:
        return _ENCRYPTION
    if code in _RULES:
        return _RULES[code]
    if status == _SERVICE_UNAVAILABLE:
        return _BUSY
    return _FAILS if status >= _INTERNAL_ERROR else _UNKNOWN


def _skew(date: str | None) -> str:
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return ""
    seconds = round(time.time() - theirs)
    return f" by {abs(seconds)} s, it is {'fast' if seconds > 0 else 'slow'}"


def _transport_fault(error: Exception, place: Place) -> UploadError:
    """Judge a request that got no answer."""
    details = getattr(error, "kwargs", {})
    cause = str(details.get("error", ""))
    # Of the service that hands out credentials, it may be.
    host = replace(place, endpoint=details.get("endpoint_url") or place.endpoint).host
    if isinstance(error, boto.SSLError):
        return _tls_fault(cause, host)
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError):
        return UploadError(
            f"cannot connect to {host} ({_why(error, cause)}): is it up, and are"
            " AWS_REGION and AWS_ENDPOINT_URL_S3 right?",
            fault=StoreFault.AWAY,
        )
    if isinstance(error, boto.ProxyConnectionError):
        return UploadError(
            "cannot connect to the proxy: is it up, and are HTTP_PROXY and"
            " HTTPS_PROXY right?",
            fault=StoreFault.AWAY,
        )
    if isinstance(error, boto.ReadTimeoutError):
        return LostAnswerError(f"no answer from {host}", fault=StoreFault.AWAY)
    return LostAnswerError(f"the connection to {host} broke", fault=StoreFault.AWAY)


def _tls_fault(cause: str, host: str) -> UploadError:
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        _, _, reason = cause.partition("certificate verify failed: ")
        return _untrusted(host, reason.split(" (_ssl")[0] or "verification failed")
    if "doesn't match" in cause:
        return _untrusted(host, "it is for another host")
    if any(words in cause for words in _UNUSABLE_BUNDLE):
        return UploadError(
            "AWS_CA_BUNDLE does not name a readable file of certificates in PEM",
            retryable=False,
            fault=StoreFault.CERTIFICATE,
        )
    if "WRONG_VERSION_NUMBER" in cause:
        return UploadError(
            f"{host} does not speak TLS: write http:// in AWS_ENDPOINT_URL_S3, or"
            " correct the port",
            retryable=False,
        )
    return LostAnswerError(f"the TLS connection to {host} broke", fault=StoreFault.AWAY)


def _untrusted(host: str, reason: str) -> UploadError:
    return UploadError(
        f"the certificate of {host} is not trusted ({reason}): name the file with its"
        " authority in AWS_CA_BUNDLE, or correct the address",
        retryable=False,
        fault=StoreFault.CERTIFICATE,
    )


def _why(error: Exception, cause: str) -> str:
    """Say why there is no connection, in the words of the system."""
    if isinstance(error, boto.ConnectTimeoutError):
        return "no answer"
    for words in _SYSTEM_WORDS:
        if words in cause:
            return words
    return "no connection"


def _credential_fault(what: str) -> UploadError:
    return UploadError(
        f"AWS credentials could not be fetched ({what}): check the role or the profile"
        " of this machine",
        fault=StoreFault.BAD_KEY_OR_SECRET,
    )


def _setting_fault(error: Exception, place: Place, operation: str) -> UploadError:
    """Judge what kept a request from being sent, or its answer from being read."""
    name = type(error).__name__
    if isinstance(error, _FETCHING_CREDENTIALS):
        return _credential_fault(name)
    if isinstance(error, _ABOUT_CREDENTIALS):
        return UploadError(
            f"there are no AWS credentials ({name}): set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, correct AWS_PROFILE, or give the machine a role",
            retryable=False,
            fault=StoreFault.BAD_KEY_OR_SECRET,
        )
    if isinstance(error, boto.IncompleteReadError):
        return LostAnswerError(
            f"the connection to {place.host} broke", fault=StoreFault.AWAY
        )
    if isinstance(error, boto.ParamValidationError):
        return UploadError(
            _NO_NAME.text.format(bucket=place.bucket),
            retryable=False,
            fault=_NO_NAME.fault,
        )
    if isinstance(error, boto.BotoCoreError | ValueError):
        return UploadError(
            f"AWS's settings cannot be used ({name}): correct AWS_REGION or"
            " AWS_ENDPOINT_URL_S3",
            retryable=False,
        )
    # It answered well, but with something that is not XML, or not what was due.
    text = _NO_STORE.text.format(host=place.host, code=f"{operation}: {name}")
    return LostAnswerError(text, retryable=False)
