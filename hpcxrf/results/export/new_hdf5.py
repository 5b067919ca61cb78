"""A new HDF5 file on a disk that may be full: the system's own error, and nothing else."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


class _PatientFile:
    """A file that takes what a full disk refuses, and keeps the error.

    HDF5 cannot close a file that it could not write: it complains of every object that is open, and crashes in the end.
    """

    def __init__(self, stream: io.FileIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        done, size = 0, len(data)
        while done < size and self.error is None:
            try:
                done += self._stream.write(data[done:])
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int) -> int:
        try:
            return self._stream.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size

    def read(self, size: int = -1) -> bytes | None:
        return self._stream.read(size)

    def readinto(self, buffer: bytearray) -> int | None:
        return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Create an HDF5 file to write while the block lasts.

    Raises:
        OSError: it cannot be written, at the latest when the block ends.
    """
    with path.open("xb+", buffering=0) as stream:
        patient = _PatientFile(stream)
        try:
            with h5py.File(patient, "w") as file:
                yield file
        except (OSError, RuntimeError, ValueError) as error:
            raise patient.error or error from error
        if patient.error is not None:
            raise patient.error
