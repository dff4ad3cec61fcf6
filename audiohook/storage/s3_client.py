"""boto3's S3 client: how it is made, and the few of its calls that we use.

boto3 has no types of its own; the protocols below say what is passed and what is
read. It takes half a second to import, so that happens where it is needed, in
a worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NotRequired, Protocol, TypedDict
from urllib.parse import urlencode, urlsplit

from audiohook.storage.layout import kind_of
from audiohook.storage.policy import KIND_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.storage.s3_body import Body
    from audiohook.storage.s3_traces import VersionPage

SECONDS = 1.0
MINUTES = 60 * SECONDS


@dataclass(frozen=True, slots=True)
class S3Options:
    """What a bucket may ask for beside the object, and how long it may take.

    Attributes:
        encryption: None leaves it to the bucket.
        kms_key_id: ARN or id, for ``aws:kms``; without it AWS's own key is used.
        storage_class: Such as ``STANDARD_IA``; None leaves it to the bucket.
        tags: Put on every object; they need a permission of their own.
        tags_kinds: Tells whether each object gets a tag that says what it is, too;
            asked of each, since API keys that ask for it may come at any time.
        expected_bucket_owner: Account number that the bucket must belong to.
        connect_limit: Longest time to connect, and to hand over 128 KiB of a body,
            in seconds.
        silence_limit: Longest wait for the next byte of an answer, in seconds.
            What the kernel has buffered of eight parts has to be sent in it.
        request_limit: Longest time for a request and all of its answer, in seconds;
            one that comes byte by byte never falls silent.

    Raises:
        ValueError: There is a key, but the encryption is not by one.
    """

    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    tags_kinds: Callable[[], bool] = lambda: False
    expected_bucket_owner: str | None = None
    connect_limit: float = 10 * SECONDS
    silence_limit: float = 60 * SECONDS
    request_limit: float = 30 * MINUTES

    def __post_init__(self) -> None:
        if self.kms_key_id is not None and self.encryption != "aws:kms":
            raise ValueError("a KMS key goes with the encryption aws:kms")

    def for_object(self, key: str) -> dict[str, str]:
        """Return parameters of the calls that make an object."""
        tags = dict(self.tags)
        if self.tags_kinds():
            tags[KIND_TAG] = kind_of(key)
        chosen = {
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "StorageClass": self.storage_class,
            "Tagging": urlencode(tags),
        }
        return {name: value for name, value in chosen.items() if value}

    def for_every_call(self) -> dict[str, str]:
        """Return parameters of all calls."""
        owner = self.expected_bucket_owner
        return {} if owner is None else {"ExpectedBucketOwner": owner}


class CompletedPart(TypedDict):
    """A part as it is named to complete an upload."""

    PartNumber: int
    ETag: str
    ChecksumCRC32: NotRequired[str]


class ListedPart(TypedDict):
    """A part as the store lists it."""

    PartNumber: int
    Size: int
    ETag: str
    ChecksumCRC32: NotRequired[str]


class PartListing(TypedDict):
    """One page of parts."""

    Parts: NotRequired[list[ListedPart]]
    IsTruncated: NotRequired[bool]


class ListedUpload(TypedDict):
    """An upload under way as the store lists it."""

    Key: str
    UploadId: str


class UploadListing(TypedDict):
    """One page of uploads, by their keys."""

    Uploads: NotRequired[list[ListedUpload]]


class BegunUpload(TypedDict):
    """Answer to the begin of an upload."""

    UploadId: str


class Confirmation(TypedDict):
    """Answer to what makes an object, or a part of one.

    Who is not a store may say 200 too, but not name what it got.
    """

    ETag: str
    ChecksumCRC32: NotRequired[str]


class ObjectHead(TypedDict):
    """Answer to the question what is there."""

    ContentLength: int
    Metadata: dict[str, str]


class ListedPrefix(TypedDict):
    """What several keys have in common."""

    Prefix: str


class ListedObject(TypedDict):
    """An object as the store lists it."""

    Key: str
    Size: int


class ObjectListing(TypedDict):
    """One page of keys, by what they have in common if that was asked for."""

    Contents: NotRequired[list[ListedObject]]
    CommonPrefixes: NotRequired[list[ListedPrefix]]
    IsTruncated: NotRequired[bool]
    NextContinuationToken: NotRequired[str]


class ResponseBody(Protocol):
    """What a ``GetObject`` reads from."""

    def read(self, amt: int) -> bytes:
        """Read up to `amt` bytes."""

    def close(self) -> None:
        """Give the connection back."""


class ResponseMetadata(TypedDict):
    """What is told about an answer."""

    HTTPHeaders: Mapping[str, str]


class FetchedObject(TypedDict):
    """Answer to ``GetObject``."""

    Body: ResponseBody
    ContentLength: int
    ETag: str
    LastModified: datetime
    Metadata: dict[str, str]
    ResponseMetadata: ResponseMetadata


class ClientMeta(Protocol):
    """What the client was made for."""

    @property
    def endpoint_url(self) -> str:
        """Where requests go."""

    @property
    def region_name(self) -> str:
        """Region that requests are signed for."""


class S3Client(Protocol):
    """The calls that we use; safe in several threads at a time.

    Source: botocore, ``data/s3/2006-03-01/service-2.json``.
    """

    @property
    def meta(self) -> ClientMeta:
        """What it was made for."""

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: Body,
        ContentLength: int,
        ContentType: str,
        ChecksumCRC32: str,
        Metadata: Mapping[str, str],
        **options: str,
    ) -> Confirmation:
        """Store an object."""

    def create_multipart_upload(
        self,
        *,
        Bucket: str,
        Key: str,
        ContentType: str,
        ChecksumAlgorithm: str,
        Metadata: Mapping[str, str],
        **options: str,
    ) -> BegunUpload:
        """Begin an upload."""

    def upload_part(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        Body: Body,
        ContentLength: int,
        ChecksumCRC32: str,
        **options: str,
    ) -> Confirmation:
        """Store a part."""

    def list_parts(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumberMarker: int,
        **options: str,
    ) -> PartListing:
        """List parts with greater numbers."""

    def list_multipart_uploads(
        self, *, Bucket: str, Prefix: str, **options: str
    ) -> UploadListing:
        """List uploads under way to keys that begin so."""

    def complete_multipart_upload(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        MultipartUpload: Mapping[str, Sequence[CompletedPart]],
        MpuObjectSize: int,
        **options: str,
    ) -> Confirmation:
        """Make an object of the parts."""

    def abort_multipart_upload(
        self, *, Bucket: str, Key: str, UploadId: str, **options: str
    ) -> object:
        """Give an upload up."""

    def list_object_versions(
        self, *, Bucket: str, Prefix: str, **options: str
    ) -> VersionPage:
        """List all versions of objects, and what is left of deleted ones."""

    def head_object(self, *, Bucket: str, Key: str, **options: str) -> ObjectHead:
        """Ask what is there."""

    def get_object(self, *, Bucket: str, Key: str, **options: str) -> FetchedObject:
        """Fetch an object."""

    def list_objects_v2(
        self, *, Bucket: str, Prefix: str, **options: str
    ) -> ObjectListing:
        """List keys, put together up to a delimiter if there is one."""

    def delete_object(self, *, Bucket: str, Key: str, **options: str) -> object:
        """Delete an object."""

    def generate_presigned_url(
        self, ClientMethod: str, *, Params: Mapping[str, str], ExpiresIn: int
    ) -> str:
        """Sign an address; nothing is sent."""

    def close(self) -> None:
        """Close idle connections."""


def age_of(found: FetchedObject) -> float:
    """Return how old an object is, in seconds, by the clock of the store.

    Args:
        found: As the store answered; without a date of the answer our own clock
            has to do.
    """
    date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        now = parsedate_to_datetime(date or "")
    except ValueError:
        now = datetime.now(UTC)
    if now.tzinfo is None:
        now = now.replace(tzinfo=UTC)
    return (now - found["LastModified"]).total_seconds()


_AMAZON: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu")


def connect(parallel: int, options: S3Options) -> S3Client:
    """Make a client from AWS's standard settings; nothing is sent as yet.

    Args:
        parallel: Most requests at a time.
        options: Limits of time.

    Raises:
        BotoCoreError: A setting is wrong.
        ValueError: The endpoint is no address.
    """
    import boto3

    # A session of our own, so that it reads files of settings and credentials as
    # they are now.
    session = boto3.session.Session()
    client: S3Client = session.client(
        "s3", config=_config(parallel, options, _FOR_AMAZON)
    )
    endpoint = urlsplit(client.meta.endpoint_url)
    if not (endpoint.hostname or "").endswith(_AMAZON):
        signed = {"payload_signing_enabled": endpoint.scheme != "https"}
        client = session.client("s3", config=_config(parallel, options, signed))
    return client


# Without these two, addresses that are signed name a host which may redirect, and
# no signature outlives that. Elsewhere botocore puts the bucket into the path,
# which works without DNS for every bucket.
#
# Over TLS the body need not be in the signature: its CRC-32 is, in a header, and
# botocore does the same when it is left to itself. To hash it as well took a third
# of all time spent on an upload. Without TLS it is signed.
_FOR_AMAZON: Final = {
    "addressing_style": "virtual",
    "us_east_1_regional_endpoint": "regional",
    "payload_signing_enabled": False,
}


def _config(parallel: int, options: S3Options, s3: Mapping[str, object]) -> Any:  # noqa: ANN401 - botocore has no types
    from botocore.config import Config

    return Config(
        signature_version="s3v4",
        s3=dict(s3),
        connect_timeout=options.connect_limit,
        read_timeout=options.silence_limit,
        max_pool_connections=parallel,
        tcp_keepalive=True,
        # Tries again are ours: botocore's are over in a fraction of a second, and
        # would repeat requests whose fate has to be looked up first.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # The checksum is passed as a header, in the one form that every store
        # takes; botocore's own would be a trailer over TLS.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
