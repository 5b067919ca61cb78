"""Theta free in every pixel: good for scans whose energy axis drifts, at some 30 000 spectra a second and core.

    columns(d) = Phi + sum_k d_k Phi_k + sum_kl d_k d_l Phi_kl / 2,   d ~ N(0, 1)

d are shifts of energy offset, gain and width in units of their prior. Pixels that leave the range of this expansion
are expanded again about the point of a lattice that is nearest to them.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.compiled import compile_fit, load_map_kernels
from hpcxrf.fitting.pixels.compiled_tangent import compile_tangent, load_tangent_kernel
from hpcxrf.fitting.pixels.follow import Expansions, follow, has_left, keep_theta
from hpcxrf.fitting.pixels.model import PixelModel, columns_at, spectrum_model
from hpcxrf.fitting.pixels.parts import Estimate, Solver, move_to, prepare_operator
from hpcxrf.fitting.pixels.tangent import (
    TangentOperator,
    Tangents,
    find_misfit,
    fit_tangent,
    tangent_operator,
    tangents_at,
)
from hpcxrf.physics.parameters import INDEX

# Expansion points that are kept: some MB each.
_KEPT: Final = 24
# Distance of two expansion points along a parameter, in units of what the columns can follow. Half of it by offset
# and half by gain is what a pixel may be away from the nearest.
_SPACING: Final = 0.8


KERNELS: Final = ("maps", "tangent")
"""Modules of kernels that a processor needs."""


def load_kernels() -> None:
    """Load what a processor needs; the first call on a machine compiles it."""
    load_map_kernels()
    load_tangent_kernel()


def prepare(basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """Prepare the method.

    Args:
        basis: columns with their tangents.
        model: model of the pixels, for further points of expansion; None: pixels that leave the range are flagged.
        device: device of the counts.

    Raises:
        FitError: a basis without tangents, or columns with indistinguishable spectra.
    """
    if basis.tangents is None:
        raise FitError(
            "pixel method 'nonlinear' needs a basis with tangents; add those of nonlinear.model_tangents(model)"
        )
    tangent = _prepare_tangent(basis, basis.tangents, device)
    further = None if model is None else expansions(model, basis, device)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        found = fit_tangent(counts, signed, tangent, errors=errors)
        if deviance or (further is not None and has_left(found)):
            found = replace(found, misfit=find_misfit(counts, found, tangent))
        if further is None:
            return found
        found = follow(counts, found, further, errors=errors)
        return keep_theta(counts, signed, found, tangent, errors=errors)

    n_changes = tangent.all_columns.shape[0] - basis.columns.shape[1]
    compiled = compile_fit(basis, tangent.shared) if device.type == "cpu" else None
    return Solver(operator=tangent.shared, estimate=estimate, n_changes=n_changes, compiled=compiled)


def _prepare_tangent(basis: PixelBasis, tangents: Tangents, device: torch.device) -> TangentOperator:
    tangent = move_to(device, tangent_operator(basis, tangents, prepare_operator(basis, device)))
    return replace(tangent, compiled=compile_tangent(tangent)) if device.type == "cpu" else tangent


def model_tangents(model: PixelModel) -> Tangents:
    """Changes of the columns with theta; in a sum, all detectors drift together."""
    return _tangents_near(model, torch.zeros_like(model.parts[0].theta), None)


def _tangents_near(model: PixelModel, step: Tensor, like: Tangents | None) -> Tangents:
    """Changes at theta changed by `step`, with the priors of earlier ones."""
    first = model.parts[0]
    prior = None if like is None else dict(zip(like.names, like.prior_sd.tolist(), strict=True))
    return tangents_at(
        first.theta + step,
        spectrum_model(model, first),
        prior,
        columns_at=lambda change: columns_at(model, step + change),
    )


def expansions(model: PixelModel, basis: PixelBasis, device: torch.device) -> Expansions:
    """Further points of expansion, on a lattice that theta, prior and lines fix, each made when a pixel needs it.

    Args:
        model: model of the pixels.
        basis: basis with tangents.
        device: device of the counts.

    Raises:
        FitError: a basis without tangents.
    """
    around = basis.tangents
    if around is None:
        raise FitError("points of expansion need a basis with tangents; add those of nonlinear.model_tangents(model)")
    spacing = _SPACING / around.motion.abs().amax(dim=0).clamp(min=1e-12)

    @lru_cache(maxsize=_KEPT)
    def at(place: tuple[int, ...]) -> TangentOperator:
        centre = spacing * torch.tensor(place, dtype=torch.float64)
        step = torch.zeros_like(model.parts[0].theta)
        for name, sd, moved in zip(around.names, around.prior_sd, centre, strict=True):
            step[INDEX[name]] = sd * moved
        tangents = replace(_tangents_near(model, step, around), centre=centre)
        return _prepare_tangent(_move_basis(model, basis, step), tangents, device)

    return Expansions(
        spacing=spacing.to(torch.float32).to(device), prior_sd=around.prior_sd.to(torch.float32).to(device), at=at
    )


def _move_basis(model: PixelModel, basis: PixelBasis, step: Tensor) -> PixelBasis:
    """The basis at another theta, all of whose channels are fitted one by one: its pixels are few."""
    background = basis.columns[:, basis.n_components :]
    columns = torch.cat([columns_at(model, step), background], dim=1)
    return replace(basis, columns=columns, expected=columns @ basis.coefficients, first_channel=None)
