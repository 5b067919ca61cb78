"""A fit that a focus holds, with another list of elements: what both lists have stays to the last count."""

from dataclasses import replace

import torch
from torch import Tensor

from hpcxrf.fitting.result import SpectrumFit


def extend_fit(held: SpectrumFit, base: SpectrumFit) -> SpectrumFit:
    """The fit with the components of another one: those that it has keep their counts, new ones begin at 0.

    Args:
        held: a fit of some counts.
        base: fit of the same detector with the wanted components, which gives their lines.
    """
    places = {name: i for i, name in enumerate(held.component_names)}

    def carry(values: Tensor, otherwise: float) -> Tensor:
        blank = torch.full(values.shape[1:], otherwise, dtype=values.dtype)
        return torch.stack([values[places[name]] if name in places else blank for name in base.component_names])

    counts = carry(held.component_counts, 0.0)
    errors = held.errors
    if errors is not None:
        before = errors.variances
        errors = replace(
            errors,
            variances=replace(
                before,
                amplitude=carry(before.amplitude, 0.0),
                amplitude_flaws=carry(before.amplitude_flaws, 0.0),
                null=carry(before.null, 0.0),
                null_flaws=carry(before.null_flaws, 0.0),
                photon=carry(before.photon, 1.0),
            ),
            amplitude_sigma=carry(errors.amplitude_sigma, 0.0),
            detection_limit=carry(errors.detection_limit, 0.0),
            photon_variance=carry(errors.photon_variance, 1.0),
        )
    return replace(
        held,
        component_names=base.component_names,
        table=base.table,
        copies=base.copies,
        problem=base.problem,
        amplitude=carry(held.amplitude, 0.0),
        amplitude_sigma=carry(held.amplitude_sigma, 0.0),
        detection_limit=carry(held.detection_limit, 0.0),
        component_counts=counts,
        model=counts.sum(dim=0) + held.background,
        errors=errors,
    )
