"""The simulation: line shapes against scipy, expectations against draws, files against themselves."""

import ast
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xraylib
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erfc
from scipy.stats import exponnorm, norm

import hpcxrf.simulate
from hpcxrf.errors import ConfigError, InputFileError, OutputError
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate import (
    DetectorSpec,
    PhaseSpec,
    ScanSpec,
    StructureSpec,
    absent_elements,
    demo_spec,
    draw_counts,
    expected_amplitudes,
    expected_counts,
    random_spectrum_spec,
    raw_scan,
    read_truth,
    scan_scalars,
    simulate_scan,
    simulate_spectrum,
    true_theta,
    unlisted_elements,
    write_scan,
)
from hpcxrf.simulate.profiles import gaussian_profile, high_tail_profile, low_tail_profile, shelf_profile
from hpcxrf.simulate.scan import row_truth
from hpcxrf.simulate.spectra import (
    channel_edges_kev,
    component_spectrum,
    efficiency,
    emission_lines,
    escape_probability,
    pileup_spectrum,
    response,
    sigma_kev,
)

EDGES = np.linspace(2.0, 7.0, 101)
WHOLE = slice(None)


def small_spec(**changes: object) -> ScanSpec:
    spec = ScanSpec(
        name="small",
        seed=11,
        shape=(2, 5, 7, 1200),
        incident_energy_kev=10.0,
        detectors=(
            DetectorSpec(),
            DetectorSpec(calibration=EnergyCalibration(offset_kev=-0.03, slope_kev=0.0101), gain=0.6),
        ),
        phases=(
            PhaseSpec(name="matrix", counts={"Ca": 300, "elastic": 50, "continuum": 60}),
            PhaseSpec(
                name="grains",
                counts={"Fe": 900, "Zn": 200, "compton": 100},
                structure=StructureSpec(kind="grains", size=0.4, cover=0.8),
            ),
        ),
        listed_elements=("Ca", "Fe", "Ti"),
    )
    return replace(spec, **changes)


def shares_by_quadrature(density, edges):
    return np.array([quad(density, lo, hi, epsabs=1e-13)[0] for lo, hi in pairwise(edges)])


def test_a_gaussian_in_a_channel_is_the_integral_of_its_density():
    density = norm(4.5, 0.08).pdf
    expected = shares_by_quadrature(density, EDGES)
    np.testing.assert_allclose(gaussian_profile(EDGES, 4.5, 0.08), expected, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.8, 2.5, 6.0])
def test_a_low_tail_is_a_mirrored_exponentially_modified_gaussian(gamma):
    mirrored = exponnorm(gamma, loc=-4.5, scale=0.08)
    expected = np.diff(mirrored.sf(-EDGES))
    np.testing.assert_allclose(low_tail_profile(EDGES, 4.5, 0.08, gamma), expected, atol=1e-12)


def test_a_high_tail_mirrors_a_low_tail_and_lies_above_the_centre():
    low = low_tail_profile(EDGES, 4.5, 0.08, 2.0)
    high = high_tail_profile(EDGES, 4.5, 0.08, 2.0)
    np.testing.assert_allclose(high, low[::-1], atol=1e-14)
    centers = 0.5 * (EDGES[1:] + EDGES[:-1])
    assert high @ centers == pytest.approx(4.5 + 2.0 * 0.08, abs=1e-5)


def test_a_shelf_is_flat_below_the_peak_and_holds_its_counts():
    edges = np.linspace(-1.0, 7.0, 401)

    def density(energy):
        return 0.5 * erfc((energy - 4.5) / (np.sqrt(2) * 0.08)) / 4.5 if energy > 0 else 0.0

    shelf = shelf_profile(edges, 4.5, 0.08)
    np.testing.assert_allclose(shelf, shares_by_quadrature(density, edges), atol=1e-10)
    assert shelf.sum() == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(center=st.floats(1.0, 15.0), sigma=st.floats(0.02, 0.12), gamma=st.floats(0.5, 8.0))
def test_every_profile_keeps_its_counts_and_is_never_negative(center, sigma, gamma):
    edges = np.linspace(-25.0, 45.0, 3501)
    for profile in (
        gaussian_profile(edges, center, sigma),
        low_tail_profile(edges, center, sigma, gamma),
        high_tail_profile(edges, center, sigma, gamma),
        shelf_profile(edges, center, sigma),
    ):
        assert profile.min() > -1e-14
        assert profile.sum() == pytest.approx(1.0, abs=1e-9)


def test_a_photon_energy_is_recorded_once_in_peak_tail_shelf_or_escape():
    detector = DetectorSpec(tail_fraction=0.03, step_fraction=0.01)
    edges = channel_edges_kev(replace(detector, calibration=EnergyCalibration(offset_kev=-3.0, slope_kev=0.01)), 1500)
    spectrum = response(detector, edges, 4.0)
    assert spectrum.sum() == pytest.approx(1.0, abs=1e-6)
    centers = 0.5 * (edges[1:] + edges[:-1])
    near_escape = np.abs(centers - (4.0 - 1.7398)) < 3 * sigma_kev(detector, 2.26)
    without = response(replace(detector, escape_scale=0.0), edges, 4.0)
    gained = (spectrum - without)[near_escape].sum()
    assert gained == pytest.approx(escape_probability(4.0), rel=0.01)


def test_escape_needs_the_silicon_edge_and_falls_with_energy():
    assert escape_probability(1.8) == 0.0
    found = [escape_probability(energy) for energy in (2.0, 4.0, 6.4, 12.0)]
    assert found == sorted(found, reverse=True)
    # Measured ones are .003 to .006; the yields of the tables differ by a fifth.
    assert 0.0025 < escape_probability(6.4) < 0.008


def test_window_and_chip_make_the_efficiency_that_hand_numbers_give():
    bare = DetectorSpec(be_window_um=0.0, air_path_cm=0.0, dead_layer_um=0.0, chip_um=100.0)
    mu = xraylib.CS_Total(14, 15.0) * 2.33
    assert efficiency(bare, 15.0) == pytest.approx(1.0 - np.exp(-mu * 0.01), rel=2e-3)
    window = replace(bare, be_window_um=25.0)
    through = np.exp(-xraylib.CS_Total(4, 15.0) * 1.848 * 0.0025)
    assert efficiency(window, 15.0) / efficiency(bare, 15.0) == pytest.approx(through, rel=2e-4)


def test_lines_above_the_incident_energy_are_not_excited():
    full = {energy for energy, _ in emission_lines("Pb_L", 17.0)}
    below_l2 = {energy for energy, _ in emission_lines("Pb_L", 14.0)}
    assert any(abs(energy - 12.614) < 0.01 for energy in full)
    assert not any(abs(energy - 12.614) < 0.005 for energy in below_l2)


@pytest.mark.parametrize(
    ("family", "energy", "message"),
    [("Xx", 10.0, "unknown symbol"), ("Zn", 9.0, "excites none"), ("Fe_Q", 10.0, "excites none")],
)
def test_an_impossible_family_is_refused_by_name(family, energy, message):
    with pytest.raises(ConfigError, match=f"{family}.*{message}"):
        emission_lines(family, energy)


@pytest.mark.parametrize("name", ["Fe", "Pb_L", "Au_M", "elastic", "compton", "continuum"])
def test_a_component_sums_to_one_and_has_its_mean_where_its_lines_are(name):
    detector = DetectorSpec(tail_fraction=0.0, step_fraction=0.0, escape_scale=0.0)
    spec = small_spec(incident_energy_kev=15.0, shape=(2, 1, 1, 2048))
    spectrum = component_spectrum(name, spec, detector)
    assert spectrum.min() >= 0
    assert spectrum.sum() == pytest.approx(1.0, abs=1e-12)
    mean = spectrum @ (0.01 * np.arange(2048))
    if name in ("Fe", "Pb_L", "Au_M"):
        lines = emission_lines(name, 15.0)
        weights = [s * efficiency(detector, e) for e, s in lines]
        expected = np.average([e for e, _ in lines], weights=weights)
        assert mean == pytest.approx(expected, abs=2e-4)
    if name == "elastic":
        assert mean == pytest.approx(15.0, abs=1e-6)


def test_a_component_outside_the_spectrum_is_refused():
    spec = small_spec(shape=(2, 2, 2, 500))
    with pytest.raises(ConfigError, match=r"Fe.*inside the spectrum"):
        simulate_scan(spec)


def test_pile_up_of_two_narrow_peaks_lies_at_the_sum_of_their_energies():
    detector = DetectorSpec(calibration=EnergyCalibration(offset_kev=0.25, slope_kev=0.01))
    edges = channel_edges_kev(detector, 1500)
    spectrum = 0.7 * gaussian_profile(edges, 3.0, 0.06) + 0.3 * gaussian_profile(edges, 5.0, 0.06)
    piled = pileup_spectrum(detector, spectrum)
    centers = 0.5 * (edges[1:] + edges[:-1])
    for energy, share in ((6.0, 0.49), (8.0, 0.42), (10.0, 0.09)):
        near = np.abs(centers - energy) < 0.5
        assert piled[near].sum() == pytest.approx(share, abs=1e-6)
        assert piled[near] @ centers[near] / piled[near].sum() == pytest.approx(energy, abs=2e-3)


def test_the_mean_of_many_draws_is_the_expectation():
    scan = simulate_scan(small_spec(shape=(2, 1, 3, 1200), phases=small_spec().phases[:1]))
    expected = expected_counts(scan, WHOLE)
    draws = [draw_counts(replace(scan, spec=replace(scan.spec, seed=seed)), WHOLE) for seed in range(400)]
    mean = np.mean(draws, axis=0)
    busy = expected > 0.05
    z = (mean - expected)[busy] / np.sqrt(expected[busy] / 400)
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1.0, abs=0.05)
    assert mean[expected == 0].sum() == 0


def test_the_area_of_a_component_is_its_expected_amplitude():
    spec = small_spec()
    phases = tuple(replace(p, counts={"Fe": p.counts.get("Fe", 0.0)}) for p in spec.phases)
    clean = tuple(replace(d, pileup_time_s=0.0) for d in spec.detectors)
    scan = simulate_scan(replace(spec, phases=phases, detectors=clean))
    amplitude = expected_amplitudes(scan, WHOLE)[:, scan.components.index("Fe")]
    np.testing.assert_allclose(expected_counts(scan, WHOLE).sum(axis=3), amplitude, rtol=1e-12)
    assert amplitude.max() > 300


@pytest.mark.parametrize("height", [1, 2, 3, 5])
def test_counts_do_not_depend_on_how_rows_are_read(height):
    scan = simulate_scan(small_spec())
    whole = draw_counts(scan, WHOLE)
    blocks = [draw_counts(scan, slice(s, s + height)) for s in range(0, 5, height)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    np.testing.assert_array_equal(draw_counts(simulate_scan(small_spec()), WHOLE), whole)
    assert (draw_counts(simulate_scan(small_spec(seed=12)), WHOLE) != whole).any()


def test_detectors_and_rows_have_noise_of_their_own():
    spec = small_spec(detectors=(DetectorSpec(), DetectorSpec()), phases=small_spec().phases[:1], i0_drift=0.0)
    counts = draw_counts(simulate_scan(spec), WHOLE).astype(float)
    assert (counts[0] != counts[1]).any()
    assert (counts[0, 0] != counts[0, 1]).any()


def test_live_time_is_real_time_times_ocr_over_icr_and_holds_all_recorded_events():
    scan = simulate_scan(small_spec(real_time_s=0.004))
    scalars = scan_scalars(scan)
    assert scalars.live_time_s is not None
    assert scalars.icr_hz is not None
    assert scalars.ocr_hz is not None
    live = 1.0 / (1.0 + scalars.icr_hz * 6e-7)
    np.testing.assert_allclose(scalars.live_time_s, 0.004 * live, rtol=1e-12)
    recorded = expected_counts(scan, WHOLE).sum(axis=3)
    np.testing.assert_allclose(recorded, scalars.ocr_hz * 0.004, rtol=1e-9)
    assert live.min() < 0.9


def test_pile_up_takes_its_share_of_the_recorded_events():
    scan = simulate_scan(small_spec(real_time_s=0.004))
    truth = row_truth(scan, 2)
    share = truth.pileup.sum(axis=1) / (truth.ocr_hz * 0.004)
    np.testing.assert_allclose(share, 1 - np.exp(-truth.icr_hz * 5e-8), rtol=1e-9)
    without = simulate_scan(small_spec(detectors=tuple(replace(d, pileup_time_s=0.0) for d in small_spec().detectors)))
    assert row_truth(without, 2).pileup.sum() == 0


def test_beam_monitors_follow_the_intensity_that_scales_the_counts():
    phases = (PhaseSpec(name="flat", counts={"Ca": 100.0}),)
    detectors = tuple(replace(d, dead_time_s=0.0, pileup_time_s=0.0) for d in small_spec().detectors)
    scan = simulate_scan(small_spec(phases=phases, detectors=detectors, i0_drift=0.2))
    scalars = scan_scalars(scan)
    assert scalars.scaler_values is not None
    calcium = expected_amplitudes(scan, WHOLE)[0, 0]
    assert calcium.max() / calcium.min() > 1.15
    for name in ("SR_Current", "US_IC"):
        monitor = scalars.scaler_values[scalars.scaler_names.index(name)]
        np.testing.assert_allclose(calcium / monitor, calcium[0, 0] / monitor[0, 0], rtol=1e-12)
    np.testing.assert_allclose(expected_amplitudes(scan, WHOLE)[1], 0.6 * expected_amplitudes(scan, WHOLE)[0])


@pytest.mark.parametrize("kind", ["uniform", "smooth", "cells", "grains", "veins", "spots"])
@pytest.mark.parametrize("region", ["everywhere", "leaf", "around"])
def test_every_structure_gives_finite_densities_that_are_not_negative(kind, region):
    phase = PhaseSpec(name="p", counts={"Fe": 10.0}, structure=StructureSpec(kind=kind, region=region, cover=9.0))
    scan = simulate_scan(small_spec(phases=(phase,)))
    density = np.stack([row_truth(scan, row).density for row in range(5)])
    assert np.isfinite(density).all()
    assert density.min() >= 0
    assert density.max() > 0.01 or kind == "grains"


def test_all_faults_of_a_specification_are_named_at_once():
    bad = small_spec(
        name="../out",
        real_time_s=0.0,
        i0_drift=1.5,
        detectors=(DetectorSpec(),),
        phases=(PhaseSpec(name="p", counts={"Fe": -1.0}),),
    )
    with pytest.raises(ConfigError) as caught:
        simulate_scan(bad)
    for part in ("name", "real_time_s", "i0_drift", "1 detectors", "Fe -1.0"):
        assert part in str(caught.value)


def test_the_demonstration_has_structure_and_a_few_thousand_counts_a_pixel():
    scan = simulate_scan(demo_spec(shape=(1, 24, 32, 2048)))
    total = draw_counts(scan, WHOLE).sum(axis=3)
    assert 300 < np.median(total) < 5000
    assert total.max() < 20 * np.median(total)
    assert unlisted_elements(scan) == ("Se",)
    assert absent_elements(scan) == ()


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_exposure_scales_the_demonstration_from_tens_to_1e5_counts_a_pixel(scale):
    shape = (1, 12, 16, 2048)
    plain = simulate_scan(demo_spec(shape=shape))
    exposed = simulate_scan(demo_spec(shape=shape, counts_scale=scale))
    np.testing.assert_allclose(expected_counts(exposed, WHOLE), scale * expected_counts(plain, WHOLE), rtol=1e-9)
    total = draw_counts(exposed, WHOLE).sum(axis=3)
    assert 3 < np.median(total) < 2e5


@pytest.mark.parametrize("seed", range(25))
def test_random_spectra_are_varied_and_their_expectation_is_drawn(seed):
    spec = random_spectrum_spec(seed)
    assert 8 <= spec.incident_energy_kev <= 20
    assert abs(spec.file_energy_kev - spec.incident_energy_kev) <= 0.3
    assert 0.008 <= spec.detectors[0].calibration.slope_kev <= 0.015
    found = simulate_spectrum(spec)
    assert 3 <= len(found.scan.components) - 3 <= 25
    assert 1 <= len(absent_elements(found.scan)) <= 4
    assert len(unlisted_elements(found.scan)) <= 2
    noise = np.sqrt(found.expected.sum())
    assert abs(found.counts.sum() - found.expected.sum()) < 5 * noise
    assert 3e2 < found.expected.sum() < 1.01e8
    assert spec == random_spectrum_spec(seed)


def test_random_spectra_span_five_decades_of_counts():
    totals = [sum(random_spectrum_spec(seed).phases[0].counts.values()) for seed in range(100, 200)]
    assert np.log10(min(totals)) < 3.5
    assert np.log10(max(totals)) > 7.5


@pytest.mark.parametrize("scan_format", ["maps-v10", "array"])
def test_the_truth_comes_back_as_it_was_written(tmp_path, scan_format):
    claimed = tuple(EnergyCalibration(offset_kev=0.01 * i, slope_kev=0.0102) for i in range(2))
    scan = simulate_scan(small_spec(file_calibration=claimed, file_energy_kev=10.1))
    files = write_scan(scan, tmp_path / "out", scan_format=scan_format)
    truth = read_truth(tmp_path / "out" / "small.truth.json")
    assert truth.spec == scan.spec
    assert truth.components == scan.components
    assert truth.theta == tuple(true_theta(scan.spec, d) for d in scan.spec.detectors)
    np.testing.assert_array_equal(truth.amplitude, expected_amplitudes(scan, WHOLE))
    np.testing.assert_array_equal(truth.spectra, scan.spectra)
    total = truth.amplitude.sum(axis=1) + truth.pileup
    np.testing.assert_allclose(total, expected_counts(scan, WHOLE).sum(axis=3), rtol=1e-9)
    again = draw_counts(simulate_scan(truth.spec), WHOLE)
    np.testing.assert_array_equal(again, draw_counts(scan, WHOLE))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *(f.name for f in files),
        "small.truth.json",
        "small.truth.hdf5",
    }


def test_unlisted_and_absent_elements_stand_in_the_truth(tmp_path):
    write_scan(simulate_scan(small_spec()), tmp_path)
    content = json.loads((tmp_path / "small.truth.json").read_text())
    assert content["unlisted_elements"] == ["Zn"]
    assert content["absent_elements"] == ["Ti"]


@pytest.mark.parametrize("text", ["{}", "no json", '{"version": 99}'])
def test_what_is_no_truth_is_refused(tmp_path, text):
    path = tmp_path / "x.truth.json"
    path.write_text(text)
    with pytest.raises(InputFileError, match=r"x\.truth\.json"):
        read_truth(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_scan(simulate_scan(small_spec()), tmp_path / "file" / "out")


def test_true_parameters_describe_the_peaks_that_are_drawn():
    detector = DetectorSpec(tail_fraction=0.0, step_fraction=0.0, escape_scale=0.0)
    theta = true_theta(small_spec(), detector)
    centers = theta["energy_offset"] + theta["energy_slope"] * np.arange(1200)
    elastic = component_spectrum("elastic", small_spec(), detector)
    mean = elastic @ centers
    variance = elastic @ (centers - mean) ** 2
    assert mean == pytest.approx(theta["coherent_sct_energy"], abs=1e-6)
    maps_law = (theta["fwhm_offset"] / 2.3548) ** 2 + 3.58 * mean * theta["fwhm_fanoprime"]
    assert variance - theta["energy_slope"] ** 2 / 12 == pytest.approx(maps_law, rel=1e-6)
    assert theta["compton_angle"] == pytest.approx(95.0)
    assert theta["compton_fwhm_corr"] > 1


def test_a_raw_scan_without_a_file_reads_like_one_with():
    scan = simulate_scan(small_spec())
    raw = raw_scan(scan)
    assert raw.shape == (2, 5, 7, 1200)
    np.testing.assert_array_equal(raw.read_counts(slice(1, 3)), draw_counts(scan, slice(1, 3)))
    assert raw.read_scalars().scaler_names == ("SR_Current", "US_IC", "DS_IC")
    assert raw.incident_energy_kev == 10.0


def test_the_simulation_imports_no_code_of_the_model_that_is_fitted():
    folder = Path(hpcxrf.simulate.__file__).parent
    imported = {
        node.module
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert {m for m in imported if m.startswith(("hpcxrf.physics", "hpcxrf.fitting"))} == set()
    assert "hpcxrf.formats.maps_writer" in imported
