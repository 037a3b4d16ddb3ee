"""`Remembered`: what came last, bounded in number and in bytes, as how long it is was somebody else's choice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Remembered"]

K = TypeVar("K")
V = TypeVar("V")


class Remembered(OrderedDict[K, V]):
    """Put into it by `remember` and take out by `forget` only; who reads moves to the end what is to stay."""

    def __init__(self, most: int, most_bytes: int, size: Callable[[V], int]) -> None:
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes
        self._size_of = size
        self.size = 0
        """Bytes of all values, as `size` counts them."""
        self.gone = 0
        """Bytes of those that had to make room, since this was set to 0."""

    def remember(self, key: K, value: V) -> None:
        self.forget(key)
        self[key] = value
        self.size += self._size_of(value)
        while len(self) > self._most or self.size > self._most_bytes:
            _, oldest = self.popitem(last=False)
            size = self._size_of(oldest)
            self.size -= size
            self.gone += size

    def forget(self, key: K) -> None:
        """Again: nothing."""
        if key in self:
            self.size -= self._size_of(self.pop(key))
