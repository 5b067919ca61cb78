"""Results of a batch of pixels on a device, made of as few operations as it takes: each costs a launch.

The same results as `fit.py` has them on a processor. Tables of what all pixels share are prepared once, everything that
is a number of float32 lies in one array, and nothing is asked of the device on the way.
"""

from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.layout import LOWEST_PULL, SMALLEST_EXPECTATION
from hpcxrf.fitting.pixels.basis import PixelOperator
from hpcxrf.fitting.pixels.device_tables import DeviceResults, DeviceTables, device_tables
from hpcxrf.fitting.pixels.parts import Estimate, Outputs, Solver, rows_at_a_time
from hpcxrf.fitting.pixels.tabulated_deviance import BYTES_PER_SAMPLE, TabulatedLaw, standardise_half
from hpcxrf.fitting.result import FitStatus, PixelFit

_SQRT_HALF: Final = 0.7071067811865476
_INV_SQRT_PI: Final = 0.5641895835477563
_LEAST_ROWS: Final = 1024


def fit_on_device(counts: Tensor, measured: Tensor, solver: Solver, outputs: Outputs) -> PixelFit:
    """Fit a batch.

    Args:
        counts: (pixel, channel) raw counts on the device, any real dtype.
        measured: (pixel,) bool.
        solver: a method prepared for the device.
        outputs: what is wanted beside the amplitudes.
    """
    # Only a solver that was not made by `prepare_solver` has none.
    tables = device_tables(solver.operator) if solver.tables is None else solver.tables
    law = solver.law if isinstance(solver.law, TabulatedLaw) else None
    samples = 0 if law is None else law.columns.shape[1]
    rows = rows_at_a_time(counts.device, BYTES_PER_SAMPLE * samples, _LEAST_ROWS) if samples else _LEAST_ROWS

    def fit(counts: Tensor, measured: Tensor) -> DeviceResults:
        projected = counts @ tables.projector
        signed = projected[:, :-2]
        if not solver.direct:
            known = _is_finite(projected[:, -2:-1])
            counts, signed = (torch.where(known, x, tables.zero) for x in (counts, signed))
        found = solver.estimate(counts, signed, deviance=outputs.deviance, errors=outputs.errors)
        return finish_on_device(counts, projected, found, measured, tables, law, outputs, rows=rows)

    if solver.graph is None:
        results = fit(counts.to(torch.float32), measured)
    else:
        results = solver.graph.run(counts, measured, fit, (outputs.deviance, outputs.errors, rows >= len(counts)))
    return unpack(results, solver.operator, law, outputs, tables)


def finish_on_device(
    counts: Tensor,
    projected: Tensor,
    found: Estimate,
    measured: Tensor,
    tables: DeviceTables,
    law: TabulatedLaw | None,
    outputs: Outputs,
    *,
    rows: int,
) -> DeviceResults:
    """Results of an estimate.

    Args:
        counts: (pixel, channel) float32.
        projected: (pixel, column + 2): counts times the projector of the tables; NaN or infinite at the end where a
            count is.
        found: the estimate.
        measured: (pixel,) bool.
        tables: of the basis.
        law: what the deviance is expected to be; None: not known.
        outputs: what is wanted.
        rows: pixels whose expected deviance is computed at a time.
    """
    n = len(tables.nothing)
    numbers = counts.new_empty((len(counts), 3 * n + 2))
    torch.add(found.coefficients[:, :n], tables.nothing, out=numbers[:, :n])
    if outputs.errors:
        roots = _variances(found, tables).sqrt_()
        torch.addcmul(tables.offsets, roots, tables.factors, out=numbers[:, n : 3 * n])
    if outputs.deviance:
        half = found.misfit * 0.5 if found.misfit is not None else _half_deviance(counts, projected[:, -1], found)
        shifts = 0 if found.shift is None else found.shift.shape[1]
        free = counts.shape[1] - (projected.shape[1] - 2) - shifts
        torch.mul(half, 2.0 / free, out=numbers[:, 3 * n])
        if law is not None:
            numbers[:, 3 * n + 1] = _excess(half, found, law, shifts, rows)
    known = _is_finite(projected[:, -2])
    valid = (known & measured)[:, None]
    return DeviceResults(
        numbers=torch.where(valid, numbers, tables.not_a_number),
        status=_status(projected[:, -2], known, measured, found, tables.statuses),
        shift=_blank(found.shift, valid, tables),
        shift_sigma=_blank(found.shift_sigma, valid, tables),
    )


def unpack(
    results: DeviceResults, operator: PixelOperator, law: TabulatedLaw | None, outputs: Outputs, tables: DeviceTables
) -> PixelFit:
    """The results by name.

    Args:
        results: of `finish_on_device`.
        operator: products of the basis.
        law: what the deviance is expected to be.
        outputs: what was wanted.
        tables: of the basis.
    """
    n, pixels = operator.n_components, len(results.numbers)
    amplitude, sigma, limit, deviance, excess = results.numbers.split([n, n, n, 1, 1], dim=1)
    unknown = tables.not_a_number.expand(pixels, n)
    return PixelFit(
        amplitude=amplitude,
        sigma=sigma if outputs.errors else unknown,
        detection_limit=limit if outputs.errors else unknown,
        photon_variance=operator.photon_variance.expand(pixels, -1),
        deviance=deviance[:, 0] if outputs.deviance else tables.not_a_number.expand(pixels),
        deviance_z=excess[:, 0] if outputs.deviance and law is not None else None,
        status=results.status,
        theta_shift=results.shift,
        theta_shift_sigma=results.shift_sigma,
    )


def _blank(values: Tensor | None, valid: Tensor, tables: DeviceTables) -> Tensor | None:
    return None if values is None else torch.where(valid, values, tables.not_a_number)


def _is_finite(x: Tensor) -> Tensor:
    """As `isfinite`, by half of its operations."""
    return (x - x) == 0.0


def _variances(found: Estimate, tables: DeviceTables) -> Tensor:
    """Variance of the components, then the same in their absence (pixel, 2 component): `parts.shared_variance`.

    The expectation of a coefficient a that is not negative, a + s phi(a/s) / Phi(a/s), is, with t = sqrt(2) s,
    a + t / (sqrt(pi) erfcx(-a/t)).
    """
    if found.variance is not None and found.null_variance is not None:
        return torch.cat([found.variance, found.null_variance], dim=1)
    n = len(tables.nothing)
    own = found.coefficients[:, :n]
    expected = found.coefficients.clamp(min=0.0)
    spread = torch.maximum(expected @ tables.doubled, tables.doubled_floor).sqrt_()
    pull = torch.div(own, spread).clamp_(min=LOWEST_PULL * _SQRT_HALF)
    # Those below that are as they would be there.
    least = pull * spread
    torch.addcdiv(least, spread, torch.special.erfcx(pull.neg_()), value=_INV_SQRT_PI, out=expected[:, :n])
    return torch.maximum(expected @ tables.variances, tables.variance_floors)


def _half_deviance(counts: Tensor, total: Tensor, found: Estimate) -> Tensor:
    """Half the Poisson deviance (pixel,) of `found.factors @ found.columns`, as `parts.spectrum_deviance`."""
    model = (found.factors @ found.columns).clamp_(min=SMALLEST_EXPECTATION)
    logarithm = torch.div(counts, model).clamp_(min=torch.finfo(torch.float32).tiny).log_()
    return model.addcmul_(counts, logarithm).sum(dim=1).sub_(total)


def _excess(half: Tensor, found: Estimate, law: TabulatedLaw, shifts: int, rows: int) -> Tensor:
    signed = found.coefficients if found.signed is None else found.signed
    parts = [
        standardise_half(half[part], found.coefficients[part], signed[part], law, more_parameters=shifts)
        for part in (slice(i, i + rows) for i in range(0, max(len(half), 1), rows))
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _status(total: Tensor, known: Tensor, measured: Tensor, found: Estimate, statuses: Tensor) -> Tensor:
    """The last reason that applies, as on a processor."""
    status = torch.where(found.solved, statuses[FitStatus.CONVERGED], statuses[FitStatus.MAX_ITERATIONS])
    if found.in_range is not None:
        status = torch.where(found.in_range, status, statuses[FitStatus.BEYOND_TANGENT])
    if found.theta_kept is not None:
        status = torch.where(found.theta_kept, statuses[FitStatus.THETA_KEPT], status)
    solution = _is_finite(found.coefficients.sum(dim=1))
    status = torch.where(solution, status, statuses[FitStatus.SINGULAR])
    status = torch.where(total > 0.0, status, statuses[FitStatus.EMPTY])
    status = torch.where(known, status, statuses[FitStatus.NONFINITE])
    return torch.where(measured, status, statuses[FitStatus.NOT_MEASURED])
