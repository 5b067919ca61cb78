"""The detectors of one scan: what is missing is suggested, or added for all of them alike and said."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fit_samples import INCIDENT_KEV, TRUTH, channels, drawn, table, theta_of

import hpcxrf.pipeline.prepare.detectors
from hpcxrf.config.run import check_config
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.suggestion import Suggestion
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import COMPTON, ELASTIC, model_spectrum
from hpcxrf.pipeline.prepare.detectors import fit_detectors
from hpcxrf.pipeline.records import ScanFacts

COUNTS = {"Si": 2e4, "Ca": 8e4, "Fe": 3e5, "Zn": 9e4, "Ba_L": 2e4}
LISTED = tuple(COUNTS)
SCATTER = (6e4, 1.6e5)
AXES = ((0.013, 0.01004), (-0.02, 0.0098))
PLANTED = 8e3


def spectrum(counts, axis, *, share=1.0, seed=1):
    """Counts of one detector that sees this share of everything."""
    offset, slope = axis
    theta = theta_of(**TRUTH | {"energy_offset": offset, "energy_slope": slope})
    amplitude = share * torch.tensor([*counts.values(), *SCATTER], dtype=torch.float64)
    channel = channels(0, 1499)
    peaks = model_spectrum(theta, amplitude, table(tuple(counts)), channel, constants=PHYSICS)
    return drawn(peaks + 60.0 * share * (1.6 - 1.2 * channel / 1500), seed)


def facts():
    calibration = tuple(EnergyCalibration(offset_kev=o, slope_kev=s) for o, s in AXES)
    return ScanFacts(
        source=Path("scan.mda"), n_detectors=2, n_channels=1500, calibration=calibration, incident_energy_kev=None
    )


def config_of(listed=LISTED, **fit):
    sample = {"elements": list(listed), "incident_energy_kev": INCIDENT_KEV}
    options = {"override": "none", "calibration": "file"} | fit
    return check_config({"input": {"files": ["scan.mda"]}, "sample": sample, "fit": options}, "x")


def fitted(*by_detector, listed=LISTED, detectors=(0, 1), **fit):
    return fit_detectors(config_of(listed, **fit), facts(), detectors, torch.stack(by_detector))


def plain(seed=1):
    return spectrum(COUNTS, AXES[0], seed=seed), spectrum(COUNTS, AXES[1], seed=seed + 10)


@pytest.fixture(scope="module")
def lacking():
    """The first detector sees manganese well; the second sees a two hundred and fiftieth of all, and cannot tell."""
    with_manganese = COUNTS | {"Mn": PLANTED}
    return (spectrum(with_manganese, AXES[0], seed=1), spectrum(with_manganese, AXES[1], share=0.004, seed=2))


@pytest.fixture(scope="module")
def suggested(lacking):
    return fitted(*lacking)


@pytest.fixture(scope="module")
def added(lacking):
    return fitted(*lacking, auto_elements=True)


def amplitude(fit, name):
    i = fit.component_names.index(name)
    return float(fit.amplitude[i]), float(fit.amplitude_sigma[i])


def test_without_auto_elements_what_is_missing_is_suggested_and_not_added(suggested):
    assert [[s.name for s in one] for one in suggested.suggested] == [["Mn"], []]
    for fit in suggested.fits:
        assert fit.component_names == (*LISTED, ELASTIC, COMPTON)
    assert not any("suggestion" in note.text for note in suggested.notes)


def test_what_is_missing_is_added_for_all_detectors_alike(added):
    for fit, problem in zip(added.fits, added.problems, strict=True):
        assert fit.component_names == (*LISTED, "Mn", ELASTIC, COMPTON)
        assert problem.table.component_names == (*LISTED, "Mn")
        assert fit.status is FitStatus.CONVERGED
    assert added.suggested == ((), ())


def test_the_note_names_what_was_added_and_how_sure_it_is(added, suggested):
    (note,) = [n.text for n in added.notes if "suggestion" in n.text]
    found = re.fullmatch(r"elements added by suggestion: Mn \(z (\d+)\)", note)
    assert found is not None
    assert int(found[1]) == round(suggested.suggested[0][0].z)
    assert int(found[1]) > 6


def test_what_was_added_has_the_counts_that_were_planted_on_every_detector(added, suggested):
    for fit, share in zip(added.fits, (1.0, 0.004), strict=True):
        counts, sigma = amplitude(fit, "Mn")
        assert counts == pytest.approx(share * PLANTED, abs=4.0 * sigma)
    assert added.fits[0].r2 > suggested.fits[0].r2
    assert added.fits[0].deviance < suggested.fits[0].deviance


def test_a_complete_list_stays_as_it_is():
    one, other = plain()
    asked = fitted(one, other, auto_elements=True)
    usual = fitted(one, other)
    assert asked.notes == usual.notes
    for a, b in zip(asked.fits, usual.fits, strict=True):
        assert a.component_names == (*LISTED, ELASTIC, COMPTON)
        assert torch.equal(a.theta, b.theta)


def test_what_only_one_detector_lacks_each_is_added_to_both():
    one = spectrum(COUNTS | {"Mn": PLANTED}, AXES[0], seed=3)
    other = spectrum(COUNTS | {"Cu": 2 * PLANTED}, AXES[1], seed=4)
    found = fitted(one, other, auto_elements=True)
    names = [fit.component_names for fit in found.fits]
    assert names[0] == names[1]
    assert set(names[0]) == {*LISTED, "Mn", "Cu", ELASTIC, COMPTON}
    assert len(names[0]) == len(LISTED) + 4
    (note,) = [n.text for n in found.notes if "suggestion" in n.text]
    assert "Mn (z" in note
    assert "Cu (z" in note
    for fit, absent in zip(found.fits, ("Cu", "Mn"), strict=True):
        counts, sigma = amplitude(fit, absent)
        assert counts < 5.0 * max(sigma, 1.0)


def test_the_axis_is_found_once_and_kept_when_an_element_is_added(lacking):
    found = fitted(*lacking, calibration="none", auto_elements=True)
    assert [p.find_axis for p in found.problems] == [False, False]
    assert "Mn" in found.fits[1].component_names
    for fit, (offset, slope), near in zip(found.fits, AXES, (0.005, 0.03), strict=True):
        at_iron = fit.theta[0] + fit.theta[1] * (6.4 - offset) / slope
        assert float(at_iron) == pytest.approx(6.4, abs=near)


def test_detectors_that_are_asked_for_are_fitted_with_their_own_calibration():
    one, other = plain()
    (fit,) = fitted(one, other, detectors=(1,)).fits
    (alone,) = fitted(torch.zeros_like(one), other, detectors=(1,)).fits
    assert torch.equal(fit.theta, alone.theta)
    assert fit.theta_initial[:2].tolist() == list(AXES[1])


def test_an_empty_detector_beside_a_good_one_hinders_nothing(lacking):
    found = fitted(lacking[0], torch.zeros(1500), auto_elements=True)
    assert [f.status for f in found.fits] == [FitStatus.CONVERGED, FitStatus.EMPTY]
    assert "Mn" in found.fits[0].component_names
    assert "Mn" in found.fits[1].component_names
    assert bool(found.fits[1].theta.isnan().all())


@dataclass
class _Restless:
    """Suggestions that never end, and how often they were asked for."""

    asked: int = 0

    def __call__(self, config, fits, problems):
        del config
        name = ("Mn", "Cu", "Ni", "Co", "Cr", "Ti")[self.asked]
        self.asked += 1
        one = Suggestion(
            name=name, z=10.0 + self.asked, counts=1.0, sigma=1.0, detection_limit=1.0, surviving=1.0, lines=()
        )
        assert len(fits) == len(problems)
        return [(one,) for _ in fits]


def test_adding_ends_after_three_rounds_and_tells_what_is_left(monkeypatch):
    restless = _Restless()
    monkeypatch.setattr(hpcxrf.pipeline.prepare.detectors, "suggest_components", restless)
    found = fitted(*plain(), auto_elements=True)
    assert restless.asked == 4
    assert found.fits[0].component_names == (*LISTED, "Mn", "Cu", "Ni", ELASTIC, COMPTON)
    assert [s.name for s in found.suggested[0]] == ["Co"]
    assert found.notes[0].text == "elements added by suggestion: Mn (z 11), Cu (z 12), Ni (z 13)"


def test_what_lies_below_the_threshold_is_not_added(monkeypatch):
    weak = Suggestion(name="Mn", z=5.9, counts=1.0, sigma=1.0, detection_limit=1.0, surviving=1.0, lines=())
    monkeypatch.setattr(
        hpcxrf.pipeline.prepare.detectors, "suggest_components", lambda config, fits, problems: [(weak,)] * 2
    )
    found = fitted(*plain(), auto_elements=True)
    assert found.fits[0].component_names == (*LISTED, ELASTIC, COMPTON)
    assert found.suggested == ((weak,), (weak,))
