"""Arrays that are kept in memory, the ones used last, within a bound of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptArrays:
    """Arrays by key; threads may ask at once, and one that is being made is not made twice."""

    most_bytes: int
    """Of all of them together; a larger one is not kept."""
    _arrays: OrderedDict[Hashable, NDArray[Any]] = field(default_factory=OrderedDict)
    # One number, counted as arrays come and go: of thousands of them, adding up takes longer than making one.
    _bytes: list[int] = field(default_factory=lambda: [0])
    # What is made may ask for what it is made of.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Give the array of a key, which is made where it is not there; it is not to be written to."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
            made = make()
            self.keep(key, made)
            return made

    def find(self, key: Hashable) -> NDArray[Any] | None:
        """Give the array of a key; None where it is not there. Nobody waits for a thread that makes one."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def keep(self, key: Hashable, made: NDArray[Any]) -> None:
        """Keep an array, which is not to be written to any more."""
        made.flags.writeable = False
        with self._lock:
            if made.nbytes > self.most_bytes:
                return
            if (before := self._arrays.pop(key, None)) is not None:
                self._bytes[0] -= before.nbytes
            self._arrays[key] = made
            self._bytes[0] += made.nbytes
            while self.nbytes > self.most_bytes:
                self._bytes[0] -= self._arrays.popitem(last=False)[1].nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._bytes[0]
