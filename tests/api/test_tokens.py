from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from audiohook.api.tokens import Scope, Tokens, make_token, read_tokens_file
from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HASH = "0" * 64
ENTRY = f'{{"sha256": "{HASH}", "scopes": ["read"]}}'


def test_token_that_was_made_is_known_by_what_is_written_down(tmp_path: Path) -> None:
    token, entry = make_token("crm", [Scope.READ, Scope.CONTROL])
    other, _ = make_token("crm", [Scope.READ])
    assert token != other
    assert len(token) >= 43
    assert token not in entry
    path = tmp_path / "tokens.json"
    path.write_text("{" + entry + "}")
    tokens = Tokens(read_tokens_file(path))
    found = tokens.find(token)
    assert found is not None
    assert (found.name, set(found.scopes)) == ("crm", {Scope.READ, Scope.CONTROL})
    for stranger in (other, "", token[:-1], token + "x", "ü" * 500, "\ud800"):
        assert tokens.find(stranger) is None
    assert tokens.exist
    assert not Tokens(None).exist


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not one JSON object"),
        ('{"a b": {}}', "entry 1: the name is not letters"),
        ('{"a": 5}', "entry 1: is not an object of sha256 and scopes"),
        ('{"a": {"sha256": "x", "scopes": ["read"]}}', "64 hexadecimal digits"),
        (f'{{"a": {{"sha256": "{HASH}", "scopes": []}}}}', "at least one"),
        (f'{{"a": {{"sha256": "{HASH}", "scopes": "read"}}}}', "at least one"),
        (
            f'{{"a": {{"sha256": "{HASH}", "scopes": ["all"]}}}}',
            "a scope is not one of control, erase, read",
        ),
        (f'{{"a": {{"sha256": "{HASH}", "scopes": [{{}}]}}}}', "a scope is not one"),
        (
            f'{{"a": {{"sha256": "{HASH}", "scopes": ["read"], "x": 1}}}}',
            "is not an object of sha256 and scopes",
        ),
        (
            '{"a": ENTRY, "a": ENTRY}'.replace("ENTRY", ENTRY),
            "entry 2: the name is there twice",
        ),
        (json.dumps({str(n): 1 for n in range(1001)}), "more than 1000 tokens"),
        (" " * 1_100_000, "larger than 1 MiB"),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault) as caught:
        read_tokens_file(path)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"API_TOKENS_FILE.*No such file"):
        read_tokens_file(tmp_path / "none")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a" * 65, "ü", "a\n"])
def test_name_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ConfigError, match="for example crm"):
        make_token(name, [Scope.READ])


def test_token_without_a_scope_is_not_made() -> None:
    with pytest.raises(ConfigError, match="needs a scope"):
        make_token("crm", [])


def test_hash_of_a_token_is_no_token() -> None:
    digest = hashlib.sha256(b"ah_x").hexdigest()
    assert make_token("x", [Scope.READ])[0] != digest
