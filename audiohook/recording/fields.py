"""The fields of a JSON object, each taken with the type that it must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# What survives being counted in doubles, as by whoever reads a call's JSON. As bytes
# it is more than all disks, as samples more than 35,000 years.
MAX_COUNT: Final = 2**53


class Fields:
    """One JSON object that comes from a disk or from another version of us.

    Every method raises `ValueError` for a field that is missing or wrong.

    Args:
        value: What was parsed.

    Raises:
        ValueError: It is no object.
    """

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        self._fields: Mapping[str, Any] = value

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise ValueError(f"{name} is not a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text; ``None`` if there is none."""
        return None if self._fields.get(name) is None else self.text(name)

    def count(self, name: str) -> int:
        """Return a whole number from 0 on, up to what a disk can hold."""
        value = self._fields.get(name)
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} is not a whole number")
        if value > MAX_COUNT:
            raise ValueError(f"{name} is out of all proportion")
        return value

    def optional_count(self, name: str) -> int | None:
        """Return a whole number; ``None`` if there is none."""
        return None if self._fields.get(name) is None else self.count(name)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is neither true nor false")
        return value

    def items(self, name: str) -> list[object]:
        """Return a list."""
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise ValueError(f"{name} is not a list")
        return value

    def nested(self, name: str) -> Fields:
        """Return an object."""
        return Fields(self._fields.get(name))

    def optional_object(self, name: str) -> dict[str, Any]:
        """Return an object as it is; an empty one if there is none."""
        value = self._fields.get(name)
        if not isinstance(value, dict | None):
            raise ValueError(f"{name} is not an object")
        return value or {}

    def anything(self, name: str) -> object:
        """Return whatever it is; ``None`` if there is nothing."""
        return self._fields.get(name)
