"""The curve of XRF-Maps: its closed form, its written numbers, and its peculiarities."""

import csv
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import xraylib
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from hpcxrf.errors import FitError
from hpcxrf.quantify.maps_curve import (
    MapsGeometry,
    MapsPoint,
    compute_maps_shape,
    compute_photoabsorption,
    fit_maps_curve,
    fit_maps_factor,
)

# XRF-Maps on its axo_std scan with NNLS: what it gets for its own standard, ug/cm2, and the factor of its curve.
CERTIFIED = {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284}
FOUND = {"Ca": 2.276, "Fe": 0.429, "Cu": 0.258}
P = 7.18944
INCIDENT_KEV = 10.0
INSTALL = "pip install hpcxrf[bench]"


@pytest.fixture(scope="module")
def tables():
    """Folder of the tables of MAPS, as MapsTorch ships them."""
    spec = importlib.util.find_spec("mapstorch")
    if spec is None or spec.origin is None:
        pytest.skip(f"mapstorch is not installed; {INSTALL}")
    return Path(spec.origin).parent / "reference"


def read_henke(folder):
    """(energies_ev, {symbol: f2}) of `henke.xdr`: two counts, the energies, then f1 and f2 of each element."""
    content = (folder / "henke.xdr").read_bytes()
    n_elements, n_energies = np.frombuffer(content, dtype=">i4", count=2)
    values = np.frombuffer(content, dtype=">f4", offset=8, count=n_energies * (1 + 2 * n_elements))
    table = values[n_energies:].reshape(n_elements, 2, n_energies)
    return values[:n_energies], {xraylib.AtomicNumberToSymbol(i + 1): table[i, 1] for i in range(n_elements)}


def henke_absorption(folder):
    energies, f2 = read_henke(folder)

    def absorption(symbol, energy_kev):
        known = f2[symbol] > 0.0
        found = math.exp(np.interp(math.log(1e3 * energy_kev), np.log(energies[known]), np.log(f2[symbol][known])))
        # mu / rho = 2 r_e lambda f2 N_A / A, with the numbers of MAPS
        wavelength_cm = 12398.52 / (1e3 * energy_kev) * 1e-8
        mass = xraylib.AtomicWeight(xraylib.SymbolToAtomicNumber(symbol))
        return 2.0 * 2.81793807e-13 * wavelength_cm * found * 6.02204531e23 / mass

    return absorption


def test_the_factor_of_its_curve_is_that_of_its_own_areal_densities():
    """What it finds of its own standard is a / p of each element, so that these alone give p back."""
    a = [P * FOUND[family] / CERTIFIED[family] for family in CERTIFIED]
    assert fit_maps_factor(a) == pytest.approx(P, rel=5e-4)  # three digits of the densities


@given(st.lists(st.floats(0.1, 50.0), min_size=1, max_size=8))
def test_the_closed_form_is_the_minimum(a):
    found = minimize_scalar(
        lambda q: sum((1.0 - x * math.exp(-q)) ** 2 for x in a), bounds=(-4.0, 5.0), method="bounded"
    )
    assert fit_maps_factor(a) == pytest.approx(math.exp(found.x), rel=1e-4)


@pytest.mark.parity
def test_the_absorption_of_calcium_is_the_written_one(tables):
    yields = xraylib.FluorYield(20, xraylib.K_SHELL)
    henke = compute_maps_shape("Ca", INCIDENT_KEV, MapsGeometry(), absorption=henke_absorption(tables)) / yields
    assert henke == pytest.approx(8.04e-4, abs=0.005e-4)
    own = compute_maps_shape("Ca", INCIDENT_KEV, MapsGeometry()) / yields
    assert own == pytest.approx(henke, rel=0.02)


@pytest.mark.parity
def test_jumps_and_yields_of_k_are_those_of_its_table(tables):
    with (tables / "xrf_library.csv").open(encoding="latin1") as stream:
        rows = {row[1]: row for row in csv.reader(stream) if len(row) > 73}
    for symbol in ("Si", "Ca", "Fe", "Cu", "Zn", "Pt"):
        z = xraylib.SymbolToAtomicNumber(symbol)
        assert float(rows[symbol][22]) == pytest.approx(xraylib.FluorYield(z, xraylib.K_SHELL), rel=0.01)
        assert float(rows[symbol][73]) == pytest.approx(xraylib.JumpFactor(z, xraylib.K_SHELL), rel=0.01)


@pytest.mark.parity
def test_absorption_of_both_tables_agrees_within_two_percent_and_of_silicon_within_four(tables):
    henke = henke_absorption(tables)
    for symbol, within in {"Ca": 0.02, "Fe": 0.02, "Cu": 0.02, "Si": 0.04}.items():
        assert compute_photoabsorption(symbol, 10.1) / henke(symbol, 10.1) == pytest.approx(1.0, abs=within), symbol


def test_areal_densities_of_its_own_standard_come_back_from_rates_that_made_them():
    """Counts that XRF-Maps must have had, by its own result, give its curve and with it the densities it writes."""
    geometry, scaler = MapsGeometry(), 1e3
    rates = {f: FOUND[f] * scaler * P * compute_maps_shape(f, INCIDENT_KEV, geometry) for f in CERTIFIED}
    curve = fit_maps_curve(
        [
            MapsPoint(family=f, counts_per_second=rates[f], areal_density_ug_cm2=CERTIFIED[f], scaler=scaler)
            for f in rates
        ],
        INCIDENT_KEV,
        geometry,
    )
    for family, rate in rates.items():
        assert rate / (scaler * curve.find_value(family)) == pytest.approx(FOUND[family], rel=1e-3)


def test_a_repeated_family_enters_by_its_mean():
    def point(rate, family="Fe"):
        return MapsPoint(family=family, counts_per_second=rate, areal_density_ug_cm2=1.0, scaler=1.0)

    both = fit_maps_curve([point(1.0), point(3.0), point(2.0, "Cu")], 10.0, MapsGeometry())
    mean = fit_maps_curve([point(2.0), point(2.0, "Cu")], 10.0, MapsGeometry())
    assert both.p == pytest.approx(mean.p, rel=1e-12)


def test_windows_are_exponentials_and_a_chip_of_no_thickness_absorbs_all():
    bare = compute_maps_shape("Ca", 10.0, MapsGeometry())
    window = compute_maps_shape("Ca", 10.0, MapsGeometry(be_window_um=24.0))
    expected = math.exp(
        -xraylib.CS_Photo(4, xraylib.LineEnergy(20, xraylib.KA1_LINE)) * xraylib.ElementDensity(4) * 24e-4
    )
    assert window / bare == pytest.approx(expected, rel=1e-12)
    assert compute_maps_shape("Cu", 10.0, MapsGeometry(chip_thickness_um=1e-3)) < 1e-3 * bare
    assert compute_maps_shape("Cu", 10.0, MapsGeometry(chip_thickness_um=1e5)) == pytest.approx(
        compute_maps_shape("Cu", 10.0, MapsGeometry()), rel=1e-9
    )


def test_higher_edges_take_their_share_where_the_energy_excites_them():
    l3_only, all_l = 12.0, 14.5  # L edges of platinum: 11.56, 13.27, 13.88 keV
    ratio = compute_maps_shape("Pt_L", all_l, MapsGeometry()) / compute_maps_shape("Pt_L", l3_only, MapsGeometry())
    absorbed = compute_photoabsorption("Pt", all_l + 0.1) / compute_photoabsorption("Pt", l3_only + 0.1)
    jumps = xraylib.JumpFactor(78, xraylib.L2_SHELL) * xraylib.JumpFactor(78, xraylib.L1_SHELL)
    assert ratio == pytest.approx(absorbed / jumps, rel=2e-3)


def test_what_is_not_excited_is_zero_and_cannot_be_a_standard():
    assert compute_maps_shape("Zn", 9.0, MapsGeometry()) == 0.0
    with pytest.raises(FitError, match=r"9 keV does not excite Zn; choose"):
        fit_maps_curve(
            [MapsPoint(family="Zn", counts_per_second=1.0, areal_density_ug_cm2=1.0, scaler=1.0)], 9.0, MapsGeometry()
        )
    with pytest.raises(FitError, match="no family"):
        fit_maps_curve([], 9.0, MapsGeometry())
