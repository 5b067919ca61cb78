"""Parts that every pixel method shares: its solver, products with raw counts, variance, deviance."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Final, Protocol, TypeVar, cast

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.layout import HIGHEST_PULL, JOINED, LOWEST_PULL, SMALLEST_EXPECTATION, SMALLEST_SIGMA
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, pixel_operator
from hpcxrf.fitting.pixels.compiled import CompiledFit
from hpcxrf.fitting.pixels.compiled_classes import CompiledClasses
from hpcxrf.fitting.pixels.compiled_nonnegative import CompiledNonnegative
from hpcxrf.fitting.pixels.device_tables import DeviceTables
from hpcxrf.fitting.pixels.expected_deviance import CompiledLaw
from hpcxrf.fitting.pixels.graphs import BatchGraph
from hpcxrf.fitting.pixels.pairs import LEAST_ROWS
from hpcxrf.fitting.pixels.tabulated_deviance import TabulatedLaw
from hpcxrf.physics.shapes import INV_SQRT_2PI

T = TypeVar("T")

MICRO_BATCH: Final = 2048
"""Pixels that are fitted at a time: 2048 x 1200 channels in float32 are 10 MB. Fixed, and counted from the start of the
tile, so that a pixel meets the same neighbours, and the same rounding, however a scan is cut into tasks."""
# Rows that are converted and worked on at a time: 256 spectra of 1200 channels are 1.2 MB, what a core's cache holds.
CHUNK: Final = 256
# Of the memory of a device that is free, for what is worked on at a time; tiles and results have the rest.
_MEMORY_SHARE: Final = 0.25
# A kind of device that does not say how much is free.
_OTHER_MEMORY: Final = 4 << 30
_SQRT_HALF: Final = 0.7071067811865476


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is wanted beside the amplitudes."""

    deviance: bool
    errors: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Result of a method in a micro-batch."""

    coefficients: Tensor
    """(pixel, column) float32, components first."""
    solved: Tensor
    """(pixel,) bool: the iterations reached the optimum."""
    factors: Tensor
    """(pixel, any) float32: `factors @ columns` are the expected counts."""
    columns: Tensor
    """(any, channel) float32."""
    variance: Tensor | None = None
    """(pixel, component) float32; None: that of the shared weights."""
    null_variance: Tensor | None = None
    """(pixel, component) float32, in the absence of the component."""
    shift: Tensor | None = None
    """(pixel, parameter) float32: theta's shift from the basis."""
    shift_sigma: Tensor | None = None
    """(pixel, parameter) float32."""
    in_range: Tensor | None = None
    """(pixel,) bool: the shift is one that the method can follow."""
    theta_kept: Tensor | None = None
    """(pixel,) bool: the counts do not tell the pixel's theta, and it has that of the basis."""
    signed: Tensor | None = None
    """(pixel, column) float32: unbiased coefficients, where `coefficients` are held at 0 or above."""
    misfit: Tensor | None = None
    """(pixel,) float32: Poisson deviance, where the model is not `factors @ columns`."""


class Estimator(Protocol):
    """A method, prepared: a function of a micro-batch of counts."""

    def __call__(self, counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        """Fit a micro-batch.

        Args:
            counts: (pixel, channel) finite, any real dtype.
            signed: (pixel, column) float32: the unconstrained coefficients, `counts @ projector`.
            deviance: whether the misfit is wanted.
            errors: whether the variance is wanted.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A pixel method prepared for the pixels of one detector on one device, as `prepare` of its file makes it."""

    operator: PixelOperator
    """Products of the basis, on the device of the counts."""
    estimate: Estimator
    batch: int = MICRO_BATCH
    """Pixels that a core fits at a time."""
    n_changes: int = 0
    """Number of changes of columns with theta that are held beside the columns."""
    direct: bool = False
    """Whether the estimate is one of products: what is not finite stays in its pixel, and a device is asked nothing."""
    law: CompiledLaw | TabulatedLaw | None = None
    """What the deviance is expected to be; None: not known, as the background is not in the model."""
    tables: DeviceTables | None = None
    """What results on a device are made of; None: on a processor."""
    graph: BatchGraph | None = None
    """Batches that are repeated by one launch; None: each operation is started by itself."""
    compiled: CompiledFit | CompiledClasses | None = None
    """The fit for a processor, instead of `estimate` where that is `direct` or there is `nonnegative`, else its start;
    None: there is none."""
    nonnegative: CompiledNonnegative | None = None
    """What holds its coefficients at 0 or above; None: they are signed."""


def prepare_operator(basis: PixelBasis, device: torch.device) -> PixelOperator:
    """Products of the basis on a device; channels are added by twos where that loses next to nothing.

    Args:
        basis: the linear model of a pixel.
        device: device of the counts.

    Raises:
        FitError: columns with indistinguishable spectra.
    """
    return move_to(device, pixel_operator(basis, first_channel=basis.first_channel))


def move_to(device: torch.device, data: T) -> T:
    """The same operator, model or nested dataclass with its tensors on a device."""
    return cast("T", _move(device, data))


def _move(device: torch.device, data: object) -> object:
    if isinstance(data, Tensor):
        return data.to(device)
    if isinstance(data, tuple):
        return tuple(_move(device, part) for part in data)
    if is_dataclass(data) and not isinstance(data, type):
        named = {f.name: _move(device, getattr(data, f.name)) for f in fields(data)}
        return replace(data, **named)
    return data


def rows_at_a_time(device: torch.device, bytes_per_row: int, on_processor: int) -> int:
    """Rows that are worked on at a time: on a processor what its cache holds, elsewhere what the memory holds.

    Args:
        device: device of the counts.
        bytes_per_row: memory of a row while it is worked on, about.
        on_processor: rows on a processor; fixed, as a pixel's rounding must not depend on where a tile ends.
    """
    if device.type == "cpu":
        return on_processor
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _OTHER_MEMORY
    return max(int(_MEMORY_SHARE * free) // bytes_per_row, on_processor)


def rows(counts: Tensor, start: int, size: int = CHUNK) -> Tensor:
    """Some rows of the counts in float32; a view where they are already."""
    return counts[start : start + size].to(torch.float32)


def project(counts: Tensor, matrix: Tensor) -> Tensor:
    """`counts @ matrix` (pixel, column) in float32, the counts converted a few rows at a time.

    Every row is the same to the bit wherever it stands.

    Args:
        counts: (pixel, channel), any real dtype.
        matrix: (channel, column) float32.
    """
    if counts.device.type != "cpu":
        return counts.to(torch.float32) @ matrix
    transposed = matrix.T.contiguous()
    out = matrix.new_empty((matrix.shape[1], counts.shape[0]))
    for i in range(0, counts.shape[0], CHUNK):
        part = rows(counts, i)
        n = part.shape[0]
        if n < LEAST_ROWS:
            part = torch.cat([part, part[:1].expand(LEAST_ROWS - n, -1)])
            out[:, i:] = torch.mm(transposed, part.T)[:, :n]
        else:
            torch.mm(transposed, part.T, out=out[:, i : i + CHUNK])
    return out.T


def times(values: Tensor, matrix: Tensor) -> Tensor:
    """`values @ matrix`, every row the same to the bit wherever it stands: not so for narrow matrices by themselves."""
    return (values @ whole_vectors(matrix))[:, : matrix.shape[1]]


def whole_vectors(matrix: Tensor) -> Tensor:
    """The matrix with columns of zeros, to a multiple of 8."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % 8))


def shared_variance(coefficients: Tensor, operator: PixelOperator) -> tuple[Tensor, Tensor]:
    """Variance (pixel, component) of the amplitudes, and the same in the absence of the component itself.

    It is linear in the expected coefficients, which the estimates are not: signed, chance would cancel the variance;
    cut at 0, a component that came out low by chance would claim to know it well. So the expectation given the
    estimate is taken, of a normal law cut at 0: a + s phi(a/s) / Phi(a/s).
    """
    n = operator.n_components
    expected = expected_coefficients(coefficients, operator)
    variance = torch.maximum(times(expected, operator.variance), operator.variance_floor)
    own = expected[:, :n] * operator.variance[:n].diagonal()
    return variance, torch.maximum(variance - own, operator.variance_floor)


def expected_coefficients(coefficients: Tensor, operator: PixelOperator) -> Tensor:
    """Expectation (pixel, column) of the true coefficients, none of them negative, given the estimates."""
    n = operator.n_components
    positive = coefficients.clamp(min=0.0)
    first = torch.maximum(times(positive, operator.variance), operator.variance_floor)
    sigma = first.sqrt_().clamp_(min=SMALLEST_SIGMA)
    # Clamped: an exponential or error function that underflows is 20 times slower.
    x = (coefficients[:, :n] / sigma).clamp_(min=LOWEST_PULL)
    near = x.clamp(max=HIGHEST_PULL)
    below = torch.erfc(near * -_SQRT_HALF)
    hazard = near.square_().mul_(-0.5).exp_().div_(below).mul_(2.0 * INV_SQRT_2PI)
    positive[:, :n] = x.add_(hazard).mul_(sigma)
    return positive


def spectrum_deviance(counts: Tensor, factors: Tensor, columns: Tensor) -> Tensor:
    """Poisson deviance (pixel,) of `factors @ columns`, as `objective.poisson_deviance`, some rows at a time.

    Args:
        counts: (pixel, channel), any real dtype.
        factors: (pixel, any) float32.
        columns: (any, channel) float32.
    """
    out = factors.new_empty(counts.shape[0])
    size = CHUNK // 2 if counts.device.type == "cpu" else max(counts.shape[0], 1)
    for i in range(0, counts.shape[0], size):
        y = rows(counts, i, size)
        model = (factors[i : i + size] @ columns).clamp_(min=SMALLEST_EXPECTATION)
        predicted = model.sum(dim=1)
        ratio = torch.div(y, model, out=model).clamp_(min=torch.finfo(torch.float32).tiny)
        logarithm = ratio.log_().mul_(y).sum(dim=1)
        out[i : i + size] = 2.0 * (predicted - y.sum(dim=1) + logarithm)
    return out


def join_channels(values: Tensor) -> Tensor:
    """(any, channel) -> (any, joined channel): sums over `JOINED` neighbours, the last one over fewer."""
    missing = -values.shape[1] % JOINED
    padded = torch.nn.functional.pad(values, (0, missing)) if missing else values
    return padded.reshape(values.shape[0], -1, JOINED).sum(dim=2)
