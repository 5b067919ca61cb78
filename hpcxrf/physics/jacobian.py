"""Analytic derivative of the model counts by theta: five matrix products over terms that exist already.

With u = (E_n - E_l) / s, G the Gaussian and T the tail (both densities over u):
dG/du = -u G, dG/ds = (u^2 - 1) G / s, dT/du = (T - G) / g, dT/ds = -T/s - u (T - G) / (g s),
dT/dg = -T (1/g + u/g^2 + 1/g^3) + G / g^3. So every derivative is a combination, with coefficients per line, of
{G, uG, u^2 G, T, uT} and of the shelf. `torch.func.jacfwd` gives the same 70 times slower: it is the test's oracle.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.anode_scatter import centre_slopes, derive_compton_of_copies
from hpcxrf.physics.model import EDGE_WIDTH_KEV, Evaluation, SpectrumModel, evaluate, select_tailed
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES
from hpcxrf.physics.ratios import ratio_slopes
from hpcxrf.physics.scatter import compton_derivatives

_ENERGY: Final = "energy"
# What the products run over: the energy axis first, then every parameter that acts on lines.
_COLUMNS: Final = (
    _ENERGY,
    "fwhm_offset",
    "fwhm_fanoprime",
    "coherent_sct_energy",
    "f_tail_offset",
    "f_tail_linear",
    "kb_f_tail_offset",
    "kb_f_tail_linear",
    "gamma_offset",
    "gamma_linear",
    "step_offset",
    "step_linear",
    "escape_factor",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """Coefficients (*batch, line) of one derivative on each of the shapes."""

    g: Tensor
    ug: Tensor
    uug: Tensor
    t: Tensor
    ut: Tensor
    shelf: Tensor

    def scale(self, factor: Tensor) -> "_Terms":
        """Chain rule: every coefficient times a factor per line."""
        return _Terms(**{k: getattr(self, k) * factor for k in _SHAPES})

    def add(self, other: "_Terms") -> "_Terms":
        """Sum of two derivatives."""
        return _Terms(**{k: getattr(self, k) + getattr(other, k) for k in _SHAPES})


_SHAPES: Final = ("g", "ug", "uug", "t", "ut", "shelf")
_TAIL_SHAPES: Final = ("t", "ut")


def counts_jacobian(
    theta: Tensor,
    amplitude: Tensor,
    evaluation: Evaluation,
    model: SpectrumModel,
    *,
    names: Collection[str] = PARAMETER_NAMES,
) -> Tensor:
    """Derivative of `phi @ amplitude` by every parameter, amplitudes held.

    Args:
        theta: (*batch, parameter) float64.
        amplitude: (*batch, component) counts.
        evaluation: of `evaluate(theta, model)`.
        model: with a MAPS line shape, whose tail has other derivatives, forward differentiation is used.
        names: parameters of theta that are wanted; the columns of the others are 0.

    Returns:
        (*batch, channel, parameter), counts per unit of the parameter; those of the line ratios, where the model has
        them, come last.
    """
    if model.constants.maps_line_shape:
        kept = [float(name in names) for name in PARAMETER_NAMES]
        return automatic_jacobian(theta, amplitude, model) * theta.new_tensor(kept)
    wanted = tuple(c for c in _COLUMNS if c == _ENERGY or c in names)
    lines = _line_products(theta, amplitude[..., :-1], evaluation, model, wanted)
    compton = _derive_compton(theta, evaluation, model)
    height = amplitude[..., -1, None]
    columns = {name: lines[..., i] for i, name in enumerate(wanted)}
    for name, density in compton.items():
        if name not in names and name != _ENERGY:
            continue
        columns[name] = columns[name] + height * density if name in columns else height * density
    bins, n = evaluation.bin_kev, model.channel
    shift = columns.pop(_ENERGY) * bins
    per_kev = (evaluation.phi @ amplitude[..., :, None])[..., 0] / bins
    result = {name: column * bins for name, column in columns.items()}
    result["energy_offset"] = shift
    result["energy_slope"] = n * shift + per_kev
    result["energy_quadratic"] = n * n * shift + 2.0 * n * per_kev
    nothing = torch.zeros_like(shift)
    columns_of_theta = [result[n] if n in names else nothing for n in PARAMETER_NAMES]
    return torch.cat(
        [torch.stack(columns_of_theta, dim=-1), ratio_columns(theta, amplitude, evaluation, model)], dim=-1
    )


def ratio_columns(theta: Tensor, amplitude: Tensor, evaluation: Evaluation, model: SpectrumModel) -> Tensor:
    """Derivative of `phi @ amplitude` by every parameter of the line ratios, amplitudes held.

    Args:
        theta: (*batch, parameter) theta, followed by the parameters of the ratios.
        amplitude: (*batch, component) counts.
        evaluation: of `evaluate(theta, model)`.
        model: with a model of the ratios.

    Returns:
        (*batch, channel, parameter), counts per unit of the parameter.
    """
    if model.ratios is None:
        return amplitude.new_zeros((*evaluation.bin_kev.shape, 0))
    e, n = evaluation, model.table.ratio.shape[0]
    slopes = ratio_slopes(theta[..., len(PARAMETER_NAMES) :], e.lines.ratio[..., :n], model.table, model.ratios)
    # One elastic line has no family whose ratios could change.
    elastic = _slope_copies(slopes, e.lines.ratio[..., n:], model)
    slopes = torch.cat([slopes, elastic], dim=-2)
    terms = _density(amplitude[..., e.lines.column] * e.lines.weight, e, torch.zeros_like(e.lines.weight))
    tail = select_tailed((terms.t[..., None] * slopes).mT, e.tailed).mT
    total = e.gauss @ (terms.g[..., None] * slopes).to(e.gauss.dtype) + e.low @ tail.to(e.low.dtype)
    if e.shelf is not None:
        total = total + e.shelf @ (terms.shelf[..., None] * slopes).to(e.shelf.dtype)
    total = total.to(theta.dtype) + _ratio_columns_of_compton(amplitude[..., -1], e, model)
    return total * e.bin_kev[..., :, None]


def _slope_copies(slopes: Tensor, share: Tensor, model: SpectrumModel) -> Tensor:
    """Relative derivative (*batch, elastic line, parameter) of the elastic lines by the parameters of the ratios."""
    ratios, copies = model.ratios, model.copies
    if ratios is None or ratios.copies is None or copies is None:
        return slopes.new_zeros((*slopes.shape[:-2], share.shape[-1], slopes.shape[-1]))
    return centre_slopes(ratios.copies, share, copies).expand(*slopes.shape[:-2], -1, -1)


def _ratio_columns_of_compton(height: Tensor, e: Evaluation, model: SpectrumModel) -> Tensor:
    """Derivative of the Compton column, counts per keV (*batch, channel, parameter) or 0."""
    ratios, copies, share = model.ratios, model.copies, e.compton_share
    if ratios is None or ratios.copies is None or copies is None or share is None:
        return height.new_zeros(())
    main = ratios.copies[copies.is_main.to(share.device)]
    slopes = main - (share[..., None] * main).sum(dim=-2, keepdim=True)
    return height[..., None, None] * (e.compton.density.mT @ (share[..., None] * slopes))


def _derive_compton(theta: Tensor, e: Evaluation, model: SpectrumModel) -> dict[str, Tensor]:
    if model.copies is None or e.compton_share is None:
        return compton_derivatives(theta, e.compton, model.constants)
    return derive_compton_of_copies(theta, e.compton, e.compton_share, model.copies, model.constants)


def automatic_jacobian(theta: Tensor, amplitude: Tensor, model: SpectrumModel) -> Tensor:
    """The same by forward differentiation (slow): for MAPS line shapes, and the oracle of the tests.

    Returns:
        (*batch, channel, parameter).
    """

    def counts(one: Tensor, heights: Tensor) -> Tensor:
        return (evaluate(one, model).phi @ heights[:, None])[:, 0]

    derivative: Callable[[Tensor, Tensor], Tensor] = torch.func.jacfwd(counts)
    for _ in theta.shape[:-1]:
        derivative = torch.func.vmap(derivative)
    return derivative(theta, amplitude)


def _line_products(
    theta: Tensor, amplitude: Tensor, e: Evaluation, model: SpectrumModel, wanted: tuple[str, ...]
) -> Tensor:
    """(*batch, channel, column) density derivatives of all lines, per keV."""
    terms = _derivatives(theta, amplitude, e, model)
    shapes = {"g": e.gauss, "ug": e.u * e.gauss, "t": e.low}
    shapes["uug"], shapes["ut"] = e.u * shapes["ug"], e.low_u * e.low
    if e.shelf is not None:
        shapes["shelf"] = e.shelf
    total = torch.zeros((), dtype=theta.dtype, device=theta.device)
    for name, shape in shapes.items():
        of_lines = [getattr(terms[c], name) for c in wanted]
        if name in _TAIL_SHAPES:
            of_lines = [select_tailed(x, e.tailed) for x in of_lines]
        total = total + shape @ torch.stack(of_lines, dim=-1).to(shape.dtype)
    return total.to(theta.dtype)


def _derivatives(theta: Tensor, amplitude: Tensor, e: Evaluation, model: SpectrumModel) -> dict[str, _Terms]:
    """Coefficients of the derivative by each of `_COLUMNS`."""
    table, k = model.table, model.constants.width_factor
    counts = amplitude[..., e.lines.column] * e.lines.weight
    zero = torch.zeros_like(counts)
    by_energy, by_sigma = _derive_by_energy(counts, e, zero), _derive_by_sigma(counts, e, zero)
    by_tail, by_step, by_gamma = _derive_by_fractions(counts, e, zero)
    noise = theta[..., INDEX["fwhm_offset"], None]
    pad = e.lines.line_kev.shape[-1] - table.energy_kev.shape[0]
    extend = torch.nn.functional.pad
    has_tail = extend(table.has_tail.to(counts.dtype), (0, pad), value=1.0)
    kbeta = extend(table.is_kbeta.to(counts.dtype), (0, pad)) * has_tail
    mu = extend(table.mu_per_um, (0, pad))
    # Copies of a tube's lines stand where the anode has them.
    is_elastic = extend(torch.zeros_like(table.energy_kev), (0, pad), value=float(model.copies is None))
    # Not the line's own density divided by the factor: that may be 0.
    escape_ratio = e.lines.ratio * extend((table.escape_parent >= 0).to(counts.dtype), (0, pad))
    alpha = has_tail - kbeta
    own = _derive_by_own_energy(e, by_energy, by_sigma, by_gamma, theta, k).scale(is_elastic)
    density = _density(counts, e, zero)
    return {
        _ENERGY: by_energy,
        "fwhm_offset": by_sigma.scale(noise / (model.constants.fwhm_per_sigma**2 * e.lines.sigma_kev)),
        "fwhm_fanoprime": by_sigma.scale(k * e.lines.line_kev / (2.0 * e.lines.sigma_kev)),
        "coherent_sct_energy": density.scale((1.0 - e.lines.switch) / EDGE_WIDTH_KEV).add(own),
        "f_tail_offset": by_tail.scale(alpha),
        "f_tail_linear": by_tail.scale(alpha * mu),
        "kb_f_tail_offset": by_tail.scale(kbeta),
        "kb_f_tail_linear": by_tail.scale(kbeta * mu),
        "gamma_offset": by_gamma,
        "gamma_linear": by_gamma.scale(e.lines.line_kev),
        "step_offset": by_step.scale(mu),
        "step_linear": by_step.scale(mu * e.lines.line_kev),
        "escape_factor": _density(amplitude[..., e.lines.column] * e.lines.switch * escape_ratio, e, zero),
    }


def _derive_by_own_energy(
    e: Evaluation, by_energy: _Terms, by_sigma: _Terms, by_gamma: _Terms, theta: Tensor, k: float
) -> _Terms:
    """Derivative by the line's own energy (the elastic line: mu = 0, hence no step)."""
    fano = theta[..., INDEX["fwhm_fanoprime"], None]
    gamma_linear = theta[..., INDEX["gamma_linear"], None]
    return (
        by_energy.scale(-torch.ones_like(e.lines.sigma_kev))
        .add(by_sigma.scale(k * fano / (2.0 * e.lines.sigma_kev)))
        .add(by_gamma.scale(gamma_linear))
    )


def _density(a: Tensor, e: Evaluation, zero: Tensor) -> _Terms:
    """The lines themselves, counts per keV."""
    h = a * e.lines.norm / e.lines.sigma_kev
    shelf = a * e.lines.norm * e.lines.step / (2.0 * e.lines.line_kev)
    return _Terms(g=h, ug=zero, uug=zero, t=h * e.lines.tail, ut=zero, shelf=shelf)


def _derive_by_energy(a: Tensor, e: Evaluation, zero: Tensor) -> _Terms:
    h = a * e.lines.norm / e.lines.sigma_kev**2
    pull = h * e.lines.tail / e.lines.gamma
    shelf = a * e.lines.norm * e.lines.step / (e.lines.line_kev * e.lines.sigma_kev)
    return _Terms(g=-pull - shelf, ug=-h, uug=zero, t=pull, ut=zero, shelf=zero)


def _derive_by_sigma(a: Tensor, e: Evaluation, zero: Tensor) -> _Terms:
    h = a * e.lines.norm / e.lines.sigma_kev**2
    pull = h * e.lines.tail / e.lines.gamma
    shelf = a * e.lines.norm * e.lines.step / (e.lines.line_kev * e.lines.sigma_kev)
    return _Terms(g=-h, ug=pull + shelf, uug=h, t=-h * e.lines.tail, ut=-pull, shelf=zero)


def _derive_by_fractions(a: Tensor, e: Evaluation, zero: Tensor) -> tuple[_Terms, _Terms, _Terms]:
    """Derivatives by tail fraction, step fraction and decay length."""
    h, q, g = a * e.lines.norm / e.lines.sigma_kev, e.lines.norm, e.lines.gamma
    half = a * q / (2.0 * e.lines.line_kev)
    tail = _Terms(g=-h * q, ug=zero, uug=zero, t=h * (1.0 - q * e.lines.tail), ut=zero, shelf=-half * q * e.lines.step)
    step = _Terms(g=-h * q, ug=zero, uug=zero, t=-h * q * e.lines.tail, ut=zero, shelf=half * (1.0 - q * e.lines.step))
    ht = h * e.lines.tail
    gamma = _Terms(g=ht / g**3, ug=zero, uug=zero, t=-ht * (1.0 / g + 1.0 / g**3), ut=-ht / g**2, shelf=zero)
    return tail, step, gamma
