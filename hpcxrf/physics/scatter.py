"""The Compton peak: its energy, its column, and the derivatives of that column."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.shapes import gaussian, low_energy_tail, maps_low_energy_tail, step


@dataclass(frozen=True, slots=True, kw_only=True)
class ComptonShape:
    """Terms of the Compton column that its derivatives reuse; each (*batch, channel) or (*batch, 1)."""

    energy_kev: Tensor
    sigma_kev: Tensor
    width: Tensor
    share: Tensor
    """1 / (1 + step + tail + high tail)."""
    wide_u: Tensor
    u: Tensor
    wide_gauss: Tensor
    gauss: Tensor
    low: Tensor
    high: Tensor
    shelf: Tensor
    density: Tensor
    """1/keV, area 1."""


def compton_energy_kev(incident_energy_kev: Tensor, angle_deg: Tensor, rest_energy_kev: float) -> Tensor:
    """Energy after Compton scattering, `E0 / (1 + E0 / mc^2 (1 - cos angle))`, keV.

    Args:
        incident_energy_kev: any shape.
        angle_deg: scattering angle, degrees, broadcasts.
        rest_energy_kev: electron rest energy, keV.
    """
    return incident_energy_kev / (
        1.0 + incident_energy_kev / rest_energy_kev * (1.0 - torch.cos(torch.deg2rad(angle_deg)))
    )


def line_sigma_kev(theta: Tensor, energy_kev: Tensor, constants: ConstantSet) -> Tensor:
    """Width of the detector response: `sigma^2 = (fwhm_offset / 2.3548)^2 + k E fwhm_fanoprime`.

    Args:
        theta: (*batch, parameter).
        energy_kev: (*batch, line) or (line,), keV.
        constants: gives k and the ratio of FWHM to sigma.

    Returns:
        (*batch, line), keV.
    """
    noise = theta[..., INDEX["fwhm_offset"], None] / constants.fwhm_per_sigma
    fano = theta[..., INDEX["fwhm_fanoprime"], None]
    return torch.sqrt(noise * noise + constants.width_factor * energy_kev * fano)


def compton_shape(theta: Tensor, energy_kev: Tensor, constants: ConstantSet) -> ComptonShape:
    """Evaluate the Compton peak: a widened Gaussian with a shelf and two exponential tails.

    The tails keep the width of the detector, only the Gaussian is widened (MAPS, `compton_peak`).

    Args:
        theta: (*batch, parameter).
        energy_kev: energy of the channels, (*batch, channel), keV.
        constants: physics, or a MAPS parity set.
    """
    par = {name: theta[..., i, None] for name, i in INDEX.items()}
    centre = compton_energy_kev(par["coherent_sct_energy"], par["compton_angle"], constants.electron_rest_energy_kev)
    sigma = line_sigma_kev(theta, centre, constants)
    width = sigma * par["compton_fwhm_corr"]
    tail = maps_low_energy_tail if constants.maps_line_shape else low_energy_tail
    u = (energy_kev - centre) / sigma
    wide_u = (energy_kev - centre) / width
    low, high = tail(u, par["compton_gamma"]), tail(-u, par["compton_hi_gamma"])
    shelf, wide_gauss = step(u), gaussian(wide_u)
    f_step, f_low, f_high = (par[k] for k in ("compton_f_step", "compton_f_tail", "compton_hi_f_tail"))
    share = 1.0 / (1.0 + f_step + f_low + f_high)
    density = share * (wide_gauss / width + (f_low * low + f_high * high) / sigma + f_step * shelf / (2.0 * centre))
    return ComptonShape(
        energy_kev=centre,
        sigma_kev=sigma,
        width=width,
        share=share,
        wide_u=wide_u,
        u=u,
        wide_gauss=wide_gauss,
        gauss=gaussian(u),
        low=low,
        high=high,
        shelf=shelf,
        density=density,
    )


def compton_derivatives(theta: Tensor, shape: ComptonShape, constants: ConstantSet) -> dict[str, Tensor]:
    """Derivatives of the Compton density (1/keV) by parameter, and by the channel's energy.

    Uses dT/du = (T - G) / gamma and dT/dgamma = -T (1/gamma + u/gamma^2 + 1/gamma^3) + G / gamma^3, which hold
    for the exponentially modified Gaussian, hence not for the MAPS parity sets.

    Args:
        theta: (*batch, parameter).
        shape: of `compton_shape` at this theta.
        constants: must not have `maps_line_shape`.

    Returns:
        By parameter name, and `"energy"` for the channel's energy; each (*batch, channel).
    """
    par = {name: theta[..., i, None] for name, i in INDEX.items()}
    s, w, u, g = shape.sigma_kev, shape.width, shape.u, shape.gauss
    f_low, f_high, f_step = (par[k] for k in ("compton_f_tail", "compton_hi_f_tail", "compton_f_step"))
    gl, gh = par["compton_gamma"], par["compton_hi_gamma"]
    d_low, d_high = (shape.low - g) / gl, -(shape.high - g) / gh
    tails, d_tails = f_low * shape.low + f_high * shape.high, f_low * d_low + f_high * d_high
    wide_slope = -shape.wide_u * shape.wide_gauss
    d_energy = shape.share * (wide_slope / w**2 + d_tails / s**2 - f_step * g / (s * shape.energy_kev))
    wide = -(shape.wide_gauss + shape.wide_u * wide_slope) / w**2
    d_sigma = shape.share * (
        wide * par["compton_fwhm_corr"] - (tails + u * d_tails) / s**2 + f_step * u * g / (s * shape.energy_kev)
    )
    d_centre = -d_energy - shape.share * f_step * shape.shelf / (2.0 * shape.energy_kev**2)
    d_centre = d_centre + d_sigma * constants.width_factor * par["fwhm_fanoprime"] / (2.0 * s)
    by_e0, by_angle = _centre_derivatives(par, shape.energy_kev, constants)
    hi_gamma = -shape.high * (1 / gh - u / gh**2 + 1 / gh**3) + g / gh**3
    low_gamma = -shape.low * (1 / gl + u / gl**2 + 1 / gl**3) + g / gl**3
    normed = shape.share * shape.density
    return {
        "energy": d_energy,
        "coherent_sct_energy": d_centre * by_e0,
        "compton_angle": d_centre * by_angle,
        "fwhm_offset": d_sigma * par["fwhm_offset"] / (constants.fwhm_per_sigma**2 * s),
        "fwhm_fanoprime": d_sigma * constants.width_factor * shape.energy_kev / (2.0 * s),
        "compton_fwhm_corr": shape.share * wide * s,
        "compton_f_tail": shape.share * shape.low / s - normed,
        "compton_hi_f_tail": shape.share * shape.high / s - normed,
        "compton_f_step": shape.share * shape.shelf / (2.0 * shape.energy_kev) - normed,
        "compton_gamma": shape.share * f_low * low_gamma / s,
        "compton_hi_gamma": shape.share * f_high * hi_gamma / s,
    }


def _centre_derivatives(par: dict[str, Tensor], centre: Tensor, constants: ConstantSet) -> tuple[Tensor, Tensor]:
    e0, rest = par["coherent_sct_energy"], constants.electron_rest_energy_kev
    angle = torch.deg2rad(par["compton_angle"])
    by_e0 = (centre / e0) ** 2
    by_angle = -(centre**2) / rest * torch.sin(angle) * (torch.pi / 180.0)
    return by_e0, by_angle
