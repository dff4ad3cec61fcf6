"""Bytes as a source of choices."""

from __future__ import annotations


class BytesReader:
    """Gives out what is in some bytes, and zeros once they are used up.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return max(0, len(self._data) - self._position)

    def byte(self) -> int:
        """Returns the next byte."""
        self._position += 1
        return (
            self._data[self._position - 1] if self._position <= len(self._data) else 0
        )

    def block(self) -> bytes:
        """Returns a few of the next bytes; two before them say how many."""
        length = self.byte() << 8 | self.byte()
        start = self._position
        self._position += length
        return self._data[start : start + length]

    def rest(self) -> bytes:
        """Returns all that is left."""
        start, self._position = self._position, len(self._data)
        return self._data[start:]
