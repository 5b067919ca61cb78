"""Matter before the detector that its description leaves out."""

from collections import defaultdict

import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, theta_of
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.physics.absorber import AIR_PER_MM, attenuate
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import model_spectrum

NAMES = ("Si", "Ca", "Fe", "Sn_L", "Au_M", "Ca_Ca")
# Much gold: its M lines, 1.7 to 2.8 keV, are what tells the air path.
AMPLITUDE = torch.tensor([2e5, 1e5, 2e5, 3e5, 2e6, 1e3, 6e4, 1.6e5], dtype=torch.float64)


def table(air_mm, names=NAMES):
    return build_line_table(names, 10.0, efficiency=Detector(air_path_mm=air_mm))


def totals(lines):
    zero = torch.zeros(len(lines.component_names), dtype=torch.float64)
    return zero.index_add(0, lines.component, lines.ratio)


def by_energy(lines):
    """Ratios of whole lines by component and energy, those within 50 eV together."""
    own = (lines.escape_parent < 0) & (lines.edge_kev > 0.0)
    found = defaultdict(float)
    for i in torch.nonzero(own)[:, 0].tolist():
        found[int(lines.component[i]), round(20.0 * float(lines.energy_kev[i]))] += float(lines.ratio[i])
    return found


def fitted(true_air_mm, seed=1):
    channel, theta = channels(0, 1499), theta_of(**TRUTH)
    peaks = model_spectrum(theta, AMPLITUDE, table(true_air_mm), channel, constants=PHYSICS)
    return fit_spectrum(drawn(peaks + 20.0, seed), setup(table(10.0)))


@given(st.floats(-0.6, 2.4))
def test_an_amplitude_is_still_all_that_was_recorded(optical_depth):
    before = table(10.0)
    after = attenuate(before, optical_depth)
    torch.testing.assert_close(totals(after), totals(before), rtol=1e-12, atol=0)
    assert (after.ratio > 0).all()
    pileup = before.component == NAMES.index("Ca_Ca")
    assert torch.equal(after.ratio[pileup], before.ratio[pileup])


@pytest.mark.parametrize("more_mm", [-8.0, 20.0])
def test_ratios_are_those_of_that_much_air(more_mm):
    """Of a table that was made with the other air path; argon's edge at 3.2 keV is no power law."""
    found, before = (by_energy(lines) for lines in (attenuate(table(10.0), more_mm * AIR_PER_MM), table(10.0)))
    wanted = by_energy(table(10.0 + more_mm))
    assert len(wanted) > 15
    assert max(abs(found[k] - wanted[k]) for k in wanted) < 0.012
    assert max(abs(before[k] - wanted[k]) for k in wanted) > 0.02


def test_the_depth_of_a_millimetre_of_air_is_the_library_s():
    thin, thick = (efficiency(2.0, Detector(air_path_mm=mm)) for mm in (0.0, 10.0))
    assert float(thick / thin) == pytest.approx(2.718281828 ** (-10 * AIR_PER_MM), rel=5e-3)


def test_an_escape_line_is_weakened_as_its_parent():
    lines = table(10.0, ("Ar", "K", "Ca"))
    found = attenuate(lines, 1.0)
    escape = torch.nonzero(lines.escape_parent >= 0)[:, 0]
    parent = lines.escape_parent[escape]
    assert escape.numel() > 0
    torch.testing.assert_close(found.ratio[escape] / found.ratio[parent], lines.ratio[escape] / lines.ratio[parent])


@pytest.mark.parametrize("air_mm", [35.0, 0.0])
def test_another_air_path_is_found_and_the_amplitudes_are_right(air_mm):
    fit = fitted(air_mm)
    assert fit.r2 > 0.9995
    (said,) = [m for m in fit.messages if "mm of air" in m]
    assert ("extra absorption" in said) == (air_mm > 10.0)
    told_mm = float(said.split(" mm")[0].split()[-1])
    assert told_mm == pytest.approx(abs(air_mm - 10.0), abs=4.0)
    strong = [NAMES.index(n) for n in ("Si", "Ca", "Fe", "Sn_L", "Au_M")]
    torch.testing.assert_close(fit.amplitude[strong], AMPLITUDE[strong], rtol=0.015, atol=0)


def test_where_the_description_is_right_nothing_is_adjusted():
    fit = fitted(10.0)
    assert not [m for m in fit.messages if "mm of air" in m]
    assert torch.equal(fit.table.ratio, table(10.0).ratio)
