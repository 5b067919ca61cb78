"""Fits of whole batches that a CUDA device repeats by one launch: what was started for one batch is captured, replayed.

Only fits that ask the device for nothing on their way can be captured, of batches of one size: the first size that
comes twice. The first batch of a kind is fitted as elsewhere, which also loads what its operations need; so are batches
of other sizes, as at the edges of a map. The numbers are those of the operations that were captured.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.device_tables import DeviceResults, copy_of

Fit = Callable[[Tensor, Tensor], DeviceResults]
"""Fit of a batch: counts (pixel, channel) float32 and measured (pixel,)."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Record what a function asks of the device, without doing it; what is returned does it, again and again."""
Kind = tuple[object, ...]


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
            if self.captured is None and kind in self.seen:
                self.captured = self._capture(kind, counts, measured, fit)
            one = self.captured
            if one is None or one.kind != kind:
                self.seen.add(kind)
                return fit(counts.to(torch.float32), measured)
        except torch.OutOfMemoryError:
            # Smaller batches follow, which have use for the memory of this one.
            self.captured = None
            raise
        one.counts.copy_(counts)
        one.measured.copy_(measured)
        one.replay()
        return copy_of(one.results)

    def _capture(self, kind: Kind, counts: Tensor, measured: Tensor, fit: Fit) -> _Captured:
        own_counts, own_measured = counts.new_empty(counts.shape, dtype=torch.float32), measured.clone()
        results: list[DeviceResults] = []
        replay = self.capture(lambda: results.append(fit(own_counts, own_measured)))
        return _Captured(kind=kind, counts=own_counts, measured=own_measured, results=results[0], replay=replay)


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
