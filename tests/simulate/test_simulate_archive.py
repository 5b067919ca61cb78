"""Synthetic archives: each dataset is its own, and what is drawn is what was promised."""

from collections import Counter

import numpy as np
import pytest

from hpcxrf.errors import ConfigError
from hpcxrf.formats.maps_writer import MAX_EXACT_COUNT
from hpcxrf.simulate import (
    archive_spec,
    draw_counts,
    expected_counts,
    random_spectrum_spec,
    simulate_scan,
    write_archive,
)
from hpcxrf.simulate.sampling import draw_sample, make_generator
from hpcxrf.simulate.scan import row_truth
from hpcxrf.simulate.spec import list_families

SEED = 5
WHOLE = slice(None)
SCATTER = {"elastic", "compton", "continuum"}


@pytest.fixture(scope="module")
def specs():
    return [archive_spec(SEED, index) for index in range(300)]


@pytest.fixture(scope="module")
def coarse():
    """Few channels: rates and amplitudes do not depend on them, and they cost time."""
    return [archive_spec(SEED, index, channels=512) for index in range(60)]


def rates(spec):
    """Input and output rates (detector, y, x) and expected recorded counts of each detector."""
    scan = simulate_scan(spec)
    rows = [row_truth(scan, r) for r in range(spec.shape[1])]
    recorded = sum(r.amplitude.sum(axis=(1, 2)) + r.pileup.sum(axis=(1, 2)) for r in rows)
    return (np.stack([r.icr_hz for r in rows], axis=1), np.stack([r.ocr_hz for r in rows], axis=1), recorded)


def spectral_shares(spec):
    """Share of each component in the events of the whole map on detector 0."""
    scan = simulate_scan(spec)
    amplitude = sum(row_truth(scan, r).amplitude[0].sum(axis=1) for r in range(spec.shape[1]))
    return dict(zip(scan.components, amplitude / amplitude.sum(), strict=True))


def test_a_dataset_depends_on_the_seed_and_its_number_alone(specs):
    assert archive_spec(SEED, 7) == specs[7]
    assert len({s.seed for s in specs}) == len({s.incident_energy_kev for s in specs}) == len(specs)
    assert archive_spec(SEED + 1, 7) != specs[7]
    assert all(0 <= s.seed < 2**53 for s in specs)


def test_energies_families_and_nominal_energies_are_those_of_five_years(specs):
    energies = np.array([s.incident_energy_kev for s in specs])
    families = np.array([len(list_families(s)) for s in specs])
    off = np.array([s.file_energy_kev - s.incident_energy_kev for s in specs])
    assert energies.min() >= 8.0
    assert energies.max() <= 20.0
    assert np.histogram(energies, 4, (8.0, 20.0))[0].min() > 50
    assert (families.min(), families.max()) == (3, 25)
    assert np.abs(off).max() <= 0.3
    assert np.abs(off).max() > 0.28
    assert abs(off.mean()) < 4 * 0.173 / np.sqrt(300)


def test_some_families_are_unlisted_and_some_listed_ones_are_absent(specs):
    unlisted = Counter(len(set(list_families(s)) - set(s.listed_elements)) for s in specs)
    absent = Counter(len(set(s.listed_elements) - set(list_families(s))) for s in specs)
    assert set(unlisted) == {0, 1, 2}
    assert set(absent) == {1, 2, 3, 4}
    assert min(unlisted.values()) > 60
    assert min(absent.values()) > 45


def test_unlisted_families_are_traces_of_the_whole_map(coarse):
    chosen = [s for s in coarse if set(list_families(s)) - set(s.listed_elements)][:20]
    for spec in chosen:
        shares = spectral_shares(spec)
        hidden = [v for n, v in shares.items() if n not in {*spec.listed_elements, *SCATTER}]
        # Dead time takes more of the hot pixels than of the others, so the share is not exact.
        assert max(hidden) < 0.0115 * (1.0 - sum(shares[n] for n in SCATTER))


def test_counts_of_detector_0_spread_over_five_decades_and_no_detector_is_overrun(coarse):
    totals = []
    for spec in coarse:
        icr, ocr, recorded = rates(spec)
        totals.append(float(recorded[0]))
        drawn = draw_sample(make_generator(spec.seed)).total_counts
        assert totals[-1] == pytest.approx(drawn, rel=1e-9)
        assert 3.1e3 < icr.max() < 2.1e5
        assert (1.0 - ocr / icr).max() < 0.13
    assert 1e3 <= min(totals) < 4e3
    assert 2.5e7 < max(totals) <= 1e8
    assert np.histogram(np.log10(totals), 5, (3, 8))[0].min() >= 4


def test_detectors_differ_a_little_from_a_common_one(specs):
    many = [s for s in specs if len(s.detectors) == 4]
    assert Counter(len(s.detectors) for s in specs).keys() == {1, 2, 3, 4}
    slopes = np.array([[d.calibration.slope_kev for d in s.detectors] for s in many])
    offsets = np.array([[d.calibration.offset_kev for d in s.detectors] for s in many])
    spread = np.ptp(slopes, axis=1) / slopes.mean(axis=1)
    assert 0.01 < spread.max() < 0.0201
    assert 0.03 < np.ptp(offsets, axis=1).max() <= 0.06
    assert 0.0079 < slopes.min() < slopes.max() < 0.01515
    assert np.abs(offsets).max() <= 0.33
    for spec in many:
        assert len({d.noise_fwhm_kev for d in spec.detectors}) == 4
        assert spec.file_calibration is None


@pytest.mark.parametrize("channels", [1024, 2048, 4096])
def test_every_axis_reaches_the_elastic_peak(channels):
    for index in range(60):
        spec = archive_spec(SEED, index, channels=channels)
        for detector in spec.detectors:
            c, end = detector.calibration, channels - 1
            top = c.offset_kev + c.slope_kev * end + c.quadratic_kev * end**2
            assert top > spec.incident_energy_kev + 0.3


def test_the_sample_is_the_same_with_other_detectors_and_channels(specs):
    other = archive_spec(SEED, 3, detectors=2, channels=4096)
    for name in ("incident_energy_kev", "file_energy_kev", "listed_elements", "scatter", "seed"):
        assert getattr(other, name) == getattr(specs[3], name)
    assert [set(p.counts) for p in other.phases] == [set(p.counts) for p in specs[3].phases]
    assert len(other.detectors) == 2


def test_a_region_differs_in_composition_from_the_whole(coarse):
    distances = []
    for spec in coarse[:30]:
        scan = simulate_scan(spec)
        amplitude = np.stack([row_truth(scan, r).amplitude[0] for r in range(8)], axis=1)
        region = amplitude[:, :4, :4].sum(axis=(1, 2))
        whole = amplitude.sum(axis=(1, 2))
        distances.append(0.5 * np.abs(region / region.sum() - whole / whole.sum()).sum())
    assert np.median(distances) > 0.03
    assert min(distances) > 1e-3


def test_a_spectrum_of_1e8_counts_fits_into_the_file_and_into_32_bits():
    indices = range(400)
    found = [
        (sum(sum(p.counts.values()) for p in s.phases) * s.counts_scale, i)
        for i in indices
        if (s := archive_spec(SEED, i, channels=1024))
    ]
    brightest = max(found)[1]
    scan = simulate_scan(archive_spec(SEED, brightest, channels=1024))
    counts = draw_counts(scan, WHOLE)
    expected = expected_counts(scan, WHOLE)
    assert counts[0].sum(dtype=np.int64) > 4e7
    assert counts.max() < MAX_EXACT_COUNT
    assert counts[0].sum(axis=(0, 1), dtype=np.int64).max() < MAX_EXACT_COUNT
    deviation = (counts - expected) / np.sqrt(np.maximum(expected, 1.0))
    assert abs(float(deviation[expected > 50].std()) - 1.0) < 0.02


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"shape_yx": (3, 8)}, "at least 4 rows"),
        ({"channels": 100}, "100 channels"),
        ({"detectors": 5}, "5 detectors"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_no_archive_can_be_made_of_is_refused(tmp_path, bad, words):
    with pytest.raises(ConfigError, match=words):
        write_archive(tmp_path / "new", 1, **({"seed": 1} | bad))
    assert not (tmp_path / "new").exists()


def test_all_faults_of_the_options_are_told_at_once():
    with pytest.raises(ConfigError, match=r"rows.*channels.*detectors"):
        archive_spec(1, 0, shape_yx=(1, 1), channels=1, detectors=0)


def test_single_spectra_are_what_they_were_before_archives_came():
    spec = random_spectrum_spec(3)
    assert spec.incident_energy_kev == pytest.approx(8.667378138422283, rel=1e-12)
    assert spec.file_energy_kev == pytest.approx(8.633117727764535, rel=1e-12)
