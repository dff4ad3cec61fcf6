"""``audiohook dialogue``: the text messages of a call, for a person to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from audiohook.errors import CallIndexError, UploadError
from audiohook.index.search import Query
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.journal import is_uuid
from audiohook.storage.find import NoRecordingError, find_files
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import beside
from audiohook.storing import make_index, make_store, typed_key

if TYPE_CHECKING:
    from rich.console import Console
    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings
    from audiohook.storage.s3 import S3Store

_ENDING: Final = ".jsonl"
_MOST_CALLS: Final = 100
_LONGEST_CELL: Final = 160
# What every message has, and the table has columns of its own for or no need of.
_COMMON: Final = frozenset({"version", "id", "type", "seq", "serverseq", "clientseq"})


async def show(
    settings: Settings,
    wanted: str,
    console: Console,
    *,
    as_json: bool,
    log: FilteringBoundLogger,
) -> int:
    """Prints the dialogue of a recording, or of all those of a conversation.

    Args:
        settings: Say where recordings are.
        wanted: Key of a recording, as `audiohook transcribe` takes it, or the id of
            a conversation.
        console: Where it goes.
        as_json: Whether as it is stored, a line a message.
        log: For the index.

    Returns:
        0 if there was any, 1 if not.
    """
    store = make_store(settings)
    try:
        try:
            keys = [typed_key(settings, wanted)]
            if is_uuid(wanted.lower()):
                keys = await _of_conversation(settings, store, wanted.lower(), log)
            shown = [await _show_one(store, key, console, as_json) for key in keys]
        except (NoRecordingError, UploadError, CallIndexError) as error:
            console.print(f"{wanted}: {error}", markup=False)
            return 1
        return 0 if any(shown) else 1
    finally:
        if not isinstance(store, FolderStore):
            store.close()


async def _of_conversation(
    settings: Settings,
    store: FolderStore | S3Store,
    conversation: str,
    log: FilteringBoundLogger,
) -> list[str]:
    # What it knows of calls says in which bucket each is.
    index = make_index(settings, store, log=log)
    try:
        found = await index.search(Query(conversation=conversation), _MOST_CALLS)
    finally:
        index.close()
    if not found:
        raise NoRecordingError(
            "the index knows of no recording of that conversation; `audiohook index`"
            " makes it anew from the store"
        )
    return [each.entry.key for each in reversed(found)]


async def _show_one(
    store: FolderStore | S3Store, key: str, console: Console, as_json: bool
) -> bool:
    summary: dict[str, Any] = json.loads((await find_files(store, key))[0].summary)
    objects = [beside(key, each["key"]) for each in summary["objects"]]
    keys = [each for each in objects if each.endswith(_ENDING)]
    data = await store.read(keys[0]) if keys else None
    if data is None:
        console.print(
            f"{summary['sessionId']}: its text messages were not kept; KEEP_DIALOGUE"
            " has those of later calls kept",
            markup=False,
        )
        return False
    lines = data.decode("utf-8").splitlines()
    if as_json:
        for line in lines:
            console.print(line, markup=False, highlight=False)
        return True
    console.print(
        f"session {summary['sessionId']}, conversation {summary['conversationId']},"
        f" {summary['start']} to {summary['end']}, {summary['ended']['reason']}",
        markup=False,
    )
    console.print(_table(lines))
    return True


def _table(lines: list[str]) -> Table:
    table = Table("at", "", "audio", "type", "seq", "what", box=None, pad_edge=False)
    for line in lines:
        entry: dict[str, Any] = json.loads(line)
        message = entry["message"]
        if not isinstance(message, dict):
            message = {"unreadable": message}
        came = entry["direction"] == "in"
        rest = {name: each for name, each in message.items() if name not in _COMMON}
        text = json.dumps(rest.pop("parameters", {}), ensure_ascii=False)
        if rest:
            text += " " + json.dumps(rest, ensure_ascii=False)
        if len(text) > _LONGEST_CELL:
            text = text[:_LONGEST_CELL] + " …"
        table.add_row(
            # The day stands above.
            str(entry["at"])[11:],
            "◀ Genesys" if came else "▶ we",
            f"{entry['samples'] / SAMPLE_RATE_HZ:.3f}",
            Text(_printable(str(message.get("type", "?")))),
            str(message.get("seq", "")),
            Text(_printable(text)),
        )
    return table


def _printable(text: str) -> str:
    """Put out of the way what would do something to a terminal."""
    return "".join(each if each.isprintable() else "�" for each in text)
