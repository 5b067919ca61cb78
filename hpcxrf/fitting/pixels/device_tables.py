"""What all batches of pixels share on a device, prepared once, and the results of a batch as they lie there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.layout import SMALLEST_SIGMA
from hpcxrf.fitting.limits import CURRIE_FACTOR, CURRIE_OFFSET
from hpcxrf.fitting.pixels.basis import PixelOperator
from hpcxrf.fitting.pixels.pairs import with_totals
from hpcxrf.fitting.result import FitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTables:
    """What all batches on a device share; float32 where nothing else is said."""

    projector: Tensor
    """(channel, column + 2): the projector, then ones for the counts of the channels it uses, then ones for all."""
    doubled: Tensor
    """(column, component): twice the variance by coefficients."""
    doubled_floor: Tensor
    """(component,): twice the least variance."""
    variances: Tensor
    """(column, 2 component): the variance by coefficients, then the same in the absence of the component itself."""
    variance_floors: Tensor
    """(2 component,)."""
    factors: Tensor
    """(2 component,): 1 for sigma, Currie's factor for the limit."""
    offsets: Tensor
    """(2 component,): 0 for sigma, Currie's offset for the limit; NaN where a component is not measured."""
    nothing: Tensor
    """(component,): 0, or NaN where a component is not measured."""
    zero: Tensor
    """()."""
    not_a_number: Tensor
    """()."""
    statuses: Tensor
    """(status,) uint8: all numbers of `FitStatus`."""


def device_tables(operator: PixelOperator) -> DeviceTables:
    """Prepare the tables.

    Args:
        operator: products of the basis, on the device.
    """
    n = operator.n_components
    by_own, floor = operator.variance.clone(), operator.variance_floor
    by_own.diagonal()[:n].zero_()
    nothing = torch.where(operator.measured, 0.0, torch.nan)
    limit = CURRIE_OFFSET * operator.photon_variance
    return DeviceTables(
        projector=with_totals(with_totals(operator.projector, operator.grouping)),
        doubled=2.0 * operator.variance,
        doubled_floor=2.0 * floor.clamp(min=SMALLEST_SIGMA**2),
        variances=torch.cat([operator.variance, by_own], dim=1),
        variance_floors=floor.repeat(2),
        factors=torch.cat([torch.ones_like(floor), torch.full_like(floor, CURRIE_FACTOR)]),
        offsets=torch.cat([nothing, nothing + limit]),
        nothing=nothing,
        zero=floor.new_zeros(()),
        not_a_number=floor.new_full((), torch.nan),
        statuses=torch.arange(max(FitStatus) + 1, dtype=torch.uint8, device=floor.device),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceResults:
    """Results of a batch in two arrays, so that little is started to copy them."""

    numbers: Tensor
    """(pixel, 3 component + 2) float32: amplitude, sigma, detection limit, deviance, and how far it is above what noise
    gives; what was not wanted is anything."""
    status: Tensor
    """(pixel,) uint8."""
    shift: Tensor | None = None
    """(pixel, parameter) float32."""
    shift_sigma: Tensor | None = None


def copy_of(results: DeviceResults) -> DeviceResults:
    """The same in memory of its own."""
    return DeviceResults(
        numbers=results.numbers.clone(),
        status=results.status.clone(),
        shift=None if results.shift is None else results.shift.clone(),
        shift_sigma=None if results.shift_sigma is None else results.shift_sigma.clone(),
    )
