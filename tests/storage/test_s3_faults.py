from __future__ import annotations

import pytest
from botocore import exceptions as boto

from audiohook.errors import UploadError, UploadGoneError
from audiohook.storage.s3_faults import (
    ConflictError,
    KeyTakenError,
    LostAnswerError,
    NotFoundError,
    Place,
    translate,
)

PLACE = Place("recordings", "eu-central-1", "https://user:word@s3.example.com:8443/x")
KEY = "calls/a/audio/a.wav"


def refusal(
    code: str,
    status: int = 400,
    message: str = "",
    *,
    operation: str = "PutObject",
    headers: dict[str, str] | None = None,
) -> UploadError:
    response = {
        "Error": {"Code": code, "Message": message, "StringToSign": "AWS4-HMAC"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    error = boto.ClientError(response, operation)
    return translate(error, PLACE, operation=operation, key=KEY)


@pytest.mark.parametrize(
    ("code", "status", "fault", "retryable", "words"),
    [
        ("NoSuchBucket", 404, "no_bucket", False, "create it or correct S3_BUCKET"),
        ("InvalidBucketName", 400, "no_bucket", False, "no name of a bucket"),
        ("PermanentRedirect", 301, "no_bucket", False, "correct AWS_REGION"),
        ("AuthorizationHeaderMalformed", 400, "no_bucket", False, "AWS_REGION"),
        ("AccessDenied", 403, "denied", False, "audiohook check --iam"),
        ("403", 403, "denied", False, "is denied"),
        ("InvalidAccessKeyId", 403, "bad_key_or_secret", False, "ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "bad_key_or_secret", False, "SECRET"),
        ("ExpiredToken", 400, "bad_key_or_secret", False, "have expired"),
        ("RequestTimeTooSkewed", 403, "clock", False, "clock of this machine"),
        ("KMS.DisabledException", 400, "encryption", False, "KMS key"),
        ("SlowDown", 503, "busy", True, "fewer requests"),
        ("429", 429, "busy", True, "fewer requests"),
        ("Weird", 503, "busy", True, "fewer requests"),
        ("InternalError", 500, "away", True, "fails (InternalError)"),
        ("Weird", 507, "away", True, "fails (Weird)"),
        ("RequestTimeout", 400, "away", True, "fails (RequestTimeout)"),
        ("BadDigest", 400, "away", True, "damaged on the way"),
        ("NotImplemented", 501, "other", False, "If-None-Match"),
        ("404", 404, "other", False, "AWS_ENDPOINT_URL_S3"),
        ("InvalidStorageClass", 400, "other", False, "(InvalidStorageClass)"),
        ("?", 418, "other", False, "(?)"),
    ],
)
def test_refusal_is_told_by_its_code(
    code: str, status: int, fault: str, retryable: bool, words: str
) -> None:
    error = refusal(code, status, "Words of\n the store. " + "x" * 500)
    assert (error.fault, error.retryable) == (fault, retryable)
    assert words in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    assert "AWS4-HMAC" not in str(error)
    assert "word@" not in str(error)


def test_who_may_not_erase_is_led_to_the_policy_that_lets_him() -> None:
    error = refusal("AccessDenied", 403, operation="ListObjectVersions")
    assert "`audiohook check --iam --erase` prints a policy" in str(error)
    assert "--erase" not in str(refusal("AccessDenied", 403))


def test_words_of_the_store_are_told_where_they_help() -> None:
    assert "it says: not you" in str(refusal("AccessDenied", 403, "not you"))
    assert "it says" not in str(refusal("AccessDenied", 403))


def test_denied_key_of_the_encryption_is_told_from_a_denied_bucket() -> None:
    text = "User is not authorized to perform: kms:GenerateDataKey on resource"
    assert refusal("AccessDenied", 403, text).fault == "encryption"


def test_region_of_the_bucket_is_told_if_it_is_known() -> None:
    headers = {"x-amz-bucket-region": "us-west-2"}
    error = refusal("PermanentRedirect", 301, headers=headers)
    assert str(error).endswith("correct AWS_REGION to us-west-2")


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_clock_is_judged_without_the_time_of_the_store(date: str | None) -> None:
    headers = {} if date is None else {"date": date}
    text = str(refusal("RequestTimeTooSkewed", 403, headers=headers))
    assert "is wrong: set it" in text


@pytest.mark.parametrize(
    ("code", "status", "operation", "kind"),
    [
        ("PreconditionFailed", 412, "PutObject", KeyTakenError),
        ("412", 412, "PutObject", KeyTakenError),
        ("ConditionalRequestConflict", 409, "PutObject", ConflictError),
        ("OperationAborted", 409, "PutObject", ConflictError),
        ("NoSuchUpload", 404, "UploadPart", UploadGoneError),
        ("InvalidPart", 400, "CompleteMultipartUpload", UploadGoneError),
        ("NoSuchKey", 404, "GetObject", NotFoundError),
        ("404", 404, "HeadObject", NotFoundError),
        ("InternalError", 500, "PutObject", LostAnswerError),
        ("RequestTimeout", 400, "PutObject", LostAnswerError),
        ("SlowDown", 503, "PutObject", UploadError),
    ],
)
def test_refusal_that_asks_for_a_decision_has_a_class_of_its_own(
    code: str, status: int, operation: str, kind: type[UploadError]
) -> None:
    assert type(refusal(code, status, operation=operation)) is kind


def test_refusal_of_the_service_that_hands_out_roles_is_told_from_the_stores() -> None:
    error = boto.ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")
    told = translate(error, PLACE, operation="PutObject", key=KEY)
    assert told.fault == "bad_key_or_secret"
    assert "(AssumeRole)" in str(told)


ENDPOINT = "https://s3.example.com:8443/recordings/x"


@pytest.mark.parametrize(
    ("error", "lost", "words"),
    [
        (
            boto.EndpointConnectionError(
                endpoint_url=ENDPOINT, error="[Errno 101] Network is unreachable"
            ),
            False,
            "cannot connect to s3.example.com:8443 (Network is unreachable)",
        ),
        (
            boto.EndpointConnectionError(endpoint_url=ENDPOINT, error="?"),
            False,
            "(no connection)",
        ),
        (boto.ConnectTimeoutError(endpoint_url=ENDPOINT), False, "(no answer)"),
        (
            boto.EndpointConnectionError(
                endpoint_url="https://sts.amazonaws.com/", error="Connection refused"
            ),
            False,
            "cannot connect to sts.amazonaws.com",
        ),
        (boto.ProxyConnectionError(proxy_url="http://p:p@p"), False, "HTTPS_PROXY"),
        (boto.ReadTimeoutError(endpoint_url=ENDPOINT), True, "no answer from"),
        (boto.ConnectionClosedError(endpoint_url=ENDPOINT), True, "broke"),
        (boto.HTTPClientError(error="?"), True, "broke"),
        (boto.ResponseStreamingError(error="?"), True, "broke"),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), True, "broke"),
        (
            boto.SSLError(endpoint_url=ENDPOINT, error="UNEXPECTED_EOF_WHILE_READING"),
            True,
            "TLS connection",
        ),
    ],
)
def test_transport_fault_is_lost_only_if_the_request_may_have_arrived(
    error: boto.BotoCoreError, lost: bool, words: str
) -> None:
    told = translate(error, PLACE, operation="PutObject", key=KEY)
    assert type(told) is (LostAnswerError if lost else UploadError)
    assert (told.fault, told.retryable) == ("away", True)
    assert words in str(told)


@pytest.mark.parametrize(
    ("error", "fault", "retryable"),
    [
        (boto.NoCredentialsError(), "bad_key_or_secret", False),
        (
            boto.PartialCredentialsError(provider="env", cred_var="x"),
            "bad_key_or_secret",
            False,
        ),
        (boto.ProfileNotFound(profile="x"), "bad_key_or_secret", False),
        (
            boto.CredentialRetrievalError(provider="x", error_msg="secret"),
            "bad_key_or_secret",
            True,
        ),
        (
            boto.MetadataRetrievalError(error_msg="secret"),
            "bad_key_or_secret",
            True,
        ),
        (boto.ParamValidationError(report="x"), "no_bucket", False),
        (boto.InvalidRegionError(region_name="x"), "other", False),
        (boto.ConfigParseError(path="x"), "other", False),
        (ValueError("Invalid endpoint: secret"), "other", False),
    ],
)
def test_setting_fault_is_told_without_its_words(
    error: Exception, fault: str, retryable: bool
) -> None:
    told = translate(error, PLACE, operation="PutObject", key=KEY)
    assert (told.fault, told.retryable) == (fault, retryable)
    assert "secret" not in str(told)
