from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from audiohook.checks import describe_permissions
from audiohook.errors import ConfigError
from audiohook.keys import label_of
from tests.checks.tools import checked, load

if TYPE_CHECKING:
    from pathlib import Path


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
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
    }.items():
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


def test_permissions_without_a_bucket_are_one_line() -> None:
    with pytest.raises(ConfigError, match="S3_BUCKET: is not set"):
        describe_permissions(load())
