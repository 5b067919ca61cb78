"""Every pixel of a tile, by any of the methods of the table `hpcxrf.methods`, which have one signature.

A method is the function `prepare(basis, model, device)` of the module named after it in this package; the function
`load_kernels()` beside it loads what that takes on a processor.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import Any, Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.limits import detection_limit
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator
from hpcxrf.fitting.pixels.compiled import CompiledFit, FittedPixels, fit_compiled
from hpcxrf.fitting.pixels.compiled_classes import CompiledClasses, fit_classes
from hpcxrf.fitting.pixels.compiled_nonnegative import hold_at_zero
from hpcxrf.fitting.pixels.device_tables import device_tables
from hpcxrf.fitting.pixels.expected_deviance import (
    CompiledLaw,
    compile_law,
    load_deviance_kernel,
    sample_basis,
    standardise,
)
from hpcxrf.fitting.pixels.graphs import BatchGraph, capture_on_cuda
from hpcxrf.fitting.pixels.model import PixelModel
from hpcxrf.fitting.pixels.on_device import fit_on_device
from hpcxrf.fitting.pixels.pairs import HIGHEST_COUNT, with_totals
from hpcxrf.fitting.pixels.parts import Estimate, Outputs, Solver, move_to, project, shared_variance, spectrum_deviance
from hpcxrf.fitting.pixels.product import paired_product
from hpcxrf.fitting.pixels.snip import clip_first, clipping_width
from hpcxrf.fitting.pixels.tabulated_deviance import tabulate
from hpcxrf.fitting.result import FitStatus, PixelFit
from hpcxrf.methods import METHODS, PixelMethodName, methods_that

Prepare = Callable[[PixelBasis, PixelModel | None, torch.device], Solver]
Product = Callable[[Tensor], Tensor]
BatchFit = Callable[[Tensor, Tensor], PixelFit]
"""Fit of a micro-batch: counts (pixel, channel) and measured (pixel,)."""
CPU: Final = torch.device("cpu")


def prepare_solver(
    method: PixelMethodName,
    basis: PixelBasis,
    model: PixelModel | None = None,
    device: torch.device = CPU,
    *,
    clipped: bool = False,
) -> Solver:
    """Prepare a method for the pixels of one detector; everything here is computed once for all of them.

    Args:
        method: name of a row of `hpcxrf.methods.METHODS`.
        basis: the linear model of a pixel; without background columns where `clipped`.
        model: the true model of the pixels; needed by the methods with a theta of their own, and where `clipped`.
        device: device of the counts.
        clipped: whether the background is clipped from every pixel by itself, for comparison with other programs.

    Raises:
        FitError: columns with indistinguishable spectra, a missing model, or a method that does not allow clipping.
    """
    if clipped and not METHODS[method].snip:
        raise FitError(
            f"background 'snip' is not available with pixel method {method!r}, whose background is in the fit; use "
            f"{methods_that('snip')}"
        )
    prepare: Prepare = import_module(f"{__package__}.{method}").prepare
    solver = prepare(basis, model, device)
    if clipped:
        if model is None:
            raise FitError(
                "background 'snip' needs the model of the pixels for the width of the peaks; give a PixelModel"
            )
        solver = clip_first(solver, clipping_width(model, device))
    law = None if clipped else sample_basis(basis)
    if device.type == "cpu":
        return solver if law is None else replace(solver, law=compile_law(law))
    return replace(
        solver,
        law=None if law is None else move_to(device, tabulate(law)),
        tables=device_tables(solver.operator),
        graph=BatchGraph(capture=partial(capture_on_cuda, device)) if solver.direct and device.type == "cuda" else None,
    )


def name_kernels(method: PixelMethodName) -> tuple[str, ...]:
    """Name the modules of kernels that `load_method` loads."""
    own: tuple[str, ...] = import_module(f"{__package__}.{method}").KERNELS
    return *own, "deviance"


def load_method(method: PixelMethodName) -> None:
    """Load the kernels of a method's pixels on a processor; the first call on a machine compiles them."""
    import_module(f"{__package__}.{method}").load_kernels()
    load_deviance_kernel()


def single_thread() -> None:
    """Set this thread to compute alone, with denormal numbers flushed to 0 (they are 20 times slower)."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def fit_pixels(
    counts: Tensor,
    measured: Tensor,
    solver: Solver,
    *,
    deviance: bool = True,
    errors: bool = True,
    highest: float | None = None,
    batch: int | None = None,
    threads: int = 1,
) -> PixelFit:
    """Fit the pixels of one tile, in micro-batches counted from its first pixel.

    On a processor by the compiled kernel of the solver, where it has one, else by tensor operations.

    Args:
        counts: (pixel, channel) raw counts of the fit range, any real dtype.
        measured: (pixel,) bool.
        solver: a method of `prepare_solver`, on the device of the counts.
        deviance: whether to compute the deviance, which costs a product and a logarithm of the size of the spectra.
        errors: False leaves sigma and detection limits NaN.
        highest: number that no count exceeds, as the store knows it; None: it is looked for, which costs a pass over
            the counts.
        batch: pixels at a time on a device with memory of its own; None: as a core's cache likes.
        threads: micro-batches at a time, each on one torch thread: a product split over threads could round
            otherwise than a whole one, a micro-batch never does.
    """
    outputs = Outputs(deviance=deviance, errors=errors)
    compiled = solver.compiled if counts.device.type == "cpu" else None
    fit_batch: BatchFit
    if counts.device.type != "cpu":
        fit_batch = partial(fit_on_device, solver=solver, outputs=outputs)
    elif isinstance(compiled, CompiledClasses):
        fit_batch = _class_fit(compiled, solver, outputs)
    elif compiled is not None:
        whole = solver.direct or solver.nonnegative is not None
        fit_batch = (_kernel_fit if whole else _kernel_start)(compiled, solver, outputs)
    else:
        fit_batch = _tensor_fit(solver, outputs, threads, paired=_can_add_channels(counts, solver.operator, highest))

    def fit_from(i: int) -> PixelFit:
        return fit_batch(counts[i : i + size], measured[i : i + size])

    size = batch or solver.batch
    starts = range(0, max(counts.shape[0], 1), size)
    if threads == 1 or len(starts) == 1:
        batches = [fit_from(i) for i in starts]
    else:
        with ThreadPoolExecutor(threads, initializer=single_thread) as pool:
            batches = list(pool.map(fit_from, starts))
    return _join(batches)


def _kernel_fit(compiled: CompiledFit, solver: Solver, outputs: Outputs) -> BatchFit:
    """A batch by the compiled kernel of the solver."""
    yes = torch.ones((), dtype=torch.bool)

    def fit(counts: Tensor, measured: Tensor) -> PixelFit:
        solved, signed, held = yes.expand(len(measured)), None, None
        if solver.nonnegative is not None:
            signed = fit_compiled(counts, compiled, deviance=False, errors=False).coefficients
            held, solved = hold_at_zero(signed, solver.nonnegative)
        seen = fit_compiled(counts, compiled, deviance=outputs.deviance, errors=outputs.errors, coefficients=held)
        found = replace(_estimate_seen(seen, solver, solved), signed=signed)
        return _pixel_fit(counts, seen.total, found, measured, solver, outputs)

    return fit


def _class_fit(classes: CompiledClasses, solver: Solver, outputs: Outputs) -> BatchFit:
    """A batch by compiled kernels with weights by class."""
    yes = torch.ones((), dtype=torch.bool)

    def fit(counts: Tensor, measured: Tensor) -> PixelFit:
        seen = fit_classes(counts, classes, deviance=outputs.deviance, errors=outputs.errors)
        found = _estimate_seen(seen, solver, yes.expand(len(measured)))
        return _pixel_fit(counts, seen.total, found, measured, solver, outputs)

    return fit


def _estimate_seen(seen: FittedPixels, solver: Solver, solved: Tensor) -> Estimate:
    return Estimate(
        coefficients=seen.coefficients,
        solved=solved,
        factors=seen.coefficients,
        columns=solver.operator.columns,
        variance=seen.variance,
        null_variance=seen.null_variance,
        misfit=seen.misfit,
    )


def _kernel_start(compiled: CompiledFit, solver: Solver, outputs: Outputs) -> BatchFit:
    """A batch that begins with the least squares of the kernel."""

    def fit(counts: Tensor, measured: Tensor) -> PixelFit:
        first = fit_compiled(counts, compiled, deviance=False, errors=False)
        counts = _clear_broken(counts, torch.isfinite(first.total))
        found = solver.estimate(counts, first.coefficients, deviance=outputs.deviance, errors=outputs.errors)
        return _pixel_fit(counts, first.total, found, measured, solver, outputs)

    return fit


def _clear_broken(counts: Tensor, finite: Tensor) -> Tensor:
    """The counts, with zeros for pixels that are not finite."""
    return counts if bool(finite.all()) else torch.where(finite[:, None], counts, 0.0)


def _tensor_fit(solver: Solver, outputs: Outputs, threads: int, *, paired: bool) -> BatchFit:
    """A batch by tensor operations on a processor."""
    # One of them for every thread: each has room for its sums.
    products: SimpleQueue[Product] = SimpleQueue()
    for _ in range(threads):
        products.put(_product(solver.operator, paired=paired))
    n_columns = solver.operator.projector.shape[1]

    def fit(counts: Tensor, measured: Tensor) -> PixelFit:
        product = products.get()
        try:
            projected = product(counts)
        finally:
            products.put(product)
        signed, total = projected[:, :n_columns], projected[:, n_columns]
        finite = torch.isfinite(total)
        if not bool(finite.all()):
            counts, signed = _clear_broken(counts, finite), torch.where(finite[:, None], signed, 0.0)
        found = solver.estimate(counts, signed, deviance=outputs.deviance, errors=outputs.errors)
        return _pixel_fit(counts, total, found, measured, solver, outputs)

    return fit


def _can_add_channels(counts: Tensor, operator: PixelOperator, highest: float | None) -> bool:
    """Return whether neighbouring channels may be added as `pairs` does it."""
    if operator.banded is None or counts.dtype != torch.uint16:
        return False
    known = float(counts.numpy().max(initial=0)) if highest is None else highest
    return known <= HIGHEST_COUNT


def _product(operator: PixelOperator, *, paired: bool) -> Product:
    """`counts @ projector`, and the total counts, as a function of the counts."""
    if paired and operator.banded is not None:
        return paired_product(operator.banded, operator.grouping).of
    projector = with_totals(operator.projector, operator.grouping)
    return lambda counts: project(counts, projector)


def _join(batches: list[PixelFit]) -> PixelFit:
    named: dict[str, Any] = {}
    for name in (f.name for f in fields(PixelFit)):
        parts = [getattr(batch, name) for batch in batches]
        named[name] = None if parts[0] is None else _concatenate(parts)
    return PixelFit(**named)


def _concatenate(parts: list[Tensor]) -> Tensor:
    """The parts as one tensor; what is the same number everywhere is kept once."""
    if len(parts) == 1:
        return parts[0]
    if any(part.numel() and part.stride(0) for part in parts):
        return torch.cat(parts)
    return parts[0][:1].expand(sum(len(part) for part in parts), *parts[0].shape[1:])


def _pixel_fit(
    counts: Tensor, total: Tensor, found: Estimate, measured: Tensor, solver: Solver, outputs: Outputs
) -> PixelFit:
    """What is kept of an estimate; `total` (pixel,) is not finite where a count is not."""
    operator = solver.operator
    finite = torch.isfinite(total)
    valid = finite & measured
    merit, excess = _merit(counts, found, solver, wanted=outputs.deviance)
    sigma, limit = _sigma_and_limit(found, operator, wanted=outputs.errors)
    kept = _standing_results(valid, operator.measured)
    return PixelFit(
        amplitude=_blank_unless(kept, found.coefficients[:, : operator.n_components]),
        sigma=_blank_unless(kept, sigma),
        detection_limit=_blank_unless(kept, limit),
        photon_variance=operator.photon_variance.expand(len(limit), -1),
        deviance=merit if kept is None or not outputs.deviance else merit.masked_fill(~valid, torch.nan),
        deviance_z=None if excess is None else excess.masked_fill(~valid, torch.nan),
        status=_status(total, finite, measured, found),
        theta_shift=_blank_invalid(found.shift, valid),
        theta_shift_sigma=_blank_invalid(found.shift_sigma, valid),
    )


def _blank_invalid(values: Tensor | None, valid: Tensor) -> Tensor | None:
    return None if values is None else values.masked_fill(~valid[:, None], torch.nan)


def _standing_results(valid: Tensor, measured: Tensor) -> Tensor | None:
    """(pixel, component): which results stand; None: all."""
    return None if bool(valid.all() & measured.all()) else valid[:, None] & measured


def _blank_unless(kept: Tensor | None, values: Tensor) -> Tensor:
    return values if kept is None else values.masked_fill(~kept, torch.nan)


def _merit(counts: Tensor, found: Estimate, solver: Solver, *, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Deviance (pixel,) per degree of freedom, NaN where it is not wanted, and beside what noise alone gives."""
    if not wanted:
        return found.coefficients.new_full((1,), torch.nan).expand(counts.shape[0]), None
    n_columns = solver.operator.projector.shape[1]
    n_shifts = 0 if found.shift is None else found.shift.shape[1]
    misfit = found.misfit
    if misfit is None:
        misfit = spectrum_deviance(counts, found.factors, found.columns)
    excess = None
    if isinstance(solver.law, CompiledLaw):
        excess = standardise(misfit, found.coefficients, solver.law, signed=found.signed, more_parameters=n_shifts)
    return misfit / (counts.shape[1] - n_columns - n_shifts), excess


def _sigma_and_limit(found: Estimate, operator: PixelOperator, *, wanted: bool) -> tuple[Tensor, Tensor]:
    if not wanted:
        shape = (found.coefficients.shape[0], operator.n_components)
        nothing = found.coefficients.new_full((1, 1), torch.nan).expand(shape)
        return nothing, nothing
    variance, null = found.variance, found.null_variance
    if variance is None or null is None:
        variance, null = shared_variance(found.coefficients, operator)
    return variance.sqrt(), detection_limit(null.sqrt(), operator.photon_variance)


def _status(total: Tensor, finite: Tensor, measured: Tensor, found: Estimate) -> Tensor:
    status = torch.full(total.shape, int(FitStatus.CONVERGED), dtype=torch.uint8, device=total.device)
    # One that is not finite leaves no sum finite, and sums of counts do not overflow.
    solution = torch.isfinite(found.coefficients.sum(dim=1))
    reasons = (
        (~found.solved, FitStatus.MAX_ITERATIONS),
        (None if found.in_range is None else ~found.in_range, FitStatus.BEYOND_TANGENT),
        (found.theta_kept, FitStatus.THETA_KEPT),
        (~solution, FitStatus.SINGULAR),
        (total <= 0, FitStatus.EMPTY),
        (~finite, FitStatus.NONFINITE),
        (~measured, FitStatus.NOT_MEASURED),
    )
    # The last that applies.
    for holds, reason in reasons:
        status = status if holds is None else status.masked_fill(holds, int(reason))
    return status
