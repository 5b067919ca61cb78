"""Parity with XRF-Maps: its formulas, stated afresh here in numpy, one line and one channel axis at a time.

The line tables below are test input (rounded library values in the order of MAPS files), not the product's.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import erfc

from hpcxrf.physics.background import snip_maps
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.lines import build_table_from_arrays
from hpcxrf.physics.model import COMPTON, ELASTIC, SpectrumModel, design_matrix
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values
from hpcxrf.physics.scatter import line_sigma_kev

pytestmark = pytest.mark.parity

WIDTH_FACTORS = {"maps-legacy-2.96": 2.96, "maps-3.58": 3.58}
RTOL = 1e-6


@dataclass(frozen=True)
class Line:
    family: str
    energy_kev: float
    ratio: float
    mu: float
    is_kbeta: bool = False


# Ka1 Ka2 Kb1 Kb2, relative to Ka1; mu as mu_fraction of the detector.
IRON = [
    Line("K", 6.404, 1.0, 0.031),
    Line("K", 6.391, 0.511, 0.0312),
    Line("K", 7.058, 0.172, 0.024, is_kbeta=True),
    Line("K", 7.108, 0.001, 0.0235, is_kbeta=True),
]
# la1 la2 lb1 lb2 lb3 lb4 lg1 lg2 lg3 lg4 ll ln, relative to la1.
_LEAD = (
    (10.5515, 1.0),
    (10.4495, 0.114),
    (12.6137, 0.64),
    (12.6226, 0.24),
    (12.7933, 0.06),
    (12.306, 0.055),
    (14.7644, 0.13),
    (15.101, 0.015),
    (15.218, 0.02),
    (15.757, 0.003),
    (9.1845, 0.06),
    (11.3493, 0.018),
)
LEAD = [Line("L", energy, ratio, 30.0 / energy**3) for energy, ratio in _LEAD]
# ma1 ma2 mb mg; no step here.
LEAD_M = [
    Line("M", energy, ratio, 0.0) for energy, ratio in ((2.3455, 1.0), (2.3397, 0.07), (2.4427, 0.6), (2.653, 0.04))
]
COMPONENTS = {"Fe": IRON, "Pb_L": LEAD, "Pb_M": LEAD_M}

THETA = {
    "energy_offset": -0.0123,
    "energy_slope": 0.0097,
    "energy_quadratic": 3.1e-8,
    "fwhm_offset": 0.0972,
    "fwhm_fanoprime": 2.244e-4,
    "coherent_sct_energy": 17.3,
    "compton_angle": 97.0,
    "compton_fwhm_corr": 1.573,
    "compton_f_step": 0.004,
    "compton_f_tail": 0.31,
    "compton_gamma": 3.2,
    "compton_hi_f_tail": 0.021,
    "compton_hi_gamma": 2.4,
    "step_offset": 0.05,
    "step_linear": 0.006,
    "f_tail_offset": 0.031,
    "f_tail_linear": 0.07,
    "kb_f_tail_offset": 0.052,
    "kb_f_tail_linear": 0.04,
    "gamma_offset": 2.21,
    "gamma_linear": 0.11,
}
CHANNEL = np.arange(60, 1950)
ENERGY_KEV = THETA["energy_offset"] + THETA["energy_slope"] * CHANNEL + THETA["energy_quadratic"] * CHANNEL**2
SLOPE = THETA["energy_slope"]


def sigma(energy_kev, k):
    return np.sqrt((THETA["fwhm_offset"] / 2.3548) ** 2 + k * energy_kev * THETA["fwhm_fanoprime"])


def gauss(delta, width):
    return SLOPE / (width * 2.506628275) * np.exp(-0.5 * (delta / width) ** 2)


def shelf(delta, width, peak_kev):
    return SLOPE / (2.0 * peak_kev) * erfc(delta / (np.sqrt(2.0) * width))


def tail(delta, width, gamma):
    height = SLOPE / (2.0 * gamma * width * np.exp(-1.0 / (2.0 * gamma**2)))
    growth = np.ones_like(delta)
    growth[delta < 0] = np.exp(delta[delta < 0] / (gamma * width))
    return height * growth * erfc(delta / (np.sqrt(2.0) * width) + 1.0 / (np.sqrt(2.0) * gamma))


def element_column(lines, k):
    column = np.zeros(CHANNEL.shape)
    for line in lines:
        delta, width = ENERGY_KEV - line.energy_kev, sigma(line.energy_kev, k)
        kind = "kb_f_tail" if line.is_kbeta else "f_tail"
        t = abs(THETA[f"{kind}_offset"] + THETA[f"{kind}_linear"] * line.mu)
        s = abs(line.mu * (THETA["step_offset"] + THETA["step_linear"] * line.energy_kev))
        gamma = abs(THETA["gamma_offset"] + THETA["gamma_linear"] * line.energy_kev)
        if line.family == "M":
            column += line.ratio * gauss(delta, width)
            continue
        share = line.ratio / (1.0 + t + s)
        column += share * gauss(delta, width) + share * t * tail(delta, width, gamma)
        column += share * s * shelf(delta, width, line.energy_kev)
    return column


def elastic_column(k):
    peak_kev = THETA["coherent_sct_energy"]
    return gauss(ENERGY_KEV - peak_kev, sigma(peak_kev, k))


def compton_column(k):
    incident_kev = THETA["coherent_sct_energy"]
    angle = np.deg2rad(THETA["compton_angle"])
    peak_kev = incident_kev / (1.0 + incident_kev / 511.0 * (1.0 - np.cos(angle)))
    width, delta = sigma(peak_kev, k), ENERGY_KEV - peak_kev
    f_step, f_tail, f_high = (THETA[f"compton_{name}"] for name in ("f_step", "f_tail", "hi_f_tail"))
    share = 1.0 / (1.0 + f_step + f_tail + f_high)
    return share * (
        gauss(delta, width * THETA["compton_fwhm_corr"])
        + f_step * shelf(delta, width, peak_kev)
        + f_tail * tail(delta, width, THETA["compton_gamma"])
        + f_high * tail(-delta, width, THETA["compton_hi_gamma"])
    )


def table():
    lines = [line for family in COMPONENTS.values() for line in family]
    return build_table_from_arrays(
        component_names=list(COMPONENTS),
        component=[i for i, family in enumerate(COMPONENTS.values()) for _ in family],
        energy_kev=[x.energy_kev for x in lines],
        ratio=[x.ratio for x in lines],
        is_kbeta=[x.is_kbeta for x in lines],
        has_tail=[x.family != "M" for x in lines],
        mu_per_um=[x.mu for x in lines],
        edge_kev=[{"K": 7.112, "L": 13.035, "M": 2.484}[x.family] for x in lines],
        incident_energy_kev=THETA["coherent_sct_energy"],
    )


def product_columns(constants_name, **changed):
    theta = pack(replace_values(PARAMETERS, THETA | changed))
    constants = constant_set(constants_name)
    channel = torch.from_numpy(CHANNEL.astype(float))
    names = SpectrumModel(table=table(), channel=channel, constants=constants).component_names
    phi = design_matrix(theta, table(), channel, constants=constants).numpy()
    return dict(zip(names, phi.T, strict=True))


def assert_equal_columns(found, expected):
    """1e-6 of the value, down to where a column has fallen to 1e-15 of its height."""
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-15 * expected.max())


@pytest.mark.parametrize(("constants_name", "by_hand"), [("maps-legacy-2.96", 0.0771849), ("maps-3.58", 0.0827556)])
def test_sigma_is_a_hand_computed_number_in_both_width_laws(constants_name, by_hand):
    # (0.0972 / 2.3548)^2 = 1.703823e-3; k * 6.404 * 2.244e-4 = 4.253690e-3 or 5.144666e-3 keV^2
    theta = pack(replace_values(PARAMETERS, THETA))
    found = line_sigma_kev(theta, torch.tensor([6.404]).double(), constant_set(constants_name))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    assert sigma(6.404, WIDTH_FACTORS[constants_name]) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("constants_name", WIDTH_FACTORS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_a_fluorescence_column_is_that_of_xrf_maps(constants_name, name):
    found = product_columns(constants_name)[name]
    assert_equal_columns(found, element_column(COMPONENTS[name], WIDTH_FACTORS[constants_name]))


@pytest.mark.parametrize("constants_name", WIDTH_FACTORS)
def test_the_scatter_columns_are_those_of_xrf_maps(constants_name):
    k, found = WIDTH_FACTORS[constants_name], product_columns(constants_name)
    assert_equal_columns(found[ELASTIC], elastic_column(k))
    assert_equal_columns(found[COMPTON], compton_column(k))


def test_a_maps_amplitude_is_the_counts_of_the_first_line_alone():
    plain = dict.fromkeys(("step_offset", "step_linear", "f_tail_offset", "f_tail_linear"), 0.0) | dict.fromkeys(
        ("kb_f_tail_offset", "kb_f_tail_linear", "energy_quadratic"), 0.0
    )
    columns = product_columns("maps-3.58", **plain)
    assert columns["Fe"].sum() == pytest.approx(1.0 + 0.511 + 0.172 + 0.001, rel=1e-9)
    assert columns["Pb_L"].sum() == pytest.approx(sum(ratio for _, ratio in _LEAD), rel=1e-9)


def test_the_two_width_laws_differ_and_a_converted_fano_term_reconciles_them():
    legacy = product_columns("maps-legacy-2.96")
    current = product_columns("maps-3.58")
    converted = product_columns("maps-3.58", fwhm_fanoprime=2.244e-4 * 2.96 / 3.58)
    assert np.abs(legacy["Fe"] - current["Fe"]).max() > 0.03 * legacy["Fe"].max()
    for name, column in legacy.items():
        assert_equal_columns(converted[name], column)


def test_the_physics_set_is_not_the_maps_one():
    """Else the parity sets would test nothing."""
    physics, maps = product_columns("physics"), product_columns("maps-3.58")
    assert np.abs(physics["Fe"] / maps["Fe"] - 1).max() > 1e-3


def snip_half_width(energy_kev, k, offset, slope, snip_width):
    inside = (offset / 2.3548) ** 2 + k * slope * energy_kev
    return snip_width * 2.35 * np.sqrt(np.where(inside > 0, inside, 0.0)) / slope


def snip_of_part_a(counts, k, low, high, snip_width):
    n = len(counts)
    smooth = np.zeros(n)
    for i in range(2, n - 2):
        smooth[i] = counts[i - 2 : i + 3].sum() / 5.0
    channel = np.arange(n)
    energy = THETA["energy_offset"] + SLOPE * channel + THETA["energy_quadratic"] * channel**2
    width = snip_half_width(energy, k, THETA["energy_offset"], SLOPE, snip_width)
    b = np.log(np.log(smooth + 1.0) + 1.0)

    def sweep():
        for i in range(n):
            left = min(max(int(i - width[i]), low), high)
            right = min(max(int(i + width[i]), low), high)
            b[i] = min(b[i], (b[left] + b[right]) / 2.0)

    sweep()
    sweep()
    while max(width) >= 0.5:
        sweep()
        width /= np.sqrt(2.0)
    return np.exp(np.exp(b) - 1.0) - 1.0


@pytest.mark.parametrize("constants_name", WIDTH_FACTORS)
def test_snip_is_that_of_xrf_maps(constants_name):
    rng = np.random.default_rng(7)
    channel = np.arange(900)
    mean = 300 * np.exp(-channel / 250) + 4000 * np.exp(-0.5 * ((channel - 400) / 6.0) ** 2)
    counts = rng.poisson(np.stack([mean, 0.05 * mean])).astype(float)
    low, high = 104, 780
    found = snip_maps(
        counts,
        energy_offset=THETA["energy_offset"],
        energy_slope=SLOPE,
        energy_quadratic=THETA["energy_quadratic"],
        channel_range=(low, high),
        snip_width=0.5,
        constants=constant_set(constants_name),
    )
    k = WIDTH_FACTORS[constants_name]
    for row, spectrum in zip(found, counts, strict=True):
        np.testing.assert_allclose(row, snip_of_part_a(spectrum, k, low, high, 0.5), rtol=RTOL, atol=1e-9)


def test_the_half_width_of_maps_snip_is_the_published_one():
    energy_kev = np.array([1.0, 5.0, 10.0])
    half_width = snip_half_width(energy_kev, k=3.58, offset=0.0, slope=0.00957, snip_width=0.5)
    assert half_width.round().tolist() == [23, 51, 72]
