"""Orders of erasure on disk, and the records that stay of them.

Layout, in the folder of the spool, for its owner alone::

    .erasures/key              made once, at random
              orders/<hash>    what is being erased; gone once that is done
              records.jsonl    one line for each order that is done

A record holds no id, but its HMAC-SHA-256 under that key: who has the key and an id
can tell whether it was erased, and when; who has the file alone cannot tell anything.
By the same hash a call is known that comes back from wherever it was.

Blocking; called from threads. Any number of processes may share the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from audiohook.erasure.order import (
    Counts,
    Ordered,
    OrderRecord,
    Verified,
    Waits,
    encode,
    replay,
)
from audiohook.errors import ErasureError
from audiohook.recording.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from audiohook.erasure.order import OrderFact, Wanted

ERASURES: Final = ".erasures"
"""Name of the folder, in that of the spool."""

MOST_ORDERS: Final = 10_000
"""Orders that may be under way at a time, or wait for their last look."""

_KEY: Final = "key"
_ORDERS: Final = "orders"
_RECORDS: Final = "records.jsonl"
_KEY_BYTES: Final = 32
_HASH: Final = re.compile(r"[0-9a-f]{64}")
# What a call of a day, with hundreds of versions, comes to is a hundredth of it.
_ORDER_LIMIT_BYTES: Final = 64 * 1024 * 1024

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """What stays of an order; nothing in it is about a person.

    Attributes:
        reference: The order's hash.
        asked_at: When somebody asked for it, in UTC.
        by: Who did: the name of a token, or of the command.
        done_at: When nothing was found any more.
        counts: What was removed.
    """

    reference: str
    asked_at: str
    by: str
    done_at: str
    counts: Counts


class Work:
    """An order that this process is at; nobody else is meanwhile.

    Args:
        path: Its file.
        fd: Open and locked.
        record: What it says.

    Attributes:
        progressed: Whether this process has removed anything for it.
    """

    def __init__(self, path: Path, fd: int, record: OrderRecord) -> None:
        self.progressed = False
        self._path = path
        self._fd = fd
        self.record = record

    @property
    def reference(self) -> str:
        """The order's hash."""
        return self._path.name

    def note(self, *facts: OrderFact) -> None:
        """Write facts, and have them on the disk.

        Raises:
            ErasureError: The disk refused.
        """
        if facts:
            _append(self._fd, facts, self._path)
            for fact in facts:
                self.record.apply(fact)

    def close(self) -> None:
        """Give it up; once is enough."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def refresh(self) -> None:
        """Read it again: somebody may have asked for it once more.

        Raises:
            ErasureError: The disk refused.
        """
        with guarded(self._path):
            self.record = replay(_read(self._path)) or self.record

    def verify(self, at: str) -> bool:
        """Note that nothing was found any more, unless more of it has turned up.

        Args:
            at: When, in UTC.

        Returns:
            Whether that was noted.

        Raises:
            ErasureError: The disk refused.
        """
        with guarded(self._path), _locked(self._path.parent.parent):
            if self._has_grown():
                return False
            self.note(Waits("", ()), Verified(at))
        return True

    def remove(self) -> bool:
        """Remove it, unless more of it has turned up, or was asked for.

        Returns:
            Whether it is done.

        Raises:
            ErasureError: The disk refused.
        """
        with guarded(self._path), _locked(self._path.parent.parent):
            if self._has_grown():
                return False
            self._path.unlink(missing_ok=True)
            _sync_folder(self._path.parent)
        return True

    def _has_grown(self) -> bool:
        """Read it again; tell whether somebody else has added what is to be done."""
        before = self.record
        self.refresh()
        return (self.record.ordered, self.record.leads) != (
            before.ordered,
            before.leads,
        )


class Ledger:
    """All orders and records of a spool.

    Args:
        spool: The spool's folder; nothing is made in it before somebody wants
            something erased.
    """

    def __init__(self, spool: Path) -> None:
        self._folder = spool / ERASURES
        self._orders = self._folder / _ORDERS
        self._records = self._folder / _RECORDS
        self._key: bytes | None = None
        self._seen: object = None
        self._erased: dict[str, float] = {}

    def order(self, ordered: Ordered) -> str:
        """Take an order, durably; one that is under way is only confirmed.

        Returns:
            Its reference.

        Raises:
            ErasureError: The disk refused, or there are too many.
        """
        with guarded(self._folder):
            self._make()
            with _locked(self._folder):
                return self._order(ordered)

    def pending(self) -> list[str]:
        """Return the references of all orders that are under way."""
        with guarded(self._folder):
            try:
                names = [each.name for each in self._orders.iterdir()]
            except FileNotFoundError:
                return []
            return sorted(each for each in names if _HASH.fullmatch(each))

    def stirred(self, known: dict[str, int]) -> dict[str, int]:
        """Tell which of some orders have changed since.

        Args:
            known: What this has returned for each last; 0 for the first time.

        Returns:
            A number for each that has changed.
        """
        found = {}
        for reference, before in known.items():
            with contextlib.suppress(OSError):
                now = (self._orders / reference).stat().st_mtime_ns
                if now != before:
                    found[reference] = now
        return found

    def look(self, reference: str) -> OrderRecord | None:
        """Return how far an order is; None if it is not under way."""
        if not _HASH.fullmatch(reference):
            return None
        with guarded(self._folder):
            try:
                data = _read(self._orders / reference)
            except FileNotFoundError:
                return None
            return replay(data)

    def take(self, reference: str) -> Work | None:
        """Take an order in hand; None if it is done, or somebody else has it.

        Raises:
            ErasureError: The disk refused.
        """
        path = self._orders / reference
        with guarded(path):
            try:
                fd = os.open(path, _APPEND)
            except FileNotFoundError:
                return None
            with contextlib.ExitStack() as closing:
                closing.callback(os.close, fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
                if os.fstat(fd).st_nlink == 0:
                    return None
                record = replay(_read(path))
                if record is None:
                    raise ErasureError(f"{path} is not an order of erasure")
                closing.pop_all()
                return Work(path, fd, record)

    def reopen(
        self, conversation: str, session: str, at: str, facts: list[OrderFact]
    ) -> str:
        """Have a session erased once more that has turned up again.

        Args:
            conversation: Its conversation.
            session: It.
            at: Now, in UTC.
            facts: What is known of it.

        Returns:
            Reference of the order.

        Raises:
            ErasureError: The disk refused.
        """
        with guarded(self._folder):
            self._make()
            whole = self._hash(_name(conversation, None))
            # Nobody is to call it done between the look and the note.
            with _locked(self._folder):
                under_way = self.look(whole)
                # One of which nothing was found any more would only look again in a
                # while.
                if under_way is None or under_way.verified is not None:
                    whole = self._order(
                        Ordered(conversation, session, at, by="audiohook", end=False)
                    )
                _append_to(self._orders / whole, facts)
                return whole

    def note(self, reference: str, facts: list[OrderFact]) -> None:
        """Add to what is known of an order, whoever has it in hand.

        Raises:
            ErasureError: The disk refused, or it is done.
        """
        path = self._orders / reference
        # What is removed at this moment must not take it along.
        with guarded(path), _locked(self._folder):
            _append_to(path, facts)

    def finish(self, work: Work) -> ErasureRecord:
        """Write what stays of an order; once, however often it is asked.

        Raises:
            ErasureError: The disk refused.
        """
        record = work.record
        ordered = record.ordered
        done = ErasureRecord(
            work.reference,
            ordered.at,
            ordered.by,
            record.verified or ordered.at,
            record.counts,
        )
        with guarded(self._records):
            known = [
                each
                for each in self.records()
                if (each.reference, each.asked_at, each.counts)
                == (done.reference, done.asked_at, done.counts)
            ]
            if known:
                return known[0]
            line = json.dumps(_to_json(done))
            flags = _APPEND | os.O_CREAT
            fd = os.open(self._records, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.write(fd, f"\n{line}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            _sync_folder(self._folder)
        return done

    def records(self) -> list[ErasureRecord]:
        """Return what stays of all orders that are done, the oldest first."""
        with guarded(self._records):
            try:
                data = self._records.read_bytes()
            except FileNotFoundError:
                return []
        found = []
        for line in data.split(b"\n"):
            # A line that was cut off is written again.
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                found.append(_from_json(json.loads(line)))
        return found

    def is_erased(self, conversation: str, session: str, started_at: str) -> bool:
        """Tell whether a call was to be erased, whenever it turns up again.

        Args:
            conversation: Its conversation.
            session: Its session.
            started_at: When it began.

        Raises:
            ErasureError: The disk refused.
        """
        with guarded(self._folder):
            self._refresh()
            if not self._erased:
                return False
            hashes = (
                self._hash(_name(conversation, None)),
                self._hash(_name(conversation, session)),
            )
        asked = max(self._erased.get(each, 0.0) for each in hashes)
        return asked > 0.0 and _epoch(started_at) <= asked

    def _refresh(self) -> None:
        """Read orders and records again, if any of them has changed."""
        mark = _mark(self._orders)
        pending = self.pending()
        seen = (mark, pending, _mark(self._records))
        if seen == self._seen:
            return
        erased: dict[str, float] = {}
        for each in self.records():
            erased[each.reference] = max(
                erased.get(each.reference, 0.0), _epoch(each.asked_at)
            )
        for reference in pending:
            order = self.look(reference)
            if order is not None:
                erased[reference] = max(
                    erased.get(reference, 0.0), _epoch(order.ordered.at)
                )
        self._erased, self._seen = erased, seen

    def _make(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._orders.is_dir():
            self._orders.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self._folder)
            _sync_folder(self._folder.parent)

    def _order(self, ordered: Ordered) -> str:
        """Take an order, while nobody else adds or removes any."""
        path = self._orders / self._hash(_whole(OrderRecord(ordered).wanted))
        if path.exists():
            _append_to(path, [ordered])
            # For those who know what was asked for before, see `_refresh`.
            now = time.time_ns()
            os.utime(self._orders, ns=(now, now))
        elif len(list(self._orders.iterdir())) >= MOST_ORDERS:
            raise ErasureError("too many erasures are under way", busy=True)
        else:
            self._create(path, ordered)
        return path.name

    def _create(self, path: Path, ordered: Ordered) -> None:
        """Make an order's file, whole or not at all."""
        temporary = self._folder / f".{secrets.token_hex(8)}"
        fd = os.open(temporary, _CREATE, 0o600)
        try:
            os.write(fd, encode([ordered]))
            os.fsync(fd)
            path.hardlink_to(temporary)
            _sync_folder(path.parent)
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)

    def _hash(self, text: str) -> str:
        if self._key is None:
            self._key = self._read_key()
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _read_key(self) -> bytes:
        path = self._folder / _KEY
        with contextlib.suppress(FileNotFoundError):
            return _checked(path, path.read_bytes())
        self._make()
        temporary = self._folder / f".{secrets.token_hex(8)}"
        fd = os.open(temporary, _CREATE, 0o600)
        try:
            os.write(fd, secrets.token_bytes(_KEY_BYTES))
            os.fsync(fd)
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
            _sync_folder(self._folder)
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)
        return _checked(path, path.read_bytes())


def _whole(wanted: Wanted) -> str:
    return _name(wanted.conversation, wanted.session)


def _name(conversation: str, session: str | None) -> str:
    """Write what is hashed; a session alone is never taken for a conversation."""
    return json.dumps([conversation.lower(), session])


def _checked(path: Path, key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise ErasureError(f"{path} is damaged: it is to have {_KEY_BYTES} bytes")
    return key


def _append(fd: int, facts: Iterable[OrderFact], path: Path) -> None:
    with guarded(path):
        data = encode(facts)
        while data:
            data = data[os.write(fd, data) :]
        os.fdatasync(fd)


def _append_to(path: Path, facts: Iterable[OrderFact]) -> None:
    fd = os.open(path, _APPEND)
    try:
        _append(fd, facts, path)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_ORDER_LIMIT_BYTES)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        # Of an unknown time, it counts as the oldest.
        return 0.0


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _to_json(record: ErasureRecord) -> dict[str, object]:
    return {
        "reference": record.reference,
        "askedAt": record.asked_at,
        "by": record.by,
        "doneAt": record.done_at,
        **asdict(record.counts),
    }


def _from_json(value: object) -> ErasureRecord:
    fields = Fields(value)
    counts = {name: fields.count(name) for name in Counts.__dataclass_fields__}
    return ErasureRecord(
        fields.text("reference"),
        fields.text("askedAt"),
        fields.text("by"),
        fields.text("doneAt"),
        Counts(**counts),
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let nobody else add or remove orders meanwhile."""
    fd = os.open(folder, _FOLDER)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Says of what the disk refuses that erasure cannot go on.

    Args:
        path: What is worked on.

    Raises:
        ErasureError: The disk refused.
    """
    try:
        yield
    except OSError as exc:
        raise ErasureError(f"{path}: {exc.strerror or type(exc).__name__}") from exc
