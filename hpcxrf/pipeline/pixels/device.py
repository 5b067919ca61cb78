"""Tiles on their device: how many pixels at a time, what to do when its memory is full, and when it is gone.

On a CUDA device a tile is copied from pinned memory on a stream of its own while the one before is computed; results
come back through pinned memory on another one, and the thread that writes waits for them. On the CPU a tile is where it
was read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.errors import DeviceLostError, FitError
from hpcxrf.fitting.pixels.parts import Solver, move_to
from hpcxrf.fitting.result import PixelFit
from hpcxrf.methods import PixelMethodName
from hpcxrf.notes import Note
from hpcxrf.pipeline.device_memory import LEAST_BATCH, MOST_BATCH, bytes_of_a_pixel

T = TypeVar("T")
_USED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCounts:
    """A tile on its device."""

    counts: Tensor
    """(pixel, channel) of the fit range."""
    measured: Tensor
    """(pixel,) bool."""
    ready: torch.cuda.Event | None = None
    """Event recorded behind the copy; None: nothing to wait for."""


@dataclass(slots=True)
class Staging:
    """Two pinned buffers and a stream; used by one thread, at most one tile ahead of the computation."""

    device: torch.device
    buffers: list[Tensor] = field(default_factory=list)
    stream: torch.cuda.Stream | None = None
    back: torch.cuda.Stream | None = None
    """Stream of the results."""

    def put(self, counts: NDArray[Any], measured: NDArray[np.bool_]) -> TileCounts:
        """Begin to bring a tile to the device.

        Args:
            counts: (pixel, channel) of the fit range, may be a view.
            measured: (pixel,).
        """
        here, mask = torch.from_numpy(counts), torch.from_numpy(measured)
        if self.device.type != "cuda":
            return TileCounts(counts=here.to(self.device), measured=mask.to(self.device))
        if self.stream is None:
            self.stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self.stream):
            there = self._copy_to_pinned(here).to(self.device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self.stream)
            return TileCounts(counts=there, measured=mask.to(self.device), ready=event)

    def begin_return(self, fit: PixelFit) -> Callable[[], PixelFit]:
        """Begin to bring the results of a tile back; what is returned waits for them.

        Args:
            fit: results on the device.
        """
        if self.device.type != "cuda":
            here = move_to(torch.device("cpu"), fit)
            return lambda: here
        if self.back is None:
            self.back = torch.cuda.Stream(self.device)
        self.back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.back):
            pinned = replace(fit, **{name: self._copy_back(values) for name, values in tensors_of(fit).items()})
            event = torch.cuda.Event()
            event.record(self.back)

        def wait() -> PixelFit:
            with device_guard(self.device):
                event.synchronize()
            return pinned

        return wait

    def _copy_back(self, values: Tensor) -> Tensor:
        """The numbers on their way to pinned memory; what is one number everywhere is brought as one."""
        one = bool(values.numel()) and values.stride(0) == 0
        source = (values[:1] if one else values).contiguous()
        here = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        here.copy_(source, non_blocking=True)
        # Not to be given away before it is copied.
        source.record_stream(torch.cuda.current_stream(self.device))
        return here.expand(values.shape) if one else here

    def _copy_to_pinned(self, here: Tensor) -> Tensor:
        """The counts in the buffer that was used before the last one: its copy ended when its tile was fitted."""
        if len(self.buffers) < 2:
            self.buffers.append(torch.empty(here.numel(), dtype=here.dtype, pin_memory=True))
        else:
            self.buffers.reverse()
        if self.buffers[-1].numel() < here.numel() or self.buffers[-1].dtype != here.dtype:
            self.buffers[-1] = torch.empty(here.numel(), dtype=here.dtype, pin_memory=True)
        pinned = self.buffers[-1][: here.numel()].view(here.shape)
        pinned.copy_(here)
        return pinned


def tensors_of(fit: PixelFit) -> dict[str, Tensor]:
    """The tensors of a fit by name, without those that it has not."""
    named = {f.name: getattr(fit, f.name) for f in fields(fit)}
    return {name: values for name, values in named.items() if values is not None}


def wait_for(tile: TileCounts) -> None:
    """Make later computations wait for the copied tile."""
    if tile.ready is not None:
        stream = torch.cuda.current_stream(tile.counts.device)
        stream.wait_event(tile.ready)
        tile.counts.record_stream(stream)
        tile.measured.record_stream(stream)


def first_batch(device: torch.device, solver: Solver, method: PixelMethodName) -> int | None:
    """Pixels at a time that fit the free memory of a CUDA device, a power of two; None: as the CPU's caches like."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return batch_for(free, pixel_bytes(solver, method))


def pixel_bytes(solver: Solver, method: PixelMethodName) -> int:
    """Device memory of one pixel while it is fitted, about."""
    n_columns, n_channels = solver.operator.columns.shape
    return bytes_of_a_pixel(n_channels, n_columns, n_columns + solver.n_changes, method)


def batch_for(free_bytes: int, bytes_per_pixel: int) -> int:
    """Largest power of two of pixels within half of the free memory, from 256 to a map block."""
    most = int(_USED_SHARE * free_bytes) // bytes_per_pixel
    batch = 1 << max(most.bit_length() - 1, 0)
    return min(max(batch, LEAST_BATCH), MOST_BATCH)


@dataclass(slots=True)
class Batches:
    """Pixels at a time on one device: halved when its memory is full, which the record's notes say."""

    device: torch.device
    size: int | None
    notes: list[Note] = field(default_factory=list)

    def run(self, fit: Callable[[int | None], T]) -> T:
        """Fit with the present size, and with smaller ones while memory is short.

        Raises:
            FitError: the smallest batch does not fit.
            DeviceLostError: the device does not answer as it should.
        """
        while True:
            try:
                with device_guard(self.device):
                    return fit(self.size)
            except torch.OutOfMemoryError as error:
                self._halve(error)

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self.size is None or self.size <= LEAST_BATCH:
            raise FitError(
                f"{self.device}: its memory is full with {self.size or 'the least'} pixels at a time "
                f"({_first_line(error)}); end other programs on it, or set execution.device: cpu"
            ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        text = f"{self.device}: memory full with {self.size} pixels at a time, went on with {self.size // 2}"
        self.notes.append(Note("warning", text))
        self.size //= 2


@contextmanager
def device_guard(device: torch.device) -> Iterator[None]:
    """Name the device where its driver reports an error: nothing that it gives from then on can be trusted.

    Raises:
        DeviceLostError: an error of the device other than lack of memory.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLostError(
            f"{device}: the device failed while pixels were fitted ({_first_line(error)}); its results are "
            "discarded and its worker starts again; if it fails again look at the driver's log, or set "
            "execution.device: cpu"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
