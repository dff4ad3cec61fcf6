"""AssemblyAI's OpenAPI document as a judge, where it is at hand.

It is not part of this repository: AUDIOHOOK_OPENAPI says where it is, or it lies in
``shared`` beside the checkout. Without it every value is right.

The document lags behind the service, so it is not taken at its word where its own
examples, or answers seen in the wild, say otherwise: fields of a transcript may be
null, and a few names are newer than the document.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_BESIDE = Path(__file__).parents[2] / "shared" / "assemblyai-openapi.yml"
# Names that the service has and the document has not.
_NEWER = {
    "TranscriptParams": {
        "domain",
        "keyterms_prompt_options",
        "redact_pii_return_unredacted",
        "speaker_options",
    },
    "Transcript": {
        "domain",
        "keyterms_prompt_options",
        "metadata",
        "redact_pii_return_unredacted",
        "speaker_options",
    },
    "TranscriptParagraph": {"speaker", "channel"},
}


def hold(schema: str, value: object) -> None:
    """Asserts that a value is what the document says.

    Args:
        schema: One of its ``components/schemas``.
        value: As it is on the wire.
    """
    document = _document()
    if document is None:
        return
    validator = Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", **document},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    problems = [
        f"{error.json_path}: {error.message[:300]}"
        for error in validator.iter_errors(value)
    ]
    assert not problems, "\n".join(problems)
    if isinstance(value, dict):
        known = _names(document, schema) | _NEWER.get(schema, set())
        assert set(value) <= known, f"{schema} has no {set(value) - known}"


def parameters(path: str, method: str) -> dict[str, dict[str, Any]]:
    """Returns the schemas of an endpoint's query parameters; none without it."""
    document = _document()
    if document is None:
        return {}
    found = document["paths"][path][method].get("parameters", [])
    return {each["name"]: each["schema"] for each in found if each["in"] == "query"}


def property_names(schema: str) -> set[str]:
    """Returns the names of a schema's properties; none without the document."""
    document = _document()
    return set() if document is None else _names(document, schema)


def is_there() -> bool:
    """Whether there is a judge."""
    return _document() is not None


@cache
def _document() -> dict[str, Any] | None:
    named = os.environ.get("AUDIOHOOK_OPENAPI")
    path = Path(named) if named else _BESIDE
    if not named and not path.exists():
        return None
    # Read whole, and not cut down: a wrong path in the environment is to be seen.
    document = yaml.safe_load(path.read_bytes())
    kept = {"components": document["components"], "paths": document["paths"]}
    _open_up(kept["components"]["schemas"])
    _allow_null(kept["components"]["schemas"]["Transcript"])
    return kept


def _open_up(node: object) -> None:
    """Allows names that the document does not know; they are judged apart."""
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        for name, child in node.items():
            if name not in ("example", "examples"):
                _open_up(child)
    elif isinstance(node, list):
        for child in node:
            _open_up(child)


def _allow_null(schema: dict[str, Any]) -> None:
    for name, child in schema["properties"].items():
        schema["properties"][name] = {"anyOf": [copy.deepcopy(child), {"type": "null"}]}


def _names(document: dict[str, Any], schema: str) -> set[str]:
    """Collects the names of a schema's properties."""

    def collect(node: dict[str, Any]) -> set[str]:
        if "$ref" in node:
            return _names(document, node["$ref"].rpartition("/")[2])
        found = set(node.get("properties", {}))
        for kind in ("allOf", "oneOf", "anyOf"):
            for child in node.get(kind, []):
                found |= collect(child)
        return found

    return collect(document["components"]["schemas"][schema])
