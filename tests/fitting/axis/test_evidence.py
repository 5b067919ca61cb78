"""Evidence for families on one energy axis: active sets, shells, and what is withdrawn or exchanged."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from hpcxrf.fitting.axis.binned import AxisPoint, make_bins, move_axis, table_at
from hpcxrf.fitting.axis.candidates import Axes
from hpcxrf.fitting.axis.evidence import Hypothesis, Search, seek, solve_nonnegative, withdraw
from hpcxrf.fitting.axis.peaks import find_peaks
from hpcxrf.fitting.axis.plausibility import cost_beside, is_possible
from hpcxrf.fitting.axis.race import race
from hpcxrf.physics.detector import Detector

pytest.importorskip("xraydb", reason="line data of the second simulator")

from foreign_spectra import random_spectrum

RELATIVE = 0.008


def start(truth, names, **moved):
    counts = torch.from_numpy(truth.counts)
    peaks = find_peaks(truth.counts)
    at = AxisPoint(
        offset_kev=truth.offset_kev + moved.get("offset", 0.0),
        slope_kev=truth.slope_kev,
        bend_kev=0.0,
        width_factor=(0.0, 0.0),
        incident_kev=truth.incident_kev,
    )
    bins = make_bins(counts, peaks, at, 1.0, truth.incident_kev + 1.0)
    return Search(bins=bins, peaks=peaks, detector=Detector(), elastic=True), Hypothesis(at=at, names=tuple(names))


@pytest.mark.parametrize("guess", [None, False, True])
def test_amplitudes_that_are_not_negative_are_those_of_lawson_and_hanson(guess):
    rng = np.random.default_rng(4)
    columns = rng.normal(size=(60, 25)) + 0.5
    target = columns @ np.maximum(rng.normal(size=25), 0.0) + rng.normal(size=60)
    expected, _ = nnls(columns, target)
    begin = None if guess is None else torch.full((25,), guess)
    found, used = solve_nonnegative(torch.from_numpy(columns), torch.from_numpy(target), begin)
    assert found.numpy() == pytest.approx(expected, abs=1e-6 * expected.max())
    assert used.tolist() == (expected > 0).tolist()


@pytest.mark.parametrize(
    ("name", "others", "incident_kev", "possible"),
    [
        ("Fe", set(), 12.0, True),
        ("Sr_L", set(), 20.0, False),  # its K lines are excited, and not there
        ("Sr_L", {"Sr"}, 20.0, True),
        ("Sr_L", set(), 16.0, True),  # they are not excited
        ("Zn_L", set(), 8.0, False),  # too faint without K lines
        ("Pb_M", set(), 18.0, False),
        ("Pb_M", {"Pb_L"}, 18.0, True),
        ("Pb_M", set(), 10.0, True),
    ],
)
def test_outer_shells_need_the_inner_ones_that_the_beam_excites(name, others, incident_kev, possible):
    assert is_possible(name, others, incident_kev) is possible


def test_m_lines_beside_their_l_lines_are_cheap_and_light_l_lines_are_dear():
    assert cost_beside("Pt_M", {"Pt_L"}) < 1.0 < cost_beside("Pt_M", {"Au_L"})
    assert cost_beside("Mo_L", set()) > cost_beside("Ag_L", set())


def test_an_axis_that_is_off_comes_back():
    truth = random_spectrum(1, light_kbeta=True)
    names = [n for n, counts in truth.truth.items() if counts > 2000 and n not in {"elastic", "Compton"}]
    search, begin = start(truth, names, offset=0.03)
    found = seek(search, begin, relative=RELATIVE, rounds=8)
    channel = torch.tensor([(6.0 - truth.offset_kev) / truth.slope_kev], dtype=torch.float64)
    assert float(found.at.energy_kev(channel)[0]) == pytest.approx(truth.energy_kev(float(channel[0])), abs=0.006)


def test_no_line_moves_farther_than_it_may_in_one_step():
    at = AxisPoint(offset_kev=0.0, slope_kev=0.01, bend_kev=0.0, width_factor=(0.0, 0.0), incident_kev=12.0)
    far = move_axis(at, (10.0, 0.0, 0.0, 0.0, 0.0, 0.0), farthest_kev=0.03)
    assert far.offset_kev == pytest.approx(0.03)
    assert far.moved[0] == pytest.approx(1.5)
    assert move_axis(at, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), farthest_kev=0.03).offset_kev == pytest.approx(0.02)


def test_an_absent_family_is_withdrawn_and_a_wrong_name_exchanged():
    truth = random_spectrum(8, light_kbeta=True)
    assert {"Si", "S", "Ni", "As"} <= truth.truth.keys()
    right = [n for n in truth.truth if n not in {"elastic", "Compton"}]
    # Mo_L lies on S, and nothing is at Ti.
    search, begin = start(truth, ["Mo_L" if n == "S" else n for n in right] + ["Ti"])
    found = withdraw(search, begin, relative=RELATIVE)
    assert set(found.names) == set(right)


def test_lines_above_the_incident_energy_are_not_in_the_table():
    below, above = table_at(9.0, Detector()), table_at(9.7, Detector())
    assert "Cu" in below.component_names  # 8.979 keV
    assert "Zn" not in below.component_names
    assert "Zn" in above.component_names  # 9.659 keV
    gold = table_at(12.5, Detector())  # L3 at 11.919, L2 at 13.734 keV
    mine = gold.component == gold.component_names.index("Au_L")
    assert float(gold.edge_kev[mine & (gold.ratio > 0)].max()) < 12.0
    assert float(gold.ratio[mine].sum()) == pytest.approx(1.0)


def test_of_two_axes_the_one_that_explains_the_peaks_wins_and_the_same_axis_runs_once():
    truth = random_spectrum(1, light_kbeta=True)
    offset, slope = truth.offset_kev, truth.slope_kev
    axes = Axes(
        offset_kev=np.array([offset + 0.3, offset + 0.01, offset]),
        slope_kev=np.array([slope * 1.02, slope, slope]),
        score=np.zeros(3),
    )
    peaks = find_peaks(truth.counts)
    runners = race(
        torch.from_numpy(truth.counts), peaks, axes, truth.nominal_kev, detector=Detector(), elastic=True, low_kev=1.0
    )
    assert len(runners) == 1
    assert runners[0].found.at.offset_kev == pytest.approx(offset, abs=0.02)
