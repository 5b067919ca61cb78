"""Bad pixels, detectors, times and regions in a whole run: a flag or a clear error, never a plausible wrong number."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.mixtures import find_mixtures
from hpcxrf.fitting.result import FitStatus
from hpcxrf.formats.maps_writer import write_array_hdf5
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.regions import remap as regions_remap
from hpcxrf.results.report.page.regions import build_region_rows
from hpcxrf.results.store.maps import open_results
from hpcxrf.store.rundir import RunDir
from tests.samples.run_samples import SLOPE_KEV, jobs_of, maps_of, run_all, run_scan, spectrum, write_scan

pytestmark = pytest.mark.more

SHAPE = (4, 9, 10)
ELEMENTS = ("Ca", "Fe", "Zn")
COUNTS = {"Ca": 60.0, "Fe": 120.0, "Zn": 40.0}
DEAD_DETECTOR = 2
DEAD_PIXEL = (1, 1)
MISSING_ROW = 3
FULL_PIXEL = (5, 5)
NO_LIVE_TIME = (6, 2)
NO_SCALER = (7, 7)
REGIONS = {
    "find": [],
    "remap": True,
    "rectangles": {
        "left": [0, 9, 0, 6],
        "overlap": [4, 9, 3, 8],
        "row": [MISSING_ROW, MISSING_ROW + 1, 0, 10],
        "clean": [0, 3, 6, 10],
    },
    "thresholds": {"none": {"component": "Fe", "above": 1e7}},
}


def good_counts() -> np.ndarray:
    mean = np.broadcast_to(spectrum(COUNTS), (*SHAPE, 1200))
    return np.random.default_rng(1).poisson(mean).astype(np.uint16)


def broken_counts() -> np.ndarray:
    counts = good_counts()
    counts[DEAD_DETECTOR] = 0
    counts[:, *DEAD_PIXEL] = 0
    counts[:, MISSING_ROW] = 0
    # Fe Ka of detector 0 at the end of a 16-bit count.
    counts[0, *FULL_PIXEL, 630:650] = 65535
    return counts


def write(path, counts, *, broken):
    """An HDF5 file with times and a scaler."""
    ones, live, current = np.ones(SHAPE), np.ones(SHAPE), np.full(SHAPE[1:], 5.0)
    if broken:
        live[0, *NO_LIVE_TIME] = 0.0
        current[NO_SCALER] = current[NO_LIVE_TIME] = np.nan
    one = EnergyCalibration(offset_kev=0.0, slope_kev=SLOPE_KEV)
    write_array_hdf5(
        path,
        counts,
        live_time_s=live,
        real_time_s=ones,
        icr_hz=ones,
        ocr_hz=ones,
        energy_calibration=(one,) * SHAPE[0],
        incident_energy_kev=10.0,
        scaler_names=("US_IC",),
        scaler_units=("cts/s",),
        scaler_values=current[None],
    )


def run_file(path, run, **sections):
    raw = {
        "input": {"files": [str(path)]},
        "sample": {"elements": list(ELEMENTS), "incident_energy_kev": 10.0},
        "fit": {"suggest": False},
        "pixels": {"detectors": "both"},
        "regions": REGIONS,
    } | sections
    (job,) = make_plan(check_config(raw, "test"), run).jobs
    return run_all(job)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(results store, records) of the same scan as it should be and with everything wrong."""
    folder = tmp_path_factory.mktemp("bad")
    found = {}
    for name, counts in (("good", good_counts()), ("broken", broken_counts())):
        write(folder / f"{name}.h5", counts, broken=name == "broken")
        found[name] = run_file(folder / f"{name}.h5", folder / f"run-{name}")
    return found


def maps(runs, name="broken"):
    return maps_of(runs[name][0])


def notes(runs, name="broken"):
    return [note.text for note in runs[name][1]["integrated"].notes]


# --- pixels and detectors ------------------------------------------------------------------------


def test_dead_pixels_are_empty_and_zero_with_an_uncertainty(runs):
    y, x = DEAD_PIXEL
    dead = maps(runs).isel(y=y, x=x).sel(detector=["0", "1", "3", "sum"])
    assert (dead.status == FitStatus.EMPTY).all()
    assert (dead.amplitude == 0.0).all()
    assert (dead.sigma > 0).all()


def test_a_missing_row_is_empty_and_its_neighbours_keep_their_values(runs):
    broken, good = maps(runs), maps(runs, "good")
    assert (broken.status.isel(y=MISSING_ROW) == FitStatus.EMPTY).all()
    for y in (MISSING_ROW - 1, MISSING_ROW + 1):
        one, other = (m.sel(detector="1").isel(y=y) for m in (broken, good))
        assert (one.status == FitStatus.CONVERGED).all()
        assert float(np.abs((one.amplitude - other.amplitude) / other.sigma).max()) < 0.6


def test_a_dead_detector_of_four_has_no_numbers_and_the_sum_is_that_of_the_others(runs):
    broken, good = maps(runs), maps(runs, "good")
    dead = broken.sel(detector=str(DEAD_DETECTOR))
    assert (dead.status == FitStatus.EMPTY).all()
    assert dead.amplitude.isnull().all()
    assert dead.sigma.isnull().all()
    status = runs["broken"][1]["integrated"].facts["status"]
    assert status[str(DEAD_DETECTOR)] == "EMPTY"
    used = broken.status.sel(detector="sum") == FitStatus.CONVERGED
    total = broken.amplitude.sel(detector="sum", component="Fe").where(used)
    others = good.amplitude.sel(detector=["0", "1", "3"], component="Fe").sum("detector")
    assert float((total / others).mean()) == pytest.approx(1.0, abs=0.02)


def test_a_detector_that_falls_silent_part_way_leaves_no_part_of_a_sum(tmp_path):
    counts = good_counts()
    counts[2, 6:, 5:] = 0
    write(tmp_path / "silent.h5", counts, broken=False)
    alone = {"pixels": {"detectors": "sum"}}
    (store, records) = run_file(tmp_path / "silent.h5", tmp_path / "run", **alone)
    found = maps_of(store).sel(detector="sum")
    silent = np.zeros(SHAPE[1:], dtype=bool)
    silent[6:, 5:] = True
    assert ((found.status == FitStatus.NOT_MEASURED) == silent).all()
    assert (found.amplitude.sel(component="Fe").isnull() == silent).all()
    told = [note.text for r in records.values() for note in r.notes]
    assert any(note.startswith("sum: in some pixels a detector recorded nothing") for note in told)


@pytest.mark.parametrize("detector", ["0", "sum"])
def test_a_saturated_pixel_is_flagged_and_has_no_amplitude(runs, detector):
    one = maps(runs).sel(detector=detector)
    full = one.isel(y=FULL_PIXEL[0], x=FULL_PIXEL[1])
    assert full.status == FitStatus.SATURATED
    assert np.isnan(full.amplitude).all()
    assert np.isnan(full.sigma).all()
    assert np.isnan(full.detection_limit).all()
    assert int((one.status == FitStatus.SATURATED).sum()) == 1
    assert any("detector 0: a channel holds 65535 counts" in n for n in notes(runs))


@pytest.mark.parametrize("detector", ["0", "sum"])
def test_a_saturated_pixel_spoils_no_other(runs, detector):
    """A flat top of a million counts outweighs the rest of the scan: in the summed spectrum it would bend every fit."""
    broken, good = maps(runs), maps(runs, "good")
    used = broken.status.sel(detector=detector) == FitStatus.CONVERGED
    if detector == "sum":
        # Of the detectors that are alive.
        expected = good.amplitude.sel(detector=["0", "1", "3"]).sum("detector")
    else:
        expected = good.amplitude.sel(detector=detector)
    one = broken.sel(detector=detector)
    wrong = ((one.amplitude - expected) / one.sigma).sel(component=list(ELEMENTS)).where(used)
    assert float(np.sqrt((wrong**2).mean())) < 0.3
    assert float(np.abs(wrong.mean(["y", "x"])).max()) < 0.1
    spectra = xr.open_zarr(runs["broken"][0], group="spectrum", chunks=None)
    assert float(spectra.counts.sel(detector=detector).max()) < 5000


def test_the_other_detectors_of_a_saturated_pixel_keep_their_numbers(runs):
    y, x = FULL_PIXEL
    assert int(maps(runs).status.sel(detector="1").isel(y=y, x=x)) == FitStatus.CONVERGED
    assert not any("65535" in n for n in notes(runs, "good"))


def test_a_detector_that_is_dead_but_for_a_saturated_pixel_is_dead(tmp_path):
    counts = good_counts()
    counts[DEAD_DETECTOR] = 0
    counts[DEAD_DETECTOR, *FULL_PIXEL, 630:650] = 65535
    write(tmp_path / "scan.h5", counts, broken=True)
    store, records = run_file(tmp_path / "scan.h5", tmp_path / "run", regions={"find": []})
    found = maps_of(store)
    assert records["integrated"].facts["status"][str(DEAD_DETECTOR)] == "EMPTY"
    dead = found.sel(detector=str(DEAD_DETECTOR))
    assert dead.amplitude.isnull().all()
    assert not (dead.status == FitStatus.CONVERGED).any()
    total = found.sel(detector="sum")
    assert int(total.status.isel(y=FULL_PIXEL[0], x=FULL_PIXEL[1])) == FitStatus.SATURATED
    others = found.amplitude.sel(detector=["0", "1", "3"]).sum("detector")
    used = total.status == FitStatus.CONVERGED
    wrong = ((total.amplitude - others) / total.sigma).sel(component=list(ELEMENTS)).where(used)
    assert float(np.sqrt((wrong**2).mean())) < 0.3


def test_a_scan_of_nothing_but_saturated_pixels_is_refused(tmp_path):
    counts = np.zeros((1, 3, 4, 1200), dtype=np.uint16)
    counts[..., 600:700] = 65535
    write_scan(tmp_path, np.zeros(counts.shape), elements=ELEMENTS)
    np.save(tmp_path / "scan.npy", counts)
    with pytest.raises(FitError, match=r"scan\.npy: every pixel with counts.*is saturated"):
        run_scan(tmp_path, tmp_path / "run")


def test_the_command_line_says_what_is_wrong_and_ends_well(tmp_path, hpcxrf):
    """Everything at once, by a user's command."""
    write(tmp_path / "scan.h5", broken_counts(), broken=True)
    run = tmp_path / "run"
    done = hpcxrf(
        "run",
        tmp_path / "scan.h5",
        "-o",
        run,
        "--elements",
        ",".join(ELEMENTS),
        "--energy",
        "10",
        "--detectors",
        "both",
        "--workers",
        "1",
    )
    assert done.code == 0, done.err
    (store,) = (run / "results").glob("*.zarr")
    found = maps_of(store)
    status = found.status
    assert (status.sel(detector=str(DEAD_DETECTOR)) == FitStatus.EMPTY).all()
    assert (status.isel(y=MISSING_ROW) == FitStatus.EMPTY).all()
    assert int(status.sel(detector="sum").isel(y=5, x=5)) == FitStatus.SATURATED
    flagged = status.isin([int(FitStatus.SATURATED)])
    assert found.amplitude.where(flagged).isnull().all()
    page = (run / "report.html").read_text()
    for said in ("holds 65535 counts", "live time is 0", "scaler US_IC is not finite"):
        assert said in page


def test_the_fit_of_a_file_says_that_saturated_pixels_are_in_it(tmp_path, hpcxrf):
    asked = ["--elements", ",".join(ELEMENTS), "--energy", "10", "--detector", "0"]
    for counts, told in ((broken_counts(), True), (good_counts(), False)):
        write(tmp_path / "scan.h5", counts, broken=False)
        done = hpcxrf("fit", tmp_path / "scan.h5", *asked)
        assert done.code == 0, done.err
        assert ("holds 65535 counts" in done.out + done.err) == told


def test_a_channel_that_is_full_outside_of_the_fit_range_is_no_matter(tmp_path):
    counts = np.random.default_rng(0).poisson(np.broadcast_to(spectrum(COUNTS), (1, 5, 6, 1200)))
    counts[0, 2, 2, 0] = 65535
    write_scan(tmp_path, np.zeros((1, 5, 6, 1200)), elements=ELEMENTS)
    np.save(tmp_path / "scan.npy", counts.astype(np.uint16))
    store, _ = run_scan(tmp_path, tmp_path / "run")
    assert (maps_of(store).status == FitStatus.CONVERGED).all()


@pytest.mark.parametrize("method", ["nnls", "poisson", "nonlinear", "full"])
def test_every_method_flags_the_same_pixels(tmp_path, runs, method):
    write(tmp_path / "scan.h5", broken_counts(), broken=True)
    store, _ = run_file(tmp_path / "scan.h5", tmp_path / "run", pixels={"method": method}, regions={"find": []})
    found = maps_of(store)
    bad = (FitStatus.EMPTY, FitStatus.SATURATED, FitStatus.NONFINITE)
    expected = maps(runs).sel(detector=["0", "1", "2", "3"])
    for status in bad:
        assert ((found.status == status) == (expected.status == status)).all(), status
    gone = found.status.isin([int(FitStatus.SATURATED)])
    assert found.amplitude.where(gone, np.nan).isnull().all()
    assert found.amplitude.sel(detector="2").isnull().all()


# --- times and scalers ---------------------------------------------------------------------------


def test_a_live_time_of_zero_is_told_and_its_regions_have_none(runs):
    (note,) = [n for n in notes(runs) if "live time is 0" in n]
    assert note.startswith("detector 0: live time is 0 or not known in 1 of 90 measured pixels")
    regions = xr.open_zarr(runs["broken"][0], group="regions", chunks=None)
    live = regions.live_time_s.sel(detector="0")
    assert np.isnan(live.sel(region="left"))
    assert float(live.sel(region="clean")) == 12.0
    assert float(regions.live_time_s.sel(detector="1", region="left")) == 53.0
    # Amplitudes are recorded counts: a time scales none of them.
    y, x = NO_LIVE_TIME
    assert int(maps(runs).status.sel(detector="0").isel(y=y, x=x)) == FitStatus.CONVERGED
    assert not any("live time" in n for n in notes(runs, "good"))


def test_a_scaler_that_is_no_number_is_told_and_touches_no_map(runs):
    (note,) = [n for n in notes(runs) if "scaler" in n]
    assert note.startswith("scaler US_IC is not finite in 2 of 90 measured pixels")
    y, x = NO_SCALER
    assert int(maps(runs).status.sel(detector="1").isel(y=y, x=x)) == FitStatus.CONVERGED
    assert not any("scaler" in n for n in notes(runs, "good"))


# --- regions -------------------------------------------------------------------------------------


def test_regions_that_overlap_have_each_all_their_pixels_and_counts(runs):
    regions = xr.open_zarr(runs["broken"][0], group="regions", chunks=None)
    counts = broken_counts()
    # A pixel without an amplitude is in no region.
    counts[:, *FULL_PIXEL] = 0
    for name, (top, bottom, left, right) in REGIONS["rectangles"].items():
        expected = counts[1, top:bottom, left:right].astype(float).sum(axis=(0, 1))
        assert (regions.counts.sel(region=name, detector="1").values == expected).all()
    assert regions.n_pixels.sel(region=["left", "overlap"]).values.tolist() == [53, 24]
    layers = regions.layer_of.values
    assert layers[0] != layers[1]


def test_a_region_of_dead_pixels_or_of_none_has_no_numbers_and_says_so(runs):
    regions = xr.open_zarr(runs["broken"][0], group="regions", chunks=None)
    for name in ("row", "none"):
        one = regions.sel(region=name)
        assert (one.status == FitStatus.EMPTY).all()
        assert one.amplitude.isnull().all()
        assert one.theta.isnull().all()
    assert int(regions.n_pixels.sel(region="none")) == 0
    rows = {row.name: row for row in build_region_rows(regions)}
    assert rows["row"].outcome == "empty"
    assert "the fit of its summed spectrum is empty" in rows["row"].reason
    assert "no pixel is" in rows["none"].reason


def test_a_saturated_pixel_is_no_part_of_a_map_of_a_region(runs):
    mapped = xr.open_zarr(runs["broken"][0], group="regions/maps", chunks=None)
    one = mapped.sel(region="overlap", detector="0").isel(y=FULL_PIXEL[0], x=FULL_PIXEL[1])
    assert int(one.status) in {FitStatus.SATURATED, FitStatus.NOT_RUN}
    assert np.isnan(one.amplitude).all()


def test_a_rectangle_outside_of_the_scan_is_refused_by_name(tmp_path):
    write(tmp_path / "scan.h5", good_counts(), broken=False)
    raw = {"input": {"files": [str(tmp_path / "scan.h5")]}, "regions": {"rectangles": {"far": [20, 30, 0, 4]}}}
    plan = make_plan(check_config(raw, "test"), tmp_path / "run")
    assert plan.jobs == ()
    assert "'far' holds no pixel; the scan has 9 x 10 pixels" in plan.refusals[0].reason


def test_a_threshold_on_what_is_not_fitted_fails_before_any_pixel_is(tmp_path):
    write(tmp_path / "scan.h5", good_counts(), broken=False)
    asked = {"thresholds": {"copper": {"component": "Cu", "above": 1}}}
    with pytest.raises(ConfigError, match=r"thresholds\.copper: 'Cu' is not fitted; give one of"):
        run_file(tmp_path / "scan.h5", tmp_path / "run", regions=asked)
    assert not list((tmp_path / "run" / "results").glob("*.zarr"))


def test_a_region_that_cannot_be_mapped_says_why_and_stops_no_other(tmp_path, monkeypatch):
    """Columns of one region's theta may be alike where those of the scan are not."""
    counts = np.broadcast_to(spectrum(COUNTS), (1, 6, 8, 1200))
    write_scan(tmp_path, counts, elements=ELEMENTS)
    asked = {"find": [], "rectangles": {"a": [0, 6, 0, 4], "b": [0, 6, 4, 8]}, "remap": True}
    right, seen = regions_remap.solver_of, []

    def refuse_the_first(config, basis, *given):
        seen.append(basis)
        if len(seen) == 1:
            columns = basis.columns.clone()
            columns[:, 1] = columns[:, 0]
            basis = replace(basis, columns=columns)
        return right(config, basis, *given)

    monkeypatch.setattr(regions_remap, "solver_of", refuse_the_first)
    store, records = run_scan(tmp_path, tmp_path / "run", regions=asked)
    regions = xr.open_zarr(store, group="regions", chunks=None)
    assert "Ca, Fe have indistinguishable spectra" in regions.remark.sel(region="a", detector="0").item()
    assert regions.remark.sel(region="b", detector="0").item() == ""
    mapped = xr.open_zarr(store, group="regions/maps", chunks=None).sel(detector="0")
    assert (mapped.status.sel(region="a").isel(x=slice(0, 4)) == FitStatus.SINGULAR).all()
    assert mapped.amplitude.sel(region="a").isnull().all()
    assert (mapped.status.sel(region="b").isel(x=slice(4, 8)) == FitStatus.CONVERGED).all()
    assert "finalise" in records
    assert "have indistinguishable spectra" in build_region_rows(regions)[0].reason
    (job,) = jobs_of(tmp_path, tmp_path / "run", regions=asked)
    table = RunDir(path=tmp_path / "run").regions_table(job.dataset_id)
    with table.open(newline="") as stream:
        reasons = {row["region"]: row["reason"] for row in csv.DictReader(stream)}
    assert "have indistinguishable spectra" in reasons["a"]
    assert "have indistinguishable spectra" not in reasons["b"]


# --- families too alike --------------------------------------------------------------------------


def test_a_family_that_is_another_one_is_refused_with_both_names():
    """Nearly alike ones are named in notes, results and report: `test_pixel_choices.py`."""
    peak = torch.exp(-0.5 * ((torch.arange(200, dtype=torch.float64) - 90) / 6) ** 2)[:, None]
    other = peak.roll(40, dims=0)
    basis = pixel_basis(
        torch.cat([peak, other, peak], dim=1),
        torch.full((3,), 100.0, dtype=torch.float64),
        torch.ones((1, 200), dtype=torch.float64),
        1,
    )
    for refuse in (pixel_operator, find_mixtures):
        with pytest.raises(FitError, match=r"Pb_M, S_K have indistinguishable spectra"):
            refuse(replace(basis, names=("Pb_M", "Fe", "S_K")))


def test_what_a_run_found_is_kept_with_its_results(runs):
    attributes = open_results(runs["broken"][0]).attrs
    assert set(notes(runs)) == set(attributes["notes"])
    assert set(attributes["mixed"]) == {"0", "1", "3", "sum"}
