"""Families weighed once more on the fitted model: absent ones, and those that another explains as well."""

from dataclasses import replace

import torch
from fit_samples import TRUTH, channels, drawn, setup, table, theta_of

from hpcxrf.fitting.axis.review import EXCHANGE, review
from hpcxrf.fitting.spectrum.candidates import build_candidate_lines
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.model import model_spectrum

COUNTS = {"Si": 2e4, "Ca": 8e4, "Fe": 3e5, "Zn": 9e4}
SCATTER = (6e4, 1.6e5)


def reviewed(counts, listed, seed=1):
    theta = theta_of(**TRUTH)
    amplitude = torch.tensor([*counts.values(), *SCATTER], dtype=torch.float64)
    channel = channels(0, 1499)
    expected = model_spectrum(theta, amplitude, table(tuple(counts)), channel, constants=PHYSICS)
    problem = setup(table(listed))
    fit = fit_spectrum(drawn(expected + 60.0 * (1.6 - 1.2 * channel / 1500), seed), problem)
    fitted = replace(problem, table=fit.table)
    return review(evaluate_fit(fit, fitted), build_candidate_lines(fitted, Detector()), detector=Detector())


def test_present_families_are_worth_their_price_and_an_absent_one_is_not():
    found = reviewed(COUNTS, (*COUNTS, "Mn"))
    assert all(found[name].gain > 100.0 for name in COUNTS)
    assert found["Mn"].gain < 0.0
    assert found["Fe"].z > 50.0
    assert 0.1 < found["Fe"].surviving <= 1.0


def test_what_a_faint_family_is_cannot_be_told_and_what_a_strong_one_is_can():
    faint = reviewed(COUNTS | {"S": 700.0}, (*COUNTS, "S"))["S"]
    assert faint.gain > 0.0
    assert faint.rivals["Mo_L"] < EXCHANGE
    strong = reviewed(COUNTS | {"S": 3e4}, (*COUNTS, "S"))["S"]
    assert strong.rivals["Mo_L"] > EXCHANGE


def test_a_wrong_name_costs_less_than_nothing_to_exchange():
    wrong = reviewed(COUNTS | {"S": 3e4}, (*COUNTS, "Mo_L"))["Mo_L"]
    assert wrong.rivals["S"] < -EXCHANGE
    assert min(wrong.rivals, key=wrong.rivals.get) == "S"


def test_rivals_overlap_and_m_lines_are_none_where_the_l_lines_are_missing():
    rivals = reviewed(COUNTS, tuple(COUNTS))["Ca"].rivals
    assert "Fe" not in rivals
    assert "Ti" not in rivals
    # At 12 keV the L lines of thallium are not excited, and its M lines may stand alone; those of tantalum are.
    rivals = reviewed(COUNTS | {"S": 3e4}, (*COUNTS, "S"))["S"].rivals
    assert "Tl_M" in rivals
    assert "Ta_M" not in reviewed(COUNTS, tuple(COUNTS))["Si"].rivals


def test_no_family_is_surer_than_its_own_counts():
    found = reviewed(COUNTS | {"Cr": 4e3}, (*COUNTS, "Cr"))["Cr"]
    assert 20.0 < found.z < 4e3**0.5
