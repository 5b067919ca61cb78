"""A detector that disagrees with the others is left out of the sum by evidence, and named; good ones never are."""

import numpy as np
import pytest
import xarray as xr

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.runner.records import Refusal
from tests.samples.run_samples import jobs_of, maps_of, run_maps, spectrum

ELEMENTS = ("Ca", "Fe", "Zn")
COUNTS = {"Ca": 200.0, "Fe": 300.0, "Zn": 100.0, "elastic": 100.0, "Compton": 120.0}
SHAPE = (4, 6, 8)
SHARES = (1.0, 0.7, 1.2, 0.9)


def detector_means():
    """(detector, y, x, channel): detectors of other sizes, and other parts of scatter."""
    means = []
    for number, share in enumerate(SHARES):
        one = COUNTS | {"Compton": COUNTS["Compton"] * (1.0 + 0.3 * number)}
        means.append(share * spectrum(one))
    return np.broadcast_to(np.array(means)[:, None, None], (*SHAPE, 1200)).copy()


def run(folder, counts, *, detectors=None, pixels="both", elements=ELEMENTS):
    folder.mkdir()
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(
        f"CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: {', '.join(elements)}\n"
    )
    (job,) = jobs_of(folder, folder / "run", pixels={"detectors": pixels}, detectors=detectors or {})
    return run_maps(job)


def noted(records):
    return [n for r in records.values() for n in (note.text for note in r.notes) if "disagrees" in n]


@pytest.fixture(scope="module")
def bragg():
    """Counts in which detector 2 has a diffraction peak near Zn in every third pixel."""
    mean = detector_means()
    channel = np.arange(1200)
    peak = np.exp(-0.5 * ((channel - 835) / 9.0) ** 2)
    mean[2].reshape(-1, 1200)[::3] += 4000 * peak / peak.sum()
    return np.random.default_rng(4).poisson(mean).astype("u2")


def test_a_detector_with_diffraction_peaks_is_left_out_of_the_sum_and_named(tmp_path, bragg):
    store, records = run(tmp_path / "scan", bragg)
    (note,) = noted(records)
    assert note.startswith(
        "detector 2 disagrees with the others and is left out of the sum, which is that of the other 3"
    )
    assert "R2" in note
    found = xr.open_zarr(store, group="maps", chunks=None)
    used = sum(SHARES) - SHARES[2]
    total = found.sel(detector="sum")
    assert (total.status == FitStatus.CONVERGED).all()
    for name in ELEMENTS:
        one = total.sel(component=name)
        sigma = float(np.sqrt((one.sigma**2).sum()))
        assert abs(float(one.amplitude.sum()) - used * COUNTS[name] * SHAPE[1] * SHAPE[2]) < 4 * sigma, name
    attributes = xr.open_zarr(store, chunks=None).attrs
    assert list(attributes["detectors_left_out"]) == ["2"]
    # Its own maps are there to be looked at, and the counts of the sum are those of the others.
    assert (found.sel(detector="2").status == FitStatus.CONVERGED).all()
    spectra = xr.open_zarr(store, group="spectrum", chunks=None)
    np.testing.assert_array_equal(spectra.counts.sel(detector="sum"), bragg[[0, 1, 3]].sum((0, 1, 2)))


def test_what_is_left_out_by_evidence_is_as_what_is_excluded_by_name(tmp_path, bragg):
    store, _ = run(tmp_path / "by-evidence", bragg, pixels="sum")
    named, records = run(tmp_path / "by-name", bragg, pixels="sum", detectors={"exclude": [2]})
    assert not noted(records)
    xr.testing.assert_identical(maps_of(store).drop_attrs(), maps_of(named).drop_attrs())


def test_an_excluded_detector_has_no_maps(tmp_path, bragg):
    store, _ = run(tmp_path / "scan", bragg, detectors={"exclude": [2, 0]})
    assert maps_of(store).detector.values.tolist() == ["sum", "1", "3"]


def test_without_judgement_all_detectors_are_summed(tmp_path, bragg):
    store, records = run(tmp_path / "scan", bragg, pixels="sum", detectors={"judge": False})
    assert not noted(records)
    spectra = xr.open_zarr(store, group="spectrum", chunks=None)
    np.testing.assert_array_equal(spectra.counts.sel(detector="sum"), bragg.sum((0, 1, 2)))


def test_a_detector_with_another_amount_of_an_element_is_left_out(tmp_path):
    mean = detector_means()
    mean[1] += 0.7 * spectrum({"Zn": 200.0, "elastic": 0.0, "Compton": 0.0}, continuum=0.0)
    counts = np.random.default_rng(5).poisson(mean).astype("u2")
    _, records = run(tmp_path / "scan", counts, pixels="sum")
    (note,) = noted(records)
    assert note.startswith("detector 1 disagrees")
    assert "Zn makes" in note


def test_detectors_of_two_kinds_are_all_kept(tmp_path):
    """Two behind a window and two not: nobody knows which are right."""
    mean = detector_means()
    for d in (2, 3):
        mean[d] -= SHARES[d] * 0.9 * spectrum({"Ca": 200.0, "elastic": 0.0, "Compton": 0.0}, continuum=0.0)
    counts = np.random.default_rng(6).poisson(mean).astype("u2")
    assert not noted(run(tmp_path / "scan", counts, pixels="sum")[1])


@pytest.mark.parametrize(
    ("exclude", "words"), [([4], r"names 4, but the detectors of the scan are 0 to 3"), ([0, 1, 2, 3], r"leaves none")]
)
def test_detectors_that_cannot_be_excluded_are_refused(tmp_path, exclude, words):
    np.save(tmp_path / "scan.npy", np.ones((*SHAPE, 300), "u2"))
    raw = {"input": {"files": [str(tmp_path / "scan.npy")]}, "detectors": {"exclude": exclude}}
    (refusal,) = make_plan(check_config(raw, "test"), tmp_path / "run").refusals
    assert isinstance(refusal, Refusal)
    assert words.split(",")[0] in refusal.reason


def test_a_detector_excluded_twice_is_a_fault_of_the_run_file():
    with pytest.raises(ConfigError, match=r"detectors\.exclude: named more than once: 2"):
        check_config({"input": {"files": ["x"]}, "detectors": {"exclude": [2, 2]}}, "run.yaml")


def test_an_element_that_half_of_the_detectors_do_not_see_condemns_none(tmp_path):
    """As at a real microprobe: Ca and Zn in two of four detectors, which saw another part of the sample."""
    mean = detector_means()
    for d in (2, 3):
        mean[d] = SHARES[d] * spectrum({"Ca": 2.0, "Fe": 300.0, "Zn": 5.0, "elastic": 200.0, "Compton": 300.0})
    counts = np.random.default_rng(7).poisson(mean).astype("u2")
    assert not noted(run(tmp_path / "scan", counts, pixels="sum")[1])
