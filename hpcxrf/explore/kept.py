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
            if made.nbytes <= self.most_bytes:
                self._arrays[key] = made
                while self.nbytes > self.most_bytes:
                    self._arrays.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(one.nbytes for one in self._arrays.values())
