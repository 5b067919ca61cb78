"""Bands into their shards, in threads of their own: two are encoded while the next is read and summed."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from hpcxrf.store.bands import Band
from hpcxrf.store.files import output_faults
from hpcxrf.store.filling import Work, bytes_needed, mended_record, tell_band, write_band
from hpcxrf.store.schema import BAND_BUFFERS

AT_ONCE: Final = BAND_BUFFERS - 1
"""Bands that are written at once."""


class BandWriter:
    """Writer of the bands of one store; they are told in their order, each once it is on the disk.

    Where the block ends by an error, the bands that are being written are finished, and told up to the first that could
    not be written; where it ends by an interruption, none is told. What was not told, the next ingest writes again.
    """

    def __init__(self, work: Work, told: Callable[[], None]) -> None:
        """Prepare to write.

        Args:
            work: the store.
            told: called after each band, when it is on the disk.
        """
        self._work = work
        self._told = told
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shard")
        self._writing = deque[tuple[Band, Future[str]]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._pool:
            while self._writing and (kind is None or issubclass(kind, Exception)):
                self._settle()

    def write(self, band: Band) -> None:
        """Write a band; its counts must stay as they are until `AT_ONCE` others are given.

        Raises:
            OutputError: the folder cannot be written, where an earlier band was.
        """
        if len(self._writing) == AT_ONCE:
            self._settle()
        self._writing.append((band, self._pool.submit(write_band, self._work, band.number, band.counts)))

    def _settle(self) -> None:
        """Wait until the first of the bands that are being written is on the disk, and tell it."""
        band, checksum = self._writing.popleft()
        rows = self._work.scan.shape[1] - self._work.rows_done
        with output_faults(self._work.path.parent, bytes_needed=bytes_needed(self._work, rows=rows)):
            tell_band(self._work, band.number, checksum.result(), mended_record(band))
        self._told()
