"""Elements and axis from nothing, on spectra of the second simulator."""

import numpy as np
import pytest
import torch

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.elements import find_elements
from hpcxrf.fitting.axis.naming import name_peaks
from hpcxrf.fitting.axis.peaks import find_peaks
from hpcxrf.formats.scan import EnergyCalibration

pytest.importorskip("xraydb", reason="line data of the second simulator")

from foreign_spectra import random_spectrum


def strong_families(truth, share=0.02):
    largest = max(truth.truth.values())
    return {n for n, counts in truth.truth.items() if counts > share * largest and n not in {"elastic", "Compton"}}


def test_axis_and_families_are_found_and_nothing_else():
    truth = random_spectrum(1)
    found = find_elements(torch.from_numpy(truth.counts), truth.incident_kev)
    assert float(found.fit.theta[0]) == pytest.approx(truth.offset_kev, abs=0.03)
    assert float(found.fit.theta[1]) == pytest.approx(truth.slope_kev, rel=3e-3)
    families = {n for n in found.names if n.count("_") == 0 or n.endswith(("_L", "_M"))}
    assert families <= set(truth.truth)
    assert strong_families(truth, 0.05) <= families
    assert {n for n, sure in found.sureness.items() if sure == "certain"} <= set(truth.truth)
    amplitude = dict(zip(found.fit.component_names, found.fit.amplitude.tolist(), strict=True))
    for name in strong_families(truth, 0.3):
        assert amplitude[name] == pytest.approx(truth.truth[name], rel=0.1)


def test_peaks_are_named_with_k_before_l_and_companions_have_no_name():
    truth = random_spectrum(17)
    peaks = find_peaks(truth.counts)
    names = name_peaks(truth.energy_kev(peaks.channel), peaks, truth.incident_kev, elastic=True)
    assert strong_families(truth, 0.3) <= set(names)
    assert len(set(names) - set(truth.truth)) <= 1


def test_an_axis_that_shows_no_line_is_refused():
    counts = torch.from_numpy(np.random.default_rng(1).poisson(5.0, 2048).astype(float))
    with pytest.raises(FitError, match="list the elements"):
        find_elements(counts, 12.0, calibration=EnergyCalibration(offset_kev=0.0, slope_kev=0.01))
    with pytest.raises(FitError, match="list the elements"):
        find_elements(counts, 12.0)
