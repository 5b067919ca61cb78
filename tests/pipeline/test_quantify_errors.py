"""What peak shapes and axis make uncertain: in proportion to what is certain, by as much in every pixel otherwise."""

import json

import numpy as np
import pytest
from normalise_samples import ELEMENTS, FLUX, run_timed, write_timed_scan

from hpcxrf.pipeline.quantify.measure import FOLDER
from hpcxrf.results.store.opening import open_results

ABSENT = "Ni"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    path = write_timed_scan(folder / "standard", shape=(5, 7), seed=11)
    (folder / "maps_standardinfo.txt").write_text(
        "FILENAME: scan.npz\nELEMENTS_IN_STANDARD: Ca, Fe\nWEIGHT: 2.0, 0.5\n"
    )
    write_timed_scan(folder / "scan")
    sections = {"quantify": {"standards": [str(path)]}, "sample": {"elements": [*ELEMENTS, ABSENT]}}
    store, _ = run_timed(folder / "scan", folder / "run", {"i0": "us_ic", "reference": FLUX}, **sections)
    with open_results(store) as tree:
        groups = {name: tree[name].to_dataset().load() for name in ("maps", "spectrum", "normalised", "areal_density")}
    (kept,) = (folder / "run" / FOLDER).glob("*.json")
    return groups, json.loads(kept.read_text())


def excess(groups, component):
    """What the pixels' counting errors leave of the uncertainty of the integrated amplitude of detector 0, counts."""
    one = {"detector": "0", "component": component}
    pixels = float((groups["maps"].sigma.sel(one).astype(float) ** 2).sum())
    return np.sqrt(max(float(groups["spectrum"].sigma.sel(one)) ** 2 - pixels, 0.0))


def test_a_certain_component_is_uncertain_by_theta_of_sample_and_standard_in_proportion_to_itself(run):
    groups, kept = run
    own = kept["detectors"]["0"]["rates"]["Fe"]
    assert own["theta_hz"] > 0.0
    sample = excess(groups, "Fe") / float(groups["spectrum"].amplitude.sel(detector="0", component="Fe"))
    assert sample > 0.0
    found = groups["areal_density"].sel(detector="0", component="Fe")
    term = float(found.relative_error.sel(term="theta"))
    assert term == pytest.approx(np.hypot(own["theta_hz"] / own["rate_hz"], sample), rel=1e-6)
    assert float(found.theta_floor) == 0.0


def test_a_component_that_is_not_there_is_uncertain_by_as_much_in_every_pixel(run):
    groups, _ = run
    spectrum = groups["spectrum"].sel(detector="0", component=ABSENT)
    assert float(spectrum.amplitude) < 3.0 * float(spectrum.sigma)
    rates, counts = groups["normalised"].sel(detector="0"), groups["maps"].sel(detector="0")
    # Rate of one count, in the mean over the pixels weighted as their counting errors are.
    of_one = float(groups["normalised"].reference) / (rates.live_time_s * groups["normalised"].i0)
    weight = counts.sigma.astype(float).sum("component")
    factor = float((of_one * weight).sum() / weight.sum())
    found = groups["areal_density"].sel(detector="0", component=ABSENT)
    mean = excess(groups, ABSENT) / counts.sigma.sel(component=ABSENT).size * factor
    assert float(found.theta_floor) == pytest.approx(mean / float(found.response), rel=1e-6)
    assert float(found.theta_floor) > 0.0
    terms = np.sqrt(float((found.relative_error**2).sum()))
    rest = np.hypot(found.counting_sigma.astype(float), terms * found.areal_density.astype(float))
    np.testing.assert_allclose(found.sigma, np.hypot(rest, float(found.theta_floor)), rtol=1e-5)


def test_counting_of_the_standard_is_apart_from_its_peak_shapes(run):
    _, kept = run
    for detector in kept["detectors"].values():
        one = detector["rates"]["Ca"]
        assert 0.0 < one["counting_hz"] < 0.05 * one["rate_hz"]
        assert 0.0 < one["theta_hz"] < 0.05 * one["rate_hz"]
