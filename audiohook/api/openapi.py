"""The document that says what the API is, made of the operations themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from audiohook import __version__
from audiohook.api.models import Problem
from audiohook.api.problems import PROBLEM_JSON, Code, status_of
from audiohook.file_ranges import MEDIA_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from audiohook.api.operations import Operation

_REF: Final = "#/components/schemas/{model}"
# What may come of every request.
_ALWAYS: Final = (Code.OFF, Code.TOO_MANY, Code.BUSY, Code.INTERNAL, Code.INVALID)
_DONE: Final = 200
_PLAIN: Final = (411, 413, 421)


def document(operations: Sequence[Operation], base: str) -> dict[str, Any]:
    """Make the document.

    Args:
        operations: All that there is.
        base: Where the API is on its server.

    Source: OpenAPI Specification 3.1.
    """
    models: list[type[BaseModel]] = [Problem]
    for each in operations:
        models += [each for each in (each.body, each.answer) if each is not None]
    unique = list(dict.fromkeys(models))
    _, schemas = models_json_schema(
        [(model, "serialization") for model in unique], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "audiohook",
            "version": __version__,
            "description": "Find recorded calls, fetch their files, control live"
            " ones, and have calls erased.",
        },
        "servers": [{"url": base}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation),
        "security": [] if operation.scope is None else [{"token": []}],
    }
    if operation.scope is not None:
        shown["description"] = f"Needs a token with the scope `{operation.scope}`."
    if operation.body is not None:
        shown["requestBody"] = {
            "required": False,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return shown


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, pattern in operation.parameters.items()
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(by_alias=True)
    shown = []
    for name, each in schema["properties"].items():
        what = {key: value for key, value in each.items() if key != "description"}
        if "anyOf" in what:
            # That it may be left out is said otherwise.
            (kind,) = (one for one in what["anyOf"] if one != {"type": "null"})
            what = kind
        what.pop("title", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": what}
        parameter["description"] = each.get("description", "")
        shown.append(parameter)
    return shown


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if operation.answer is not None:
        content = {"application/json": {"schema": _ref(operation.answer)}}
        word = "Done" if operation.status == _DONE else "It will be done"
        responses[str(operation.status)] = {"description": word, "content": content}
    elif operation.is_file:
        responses |= _file_responses(head=operation.method == "HEAD")
    else:
        content = {"application/json": {"schema": {"type": "object"}}}
        responses["200"] = {"description": "This document", "content": content}
    codes = [*_ALWAYS, *operation.problems]
    if operation.scope is not None:
        codes += [Code.UNAUTHORIZED, Code.SCOPE]
    if operation.body is not None:
        codes.append(Code.MEDIA_TYPE)
    by_status: dict[int, list[Code]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(status_of(code), []).append(code)
    for status, meant in sorted(by_status.items()):
        problem = {PROBLEM_JSON: {"schema": _ref(Problem)}}
        responses[str(status)] = {
            "description": "Codes: " + ", ".join(meant),
            "content": problem,
        }
    for status in _PLAIN:
        responses[str(status)] = {
            "description": "From the port itself: no length, too long, wrong host",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    return responses


def _file_responses(*, head: bool) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        each: {"schema": {} if head or "json" in each else {"type": "string"}}
        for each in dict.fromkeys(MEDIA_TYPES)
    }
    tag = {"ETag": {"schema": {"type": "string"}, "description": "Of its content"}}
    stretch = {"Content-Range": {"schema": {"type": "string"}}}
    return {
        "200": {"description": "The file", "content": kinds, "headers": tag},
        "206": {
            "description": "The part that was asked for",
            "content": kinds,
            "headers": tag | stretch,
        },
        "304": {"description": "The asker has it", "headers": tag},
        "307": {
            "description": "It is in the bucket, at this address for a while",
            "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
        },
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
