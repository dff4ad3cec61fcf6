"""Reading a page of figures as Prometheus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

parse_openmetrics: Callable[[str], Iterable[Metric]] = (
    parser.text_string_to_metric_families
)


def samples(text: str) -> dict[str, float]:
    """Returns values by ``name{label=word}``; each must be there once."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(one.labels.items()))
            name = f"{one.name}{{{labels}}}" if labels else one.name
            assert name not in found
            found[name] = one.value
    return found
