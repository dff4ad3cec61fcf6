"""What the page knows of the service: how it does, its index and its store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.index.keeper import CallIndex
    from audiohook.storage.base import Store


class ServiceFigures(Protocol):
    """How a service does."""

    @property
    def draining(self) -> bool:
        """Whether new calls are sent away because the service stops."""

    @property
    def refusal(self) -> str | None:
        """Why no new call is welcome, for whatever reason; None if it is."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the page knows of the service.

    Attributes:
        statistics: Returns how it does.
        index: Finds recordings.
        store: Where they are.
        prefix: What their keys begin with.
        log: For what an operator must see.
    """

    statistics: Callable[[], ServiceFigures]
    index: CallIndex
    store: Store
    prefix: str
    log: FilteringBoundLogger
