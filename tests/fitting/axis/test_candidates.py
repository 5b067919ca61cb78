"""The axis by the positions of peaks, on spectra of a simulator with other line data and another response."""

import numpy as np
import pytest

from hpcxrf.fitting.axis.candidates import find_axes
from hpcxrf.fitting.axis.incident import find_elastic
from hpcxrf.fitting.axis.peaks import find_peaks
from hpcxrf.fitting.axis.tables import build_position_table, list_families

pytest.importorskip("xraydb", reason="line data of the second simulator")

from foreign_spectra import random_spectrum

BOUNDS = {"offsets_kev": (-1.5, 1.5), "slopes_kev": (0.002, 0.06)}
SEEDS = (1, 7, 13, 15, 24, 39, 45, 63)


def error_kev(axes, index, truth):
    """Largest error of an axis from 1 keV to the incident energy."""
    channel = np.arange(truth.counts.size)
    energy = truth.energy_kev(channel)
    inside = (energy > 1.0) & (energy < truth.incident_kev)
    found = axes.offset_kev[index] + axes.slope_kev[index] * channel
    return float(np.abs(found - energy)[inside].max())


@pytest.fixture(scope="module")
def spectra():
    found = [random_spectrum(seed) for seed in SEEDS]
    return [(one, find_peaks(one.counts)) for one in found]


def test_with_a_list_the_first_axis_is_the_right_one_wherever_the_incident_energy_is(spectra):
    for truth, peaks in spectra:
        axes = find_axes(peaks, truth.nominal_kev, listed=truth.listed, **BOUNDS)
        assert error_kev(axes, 0, truth) < 0.12


def test_without_a_list_the_right_axis_is_among_the_first_14(spectra):
    for truth, peaks in spectra:
        axes = find_axes(peaks, truth.incident_kev, keep=14, **BOUNDS)
        assert min(error_kev(axes, i, truth) for i in range(axes.score.size)) < 0.12


def test_the_elastic_peak_is_the_highest_one_on_the_right_axis(spectra):
    for truth, peaks in spectra:
        offset, slope = np.array([truth.offset_kev]), np.array([truth.slope_kev])
        assert find_elastic(peaks, offset, slope, truth.nominal_kev)[0] == pytest.approx(truth.incident_kev, abs=0.1)


def test_axes_are_apart_and_the_best_comes_first(spectra):
    truth, peaks = spectra[0]
    axes = find_axes(peaks, truth.nominal_kev, keep=10, **BOUNDS)
    assert bool((np.diff(axes.score) <= 0.0).all())
    ends = (np.array([1.0, truth.nominal_kev]) - axes.offset_kev[0]) / axes.slope_kev[0]
    at = axes.offset_kev[:, None] + axes.slope_kev[:, None] * ends
    apart = np.abs(at[:, None] - at).max(axis=2) + np.eye(len(at))
    assert float(apart.min()) >= 0.05 - 1e-9


def test_a_known_slope_is_kept_and_the_offset_found(spectra):
    truth, peaks = spectra[0]
    known = {"offsets_kev": (-1.5, 1.5), "slopes_kev": (truth.slope_kev, truth.slope_kev)}
    axes = find_axes(peaks, truth.nominal_kev, listed=truth.listed, **known)
    assert axes.slope_kev[0] == truth.slope_kev
    assert axes.offset_kev[0] == pytest.approx(truth.offset_kev, abs=0.05)


def test_no_peaks_give_no_axis():
    assert find_axes(find_peaks(np.zeros(1024)), 12.0, **BOUNDS).score.size == 0


def test_common_and_listed_lines_are_more_probable_than_others():
    plain, listed = build_position_table(12.0), build_position_table(12.0, listed=("Ga",))
    line = {f.name: f.alpha_kev for f in list_families()}
    at = np.array([line["Fe"], line["Ga"], 0.0, 12.0])
    assert plain.at(at)[0] > 3.0 * plain.at(at)[1]
    assert listed.at(at)[1] > 3.0 * plain.at(at)[1]
    assert bool((plain.at(at) > 1.0 / plain.span_kev).all())
    assert plain.at(np.array([-5.0, 99.0])).tolist() == [0.0, 0.0]
