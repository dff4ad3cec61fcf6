"""Results as they are asked for: those that count, the best of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.results import reasons_against

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Record

# By what the best of several records is chosen: what disturbs a measurement only
# ever makes it worse.
_COSTS = ("cores_per_1000_calls", "seconds", "rss_peak_kib")
_RATES = ("gb_per_second", "frames_per_second")


class Run:
    """What was measured.

    Args:
        kinds: What is in the files, by kind.
    """

    def __init__(self, kinds: Mapping[str, dict[str, Any]]) -> None:
        self.kinds = kinds

    def records(self, kind: str, **wanted: object) -> list[Record]:
        """Give the measurements that count, and are of what is wanted."""
        every = self.tried(kind, **wanted)
        return [record for record in every if not reasons_against(record)]

    def tried(self, kind: str, **wanted: object) -> list[Record]:
        """Give also those that do not count."""
        value = self.kinds.get(kind)
        if value is None:
            return []
        return [
            record
            for record in value["records"]
            if all(record.get(name) == each for name, each in wanted.items())
        ]

    def best(self, kind: str, **wanted: object) -> Record | None:
        """Give the least disturbed of them; None if there are none."""
        if kind == "calls":
            wanted.setdefault("tls", False)
        found = self.records(kind, **wanted)
        return min(found, key=_badness, default=None)

    def values(self, kind: str, name: str) -> list[Any]:
        """Give all values of a field, sorted."""
        return sorted({record[name] for record in self.records(kind)})


def _badness(record: Record) -> float:
    for name in _COSTS:
        if name in record:
            return float(record[name])
    for name in _RATES:
        if name in record:
            return -float(record[name])
    return 0.0


def cost(run: Run, server: str, calls: int, tls: bool = False) -> float | None:
    """Give a server's cores per 1,000 calls, at so many of them."""
    record = run.best("calls", server=server, calls=calls, tls=tls)
    return None if record is None else record.get("cores_per_1000_calls")
