"""Counts that are not raw, and detectors that disagree, in fits without a run: of one file, and of arrays."""

import numpy as np
import pytest

import hpcxrf
from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.map_arguments import read_pixels
from hpcxrf.pipeline.pixels.count_factors import average_factor
from hpcxrf.pipeline.single import fit_file
from tests.samples.run_samples import spectrum

COUNTS = {"Ca": 460.0, "Fe": 200.0, "Zn": 60.0, "elastic": 100.0, "Compton": 120.0}
ELEMENTS = ("Ca", "Fe", "Zn")
AXIS = {"energy_offset_kev": 0.0, "energy_slope_kev": 0.01}
FACTOR = 2.5


def raw_counts(shape=(1, 12, 12), seed=5):
    return np.random.default_rng(seed).poisson(np.broadcast_to(spectrum(COUNTS), (*shape, 1200))).astype("f4")


def fitted(path, counts, detector="0", **sections):
    np.save(path, counts)
    raw = {
        "input": {"files": ["-"], **AXIS},
        "sample": {"elements": list(ELEMENTS), "incident_energy_kev": 10.0},
    } | sections
    return fit_file(path, check_config(raw, "test"), detector)


def said(found, text):
    return [note.text for note in found.notes if text in note.text]


@pytest.mark.parametrize("detector", ["0", "sum"])
def test_the_fit_of_a_file_carries_the_factor_of_scaled_counts(tmp_path, detector):
    counts = raw_counts((2, 12, 12))
    before = fitted(tmp_path / "raw.npy", counts, detector)
    after = fitted(tmp_path / "scaled.npy", FACTOR * counts, detector)
    assert not said(before, "variance of raw counts")
    assert len(said(after, "variance of raw counts")) == (2 if detector == "sum" else 1)
    assert said(after, "detector 0: counts are not whole and scatter with 2.")
    found = (after.fit.amplitude_sigma / before.fit.amplitude_sigma).numpy()[: len(ELEMENTS)]
    # The flaws of the model and the K-beta ratios, which the counts tell in part, are estimated again.
    assert found == pytest.approx(FACTOR, rel=0.35)
    noise = [one.fit.errors.variances.amplitude[:2].numpy() for one in (after, before)]
    assert noise[0] / noise[1] == pytest.approx(FACTOR, rel=0.05)
    assert after.fit.reduced_chi2 == pytest.approx(before.fit.reduced_chi2, rel=0.15)
    for one, other in zip(after.by_detector, before.by_detector, strict=True):
        assert float(one.amplitude_sigma[1] / other.amplitude_sigma[1]) == pytest.approx(FACTOR, rel=0.1)


def test_the_fit_of_a_sum_is_made_without_a_detector_that_disagrees_and_names_it(tmp_path):
    counts = raw_counts((4, 6, 8))
    peak = np.exp(-0.5 * ((np.arange(1200) - 835) / 9.0) ** 2)
    counts[2] += np.random.default_rng(1).poisson(2000 * peak / peak.sum(), (6, 8, 1200)).astype("f4")
    found = fitted(tmp_path / "scan.npy", counts, "sum")
    (text,) = said(found, "disagrees")
    assert text.startswith(
        "detector 2 disagrees with the others and is left out of the sum, which is that of the other 3"
    )
    np.testing.assert_array_equal(found.fit.counts.sum(), counts[[0, 1, 3]][..., found_range(found)].sum())
    kept = fitted(tmp_path / "scan.npy", counts, "sum", detectors={"judge": False})
    assert not said(kept, "disagrees")
    assert float(kept.fit.counts.sum()) == counts[..., found_range(kept)].sum()
    without = fitted(tmp_path / "scan.npy", counts, "sum", detectors={"exclude": [2]})
    assert not said(without, "disagrees")
    np.testing.assert_array_equal(without.fit.amplitude, found.fit.amplitude)


def found_range(found):
    return slice(found.fit.first_channel, found.fit.first_channel + len(found.fit.counts))


@pytest.mark.parametrize("detector", [0, "sum"])
def test_maps_of_arrays_carry_the_factor_of_scaled_counts(detector):
    counts = raw_counts((2, 12, 12))
    made = []
    for factor in (1.0, FACTOR):
        scaled = np.float32(factor) * counts
        fits = [hpcxrf.fit_spectrum(one.sum((0, 1)), ELEMENTS, 10.0, **AXIS) for one in scaled]
        made.append(hpcxrf.fit_map(scaled, fits, detector=detector))
    before, after = made
    assert "variance of raw counts" not in before.attrs["notes"]
    assert "detector 0: counts are not whole and scatter" in after.attrs["notes"]
    for name in ELEMENTS:
        one, other = after.sel(component=name), before.sel(component=name)
        assert float(one.sigma.mean() / other.sigma.mean()) == pytest.approx(FACTOR, rel=0.1)
        assert float(one.amplitude.std() / one.sigma.mean()) == pytest.approx(1.0, abs=0.2)
        assert float(one.detection_limit.mean() / other.detection_limit.mean()) == pytest.approx(FACTOR, rel=0.1)
    assert float(after.deviance.mean() / before.deviance.mean()) == pytest.approx(1.0, rel=0.15)


def test_a_few_negative_counts_of_a_spectrum_are_0_and_said_and_many_refused():
    counts = raw_counts().sum((0, 1, 2), dtype=np.float64)
    bad = counts.copy()
    bad[3] = -316.0
    fit = hpcxrf.fit_spectrum(bad, ELEMENTS, 10.0, **AXIS)
    assert fit.messages[0] == "1 of 1200 counts was negative, down to -316, and is taken as 0"
    assert bad[3] == -316.0
    whole = hpcxrf.fit_spectrum(counts, ELEMENTS, 10.0, **AXIS)
    np.testing.assert_array_equal(fit.amplitude, whole.amplitude)
    assert fit.messages[1:] == whole.messages
    bad[:2] = -1.0
    with pytest.raises(ConfigError, match=r"fit_spectrum: counts: 3 of the scan's 1200 counts are negative.*0\.1 %"):
        hpcxrf.fit_spectrum(bad, ELEMENTS, 10.0, **AXIS)


def test_the_factor_of_a_sum_is_that_of_its_parts_by_their_counts():
    spectra = read_pixels(np.stack([np.full((2, 2, 4), 3.0), np.full((2, 2, 4), 1.0), np.full((2, 2, 4), 9.0)]))[0]
    assert average_factor({"0": 2.0}, spectra, [0, 1]) == pytest.approx((2.0 * 3 + 1.0 * 1) / 4)
    assert average_factor({"0": 2.0, "2": 0.5}, spectra, [0, 1, 2]) == pytest.approx((6 + 1 + 4.5) / 13)


@pytest.mark.parametrize(
    ("detector", "exclude", "said"),
    [
        ("0", [0], "detector 0 is in detectors.exclude"),
        ("0", [7], "names 7, but the detectors of the scan are 0 to 1"),
        ("sum", [0, 1], "leaves none of the 2 detectors"),
    ],
)
def test_a_fit_refuses_the_exclusions_that_a_run_refuses(tmp_path, detector, exclude, said):
    with pytest.raises(ConfigError, match=said):
        fitted(tmp_path / "scan.npy", raw_counts((2, 2, 2)), detector, detectors={"exclude": exclude})
