from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.checks import describe_permissions
from audiohook.errors import ConfigError
from audiohook.keys import label_of
from tests import aws
from tests.checks.tools import checked, load
from tests.seaweed import BUCKET, Seaweed, reach, seaweed
from tests.storage.s3_tools import plain_client

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["seaweed"]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_folder_that_works_leaves_nothing_behind(tmp_path: Path) -> None:
    code, out = await checked(recordings_dir=tmp_path / "recordings")
    assert code == 0
    assert out.startswith("✓ store in the folder ")
    assert files_in(tmp_path) == []


async def test_folder_that_is_a_file_is_told_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "recordings"
    path.write_text("in the way")
    code, out = await checked(recordings_dir=path)
    assert code == 1
    assert out.startswith("✗ store in the folder ")
    assert "→ RECORDINGS_DIR must be a folder" in out


async def test_store_that_is_not_there_is_told_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    code, out = await checked(s3_bucket="bucket", recordings_dir=tmp_path)
    assert code == 1
    assert out.startswith("✗ write an object\n  → cannot connect to 127.0.0.1:9")
    assert "hush" not in out


def test_permissions_name_the_bucket_the_prefix_and_the_key() -> None:
    text = describe_permissions(
        load(
            s3_bucket="bucket",
            s3_key_prefix="a/b",
            s3_encryption="aws:kms",
            s3_kms_key_id="1234",
            s3_tags="a=b",
        )
    )
    described = json.loads(text)
    assert set(described) == {"policy", "lifecycle"}
    assert "arn:aws:s3:::bucket/a/b/*" in text
    assert "kms:GenerateDataKey" in text
    assert "s3:PutObjectTagging" in text
    (rule,) = described["lifecycle"]["Rules"]
    assert rule["Filter"] == {"Prefix": "a/b/"}


def test_rules_are_made_for_each_prefix_and_keys_without_one_are_named(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(
        json.dumps(
            {
                "first-of-the-keys": {
                    "secret": "",
                    "prefix": "vip/",
                    "keep_audio_days": 5,
                },
                "second-of-the-keys": {"secret": "", "keep_audio_days": 6},
            }
        )
    )
    described = json.loads(
        describe_permissions(
            load(s3_bucket="bucket", keep_transcripts_days=9, api_keys_file=keys),
            erase=True,
        )
    )
    rules = described["lifecycle"]["Rules"]
    assert len({rule["ID"] for rule in rules}) == len(rules) == 8
    assert "s3:DeleteObjectVersion" in json.dumps(described["policy"])
    # Objects have to say what they are.
    assert "s3:PutObjectTagging" in json.dumps(described["policy"])
    (unheeded,) = described["unheeded"]
    assert label_of("second-of-the-keys") in unheeded


KEYS: dict[str, dict[str, Any]] = {
    "acme-key": {
        "secret": "",
        "bucket": "acme",
        "prefix": "a/",
        "keep_audio_days": 5,
        "keep_transcripts_days": 5,
        "settings": {"mode": "transcribe only"},
    },
    "acme-too": {"secret": "", "bucket": "acme", "prefix": "b/"},
    "vip-key": {"secret": "", "prefix": "vip/"},
}


def keys_file(folder: Path, keys: dict[str, Any]) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps(keys))
    path.chmod(0o600)
    return path


def test_permissions_are_for_the_buckets_and_prefixes_of_all_keys(
    tmp_path: Path,
) -> None:
    described = json.loads(
        describe_permissions(
            load(
                s3_bucket="main",
                keep_audio_days=9,
                keep_transcripts_days=9,
                api_keys_file=keys_file(tmp_path, KEYS),
            )
        )
    )
    policy = {each["Sid"]: each for each in described["policy"]["Statement"]}
    assert set(policy["StoreRecordings"]["Resource"]) == {
        f"arn:aws:s3:::{each}/*"
        for each in ("main/calls", "main/vip", "acme/a", "acme/b")
    }
    assert set(policy["KnowWhatIsThere"]["Resource"]) == {
        "arn:aws:s3:::main",
        "arn:aws:s3:::acme",
    }
    # Only where audio has to go, and there with all its versions.
    delete = policy["DeleteTranscribedAudio"]
    assert delete["Resource"] == "arn:aws:s3:::acme/a/*"
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion"} <= set(delete["Action"])
    assert policy["KnowEveryVersion"]["Resource"] == "arn:aws:s3:::acme"

    def days(rules: list[dict[str, Any]]) -> dict[str, int]:
        return {
            rule["Filter"]["Prefix"]: rule["Expiration"]["Days"]
            for rule in rules
            if "Days" in rule.get("Expiration", {})
        }

    assert days(described["lifecycle"]["Rules"]) == {"calls/": 9, "vip/": 9}
    (bucket, found), *others = described["lifecycle_of"].items()
    assert (bucket, others) == ("acme", [])
    assert days(found["Rules"]) == {"a/": 5, "b/": 9}
    for rules in (described["lifecycle"]["Rules"], found["Rules"]):
        assert len({rule["ID"] for rule in rules}) == len(rules) == 6


def test_deletion_is_allowed_everywhere_if_any_call_may_ask_for_it() -> None:
    described = json.loads(
        describe_permissions(load(s3_bucket="main", custom_config_allow="mode"))
    )
    policy = {each["Sid"]: each for each in described["policy"]["Statement"]}
    assert policy["DeleteTranscribedAudio"]["Resource"] == "arn:aws:s3:::main/calls/*"


def test_permissions_have_what_keys_in_a_secret_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = load(s3_bucket="main", api_keys_secret="audiohook/keys")
    monkeypatch.setattr(
        "audiohook.key_ring.fetch_secret", lambda _: json.dumps(KEYS).encode()
    )
    described = json.loads(describe_permissions(chosen))
    policy = {each["Sid"]: each for each in described["policy"]["Statement"]}
    assert policy["ReadApiKeys"]["Resource"] == (
        "arn:aws:secretsmanager:*:*:secret:audiohook/keys-??????"
    )
    assert "arn:aws:s3:::acme/a/*" in policy["StoreRecordings"]["Resource"]
    assert "unread" not in described

    def deny(_: str) -> bytes:
        raise ConfigError("API_KEYS_SECRET: audiohook/keys cannot be read (Denied)")

    # The role may be about to get what this prints.
    monkeypatch.setattr("audiohook.key_ring.fetch_secret", deny)
    described = json.loads(describe_permissions(chosen))
    assert "ReadApiKeys" in json.dumps(described["policy"])
    assert described["unread"].endswith("cannot be read (Denied)")


def test_days_of_keys_in_a_secret_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"a-key": {"secret": "", "prefix": "a/", "keep_audio_days": 5}}
    monkeypatch.setattr(
        "audiohook.key_ring.fetch_secret", lambda _: json.dumps(keys).encode()
    )
    chosen = load(s3_bucket="main", api_keys_secret="audiohook/keys")
    described = json.loads(describe_permissions(chosen))
    assert "unheeded" not in described
    # Objects have to say what they are, and the rules go by that.
    assert "s3:PutObjectTagging" in json.dumps(described["policy"])
    tags = [
        rule["Filter"]["And"]["Tags"]
        for rule in described["lifecycle"]["Rules"]
        if "And" in rule["Filter"]
    ]
    assert tags == [[{"Key": "audiohook-kind", "Value": "audio"}]]


async def test_each_bucket_and_prefix_of_a_key_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed: Seaweed
) -> None:
    reach(seaweed, monkeypatch)
    acme = f"acme-{uuid.uuid4()}"
    client: Any = plain_client(seaweed)
    client.create_bucket(Bucket=acme)
    keys = {
        name: {**each, **({"bucket": acme} if "bucket" in each else {})}
        for name, each in KEYS.items()
    }
    keys["gone-key"] = {"secret": "", "bucket": f"{acme}-gone"}
    code, out = await checked(
        "storage",
        s3_bucket=BUCKET,
        recordings_dir=tmp_path,
        api_keys_file=keys_file(tmp_path, keys),
    )
    assert code == 1
    lines = out.splitlines()
    own = f"bucket {acme}, a/ (API key {label_of('acme-key')}): "
    whole = [each.removeprefix(f"✓ {own}") for each in lines if own in each]
    assert "delete an object with all its versions" in whole
    assert len(whole) == 9
    too = f"bucket {acme}, b/ (API key {label_of('acme-too')}): "
    assert f"✓ {too}write and delete an object" in lines
    vip = f"bucket {BUCKET}, vip/ (API key {label_of('vip-key')}): "
    assert f"✓ {vip}write and delete an object" in lines
    (fault,) = [number for number, each in enumerate(lines) if each.startswith("✗")]
    assert (
        f"{acme}-gone, calls/ (API key {label_of('gone-key')}): write" in lines[fault]
    )
    assert "does not exist" in lines[fault + 1]
    assert "Contents" not in client.list_objects_v2(Bucket=acme)
    client.close()


def test_permissions_without_a_bucket_are_one_line() -> None:
    with pytest.raises(ConfigError, match="S3_BUCKET: is not set"):
        describe_permissions(load())
