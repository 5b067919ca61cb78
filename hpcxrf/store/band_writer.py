"""Bands into their shards, in a thread of their own: one is encoded and written while the next is read and summed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from hpcxrf.store.bands import Band
from hpcxrf.store.files import output_faults
from hpcxrf.store.filling import Work, bytes_needed, mended_record, tell_band, write_band


class BandWriter:
    """Writer of the bands of one store, in their order; a band is in the journal once it is on the disk.

    Where the block ends by an error, the band that is being written is finished and told; where it ends by an
    interruption, it is not told, and the next ingest writes it again.
    """

    def __init__(self, work: Work, told: Callable[[], None]) -> None:
        """Prepare to write.

        Args:
            work: the store.
            told: called after each band, when it is on the disk.
        """
        self._work = work
        self._told = told
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._writing: tuple[Band, Future[str]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._pool:
            if kind is None or issubclass(kind, Exception):
                self._settle()

    def write(self, band: Band) -> None:
        """Write a band; its counts must stay as they are until the next but one is given.

        Raises:
            OutputError: the folder cannot be written, where the band before was.
        """
        self._settle()
        self._writing = band, self._pool.submit(write_band, self._work, band.number, band.counts)

    def _settle(self) -> None:
        """Wait until the band that is being written is on the disk, and tell it."""
        if self._writing is None:
            return
        (band, checksum), self._writing = self._writing, None
        rows = self._work.scan.shape[1] - self._work.rows_done
        with output_faults(self._work.path.parent, bytes_needed=bytes_needed(self._work, rows=rows)):
            tell_band(self._work, band.number, checksum.result(), mended_record(band))
        self._told()
