"""What an operator can set, and how it is found, checked and described.

Every setting has one name in capitals, used alike in the environment, in
``.env`` and among systemd's credentials. Where more than one of them has it,
the first of these wins:

1. flags of the command line,
2. the environment,
3. ``.env`` in the current directory,
4. files in ``$CREDENTIALS_DIRECTORY``,
5. the default.

Credentials come right above the defaults because they belong to the machine: the
unit hands them to every start alike, and whatever is said besides is said for
this one. A secret that is only a credential is not affected.

An empty value counts as none, since example files list optional names with
nothing behind them.

Faults are gathered and reported as one line each: the name, what is wrong, and
an example. No line ever holds the value that was given.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from audiohook.errors import ConfigError, in_one_line
from audiohook.setting_sources import Credentials, name_of, read_env_file
from audiohook.setting_values import (
    NOTIFY_KINDS,
    ApiKey,
    BaseUrl,
    Bucket,
    ClientSecret,
    CustomConfigWords,
    Host,
    JobParams,
    JobParamsFile,
    KeyId,
    KeyPrefix,
    Language,
    LogLevel,
    NetworkList,
    NewCalls,
    NotifyKinds,
    NotifySecret,
    NotifyUrl,
    ParameterName,
    Password,
    Port,
    Region,
    SecretName,
    SecretUrl,
    Silence,
    StorageClass,
    Tags,
    Token,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

AWS_OTHER = "AWS_*"
"""Name under which further ``AWS_…`` names of ``.env`` are gathered."""


# Settings of files that must be readable at the start.
_READ_FILES = ("tls_certificate", "tls_key", "admin_client_ca")

# Settings that mean nothing without another, and which that is.
_COMPANIONS = (
    ("client_secret", "api_key"),
    ("aws_access_key_id", "aws_secret_access_key"),
    ("aws_secret_access_key", "aws_access_key_id"),
    ("proxy_protocol", "trusted_proxies"),
    ("webhook_secret", "webhook_url"),
    ("notify_url", "notify_secret"),
    ("notify_secret", "notify_url"),
    ("tls_certificate", "tls_key"),
    ("tls_key", "tls_certificate"),
    ("admin_tls", "tls_certificate"),
    ("admin_client_ca", "tls_certificate"),
)


class Description(NamedTuple):
    """One setting as a reader needs it.

    Attributes:
        name: Its name in the environment.
        default: Its default in words, empty if there is none.
        meaning: What it does.
    """

    name: str
    default: str
    meaning: str


def _default_host(data: dict[str, Any]) -> str | None:
    names = ("api_key", "api_keys_file", "api_keys_secret")
    has_key = any(data.get(name) for name in names)
    return None if has_key else "127.0.0.1"


class Settings(BaseSettings):
    """All settings, checked. Make it with `load`.

    The name of a setting is the attribute's in capitals.
    """

    model_config = SettingsConfigDict(
        alias_generator=str.upper,
        case_sensitive=True,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    port: Port = Field(
        3000,
        description="Port for Genesys; 0 takes any that is free",
        examples=["3000"],
    )
    api_key: ApiKey | None = Field(
        None,
        description="API key of the AudioHook integration",
        examples=["SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh"],
    )
    client_secret: ClientSecret | None = Field(
        None,
        description="Client secret that goes with API_KEY, in base64; with it,"
        " only signed requests are accepted",
        examples=["TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU="],
    )
    api_keys_file: Path | None = Field(
        None,
        description="JSON file that maps API keys to client secrets, for more than"
        " one integration",
        examples=["/etc/audiohook/keys.json"],
    )
    api_keys_secret: SecretName | None = Field(
        None,
        description="Name or ARN of a secret in AWS Secrets Manager that holds the"
        " same JSON as API_KEYS_FILE",
        examples=["audiohook/keys"],
    )
    api_keys_refresh: float = Field(
        5 * MINUTES,
        ge=10 * SECONDS,
        le=24 * HOURS,
        allow_inf_nan=False,
        description="Seconds after which API_KEYS_SECRET is read again; for a key that"
        " is not known it is read at once, but at most once a minute",
        examples=["300"],
    )
    custom_config_allow: CustomConfigWords = Field(
        [],
        description="What customConfig of an integration may set for its calls, with"
        " commas between: language, transcription, layout, keep_raw, prefix, mode,"
        " and neither",
        examples=["language,prefix"],
        json_schema_extra={"default": ""},
    )
    host: Host | None = Field(
        default_factory=_default_host,
        description="Address to listen on",
        examples=["127.0.0.1"],
        json_schema_extra={"default": "all once there is a key, else 127.0.0.1"},
    )
    allow_from: NetworkList | None = Field(
        None,
        description="Networks that may connect to PORT, with commas between; all may"
        " without it and ALLOW_FROM_FILE",
        examples=["198.51.100.0/24,2001:db8::/32"],
    )
    allow_from_file: Path | None = Field(
        None,
        description="File with such networks, one a line; it is read again when it"
        " changes",
        examples=["/etc/audiohook/networks"],
    )
    trusted_proxies: NetworkList | None = Field(
        None,
        description="Networks of the proxies that are believed who is behind them, by"
        " X-Forwarded-For or PROXY_PROTOCOL",
        examples=["10.0.0.0/16"],
    )
    proxy_protocol: Literal["v2"] | None = Field(
        None,
        description="Each connection begins with a header of the PROXY protocol, and"
        " comes from TRUSTED_PROXIES",
        examples=["v2"],
    )
    reuse_port: bool = Field(
        False,
        description="Share PORT with other instances of the same user (SO_REUSEPORT);"
        " when one stops, the others get its new calls",
        examples=["true"],
    )
    recordings_dir: Path = Field(
        Path("recordings"),
        description="Folder of the spool, and of the recordings if there is no bucket",
        examples=["/var/lib/audiohook"],
    )
    s3_bucket: Bucket | None = Field(
        None, description="Bucket for the recordings", examples=["my-recordings"]
    )
    s3_key_prefix: KeyPrefix = Field(
        "calls/",
        description="What the keys of all stored objects begin with",
        examples=["calls/"],
    )
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None,
        description="Encryption to ask the bucket for; without it the bucket decides",
        examples=["aws:kms"],
    )
    s3_kms_key_id: KeyId | None = Field(
        None,
        description="Key for S3_ENCRYPTION=aws:kms; without it AWS's own key",
        examples=["arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd"],
    )
    s3_storage_class: StorageClass | None = Field(
        None,
        description="Storage class of the objects; without it the bucket decides",
        examples=["STANDARD_IA"],
    )
    s3_tags: Tags = Field(
        {},
        description="Tags of the objects, as name=value&name=value",
        examples=["team=support&retention=90d"],
    )
    aws_region: Region | None = Field(
        None, description="Region of the bucket", examples=["eu-central-1"]
    )
    aws_access_key_id: Token | None = Field(
        None,
        description="Access key, unless the machine has a role",
        examples=["AKIAIOSFODNN7EXAMPLE"],
    )
    aws_secret_access_key: Token | None = Field(
        None,
        description="Secret that goes with AWS_ACCESS_KEY_ID",
        examples=["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
    )
    aws_endpoint_url_s3: BaseUrl | None = Field(
        None,
        description="Address of an S3 service other than Amazon's",
        examples=["http://127.0.0.1:8333"],
    )
    aws_other: Annotated[dict[str, SecretStr], NoDecode] = Field(
        {},
        validation_alias=AWS_OTHER,
        repr=False,
        description="Further names in .env that botocore knows, passed on to it",
        examples=["AWS_PROFILE=recordings"],
    )
    keep_audio_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="Days that audio is kept: removed from the folder by the service,"
        " from a bucket by rules that `audiohook check --iam` prints; for ever without"
        " it",
        examples=["90"],
    )
    keep_transcripts_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="The same for transcripts",
        examples=["365"],
    )
    keep_raw: bool = Field(
        True,
        description="Store the µ-law audio as received beside the WAV",
        examples=["true"],
    )
    keep_peaks: bool = Field(
        True,
        description="Store a small `.dat` beside the WAV that its waveform is drawn from",
        examples=["true"],
    )
    keep_dialogue: Literal["no", "masked", "full"] = Field(
        "no",
        description="Store the text messages of a call beside the WAV: masked without"
        " numbers, names and what customConfig holds, full with them",
        examples=["masked"],
    )
    wav_encoding: Literal["pcm16", "ulaw"] = Field(
        "pcm16", description="Samples of the WAV", examples=["pcm16"]
    )
    channel_layout: Literal["stereo", "mono", "split"] = Field(
        "stereo",
        description="Both sides in one file, mixed, or a file each",
        examples=["stereo"],
    )
    gaps: Literal["silence", "cut"] = Field(
        "silence",
        description="What takes the place of audio that was paused or lost",
        examples=["silence"],
    )
    assemblyai_api_key: Token | None = Field(
        None,
        description="Key for transcription, which is off without it",
        examples=["0123456789abcdef0123456789abcdef"],
    )
    assemblyai_api_key_parameter: ParameterName | None = Field(
        None,
        description="Name of the parameter in AWS's Parameter Store that holds"
        " ASSEMBLYAI_API_KEY, for `audiohook worker` and the Lambda function",
        examples=["/audiohook/assemblyai-api-key"],
    )
    assemblyai_base_url: BaseUrl = Field(
        "https://api.assemblyai.com",
        description="Where AssemblyAI answers",
        examples=["https://api.eu.assemblyai.com"],
    )
    assemblyai_params: JobParams = Field(
        {},
        repr=False,
        description="JSON object laid over the parameters of every transcription job;"
        " null takes one away",
        examples=['{"language_code": "de"}'],
    )
    assemblyai_params_file: JobParamsFile = Field(
        {},
        repr=False,
        description="JSON file with such an object; ASSEMBLYAI_PARAMS is laid over it",
        examples=["/etc/audiohook/assemblyai.json"],
        json_schema_extra={"default": ""},
    )
    transcribe_language: Language | None = Field(
        None,
        description="Language of the calls: call takes each call's own, detect lets"
        " AssemblyAI find it, or a code; without it AssemblyAI takes English",
        examples=["de"],
    )
    transcribe_min_seconds: float = Field(
        1 * SECONDS,
        # Source: AssemblyAI, "What is the minimum audio duration".
        ge=0.16 * SECONDS,
        le=24 * HOURS,
        allow_inf_nan=False,
        description="Shorter calls are not transcribed",
        examples=["1"],
    )
    transcribe_silence: Silence = Field(
        # Comfort noise of telephony, at -60 dBm0, peaks below, quiet speech above.
        -50.0,
        description="Calls that are never louder than this are not transcribed: dB of"
        " full scale, or off",
        examples=["-50"],
    )
    transcribe_parallel: int = Field(
        # Source: AssemblyAI, "Rate limits", of a paid account.
        200,
        ge=1,
        le=10_000,
        description="Most transcription jobs at a time",
        examples=["200"],
    )
    delete_transcript: bool = Field(
        False,
        description="Delete the transcript at AssemblyAI once it is stored",
        examples=["false"],
    )
    transcribe: Literal["here", "elsewhere"] = Field(
        "here",
        description="Who starts transcription: this process or the bucket's events",
        examples=["here"],
    )
    webhook_url: SecretUrl | None = Field(
        None,
        description="Public address at which AssemblyAI's reports reach this service;"
        " without it jobs are polled",
        examples=["https://example.com/assemblyai"],
    )
    webhook_secret: Token | None = Field(
        None,
        description="Secret that comes with those reports; without it one is made from"
        " ASSEMBLYAI_API_KEY, the same in every process",
        examples=["c2VjcmV0IGZvciByZXBvcnRz"],
    )
    notify_url: NotifyUrl | None = Field(
        None,
        description="Address that gets a signed POST for what becomes of calls; https"
        " unless it is on this machine",
        examples=["https://example.com/audiohook"],
    )
    notify_secret: NotifySecret | None = Field(
        None,
        description="What these are signed with: base64, with or without whsec_; two"
        " with a comma between while one takes the other's place",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="],
    )
    notify_kinds: NotifyKinds = Field(
        NOTIFY_KINDS,
        description="What is told, with commas between",
        examples=["stored,transcribed,failed"],
        json_schema_extra={"default": ",".join(NOTIFY_KINDS)},
    )
    notify_participants: bool = Field(
        False,
        description="Tell numbers and names of the participant too",
        examples=["false"],
    )
    tls_certificate: Path | None = Field(
        None,
        description="Certificate chain in PEM, if TLS ends in this process",
        examples=["/etc/audiohook/tls/fullchain.pem"],
    )
    tls_key: Path | None = Field(
        None,
        description="Private key that goes with TLS_CERTIFICATE",
        examples=["/etc/audiohook/tls/privkey.pem"],
    )
    admin_port: Port = Field(
        9090,
        description="Port for health and metrics; 0 takes any that is free",
        examples=["9090"],
    )
    admin_host: Host = Field(
        "127.0.0.1",
        description="Address of that port; whoever can reach it can read it",
        examples=["127.0.0.1"],
    )
    admin_password: Password | None = Field(
        None,
        description="Password of the page on that port, which is closed without one if"
        " other machines can reach it",
        examples=["correct-horse-battery-staple"],
    )
    admin_tls: bool = Field(
        False,
        description="Speak TLS on that port, with TLS_CERTIFICATE",
        examples=["true"],
    )
    admin_client_ca: Path | None = Field(
        None,
        description="Certificates (PEM) of those who sign for clients: with it that port"
        " speaks TLS, and to nobody without a certificate by one of them",
        examples=["/etc/audiohook/tls/clients.pem"],
    )
    show_numbers: bool = Field(
        False,
        description="Show the numbers of callers on that page",
        examples=["false"],
    )
    api_tokens_file: Path | None = Field(
        None,
        description="JSON file of the tokens of the API on that port, made by"
        " `audiohook token`; without it there is no API",
        examples=["/etc/audiohook/tokens.json"],
    )
    max_calls: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Most calls at a time; no limit by default",
        examples=["1000"],
    )
    max_calls_per_key: int | None = Field(
        None,
        ge=1,
        description="Most calls at a time with one API key; no limit by default",
        examples=["500"],
    )
    # Of a union only what is around it counts.
    new_calls_per_key: Annotated[NewCalls | None, NoDecode] = Field(
        None,
        description="Most new calls a second with one API key, and after a colon how"
        " many at once, which is ten times as many without it; no limit by default",
        examples=["50:500"],
    )
    max_handshakes: int = Field(
        4096,
        ge=1,
        description="Most connections at a time that have not become a call yet; the"
        " oldest makes room",
        examples=["4096"],
    )
    spool_low_water_mib: int = Field(
        # An hour of 10 calls, and what the live ones still need.
        512,
        ge=1,
        description="With less room than this for the spool no new call is taken, MiB",
        examples=["512"],
    )
    spool_places: int = Field(
        1024,
        ge=0,
        le=4096,
        description="Places on the spool's disk that are made ahead, for calls that come"
        " all at once to a disk that is slow",
        examples=["1024"],
    )
    drain_timeout: float = Field(
        5 * MINUTES,
        ge=0,
        le=24 * HOURS,
        allow_inf_nan=False,
        description="Seconds that live calls get to end after SIGTERM",
        examples=["300"],
    )
    ingest_interval: float = Field(
        0.2 * SECONDS,
        ge=0.02 * SECONDS,
        le=1 * SECONDS,
        description="Seconds between two visits to every open socket",
        examples=["0.2"],
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="Form of the log; auto is console in a terminal, json elsewhere",
        examples=["auto"],
    )
    log_level: LogLevel = Field(
        "info",
        description="Least level of a line that is logged: debug, info, warning or"
        " error",
        examples=["info"],
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        faults = [*self._pair_faults(), *self._file_faults()]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _pair_faults(self) -> Iterator[str]:
        if self.s3_kms_key_id and self.s3_encryption != "aws:kms":
            yield "S3_KMS_KEY_ID: goes with S3_ENCRYPTION=aws:kms"
        for name, other in _COMPANIONS:
            if getattr(self, name) and not getattr(self, other):
                yield f"{name.upper()}: goes with {other.upper()}, which is not set"
        if self.port == self.admin_port != 0:
            yield "ADMIN_PORT: must not be the same as PORT"

    def _file_faults(self) -> Iterator[str]:
        for name in _READ_FILES:
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            try:
                path.open("rb").close()
            except OSError as error:
                yield (
                    f"{name.upper()}: {in_one_line(path)} cannot be read"
                    f" ({error.strerror})"
                )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where settings come from, the strongest first.

        Args:
            settings_cls: This class.
            init_settings: Arguments of the constructor: flags, and what `load`
                found in ``.env`` and the environment does not have.
            env_settings: The environment.
            dotenv_settings: Not used.
            file_secret_settings: Knows the folder of credentials.

        Returns:
            The sources.
        """
        credentials = Credentials(settings_cls, file_secret_settings)
        return init_settings, env_settings, credentials

    def aws_environment(self) -> dict[str, str]:
        """Give what botocore must find in the environment.

        botocore reads its own settings from there and nowhere near ``.env``, so
        the caller lays this over ``os.environ`` before it makes a session.

        Returns:
            Names and values, secrets in the clear; what the environment has
            already keeps its value.
        """
        named = {
            "AWS_REGION": self.aws_region,
            # botocore reads the region from this name only.
            "AWS_DEFAULT_REGION": self.aws_region,
            "AWS_ENDPOINT_URL_S3": self.aws_endpoint_url_s3,
            "AWS_ACCESS_KEY_ID": _reveal(self.aws_access_key_id),
            "AWS_SECRET_ACCESS_KEY": _reveal(self.aws_secret_access_key),
        }
        environment = {name: value for name, value in named.items() if value}
        for name, secret in self.aws_other.items():
            environment[name] = secret.get_secret_value()
        if default_region := os.environ.get("AWS_DEFAULT_REGION"):
            environment["AWS_DEFAULT_REGION"] = default_region
        return environment


def load(*, env_file: Path = Path(".env"), **flags: object) -> Settings:
    """Find and check all settings.

    Args:
        env_file: File with lines ``NAME=value``; it may be absent.
        **flags: Settings from the command line by attribute, such as
            ``port=0``; None stands for a flag that was not given.

    Returns:
        The settings.

    Raises:
        ConfigError: If a setting is unknown or wrong: one line for each fault.
    """
    known = setting_names()
    given: dict[str, Any] = {}
    others: dict[str, SecretStr] = {}
    file = read_env_file(env_file, known)
    for name, text in file.values.items():
        if not text or os.environ.get(name):
            continue
        if name in known:
            given[name] = text
        elif name.startswith("AWS_"):
            others[name] = SecretStr(text)
    for attribute, value in flags.items():
        if value is not None:
            given[attribute.upper()] = value
    if unknown := given.keys() - known:
        raise ConfigError(f"{min(unknown)}: is not a setting")
    given[AWS_OTHER] = others
    slips = dict(_slips(known))
    given |= _good_values(slips.keys())
    credentials = os.environ.get("CREDENTIALS_DIRECTORY") or None
    found, faults = _try(credentials, given)
    lines = [*file.faults, *slips.values()]
    lines += [line for each in faults for line in _lines(each)]
    if wrong := {str(fault["loc"][0]) for fault in faults if fault["loc"]}:
        # What does not go together is looked for with good values in place of the
        # wrong ones, so that nobody has to start again for each fault.
        _, beyond = _try(credentials, given | _good_values(wrong))
        more = [line for each in beyond for line in _lines(each)]
        lines += [line for line in more if not _names_any(line, wrong)]
    if found is None or lines:
        raise ConfigError("\n".join(lines)) from None
    return found


def describe() -> list[Description]:
    """Describe every setting, in the order of the class.

    Returns:
        Rows for a table.
    """
    return [
        Description(name_of(attribute, info), _default(info), info.description or "")
        for attribute, info in Settings.model_fields.items()
    ]


def _try(
    credentials: str | None, given: dict[str, Any]
) -> tuple[Settings | None, list[ErrorDetails]]:
    """Make the settings; or say what is wrong, without the values."""
    try:
        return Settings(_secrets_dir=credentials, **given), []
    except ValidationError as error:
        return None, [fault for fault in error.errors() if _is_fault(fault)]


def _slips(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield names of settings with what their values of the environment have too much.

    In ``.env`` quotes and spaces around a value are taken away. The environment has
    what it was given: `docker --env-file` leaves the quotes, and the mark that ends
    lines in files of Windows.
    """
    for name in names:
        value = os.environ.get(name, "")
        if value != value.strip():
            yield (
                name,
                _with_example(name, "has a space or a line's end before or behind it"),
            )
        elif len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            yield (
                name,
                _with_example(name, "stands in quotes, which are part of it here"),
            )


def _good_values(names: Set[str]) -> dict[str, Any]:
    """Return a value for each that will do."""
    good: dict[str, Any] = {}
    for attribute, info in Settings.model_fields.items():
        if (name := name_of(attribute, info)) in names:
            good[name] = (info.examples or [None])[0]
    # Their examples are files that need not be there.
    if "ASSEMBLYAI_PARAMS_FILE" in good:
        good["ASSEMBLYAI_PARAMS_FILE"] = {}
    for attribute in _READ_FILES:
        if attribute.upper() in good:
            good[attribute.upper()] = os.devnull
    return good


def setting_names() -> list[str]:
    """Return the names of all settings, as they are looked for."""
    fields = Settings.model_fields.items()
    return [name for field in fields if (name := name_of(*field)) != AWS_OTHER]


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _default(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict):
        return str(extra["default"])
    match info.default:
        case None:
            return ""
        case bool() as value:
            return str(value).lower()
        case float() as value:
            return f"{value:g}"
        case dict() as value:
            return json.dumps(value)
        case value:
            return str(value)


def _is_fault(fault: ErrorDetails) -> bool:
    # HOST has no default while any other setting is wrong, which is no fault.
    return fault["type"] != "default_factory_not_called"


def _names_any(line: str, names: Set[str]) -> bool:
    """Tell whether a line is about any of those settings."""
    return not names.isdisjoint(re.findall(r"[A-Z0-9_]+", line))


def _lines(fault: ErrorDetails) -> list[str]:
    """Say what is wrong with a setting, or with some that do not go together."""
    text = fault["msg"].removeprefix("Value error, ")
    # Found by comparing settings, the text names them.
    return [_line(fault, text)] if fault["loc"] else text.splitlines()


def _line(fault: ErrorDetails, text: str) -> str:
    name = str(fault["loc"][0])
    return _with_example(name, text.replace("Input should", "should"))


def _with_example(name: str, fault: str) -> str:
    """Say in one line what is wrong with a setting, and what would be right."""
    for attribute, info in Settings.model_fields.items():
        if name_of(attribute, info) == name and info.examples:
            return f"{name}: {fault}; for example {name}={info.examples[0]}"
    return f"{name}: {fault}"
