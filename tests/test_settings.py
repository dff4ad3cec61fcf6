"""Where settings come from, which are refused, and what refusals say."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook import settings
from audiohook.errors import ConfigError
from audiohook.notify.event import Kind
from audiohook.setting_values import NOTIFY_KINDS, decode_secret
from audiohook.settings import Settings, describe, load

SECRET_TEXT = "TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU="


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test in an empty folder and with no setting in sight."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name in {row.name for row in describe()} or name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def with_env_file(text: str | bytes) -> Settings:
    Path(".env").write_bytes(text.encode() if isinstance(text, str) else text)
    return load()


def faults(flags: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**flags)
    # A traceback of the cause would show what was given.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value).splitlines()


def test_defaults() -> None:
    found = load()
    assert (found.port, found.admin_port, found.host) == (3000, 9090, "127.0.0.1")
    assert found.recordings_dir == Path("recordings")
    assert (found.s3_bucket, found.s3_key_prefix) == (None, "calls/")
    assert (found.wav_encoding, found.channel_layout) == ("pcm16", "stereo")
    assert (found.gaps, found.transcribe) == ("silence", "here")
    assert (found.keep_raw, found.delete_transcript) == (True, False)
    assert (found.ingest_interval, found.max_calls) == (0.2, None)
    assert found.assemblyai_base_url == "https://api.assemblyai.com"
    assert found.assemblyai_params == {}
    assert found.log_format == "auto"
    assert found.aws_environment() == {}


def test_env_file_of_the_guide_works_unchanged() -> None:
    found = with_env_file(
        "# Server\n"
        "PORT=3000\n"
        "API_KEY=my-key\n"
        "CLIENT_SECRET=\n"
        "RECORDINGS_DIR=./recordings\n"
        "\n"
        "# S3 (leave empty to disable)\n"
        "S3_BUCKET=\n"
        "S3_KEY_PREFIX=calls/   # with a slash\n"
        "AWS_REGION='us-east-1'\n"
        'AWS_ACCESS_KEY_ID="AKIA"\n'
        "export AWS_SECRET_ACCESS_KEY=a+b/c\n"
        "ASSEMBLYAI_API_KEY=\n"
    )
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "my-key"
    assert (found.client_secret, found.s3_bucket) == (None, None)
    assert found.assemblyai_api_key is None
    assert found.s3_key_prefix == "calls/"
    assert found.aws_environment() == {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "a+b/c",
    }


def test_precedence(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (credentials / "PORT").write_text("1\n")
    assert load().port == 1
    Path(".env").write_text("PORT=2\n")
    assert load().port == 2
    monkeypatch.setenv("PORT", "3")
    assert load().port == 3
    assert load(port=4).port == 4
    assert load(port=None).port == 3


def test_empty_counts_as_none_on_every_level(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (credentials / "port").write_text("1")
    Path(".env").write_text("PORT=\n")
    monkeypatch.setenv("PORT", "")
    assert load().port == 1
    (credentials / "port").write_text("\n")
    assert load().port == 3000


def test_env_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("PORT=5")
    assert load(env_file=tmp_path / "other").port == 5
    assert load(env_file=tmp_path / "absent").port == 3000


def test_env_file_values_are_taken_as_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHELL_NAME", "x")
    found = with_env_file("WEBHOOK_URL=https://example.com/${SHELL_NAME}$1\n")
    assert found.webhook_url is not None
    assert found.webhook_url.get_secret_value() == "https://example.com/${SHELL_NAME}$1"


def test_env_file_may_be_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["PORT=5\n"])
    writer.start()
    assert load(env_file=pipe).port == 5
    writer.join()


@pytest.mark.parametrize(
    ("line", "name", "hint"),
    [
        ("API_KEYS=hush", "API_KEYS", "API_KEY"),
        ("APIKEY=hush", "APIKEY", "API_KEY"),
        ("port=1", "port", "PORT"),
        ("S3_BUKET=hush", "S3_BUKET", "S3_BUCKET"),
        ("S3_PREFIX=hush", "S3_PREFIX", "S3_KEY_PREFIX"),
        ("RECORDING_DIR=hush", "RECORDING_DIR", "RECORDINGS_DIR"),
        ("ASSEMBLYAI_KEY=hush", "ASSEMBLYAI_KEY", "ASSEMBLYAI_API_KEY"),
        ("GAP=hush", "GAP", "GAPS"),
    ],
)
def test_env_file_misspelt_name_stops(line: str, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_env_file(line)
    assert str(caught.value) == (
        f"{name}: is not a setting (.env); did you mean {hint}?"
    )


@pytest.mark.parametrize("name", ["NODE_ENV", "HOSTNAME", "POST", "TERM", "LANG"])
def test_env_file_foreign_name_is_let_be(name: str) -> None:
    assert with_env_file(f"{name}=x\nPORT=7\n").port == 7


@pytest.mark.parametrize("name", ["API_KEYS", "port", "PORTS", "api_key", "AWS_REGIO"])
def test_environment_names_are_nobodys_business(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "!?")
    assert load() == load(port=3000)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("PORT=1\n\n\nAPI_KEY\nGAPS=cut", 4),
        ("\n\nAPI_KEY='hush\n", 3),
        ("=hush", 1),
        ("PORT=1\nAPI_KEY hush\n", 2),
    ],
)
def test_env_file_unreadable_line_stops(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        with_env_file(text)
    assert str(caught.value) == (
        f".env: line {line} is not of the form NAME=value; for example PORT=3000"
    )


def test_env_file_not_text_stops() -> None:
    with pytest.raises(ConfigError, match=r"^\.env: is not UTF-8 text$"):
        with_env_file(b"API_KEY=\xff")


def test_env_file_not_a_file_stops() -> None:
    Path(".env").mkdir()
    with pytest.raises(ConfigError, match=r"^\.env: cannot be read \(Is a directory"):
        load()


@pytest.mark.parametrize("name", ["API_KEY", "api_key"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_credential_in_either_case(credentials: Path, name: str, end: str) -> None:
    (credentials / name).write_text(f"my-key{end}", newline="")
    found = load()
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "my-key"


def test_credential_of_a_file_setting_is_the_file(credentials: Path) -> None:
    for name in ("tls_key", "TLS_CERTIFICATE", "api_keys_file"):
        (credentials / name).write_text("-----BEGIN")
    found = load()
    assert found.tls_key == credentials / "tls_key"
    assert found.tls_certificate == credentials / "TLS_CERTIFICATE"
    assert found.api_keys_file == credentials / "api_keys_file"


def test_credential_not_text_stops(credentials: Path) -> None:
    (credentials / "api_key").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"^API_KEY: credential is not UTF-8 text$"):
        load()


def test_credential_unreadable_stops(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (credentials / "api_key").write_text("hush")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(
        ConfigError, match=r"^API_KEY: credential cannot be read \(Permission denied\)$"
    ):
        load()


def test_credentials_foreign_files_and_absent_folder_are_let_be(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (credentials / "other").write_text("x")
    (credentials / "PORT").mkdir()
    assert load().port == 3000
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nonexistent")
    assert load().port == 3000


@pytest.mark.parametrize(
    "flags", [{"api_key": "k"}, {"api_keys_file": "/etc/keys.json"}]
)
def test_host_is_all_interfaces_once_there_is_a_key(flags: dict[str, Any]) -> None:
    assert load(**flags).host is None
    assert load(**flags, host="10.0.0.1").host == "10.0.0.1"


GOOD = [
    ("PORT", "0", 0),
    ("PORT", "65535", 65535),
    ("HOST", "::1", "::1"),
    ("HOST", "0.0.0.0", "0.0.0.0"),
    ("HOST", "localhost", "localhost"),
    ("S3_BUCKET", "my.bucket-1", "my.bucket-1"),
    ("S3_KEY_PREFIX", "a/b", "a/b/"),
    ("S3_ENCRYPTION", "AES256", "AES256"),
    ("S3_STORAGE_CLASS", "STANDARD_IA", "STANDARD_IA"),
    ("S3_TAGS", "a=b&c=d+e", {"a": "b", "c": "d e"}),
    ("S3_KEY_PREFIX", "a/b/", "a/b/"),
    ("S3_KEY_PREFIX", "a-(b)!'/c..x/", "a-(b)!'/c..x/"),
    ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333/", "http://127.0.0.1:8333"),
    ("ASSEMBLYAI_API_KEY_PARAMETER", "/audiohook/key", "/audiohook/key"),
    ("ASSEMBLYAI_BASE_URL", "https://[::1]:8000/v2", "https://[::1]:8000/v2"),
    ("ASSEMBLYAI_PARAMS", '{"a": [1, null]}', {"a": [1, None]}),
    ("TRANSCRIBE_LANGUAGE", "call", "call"),
    ("TRANSCRIBE_LANGUAGE", "es-419", "es_419"),
    ("TRANSCRIBE_MIN_SECONDS", "0.16", 0.16),
    ("TRANSCRIBE_SILENCE", "off", "off"),
    ("TRANSCRIBE_SILENCE", "-60", -60.0),
    ("KEEP_RAW", "false", False),
    ("KEEP_RAW", "1", True),
    ("WAV_ENCODING", "ulaw", "ulaw"),
    ("CHANNEL_LAYOUT", "split", "split"),
    ("GAPS", "cut", "cut"),
    ("TRANSCRIBE", "elsewhere", "elsewhere"),
    ("LOG_FORMAT", "json", "json"),
    ("MAX_CALLS", "1", 1),
    ("DRAIN_TIMEOUT", "0", 0.0),
    ("INGEST_INTERVAL", "0.02", 0.02),
    ("INGEST_INTERVAL", "1", 1.0),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(load(), name.lower()) == value


BAD = [
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("PORT", "hush"),
    ("PORT", "3000.5"),
    ("HOST", "http://hush"),
    ("HOST", "hush:3000"),
    ("HOST", "hush hush"),
    ("API_KEY", "hush!"),
    ("API_KEY", "hush==="),
    ("API_KEY", "hush\n"),
    ("API_KEY", "hüsh"),
    ("CLIENT_SECRET", "hush!"),
    ("CLIENT_SECRET", "hush="),
    ("CLIENT_SECRET", "hushh"),
    ("CLIENT_SECRET", "hu_-"),
    ("S3_BUCKET", "s3://hush"),
    ("S3_BUCKET", "hush/hush"),
    ("S3_BUCKET", "hu"),
    ("S3_KEY_PREFIX", "/hush"),
    ("S3_ENCRYPTION", "hush"),
    ("S3_KMS_KEY_ID", "hush hush"),
    ("S3_STORAGE_CLASS", "hush"),
    ("S3_TAGS", "hush"),
    ("S3_TAGS", "hush=1&hush=2"),
    ("S3_TAGS", "&".join(f"hush{i}=" for i in range(11))),
    ("S3_TAGS", "hush=" + "x" * 257),
    ("S3_KEY_PREFIX", "/"),
    ("S3_KEY_PREFIX", "hush//hush"),
    ("S3_KEY_PREFIX", "hush//"),
    ("S3_KEY_PREFIX", "../hush"),
    ("S3_KEY_PREFIX", "hush/.."),
    ("S3_KEY_PREFIX", "./hush"),
    ("S3_KEY_PREFIX", "hush\thush"),
    ("S3_KEY_PREFIX", "hush hush"),
    ("S3_KEY_PREFIX", "hüsh"),
    ("S3_KEY_PREFIX", "hush/.hush"),
    ("S3_KEY_PREFIX", "hush\\"),
    ("S3_KEY_PREFIX", "hush" * 200),
    ("AWS_REGION", "hush hush"),
    ("AWS_ACCESS_KEY_ID", "hush hush"),
    ("AWS_SECRET_ACCESS_KEY", "hüsh"),
    ("AWS_ENDPOINT_URL_S3", "hush:8333"),
    ("AWS_ENDPOINT_URL_S3", "http://hush@example.com"),
    ("ASSEMBLYAI_API_KEY", "hush\u2028"),
    ("ASSEMBLYAI_API_KEY_PARAMETER", "hush hush"),
    ("ASSEMBLYAI_BASE_URL", "ftp://hush"),
    ("ASSEMBLYAI_BASE_URL", "https://"),
    ("ASSEMBLYAI_BASE_URL", "https://hush:hush"),
    ("ASSEMBLYAI_BASE_URL", "https://hush:0"),
    ("ASSEMBLYAI_BASE_URL", "https://[hush"),
    ("ASSEMBLYAI_BASE_URL", "https://hush/?q=1"),
    ("ASSEMBLYAI_BASE_URL", "https://hush/#f"),
    ("ASSEMBLYAI_BASE_URL", "https://hush/ hush"),
    ("ASSEMBLYAI_PARAMS", "hush"),
    ("ASSEMBLYAI_PARAMS", '["hush"]'),
    ("ASSEMBLYAI_PARAMS", '{"hush": NaN}'),
    ("ASSEMBLYAI_PARAMS", '{"audio_url": "hush"}'),
    ("ASSEMBLYAI_PARAMS", '{"webhook_url": "hush"}'),
    ("ASSEMBLYAI_PARAMS_FILE", "hush"),
    ("ASSEMBLYAI_PARAMS_FILE", "."),
    ("TRANSCRIBE_LANGUAGE", "hush!"),
    ("TRANSCRIBE_LANGUAGE", "hush"),
    ("TRANSCRIBE_MIN_SECONDS", "0.159"),
    ("TRANSCRIBE_MIN_SECONDS", "nan"),
    ("TRANSCRIBE_SILENCE", "hush"),
    ("TRANSCRIBE_SILENCE", "nan"),
    ("TRANSCRIBE_SILENCE", "0"),
    ("TRANSCRIBE_SILENCE", "-97"),
    ("TRANSCRIBE_PARALLEL", "0"),
    ("WEBHOOK_SECRET", "hush hush"),
    ("ASSEMBLYAI_PARAMS", '{"hush": ' + "[" * 100_000),
    ("WEBHOOK_URL", "hush"),
    ("WEBHOOK_URL", "https://example.com:hush/"),
    ("NOTIFY_URL", "hush"),
    ("NOTIFY_URL", "http://example.com/hush"),
    ("NOTIFY_URL", "https://hush:hush@example.com/"),
    ("NOTIFY_URL", "https://example.com/#hush"),
    ("NOTIFY_SECRET", "hush hush"),
    ("NOTIFY_SECRET", "aHVzaA=="),
    ("NOTIFY_SECRET", ",".join(["aHVzaGh1c2hodXNoaHVzaGh1c2hodXNo"] * 3)),
    ("NOTIFY_KINDS", "opened,hush"),
    ("KEEP_RAW", "hush"),
    ("DELETE_TRANSCRIPT", "2"),
    ("WAV_ENCODING", "mp3"),
    ("WAV_ENCODING", "PCM16"),
    ("CHANNEL_LAYOUT", "hush"),
    ("GAPS", "hush"),
    ("TRANSCRIBE", "hush"),
    ("LOG_FORMAT", "hush"),
    ("ADMIN_PORT", "70000"),
    ("MAX_CALLS", "0"),
    ("MAX_CALLS", "1e3"),
    ("DRAIN_TIMEOUT", "-1"),
    ("DRAIN_TIMEOUT", "nan"),
    ("DRAIN_TIMEOUT", "inf"),
    ("DRAIN_TIMEOUT", "86401"),
    ("INGEST_INTERVAL", "0.019"),
    ("INGEST_INTERVAL", "1.01"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_stops_with_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    (line,) = faults({})
    assert line.startswith(f"{name}: ")
    assert f"; for example {name}=" in line
    assert "hush" not in line


def test_bad_flag_stops_with_one_line() -> None:
    assert faults({"port": -1}) == [
        "PORT: should be greater than or equal to 0; for example PORT=3000"
    ]


def test_unknown_flag_stops() -> None:
    with pytest.raises(ConfigError, match=r"^COLOUR: is not a setting$"):
        load(colour="hush")


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("GAPS", "x")
    lines = faults({"host": "x y"})
    assert [line.partition(":")[0] for line in lines] == ["PORT", "HOST", "GAPS"]


def test_examples_are_good_and_every_setting_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for attribute, field in settings.Settings.model_fields.items():
        assert field.examples, attribute
        if attribute not in {
            # Those that go with files which are not there.
            "admin_client_ca",
            "admin_tls",
            "assemblyai_params_file",
            "aws_other",
            "tls_certificate",
            "tls_key",
        }:
            monkeypatch.setenv(attribute.upper(), field.examples[0])
    assert load().max_calls == 1000


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"client_secret": SECRET_TEXT},
            "CLIENT_SECRET: goes with API_KEY, which is not set",
        ),
        (
            {"aws_access_key_id": "AKIA"},
            "AWS_ACCESS_KEY_ID: goes with AWS_SECRET_ACCESS_KEY, which is not set",
        ),
        (
            {"aws_secret_access_key": "hush"},
            "AWS_SECRET_ACCESS_KEY: goes with AWS_ACCESS_KEY_ID, which is not set",
        ),
        (
            {"notify_url": "http://localhost:8000/"},
            "NOTIFY_URL: goes with NOTIFY_SECRET, which is not set",
        ),
        (
            {"notify_secret": "aHVzaGh1c2hodXNoaHVzaGh1c2hodXNo"},
            "NOTIFY_SECRET: goes with NOTIFY_URL, which is not set",
        ),
        ({"port": 9090}, "ADMIN_PORT: must not be the same as PORT"),
        (
            {"tls_certificate": __file__},
            "TLS_CERTIFICATE: goes with TLS_KEY, which is not set",
        ),
        ({"tls_key": __file__}, "TLS_KEY: goes with TLS_CERTIFICATE, which is not set"),
        (
            {"tls_certificate": __file__, "tls_key": "/absent"},
            "TLS_KEY: /absent cannot be read (No such file or directory)",
        ),
        (
            {"tls_certificate": "/", "tls_key": __file__},
            "TLS_CERTIFICATE: / cannot be read (Is a directory)",
        ),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, Any], line: str) -> None:
    assert faults(flags) == [line]


def test_any_free_port_twice_is_no_clash() -> None:
    assert load(port=0, admin_port=0).port == 0


def test_two_faulty_pairs_give_two_lines() -> None:
    assert len(faults({"client_secret": SECRET_TEXT, "tls_key": "/absent"})) == 3


def test_aws_names_of_env_file_reach_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "from-environment")
    found = with_env_file(
        "AWS_SESSION_TOKEN=hush\nAWS_PROFILE=from-file\nAWS_ENDPOINT_URL_STS=http://s\n"
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:8333\nAWS_EMPTY=\n"
    )
    assert found.aws_environment() == {
        "AWS_SESSION_TOKEN": "hush",
        "AWS_ENDPOINT_URL_STS": "http://s",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333",
    }
    assert "hush" not in repr(found)


def test_aws_default_region_keeps_its_own_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = with_env_file("AWS_DEFAULT_REGION=eu-west-1\nAWS_REGION=eu-central-1\n")
    assert found.aws_environment()["AWS_DEFAULT_REGION"] == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert load().aws_environment()["AWS_DEFAULT_REGION"] == "us-east-1"


def test_secrets_are_never_shown() -> None:
    found = load(
        api_key="hush",
        client_secret="hush",
        aws_access_key_id="hush",
        aws_secret_access_key="hush",
        assemblyai_api_key="hush",
        webhook_url="https://example.com/hush",
        assemblyai_params='{"prompt": "hush"}',
        webhook_secret="hush",
    )
    assert "hush" not in repr(found)
    assert "hush" not in str(found)


def test_secrets_are_not_in_the_library_s_own_error() -> None:
    with pytest.raises(ValueError, match="API_KEY") as caught:
        settings.Settings(API_KEY="hush!")
    assert "hush" not in str(caught.value)


def test_kinds_of_notifications_are_those_that_there_are() -> None:
    assert tuple(map(str, Kind)) == NOTIFY_KINDS


def test_settings_cannot_be_changed() -> None:
    found = load()
    with pytest.raises(ValueError, match="frozen"):
        found.port = 1  # type: ignore[misc]  # what is tested


def test_describe_has_every_setting_once() -> None:
    rows = describe()
    assert (
        len({row.name for row in rows})
        == len(rows)
        == len(settings.Settings.model_fields)
    )
    assert all(row.meaning and "\n" not in row.meaning for row in rows)
    by_name = {row.name: row.default for row in rows}
    assert by_name["PORT"] == "3000"
    assert by_name["HOST"] == "all once there is a key, else 127.0.0.1"
    assert by_name["API_KEY"] == ""
    assert by_name["KEEP_RAW"] == "true"
    assert by_name["DRAIN_TIMEOUT"] == "300"
    assert by_name["ASSEMBLYAI_PARAMS"] == "{}"


@given(st.binary(max_size=40), st.booleans())
def test_decode_secret_with_and_without_padding(secret: bytes, padded: bool) -> None:
    text = base64.b64encode(secret).decode()
    assert decode_secret(text if padded else text.rstrip("=")) == secret


@pytest.mark.parametrize(
    "text", ["a", "abcde", "ab=", "abc==", "=", "====", "ab c", "abcd\n", "ab-_", "äb"]
)
def test_decode_secret_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not base64$"):
        decode_secret(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50", (50.0, 500)),
        ("50:7", (50.0, 7)),
        ("0.5", (0.5, 5)),
        ("0.01", (0.01, 1)),
        ("2.5:1", (2.5, 1)),
    ],
)
def test_rate_has_a_burst(text: str, rate: tuple[float, int]) -> None:
    found = with_env_file(f"NEW_CALLS_PER_KEY={text}").new_calls_per_key
    assert found == rate


@pytest.mark.parametrize(
    "text",
    ["0", "0.0", "50:0", "-1", "1e3", "50:", ":5", "x", "1/s", "[]", '{"a":' * 5000],
)
def test_rate_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^NEW_CALLS_PER_KEY: .*=50:500$"):
        with_env_file(f"NEW_CALLS_PER_KEY={text}")


@pytest.mark.parametrize("text", ["WARNING", "warning"])
def test_log_level_in_either_case(text: str) -> None:
    assert with_env_file(f"LOG_LEVEL={text}").log_level == "warning"


def test_what_is_wrong_alone_and_together_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "x")
    Path(".env").write_text(
        "S3_BUKET=hush\nAPI_KEY hush\nS3_KMS_KEY_ID=abc\nASSEMBLYAI_PARAMS_FILE=/absent\n"
    )
    names = [line.partition(":")[0] for line in faults({"webhook_secret": "hush"})]
    assert names == [
        ".env",
        "S3_BUKET",
        "PORT",
        "ASSEMBLYAI_PARAMS_FILE",
        "S3_KMS_KEY_ID",
        "WEBHOOK_SECRET",
    ]


def test_pair_with_a_faulty_half_is_one_fault() -> None:
    # Whether the halves fit is not known before that one is right.
    (line,) = faults({"api_key": "hush!", "client_secret": SECRET_TEXT})
    assert line.startswith("API_KEY: ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"hush"', "stands in quotes"),
        ("'hush'", "stands in quotes"),
        (" hush", "has a space or a line's end"),
        ("hush\r", "has a space or a line's end"),
    ],
)
def test_slip_of_the_environment_is_told(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("RECORDINGS_DIR", value)
    (line,) = faults({})
    assert line.startswith(f"RECORDINGS_DIR: {words}")
    assert "hush" not in line


@pytest.mark.parametrize("name", ["TLS_CERTIFICATE", "TLS_KEY", "ADMIN_CLIENT_CA"])
def test_slip_is_not_followed_by_a_fault_of_the_example(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hush.pem ")
    assert not any("cannot be read" in line for line in faults({}))


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("TLS_KEY", "a\nb", r"'a\nb'"),
        ("TLS_CERTIFICATE", "\udcff\udcfe", r"'\udcff\udcfe'"),
        ("ADMIN_CLIENT_CA", "a\x1b[31mb", r"'a\x1b[31mb'"),
        ("TLS_KEY", "x" * 5000, "x" * 256 + "…" + "x" * 256),
    ],
)
def test_strange_path_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, shown: str
) -> None:
    monkeypatch.setenv(name, text)
    (line,) = (line for line in faults({}) if "cannot be read" in line)
    assert line.startswith(f"{name}: {shown} cannot be read (")


def test_mark_of_an_editor_is_no_part_of_a_name() -> None:
    assert with_env_file(b"\xef\xbb\xbfPORT=7\r\n").port == 7
