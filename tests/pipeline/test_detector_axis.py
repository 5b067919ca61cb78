"""What there are maps of: by default the sum of several detectors, then each; one detector once."""

import csv
import dataclasses
import re

import numpy as np
import pytest
import xarray as xr
from scan_units import run_unit, units_of

import hpcxrf
from hpcxrf.config.run import check_config, effective
from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.methods import METHODS
from hpcxrf.pipeline.prepare.inputs import detector_names
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.results.accessor import select_detector
from hpcxrf.store.rundir import RunDir, create_or_resume
from tests.samples.run_samples import jobs_of, maps_of, run_all, run_maps, run_scan, spectrum, write_scan

ELEMENTS = ("Ca", "Fe", "Zn")
SHARES = (1.0, 0.7, 1.2, 0.9)
SHAPE = (4, 6, 8)
FE_COUNTS = 300.0
EVERY = ("sum", "0", "1", "2", "3")


def config_with(**sections):
    return check_config({"input": {"files": ["a"]}, **sections}, "test")


@pytest.mark.parametrize(
    ("pixels", "exclude", "n", "names"),
    [
        ({}, [], 4, EVERY),
        ({}, [], 1, ("0",)),
        ({}, [1], 3, ("sum", "0", "2")),
        ({}, [0], 2, ("1",)),
        ({"method": "full"}, [], 2, ("0", "1")),
        ({"detectors": "auto"}, [], 2, ("sum", "0", "1")),
        ({"detectors": "each"}, [], 2, ("0", "1")),
        ({"detectors": "sum"}, [], 2, ("sum",)),
        ({"detectors": "both"}, [], 2, ("sum", "0", "1")),
        # Who asks for both has the same entries from every scan of an archive.
        ({"detectors": "both"}, [], 1, ("sum", "0")),
    ],
)
def test_the_sum_comes_first_where_there_is_one(pixels, exclude, n, names):
    assert detector_names(config_with(pixels=pixels, detectors={"exclude": exclude}), n) == names


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_default_that_it_can_fit(method):
    wanted = detector_names(config_with(pixels={"method": method}), 2)
    assert ("sum" in wanted) == METHODS[method].sums
    # A sum of the scan is no hindrance for regions that a method without sums maps again.
    assert detector_names(config_with(regions={"remap": method}), 2) == ("sum", "0", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four detectors of other sizes; the right half has more iron."""
    folder = tmp_path_factory.mktemp("axis")
    means = np.empty((*SHAPE, 1200))
    for d, share in enumerate(SHARES):
        for half, times in ((slice(0, 4), 1.0), (slice(4, 8), 3.0)):
            means[d, :, half] = share * spectrum({"Ca": 200.0, "Fe": FE_COUNTS * times, "Zn": 100.0})
    write_scan(folder, means, elements=ELEMENTS)
    return folder


REGIONS = {"find": [], "rectangles": {"left": [0, 6, 0, 4], "right": [0, 6, 4, 8]}, "remap": True}


@pytest.fixture(scope="module")
def default(folder, tmp_path_factory):
    """Job and store of a run that says nothing of detectors."""
    (job,) = jobs_of(folder, tmp_path_factory.mktemp("default") / "run", regions=REGIONS)
    return job, run_all(job)[0]


def test_four_detectors_give_their_sum_and_four_maps(default, folder):
    _, store = default
    for group in ("maps", "spectrum", "parameters", "regions", "regions/maps"):
        assert tuple(xr.open_zarr(store, group=group, chunks=None).detector.values) == EVERY, group
    raw = np.load(folder / "scan.npy")
    spectra = xr.open_zarr(store, group="spectrum", chunks=None)
    np.testing.assert_array_equal(spectra.counts.sel(detector="sum"), raw.sum((0, 1, 2)))
    np.testing.assert_array_equal(spectra.counts.isel(detector=slice(1, None)), raw.sum((1, 2)))
    iron = maps_of(store).sel(component="Fe")
    assert (iron.status == FitStatus.CONVERGED).all()
    for name, share in zip(EVERY, (sum(SHARES), *SHARES), strict=True):
        one = iron.sel(detector=name)
        sigma = float(np.sqrt((one.sigma**2).sum()))
        assert abs(float(one.amplitude.sum()) - share * FE_COUNTS * 24 * (1.0 + 3.0)) < 4 * sigma, name


def test_the_maps_are_those_of_each_and_of_the_sum_alone(default, folder, tmp_path):
    _, store = default
    found = maps_of(store)
    for wanted in ("each", "sum"):
        alone, _ = run_maps(*jobs_of(folder, tmp_path / wanted, pixels={"detectors": wanted}))
        same = maps_of(alone)
        xr.testing.assert_identical(found.sel(detector=same.detector.values).drop_attrs(), same.drop_attrs())


def test_regions_are_summed_refined_and_mapped_in_the_same_order(default, folder):
    job, store = default
    raw = np.load(folder / "scan.npy").astype(float)
    group = xr.open_zarr(store, group="regions", chunks=None)
    right = group.sel(region="right")
    np.testing.assert_array_equal(right.counts.sel(detector="sum"), raw[:, :, 4:].sum((0, 1, 2)))
    np.testing.assert_array_equal(right.counts.isel(detector=slice(1, None)), raw[:, :, 4:].sum((1, 2)))
    again = xr.open_zarr(store, group="regions/maps", chunks=None).amplitude.sel(component="Fe")
    for name, share in zip(EVERY, (sum(SHARES), *SHARES), strict=True):
        one = right.sel(detector=name, component="Fe")
        true = share * FE_COUNTS * 24 * 3.0
        assert abs(float(one.amplitude) - true) < 4 * float(one.sigma), name
        assert float(again.sel(region="right", detector=name).sum()) == pytest.approx(true, rel=0.03), name
    with RunDir(path=job.run_dir).regions_table(job.dataset_id).open() as stream:
        rows = [row["detector"] for row in csv.DictReader(stream)]
    assert tuple(dict.fromkeys(rows)) == EVERY


def test_the_page_and_what_the_library_draws_begin_with_the_sum(default):
    job, _ = default
    page = RunDir(path=job.run_dir).page_file(job.dataset_id).read_text(encoding="utf-8")
    titles = re.findall(r"<h3>((?:Sum|Detector)[^<]*)</h3>", page)
    assert titles == ["Sum of the detectors", *(f"Detector {d}" for d in range(4))]
    maps = hpcxrf.open_results(job.run_dir).maps()
    assert str(select_detector(maps, None).detector.item()) == "sum"
    xr.testing.assert_identical(maps.xrf.rgb("Fe", "Ca", "Zn"), maps.xrf.rgb("Fe", "Ca", "Zn", detector="sum"))
    np.testing.assert_array_equal(
        maps.xrf.map("Fe").isel(detector=0), maps.amplitude.sel(detector="sum", component="Fe")
    )


def test_one_detector_gives_one_map_of_its_own_name(folder, tmp_path):
    single = tmp_path / "in"
    single.mkdir()
    np.save(single / "scan.npy", np.load(folder / "scan.npy")[:1])
    (single / "maps_fit_parameters_override.txt").write_text((folder / "maps_fit_parameters_override.txt").read_text())
    store, records = run_maps(*jobs_of(single, tmp_path / "run"))
    assert maps_of(store).detector.values.tolist() == ["0"]
    assert sum(record.stage == "pixels" for record in records.values()) == 1
    of_three, _ = run_maps(*jobs_of(folder, tmp_path / "alone", detectors={"exclude": [1, 2, 3]}))
    assert maps_of(of_three).detector.values.tolist() == ["0"]


def test_a_region_is_mapped_again_for_each_detector_where_the_method_fits_no_sum(folder, tmp_path):
    regions = {"find": [], "rectangles": {"few": [0, 2, 0, 2]}, "remap": "full"}
    store, _ = run_scan(folder, tmp_path / "run", regions=regions, detectors={"exclude": [2, 3]})
    group = xr.open_zarr(store, group="regions", chunks=None).sel(region="few")
    assert group.remark.sel(detector="sum").item().startswith("not mapped again: the method full fits")
    assert not group.remark.sel(detector="0").item()
    status = xr.open_zarr(store, group="regions/maps", chunks=None).status.sel(region="few")
    assert (status.sel(detector="sum") == FitStatus.NOT_RUN).all()
    assert (status.sel(detector=["0", "1"]).isel(y=slice(0, 2), x=slice(0, 2)) != FitStatus.NOT_RUN).all()


def test_a_store_that_was_begun_with_the_sum_last_is_ended_in_that_order(default, folder, tmp_path):
    """As version 0.1.0 made it for `both`: its pixels and regions are written where its own axis has them."""
    (job,) = jobs_of(folder, tmp_path / "run", pixels={"detectors": "both"}, regions=REGIONS)
    assert job.detectors == EVERY
    earlier = dataclasses.replace(job, detectors=("0", "1", "2", "3", "sum"))
    create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        begun = unit.stage in {"ingest", "integrated"}
        done.append(run_unit(earlier if begun else job, unit, done))
    store = RunDir(path=job.run_dir).results_store(job.dataset_id)
    found, wanted = maps_of(store), maps_of(default[1])
    assert found.detector.values.tolist() == ["0", "1", "2", "3", "sum"]
    xr.testing.assert_identical(found.sel(detector=list(EVERY)).drop_attrs(), wanted.drop_attrs())


def test_a_run_that_was_begun_with_each_goes_on_with_each(folder, tmp_path):
    (job,) = jobs_of(folder, tmp_path / "run")
    old = effective(job.config)
    old["pixels"]["detectors"] = "each"
    run = create_or_resume(tmp_path / "run", "input: {}\n", old)
    config, _ = config_of_run(run)
    assert detector_names(config, 4) == ("0", "1", "2", "3")
    create_or_resume(tmp_path / "run", "", effective(config))
    with pytest.raises(OutputError, match=r'pixels\.detectors: the run has "each", this command "auto"'):
        create_or_resume(tmp_path / "run", "", effective(job.config))
