"""Every pixel of a tile, by one of several methods of one signature.

Shared weights `1 / (mu + 1 %)`, mu the integrated fit's model per pixel, are unbiased and as precise as the
pixel's own true weights where the composition is similar; weights from the pixel's own noisy counts would pull
amplitudes down by up to 30 %.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from queue import SimpleQueue
from typing import Any, Final, Literal, TypeVar, cast

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import (
    PixelBasis,
    PixelOperator,
    TangentOperator,
    group_background,
    pixel_basis,
    pixel_operator,
    shared_weights,
)
from hpcxrf.fitting.pixels.follow import Expansions, follow
from hpcxrf.fitting.pixels.full import FullModel, fit_full
from hpcxrf.fitting.pixels.nnls import fit_nnls, shared_factor
from hpcxrf.fitting.pixels.pairs import HIGHEST_COUNT, with_totals
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance, spectrum_deviance
from hpcxrf.fitting.pixels.poisson import fit_poisson, likelihood
from hpcxrf.fitting.pixels.product import paired_product
from hpcxrf.fitting.pixels.snip import fit_clipped
from hpcxrf.fitting.pixels.tangent import fit_tangent, tangent_operator
from hpcxrf.fitting.pixels.weight_classes import PhaseOperator, fit_phases, phase_operator
from hpcxrf.fitting.result import FitStatus, PixelFit
from hpcxrf.fitting.uncertainty import detection_limit

__all__ = [
    "LINEAR_BATCH",
    "MICRO_BATCH",
    "MethodData",
    "PixelBasis",
    "PixelMethod",
    "PixelOperator",
    "fit_pixels",
    "group_background",
    "moved_to",
    "pixel_basis",
    "pixel_operator",
    "prepared",
    "shared_weights",
    "single_thread",
]

T = TypeVar("T")
PixelMethod = Literal["linear", "nnls", "poisson", "nonlinear", "full"]
Solver = Callable[[Tensor, Tensor], Estimate]
Product = Callable[[Tensor], Tensor]

# Pixels per product: 2048 x 1200 channels in float32 are 10 MB. Fixed, and counted from the start of the
# tile, so that a pixel meets the same neighbours, and the same rounding, however a scan is cut into tasks.
MICRO_BATCH: Final = 2048
# A product and little else: what surrounds it is shared by more pixels.
LINEAR_BATCH: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodData:
    """What a method needs beside the operator, computed once for all pixels; None: not needed."""

    phases: PhaseOperator | None = None
    """`linear`: weights by phase; None: those of the operator, if any."""
    tangent: TangentOperator | None = None
    """`nonlinear`; None: that of the operator."""
    expansions: Expansions | None = None
    """`nonlinear`: further points about which the pixels are expanded that leave the range; None: they are flagged."""
    full: FullModel | None = None
    """`full`."""
    clipping: Tensor | None = None
    """`linear` and `nnls`, for comparison: half-width (channel,) of a peak clipping of every pixel, in channels; None:
    the background is in the fit."""


def prepared(
    basis: PixelBasis, device: torch.device, names: Sequence[str] = (), *, first_channel: int | None = None
) -> PixelOperator:
    """What is computed once for all pixels, with tangents and phases where the basis has them, on a device.

    Args:
        basis: the linear model of a pixel.
        device: of the counts.
        names: of the components, for messages.
        first_channel: of the basis; given, channels are added by twos where that loses next to nothing.

    Raises:
        FitError: columns that cannot be told apart.
    """
    operator = pixel_operator(basis, names=names, first_channel=first_channel)
    if basis.tangents is not None:
        operator = replace(operator, tangent=tangent_operator(basis, basis.tangents))
    if basis.phases is not None:
        operator = replace(operator, phases=phase_operator(basis.phases, basis))
    return moved_to(device, operator)


def moved_to(device: torch.device, data: T) -> T:
    """The same operator, model or nested dataclass with its tensors on a device."""
    return cast("T", _moved(device, data))


def _moved(device: torch.device, data: object) -> object:
    if isinstance(data, Tensor):
        return data.to(device)
    if isinstance(data, tuple):
        return tuple(_moved(device, part) for part in data)
    if is_dataclass(data) and not isinstance(data, type):
        named = {f.name: _moved(device, getattr(data, f.name)) for f in fields(data)}
        return replace(data, **named)
    return data


def single_thread() -> None:
    """Set this thread to compute alone, with denormal numbers flushed to 0 (they are 20 times slower)."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def fit_pixels(
    counts: Tensor,
    measured: Tensor,
    operator: PixelOperator,
    *,
    method: PixelMethod = "linear",
    data: MethodData | None = None,
    deviance: bool = True,
    errors: bool = True,
    highest: float | None = None,
    batch: int | None = None,
    threads: int = 1,
) -> PixelFit:
    """Fit the pixels of one tile, in micro-batches counted from its first pixel.

    Args:
        counts: (pixel, channel) raw counts of the fit range, any real dtype.
        measured: (pixel,) bool.
        operator: of `pixel_operator`, on the device of the counts.
        method: `linear`: signed, unbiased; `nnls`: the same with nothing below 0; `poisson`: maximum likelihood,
            nothing below 0; `nonlinear`: theta of every pixel free near that of the basis; `full`: theta free with
            the true model, for regions.
        data: what `nonlinear` and `full` need, and `linear` with weights by phase.
        deviance: whether to compute the deviance, which costs a product and a logarithm of the size of the spectra.
        errors: False leaves sigma and detection limits NaN.
        highest: no count is above, as the store knows; None: it is looked for, which costs a pass over the counts.
        batch: pixels at a time on a device with memory of its own; None: as a core's cache likes.
        threads: micro-batches at a time, each on one torch thread: a product split over threads could round
            otherwise than a whole one, a micro-batch never does.

    Raises:
        FitError: the method needs data that are not given.
    """
    paired = _may_be_added(counts, operator, highest)
    # One of them for every thread: each has room for its sums.
    products: SimpleQueue[Product] = SimpleQueue()
    for _ in range(threads):
        products.put(_product(operator, paired=paired))
    solver = _solver(operator, method, data or MethodData(), deviance=deviance, errors=errors)

    def fit_from(i: int) -> PixelFit:
        part = counts[i : i + size]
        if part.device.type != "cpu":
            # Once: there, what is read again is converted again, and few operations know uint16.
            part = part.to(torch.float32)
        product = products.get()
        try:
            projected = product(part)
        finally:
            products.put(product)
        return _fit_batch(part, projected, measured[i : i + size], operator, solver, deviance=deviance, errors=errors)

    size = batch or (LINEAR_BATCH if method == "linear" else MICRO_BATCH)
    starts = range(0, max(counts.shape[0], 1), size)
    if threads == 1 or len(starts) == 1:
        batches = [fit_from(i) for i in starts]
    else:
        with ThreadPoolExecutor(threads, initializer=single_thread) as pool:
            batches = list(pool.map(fit_from, starts))
    return _joined(batches)


def _may_be_added(counts: Tensor, operator: PixelOperator, highest: float | None) -> bool:
    """Whether neighbouring channels may be added as `pixel_pairs` does it."""
    if operator.banded is None or counts.dtype != torch.uint16 or counts.device.type != "cpu":
        return False
    known = float(counts.numpy().max(initial=0)) if highest is None else highest
    return known <= HIGHEST_COUNT


def _product(operator: PixelOperator, *, paired: bool) -> Product:
    """`counts @ projector`, and the total counts, as a function of the counts."""
    if paired and operator.banded is not None:
        return paired_product(operator.banded, operator.grouping).of
    projector = with_totals(operator.projector, operator.grouping)
    return lambda counts: project(counts, projector)


def _joined(batches: list[PixelFit]) -> PixelFit:
    named: dict[str, Any] = {}
    for name in (f.name for f in fields(PixelFit)):
        parts = [getattr(batch, name) for batch in batches]
        named[name] = None if parts[0] is None else _one_after_another(parts)
    return PixelFit(**named)


def _one_after_another(parts: list[Tensor]) -> Tensor:
    """The parts as one tensor; what is the same number everywhere is kept once."""
    if any(part.numel() and any(part.stride()) for part in parts):
        return torch.cat(parts)
    return parts[0][:1].expand(sum(len(part) for part in parts), *parts[0].shape[1:])


def _solver(operator: PixelOperator, method: PixelMethod, data: MethodData, *, deviance: bool, errors: bool) -> Solver:
    solve = _method(operator, method, data, deviance=deviance, errors=errors)
    width = data.clipping
    if width is None:
        return solve
    if method not in {"linear", "nnls"}:
        raise FitError(f"pixel method {method!r} has its background in the fit; give linear or nnls")
    return lambda counts, _: fit_clipped(counts, solve, operator, width, deviance=deviance)


def _method(operator: PixelOperator, method: PixelMethod, data: MethodData, *, deviance: bool, errors: bool) -> Solver:
    """The method as a function of counts (pixel, channel) and unconstrained coefficients (pixel, column)."""
    if method == "nnls":
        factor = shared_factor(operator)
        return lambda counts, signed: fit_nnls(counts, signed, operator, factor)
    if method == "poisson":
        model = likelihood(operator)
        return lambda counts, signed: fit_poisson(counts, signed, operator, model, errors=errors)
    if method == "nonlinear":
        tangent = _given(data.tangent or operator.tangent, method, "pixel_tangent.tangent_operator")
        return _tangent_solver(operator, tangent, data.expansions, deviance=deviance, errors=errors)
    if method == "full":
        full = _given(data.full, method, "pixel_full.full_model")
        return lambda counts, signed: fit_full(counts, full)
    phases = data.phases or operator.phases
    if phases is not None:
        return lambda counts, signed: fit_phases(counts, phases, errors=errors)
    return lambda counts, signed: _as_it_is(signed, operator)


def _tangent_solver(
    operator: PixelOperator, tangent: TangentOperator, expansions: Expansions | None, *, deviance: bool, errors: bool
) -> Solver:
    def solve(counts: Tensor, signed: Tensor) -> Estimate:
        found = fit_tangent(counts, signed, operator, tangent, errors=errors)
        if expansions is None:
            return found
        return follow(counts, found, expansions, deviance=deviance, errors=errors)

    return solve


def _given(data: T | None, method: str, source: str) -> T:
    if data is None:
        raise FitError(f"pixel method {method!r} needs its data: give those of {source}")
    return data


def _as_it_is(signed: Tensor, operator: PixelOperator) -> Estimate:
    solved = torch.ones(signed.shape[0], dtype=torch.bool, device=signed.device)
    return Estimate(coefficients=signed, solved=solved, factors=signed, columns=operator.columns)


def _fit_batch(
    counts: Tensor,
    projected: Tensor,
    measured: Tensor,
    operator: PixelOperator,
    solver: Solver,
    *,
    deviance: bool,
    errors: bool,
) -> PixelFit:
    n_columns = operator.projector.shape[1]
    signed, total = projected[:, :n_columns], projected[:, n_columns]
    finite = torch.isfinite(total)
    if not bool(finite.all()):
        counts = torch.where(finite[:, None], counts, 0.0)
        signed = torch.where(finite[:, None], signed, 0.0)
    found = solver(counts, signed)
    valid = finite & measured
    merit = _merit(counts, found, n_columns, wanted=deviance)
    sigma, limit = _sigma_and_limit(found, operator, wanted=errors)
    kept = _kept(valid, operator.measured)
    return PixelFit(
        amplitude=_blank_unless(kept, found.coefficients[:, : operator.n_components]),
        sigma=_blank_unless(kept, sigma),
        detection_limit=_blank_unless(kept, limit),
        deviance=merit if kept is None or not deviance else merit.masked_fill(~valid, torch.nan),
        status=_status(total, finite, measured, found),
        theta_shift=_valid_only(found.shift, valid),
        theta_shift_sigma=_valid_only(found.shift_sigma, valid),
    )


def _valid_only(values: Tensor | None, valid: Tensor) -> Tensor | None:
    return None if values is None else values.masked_fill(~valid[:, None], torch.nan)


def _kept(valid: Tensor, measured: Tensor) -> Tensor | None:
    """(pixel, component): which results stand; None: all."""
    return None if bool(valid.all() & measured.all()) else valid[:, None] & measured


def _blank_unless(kept: Tensor | None, values: Tensor) -> Tensor:
    return values if kept is None else values.masked_fill(~kept, torch.nan)


def _merit(counts: Tensor, found: Estimate, n_columns: int, *, wanted: bool) -> Tensor:
    """Deviance (pixel,) per degree of freedom; NaN where it is not wanted."""
    if not wanted:
        return found.coefficients.new_full((1,), torch.nan).expand(counts.shape[0])
    free = n_columns + (0 if found.shift is None else found.shift.shape[1])
    misfit = found.misfit
    if misfit is None:
        misfit = spectrum_deviance(counts, found.factors, found.columns)
    return misfit / (counts.shape[1] - free)


def _sigma_and_limit(found: Estimate, operator: PixelOperator, *, wanted: bool) -> tuple[Tensor, Tensor]:
    if not wanted:
        shape = (found.coefficients.shape[0], operator.n_components)
        nothing = found.coefficients.new_full((1, 1), torch.nan).expand(shape)
        return nothing, nothing
    variance, null = found.variance, found.null_variance
    if variance is None or null is None:
        variance, null = shared_variance(found.coefficients, operator)
    return variance.sqrt(), detection_limit(null.sqrt())


def _status(total: Tensor, finite: Tensor, measured: Tensor, found: Estimate) -> Tensor:
    status = torch.full(total.shape, int(FitStatus.CONVERGED), dtype=torch.uint8, device=total.device)
    status[~found.solved] = int(FitStatus.MAX_ITERATIONS)
    if found.in_range is not None:
        status[~found.in_range] = int(FitStatus.BEYOND_TANGENT)
    # One that is not finite leaves no sum finite, and sums of counts do not overflow.
    solution = torch.isfinite(found.coefficients.sum(dim=1))
    status[~solution] = int(FitStatus.SINGULAR)
    status[(total <= 0) | ~measured] = int(FitStatus.EMPTY)
    status[~finite] = int(FitStatus.NONFINITE)
    return status
