"""Elements and axis from nothing, on spectra of the second simulator."""

import numpy as np
import pytest
import torch

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.elements import find_elements
from hpcxrf.fitting.axis.flags import NOT_FOUND
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


def test_a_family_that_another_explains_as_well_is_said_to_be_indistinguishable():
    truth = random_spectrum(112, light_kbeta=True)
    found = find_elements(torch.from_numpy(truth.counts), truth.nominal_kev)
    # Argon is weak here, and Ag L-alpha lies 27 eV beside it.
    assert found.sureness["Ar"] == "indistinguishable"
    assert found.rivals["Ar"] == ("Ag_L",)
    strongest = max(truth.truth.keys() - {"elastic", "Compton"}, key=truth.truth.get)
    assert found.sureness[strongest] == "certain"
    assert strongest not in found.rivals
    assert NOT_FOUND not in found.fit.flags


def test_an_axis_that_three_peaks_fix_is_flagged():
    truth = random_spectrum(113, light_kbeta=True)
    found = find_elements(torch.from_numpy(truth.counts), truth.nominal_kev)
    assert NOT_FOUND in found.fit.flags
    assert any("where no elements are listed" in text for text in found.fit.messages)


def test_an_incident_energy_1_kev_off_shifts_no_name_by_one():
    """With an elastic peak 1 keV too low, P, V, Cr and Sc explain the peaks of S, Cr, Mn and Ca nearly as well."""
    truth = random_spectrum(74027)
    assert truth.incident_kev - truth.nominal_kev > 1.0
    found = find_elements(torch.from_numpy(truth.counts), truth.nominal_kev)
    channel = np.arange(100.0, truth.counts.size, 100.0)
    offset, slope, bend = found.fit.theta[:3].tolist()
    energy, inside = truth.energy_kev(channel), truth.energy_kev(channel) < truth.incident_kev
    np.testing.assert_allclose((offset + slope * channel + bend * channel**2)[inside], energy[inside], atol=0.03)
    assert {"S", "Ti", "Cr", "Mn"} <= set(found.names)
    assert not set(found.names) & {"P", "V", "Sc", "K"}


def test_a_given_calibration_is_kept_and_not_flagged_for_few_peaks():
    truth = random_spectrum(113, light_kbeta=True)
    given = EnergyCalibration(offset_kev=truth.offset_kev, slope_kev=truth.slope_kev)
    found = find_elements(torch.from_numpy(truth.counts), truth.incident_kev, calibration=given)
    assert float(found.fit.theta[0]) == pytest.approx(truth.offset_kev, abs=0.05)
    assert set(found.names) <= set(truth.truth)
    assert found.fit.flags == () or NOT_FOUND not in found.fit.flags
