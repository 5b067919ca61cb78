"""Fits of whole batches that a CUDA device repeats by one launch: what was started for one batch is captured, replayed.

Only fits that ask the device for nothing on their way can be captured, of batches of one size: the first size that
comes twice. The first batch of a kind is fitted as elsewhere, which also loads what its operations need; so are batches
of other sizes, as at the edges of a map. The numbers are those of the operations that were captured: the batch that is
captured is fitted both ways. Where they differ, or nothing can be captured, a warning says so, and every batch goes on
operation by operation.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.device_tables import DeviceResults, copy_of

Fit = Callable[[Tensor, Tensor], DeviceResults]
"""Fit of a batch: counts (pixel, channel) float32 and measured (pixel,)."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Record what a function asks of the device, without doing it; what is returned does it, again and again."""
Kind = tuple[object, ...]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Captured:
    kind: Kind
    counts: Tensor
    measured: Tensor
    results: DeviceResults
    replay: Callable[[], None]


@dataclass(slots=True, kw_only=True)
class BatchGraph:
    """The captured fit of one solver; used by one thread."""

    capture: Capture
    """`capture_on_cuda`, or what stands for it in tests."""
    seen: set[Kind] = field(default_factory=set)
    captured: _Captured | None = None
    refused: bool = False
    """Whether what was captured did not do what it should."""

    def run(self, counts: Tensor, measured: Tensor, fit: Fit, options: Kind) -> DeviceResults:
        """The results of a batch, in memory of their own.

        Args:
            counts: (pixel, channel) raw counts on the device, any real dtype.
            measured: (pixel,) bool.
            fit: the fit, the same function of both arguments wherever the options are the same.
            options: what else it depends on.
        """
        kind: Kind = (tuple(counts.shape), *options)
        try:
            if self.captured is None and kind in self.seen and not self.refused:
                return self._capture(kind, counts, measured, fit)
            one = self.captured
            if one is None or one.kind != kind:
                self.seen.add(kind)
                return fit(counts.to(torch.float32), measured)
        except torch.OutOfMemoryError:
            # Smaller batches follow, which have use for the memory of this one.
            self.captured = None
            raise
        return _repeat(one, counts, measured)

    def _capture(self, kind: Kind, counts: Tensor, measured: Tensor, fit: Fit) -> DeviceResults:
        """Capture the fit of a batch that is fitted by its operations too, and give the results of these."""
        plain = fit(counts.to(torch.float32), measured)
        own_counts, own_measured = counts.new_empty(counts.shape, dtype=torch.float32), measured.clone()
        results: list[DeviceResults] = []
        try:
            replay = self.capture(lambda: results.append(fit(own_counts, own_measured)))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._refuse(f"a batch cannot be captured as a graph ({error})")
            return plain
        one = _Captured(kind=kind, counts=own_counts, measured=own_measured, results=results[0], replay=replay)
        if _is_same(_repeat(one, counts, measured), plain):
            self.captured = one
        else:
            self._refuse("a batch that was captured as a graph has other results than its operations")
        return plain

    def _refuse(self, why: str) -> None:
        self.refused = True
        _LOG.warning("%s: batches are started operation by operation, which takes longer", why)


def _repeat(one: _Captured, counts: Tensor, measured: Tensor) -> DeviceResults:
    one.counts.copy_(counts)
    one.measured.copy_(measured)
    one.replay()
    return copy_of(one.results)


def _is_same(one: DeviceResults, other: DeviceResults) -> bool:
    """Whether results are the same to the bit; NaN is NaN. This waits for the device, once a solver."""
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(DeviceResults)]
    return all(a is b if a is None or b is None else bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)


def capture_on_cuda(device: torch.device, run: Callable[[], None]) -> Callable[[], None]:
    """Capture a function.

    Args:
        device: the CUDA device.
        run: function of tensors there that never waits for it.
    """
    graph = torch.cuda.CUDAGraph()
    # The thread that reads pins memory and copies meanwhile, which is none of the capture.
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(device), capture_error_mode="thread_local"):
        run()
    return graph.replay
