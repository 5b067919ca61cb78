"""Pixels with a theta of their own, the true model and clipped backgrounds through whole runs."""

import shutil
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from run_samples import jobs_of, maps_of, run_scan, spectrum, write_scan
from scan_units import finished_tasks, units_of

from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.fitting.pixels.model import columns_at
from hpcxrf.fitting.result import FitStatus
from hpcxrf.methods import METHODS
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.pipeline.blocks import blocks_of
from hpcxrf.pipeline.opening import require_few
from hpcxrf.pipeline.regions.remap import around
from hpcxrf.pipeline.tasks import run_pixels
from hpcxrf.results.report.report import DatasetSummary, write_report
from hpcxrf.results.store.basis import read_basis
from hpcxrf.results.store.maps import open_results
from hpcxrf.results.store.pixel_model import read_pixel_model
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import RunDir

ELEMENTS = ("Ca", "Fe", "Zn")
COUNTS = {"Ca": 400.0, "Fe": 700.0, "Zn": 300.0, "elastic": 300.0, "Compton": 400.0}
SHAPE = (66, 6)
STEP_KEV = 0.0012
"""Drift of the energy offset from column to column: 3 eV on either side of the mean, then much more in a strip."""
FAR_KEV = 0.028


def offsets() -> np.ndarray:
    """Energy offset (y, x), keV: rising along x, and 28 eV more in the last three rows."""
    drift = np.broadcast_to(STEP_KEV * (np.arange(SHAPE[1]) - 2.5), SHAPE).copy()
    drift[-3:] += FAR_KEV
    return drift


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    """Two detectors, the second with half the counts and the same drift."""
    folder = tmp_path_factory.mktemp("drifting")
    mean = np.empty((2, *SHAPE, 1200))
    for value in np.unique(offsets()):
        mean[:, offsets() == value] = spectrum(COUNTS, energy_offset=float(value))
    mean[1] *= 0.5
    write_scan(folder, mean, elements=ELEMENTS)
    return folder


@pytest.fixture(scope="module")
def followed(drifting, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    pixels = {"method": "nonlinear", "detectors": "both", "blocks_per_task": 1}
    regions = {"find": [], "rectangles": {"far": [63, 66, 0, 6]}, "remap": True}
    return run_scan(drifting, run, pixels=pixels, regions=regions)


def test_every_pixel_is_followed_and_its_shift_is_in_the_store(followed):
    maps = maps_of(followed[0])
    assert (maps.status == FitStatus.CONVERGED).all()
    assert list(maps.parameter.values) == ["energy_offset", "energy_slope", "fwhm_offset"]
    assert list(maps.parameter_unit.values) == ["keV", "keV/channel", "keV"]
    assert maps.theta_shift.dims == ("detector", "parameter", "y", "x")
    assert "theta_shift_sigma" in maps
    at_fe = maps.theta_shift.sel(parameter="energy_offset") + 640 * maps.theta_shift.sel(parameter="energy_slope")
    for detector in ("0", "1", "sum"):
        moved = at_fe.sel(detector=detector).values
        true = offsets() - offsets().mean()
        wrong = (moved - moved.mean()) - true
        # Peaks of 700 counts and 60 eV know their place to 3 eV.
        assert np.abs(wrong).mean() < 0.003
        assert np.corrcoef(moved.ravel(), true.ravel())[0, 1] > 0.9
        far = maps.amplitude.sel(detector=detector).isel(y=slice(63, 66))
        share = {"0": 1.0, "1": 0.5, "sum": 1.5}[detector]
        for name in ELEMENTS:
            one = far.sel(component=name)
            sigma = float(maps.sigma.sel(detector=detector, component=name).mean())
            wrong = float(one.mean()) - share * COUNTS[name]
            assert abs(wrong) < 0.02 * share * COUNTS[name] + 3.0 * sigma / one.size**0.5, name


@pytest.mark.parametrize("low_kev", [1.0, 1.01])
def test_a_region_of_one_pixel_is_mapped_again_wherever_its_channels_begin(drifting, tmp_path, low_kev):
    regions = {"find": [], "rectangles": {"one": [2, 3, 1, 2]}, "remap": True}
    fit = {"suggest": False, "energy_range_kev": [low_kev, 9.5]}
    store, _ = run_scan(drifting, tmp_path / "run", pixels={"method": "linear"}, regions=regions, fit=fit)
    again = xr.open_zarr(store, group="regions/maps").amplitude
    assert np.isfinite(again.values).sum() == again.sizes["detector"] * again.sizes["component"]


def test_how_the_pixels_are_cut_into_tasks_changes_no_bit(followed, drifting, tmp_path):
    pixels = {"method": "nonlinear", "detectors": "both", "blocks_per_task": 2}
    store, records = run_scan(drifting, tmp_path / "run", pixels=pixels)
    assert sum(name.startswith("pixels") for name in records) == 3
    assert sum(name.startswith("pixels") for name in followed[1]) == 6
    for group in ("maps", "model", "basis"):
        assert tree_sha256(store / group) == tree_sha256(followed[0] / group)
    (task,) = [r for t, r in records.items() if t.startswith("pixels-sum")]
    assert sum("theta_shift" in name for name in task.checksums) == 4


def test_the_stored_model_makes_the_stored_columns(followed):
    for detector in ("0", "1", "sum"):
        model = read_pixel_model(followed[0], detector, PHYSICS)
        basis = read_basis(followed[0], detector)
        assert int(model.channel[0]) == basis.first_channel
        assert torch.equal(columns_at(model), basis.columns[:, : basis.n_components])
    assert len(read_pixel_model(followed[0], "sum", PHYSICS).parts) == 2


def test_every_group_opens_without_a_warning(followed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for group in ("maps", "basis", "model/0", "model/sum", "regions", "regions/maps"):
            xr.open_zarr(followed[0], group=group, chunks=None).load()
        open_results(followed[0]).load()


def test_a_region_mapped_again_has_shifts_from_its_own_theta(followed):
    region = xr.open_zarr(followed[0], group="regions/maps", chunks=None).sel(region="far")
    inside = region.isel(y=slice(63, 66))
    assert (inside.status == FitStatus.CONVERGED).all()
    assert np.isnan(region.theta_shift.isel(y=slice(0, 63))).all()
    shift = inside.theta_shift.sel(parameter="energy_offset", detector="0")
    assert float(np.abs(shift.mean())) < 0.004
    whole = maps_of(followed[0]).theta_shift.sel(parameter="energy_offset", detector="0")
    assert float(whole.isel(y=slice(63, 66)).mean()) > 0.01


def test_the_report_shows_the_shifts(followed, tmp_path):
    from pages import parsed, run_summary

    summary = DatasetSummary(
        dataset_id="scan",
        name="scan",
        source="scan.npy",
        status="done",
        shape=(2, *SHAPE, 1200),
        results_path=followed[0],
    )
    write_report(run_summary(), [summary], tmp_path / "report.html")
    page = parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert sum("shifts" in a.get("class", "") for a in page.attributes("figure")) == 3
    assert sum("energy_offset" in a.get("alt", "") for a in page.attributes("img")) == 3


# --- the true model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    mean = np.empty((1, 4, 6, 1200))
    for x in range(6):
        mean[:, :, x] = spectrum(COUNTS, energy_offset=STEP_KEV * (x - 2.5))
    write_scan(folder, mean, elements=ELEMENTS)
    return folder


def test_the_true_model_in_every_pixel_agrees_with_the_dictionary(small, tmp_path):
    full, _ = run_scan(small, tmp_path / "full", pixels={"method": "full"})
    near, _ = run_scan(small, tmp_path / "near", pixels={"method": "nonlinear"})
    full, near = maps_of(full), maps_of(near)
    assert (full.status == FitStatus.CONVERGED).all()
    apart = (full.amplitude - near.amplitude) / near.sigma
    assert float(np.abs(apart.sel(component=list(ELEMENTS))).max()) < 0.5
    shift = (full.theta_shift - near.theta_shift) / near.theta_shift_sigma
    assert float(np.sqrt((shift**2).mean())) < 0.5
    assert (full.theta_shift_sigma > 0).all()


def test_a_region_can_be_mapped_by_the_true_model(small, tmp_path):
    regions = {"find": [], "rectangles": {"box": [1, 3, 2, 5]}, "remap": "full"}
    store, _ = run_scan(small, tmp_path / "run", regions=regions)
    assert "theta_shift" not in maps_of(store)
    box = xr.open_zarr(store, group="regions/maps", chunks=None).sel(region="box", detector="0")
    inside = box.isel(y=slice(1, 3), x=slice(2, 5))
    assert (inside.status == FitStatus.CONVERGED).all()
    assert np.isfinite(inside.theta_shift).all()
    fe = inside.amplitude.sel(component="Fe")
    assert float(fe.mean()) == pytest.approx(COUNTS["Fe"], rel=0.06)


def test_a_run_begun_before_the_pixels_model_was_kept_says_what_to_do(small, tmp_path):
    asked = {"pixels": {"method": "nonlinear"}}
    store, _ = run_scan(small, tmp_path / "run", **asked)
    shutil.rmtree(store / "model")
    (job,) = jobs_of(small, tmp_path / "run", **asked)
    blocks = next(unit.work for unit in units_of(job) if unit.stage == "pixels")
    with pytest.raises(OutputError, match=r"no model of the pixels of detector 0.*remove it and"):
        run_pixels(job, blocks, [])
    # What it says helps: without its store the dataset is fitted again.
    shutil.rmtree(store)
    run = RunDir(path=tmp_path / "run")
    assert not {"integrated", "pixels-0-00000-00001"} & set(finished_tasks(run, job))


@given(
    spots=st.lists(st.tuples(st.integers(0, 149), st.integers(0, 599)), min_size=1, max_size=5),
    chunk=st.sampled_from([(1, 1), (16, 128), (4, 16), (64, 256)]),
)
def test_what_is_read_for_a_region_are_the_chunks_about_its_pixels(spots, chunk):
    every = np.zeros((150, 600), dtype=bool)
    for spot in spots:
        every[spot] = True
    found = 0
    for block in blocks_of(every.shape):
        inside = every[block.y, block.x]
        if not inside.any():
            continue
        part = around(every, block, (1, *chunk, 100))
        assert every[part.y, part.x].sum() == inside.sum()
        found += inside.sum()
        for axis, (piece, whole) in enumerate(((part.y, block.y), (part.x, block.x))):
            assert whole.start <= piece.start < piece.stop <= whole.stop
            assert piece.start % chunk[axis] == 0
            assert piece.stop % chunk[axis] == 0 or piece.stop == whole.stop
            # Not one chunk more at either end.
            used = np.flatnonzero(inside.any(axis=1 - axis)) + whole.start
            assert used[0] - piece.start < chunk[axis]
            assert piece.stop - used[-1] <= chunk[axis]
    assert found == every.sum()


def test_too_many_pixels_for_the_true_model_are_refused_with_both_numbers(small, tmp_path):
    (job,) = jobs_of(small, tmp_path / "run", pixels={"method": "full"})
    require_few(job.config, (2, 50, 100, 1200), small)
    with pytest.raises(ConfigError, match=rf"at most {METHODS['full'].most_pixels} .* 10002"):
        require_few(job.config, (2, 3, 1667, 1200), small)


@pytest.mark.parametrize(
    "sections",
    [
        {"pixels": {"method": "full", "detectors": "both"}},
        {"pixels": {"detectors": "sum"}, "regions": {"remap": "full"}},
        {"pixels": {"method": "poisson", "background": "snip"}},
        {"pixels": {"background": "snip"}, "regions": {"remap": "nonlinear"}},
        {"regions": {"remap": "everything"}},
    ],
)
def test_what_excludes_each_other_is_refused(small, tmp_path, sections):
    with pytest.raises(ConfigError, match=r"pixels|remap"):
        jobs_of(small, tmp_path / "run", **sections)


# --- clipping -----------------------------------------------------------------------------------


def test_clipping_of_every_pixel_agrees_at_high_counts_and_is_biased_at_low_ones(tmp_path):
    bias = {}
    for level in (1.0, 300.0):
        folder = tmp_path / f"{level:g}"
        mean = spectrum(dict.fromkeys(ELEMENTS, 30.0 * level), continuum=0.3 * level)
        write_scan(folder, np.broadcast_to(np.minimum(mean, 6e4), (1, 12, 12, 1200)), elements=ELEMENTS)
        for background in ("columns", "snip"):
            store, _ = run_scan(folder, folder / background, pixels={"background": background, "weights": "one"})
            maps = maps_of(store).sel(component="Ca", detector="0")
            assert (maps.status == FitStatus.CONVERGED).all()
            assert np.isfinite(maps.deviance).all()
            bias[level, background] = float(maps.amplitude.mean()) / (30.0 * level) - 1.0
    assert abs(bias[1.0, "columns"]) < 0.06
    assert bias[1.0, "snip"] > 0.5
    assert abs(bias[300.0, "columns"]) < 0.01
    assert abs(bias[300.0, "snip"]) < 0.2
