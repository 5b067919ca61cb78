"""Regions of a small scan: given, summed, refined, stored, exported, reported and resumed."""

import csv
import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from scan_units import finished_tasks, run_unit, units_of
from store_damage import spoil_chunks

import hpcxrf
from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.regions.given import require_given
from hpcxrf.pipeline.regions.tasks import run_refine
from hpcxrf.results.report.page.dataset import DatasetSummary
from hpcxrf.results.report.page.regions import build_region_rows
from hpcxrf.results.report.report import write_report
from hpcxrf.results.store.maps import open_results, reopen
from hpcxrf.runner.journal import finished_line
from hpcxrf.runner.verify import do_again, find_damage
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import create_or_resume

SHAPE = (10, 12)
ELEMENTS = ("Si", "Ca", "Fe", "Cr")
COUNTS = {"Si": 150.0, "Ca": 250.0, "Fe": 500.0, "Cr": 120.0}
"""True amplitudes of a pixel, detector 0."""
OVERRIDE = "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Si, Ca, Fe\n"
HOSTILE = "<script>alert(1)</script>"
MOVED_KEV = 0.012
"""How far the right half of the scan has its peaks from where the left half has them."""


def spectrum(offset_kev: float, *, cr: bool) -> np.ndarray:
    """Mean counts of a pixel in 1200 channels of 10 eV, by the model itself: regions are tested here, not physics."""
    table = hpcxrf.line_table(ELEMENTS, 10.0)
    theta = hpcxrf.default_theta(10.0, energy_slope=0.01)
    theta[0] = offset_kev
    counts = [COUNTS[name] if name != "Cr" or cr else 0.0 for name in ELEMENTS]
    amplitude = torch.tensor([*counts, 300.0, 400.0], dtype=torch.float64)
    return 0.2 + hpcxrf.model_spectrum(theta, amplitude, table, 1200).numpy()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two detectors; the right half of the scan has another energy offset, its lowest rows Cr, which is not listed."""
    folder = tmp_path_factory.mktemp("regions") / "in"
    folder.mkdir()
    mean = np.empty((2, *SHAPE, 1200))
    mean[:] = spectrum(0.0, cr=False)
    mean[:, :, 6:] = spectrum(MOVED_KEV, cr=False)
    mean[:, 5:, 6:] = spectrum(MOVED_KEV, cr=True)
    mean[1] *= 0.5
    np.save(folder / "scan.npy", np.random.default_rng(0).poisson(mean).astype(np.uint16))
    (folder / "maps_fit_parameters_override.txt").write_text(OVERRIDE)
    np.save(folder / "labels.npy", labels())
    return folder


def labels() -> np.ndarray:
    image = np.zeros(SHAPE, dtype=np.int32)
    image[:, :2], image[:4, 8:] = 3, 7
    return image


def regions_asked(source) -> dict:
    return {
        "find": [],
        "rectangles": {"left": [0, 10, 0, 6], "right": [0, 10, 6, 12], HOSTILE: [2, 5, 3, 9]},
        "polygons": {"corner": [[-0.5, -0.5], [-0.5, 3.5], [3.5, -0.5]]},
        "labels": {"tissue": str(source / "labels.npy")},
        "thresholds": {"none": {"component": "Fe", "above": 1e7}},
        "remap": True,
    }


def plan(source, run, **regions):
    raw = {
        "input": {"files": [str(source / "scan.npy")]},
        "pixels": {"detectors": "both"},
        "regions": regions_asked(source) | regions,
    }
    return make_plan(check_config(raw, "test"), run)


def run_all(job):
    run = create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        done.append(run_unit(job, unit, done))
        run.append(job.dataset_id, finished_line(done[-1], job, unit))
    return run


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """Job and run directory, everything done."""
    (job,) = plan(source, tmp_path_factory.mktemp("runs") / "run").jobs
    return job, run_all(job)


@pytest.fixture(scope="module")
def group(finished):
    job, run = finished
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = run.results_store(job.dataset_id)
        yield xr.open_zarr(path, group="regions", chunks=None).load()


def mask_of(group, name):
    index = list(group.region.values).index(name)
    return group.label.values[group.layer_of.values[index]] == index + 1


def test_given_regions_have_their_pixels_and_overlap_freely(group):
    names = ["left", "right", HOSTILE, "corner", "tissue-3", "tissue-7", "none"]
    assert list(group.region.values) == names
    assert group.n_pixels.values.tolist() == [60, 60, 18, 10, 20, 16, 0]
    assert mask_of(group, "left")[:, :6].all()
    assert mask_of(group, HOSTILE)[2:5, 3:9].all()
    # Pixels whose centres are below the hypotenuse.
    y, x = np.indices(SHAPE)
    assert (mask_of(group, "corner") == (y + x <= 3)).all() or (mask_of(group, "corner") == (y + x < 3)).all()
    assert (mask_of(group, "tissue-3") == (labels() == 3)).all()
    assert "no pixel is" in str(group.reason.sel(region="none").item())


def test_summed_counts_are_the_raw_counts_of_the_pixels(group, source):
    raw = np.load(source / "scan.npy").astype(float)
    for name in ("left", HOSTILE, "corner", "tissue-7"):
        expected = raw[:, mask_of(group, name)].sum(axis=1)
        one = group.counts.sel(region=name)
        assert (one.sel(detector=["0", "1"]).values == expected).all()
        assert (one.sel(detector="sum").values == expected.sum(axis=0)).all()


@pytest.mark.parametrize("detector", ["0", "1"])
def test_a_region_has_its_own_energy_axis(group, detector):
    """The two halves were made 12 eV apart; the scan's own fit knows one axis only."""
    table = group.sel(detector=detector)
    value = {name: table.theta.sel(name=f"energy_{name}") for name in ("offset", "slope", "quadratic")}
    axis = value["offset"] + 640 * value["slope"] + 640**2 * value["quadratic"]
    error = table.theta_sigma.sel(name="energy_offset").sel(region="left").item()
    moved = (axis.sel(region="right") - axis.sel(region="left")).item()
    assert moved == pytest.approx(MOVED_KEV, abs=0.0015)
    assert 0 < error < 0.01


def test_amplitudes_of_the_halves_are_right_and_add_up_to_the_scan(group, finished):
    job, run = finished
    spectrum_fit = open_results(run.results_store(job.dataset_id))["spectrum"].to_dataset()
    for detector, share in (("0", 1.0), ("1", 0.5), ("sum", 1.5)):
        for element in ("Ca", "Fe"):
            one = group.sel(detector=detector, component=element, region=["left", "right"])
            true = 60 * COUNTS[element] * share
            assert (np.abs(one.amplitude.values - true) < 3.5 * one.sigma.values).all()
            whole = spectrum_fit.amplitude.sel(detector=detector, component=element).item()
            assert one.amplitude.sum().item() == pytest.approx(whole, rel=0.03)


def test_what_only_a_region_holds_is_suggested_there(group):
    found = {
        name: {s["name"] for s in json.loads(group.suggested.sel(region=name, detector="0").item())}
        for name in ("left", "right")
    }
    assert "Cr" in found["right"]
    assert "Cr" not in found["left"]


def test_an_empty_region_is_flagged_and_has_no_numbers(group):
    none = group.sel(region="none")
    assert (none.status == FitStatus.EMPTY).all()
    assert np.isnan(none.amplitude.values).all()
    assert np.isnan(none.r2.values).all()
    assert (none.counts == 0).all()


def test_remapped_pixels_are_those_of_the_region_and_add_up_to_its_fit(finished, group):
    job, run = finished
    maps = xr.open_zarr(run.results_store(job.dataset_id), group="regions/maps", chunks=None)
    for name in ("right", HOSTILE):
        one, inside = maps.sel(region=name), mask_of(group, name)
        assert (one.status.values[:, inside] == FitStatus.CONVERGED).all()
        assert (one.status.values[:, ~inside] == FitStatus.NOT_RUN).all()
        assert np.isnan(one.amplitude.values[..., ~inside]).all()
        for detector in ("0", "1", "sum"):
            total = one.amplitude.sel(detector=detector, component="Fe").sum().item()
            fit = group.sel(region=name, detector=detector, component="Fe")
            assert abs(total - fit.amplitude.item()) < 2.0 * fit.sigma.item()
    assert (maps.sel(region="none").status == FitStatus.NOT_RUN).all()


def test_the_table_has_every_number_of_the_store(finished, group):
    job, run = finished
    with run.regions_table(job.dataset_id).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = [r for r in rows if (r["region"], r["detector"], r["name"]) == ("right", "1", "Fe")]
    (row,) = [r for r in wanted if r["quantity"] == "amplitude"]
    one = group.sel(region="right", detector="1", component="Fe")
    assert float(row["value"]) == one.amplitude.item()
    assert float(row["sigma"]) == one.sigma.item()
    assert row["pixels"] == "60"
    assert row["status"] == "converged"
    theta = [r for r in rows if r["quantity"] == "theta" and r["region"] == "left"]
    assert len(theta) == 3 * group.sizes["name"]
    assert {r["unit"] for r in theta} >= {"keV", "keV/channel", "deg"}
    assert any(r["quantity"] == "suggested" and r["name"] == "Cr" for r in rows)


def test_a_row_of_the_report_takes_the_sum_of_the_detectors_where_it_was_fitted(group):
    right = build_region_rows(group)[1]
    assert right.number == 2
    assert right.strongest[0].name == "Fe"
    one = group.sel(region="right", detector="sum", component="Fe")
    assert right.strongest[0].counts == one.amplitude.item()
    assert right.r2 == group.r2.sel(region="right").min().item()
    assert any(s.startswith("Cr (z ") for s in right.suggested)
    each = build_region_rows(group.sel(detector=["0", "1"]))[1]
    both = group.sel(region="right", detector=["0", "1"], component="Fe")
    assert each.strongest[0].counts == both.amplitude.sum().item()
    assert each.strongest[0].sigma == pytest.approx(np.hypot(*both.sigma.values))
    assert build_region_rows(group)[6].outcome == "empty"


def test_the_report_shows_the_regions_and_hostile_names_stay_text(finished, tmp_path):
    from pages import parsed, programs, run_summary

    job, run = finished
    summary = DatasetSummary(
        dataset_id=job.dataset_id,
        name="scan",
        source="scan.npy",
        status="done",
        shape=job.shape,
        results_path=run.results_store(job.dataset_id),
    )
    write_report(run_summary(), [summary], tmp_path / "report.html")
    page = parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    words = [text.strip() for text in page.texts]
    assert "Regions" in words
    assert HOSTILE in words
    assert len(programs(page)) == 1
    with open_results(summary.results_path) as tree:
        layers = tree["regions"].sizes["layer"]
    assert sum(a.get("alt", "").startswith("regions,") for a in page.attributes("img")) == layers


def test_how_the_regions_are_shared_out_changes_no_bit(finished, tmp_path):
    job, run = finished
    other = dataclasses.replace(job, run_dir=tmp_path / "run")
    shutil.copytree(run.path, other.run_dir)
    store = other.run_dir / "results" / f"{job.dataset_id}.zarr"
    reopen(store)
    before = tree_sha256(store / "regions")
    for left in (store / "regions").rglob("amplitude/c"):
        shutil.rmtree(left)
    for slot in (1, 0):
        run_refine(other, slot, 2, [])
    assert tree_sha256(store / "regions") == before


def test_a_finished_dataset_has_nothing_left_and_a_lost_region_is_done_again_alone(finished, source, tmp_path):
    job, run = finished
    every = {u.task for u in units_of(job)}
    assert set(finished_tasks(run, job)) == every
    copy = create_or_resume(shutil.copytree(run.path, tmp_path / "run"), "", {})
    moved = dataclasses.replace(job, run_dir=copy.path)
    store = copy.results_store(job.dataset_id) / "regions"
    assert spoil_chunks(store / "maps" / "amplitude", "c/2/")
    for damage in list(find_damage(copy)):
        do_again(copy, damage)
    assert every - set(finished_tasks(copy, moved)) == {"refine-02", "finalise"}
    (store / "label" / "c.0.0.0").unlink()
    for damage in list(find_damage(copy)):
        do_again(copy, damage)
    assert every - set(finished_tasks(copy, moved)) == {t for t in every if t.startswith("refine")} | {
        "regions",
        "finalise",
    }


def test_a_label_image_that_changed_undoes_the_regions_and_not_the_fits(source, tmp_path):
    own = shutil.copytree(source, tmp_path / "in")
    (job,) = plan(own, tmp_path / "run", refine=False, remap=False).jobs
    run = run_all(job)
    assert set(finished_tasks(run, job)) == {u.task for u in units_of(job)}
    np.save(own / "labels.npy", np.ones(SHAPE, dtype=np.uint8))
    (later,) = plan(own, tmp_path / "run", refine=False, remap=False).jobs
    left = {u.task for u in units_of(later)} - set(finished_tasks(run, later))
    assert left == {"regions", "finalise"}


def test_regions_that_are_not_refined_say_so(source, tmp_path):
    (job,) = plan(source, tmp_path / "run", refine=False, remap=False).jobs
    assert not any(u.stage == "refine" for u in units_of(job))
    run = run_all(job)
    group = xr.open_zarr(run.results_store(job.dataset_id), group="regions", chunks=None)
    assert (group.status == FitStatus.NOT_RUN).all()
    assert np.isnan(group.amplitude.values).all()
    assert {row.outcome for row in build_region_rows(group)} == {"not run"}
    table = run.regions_table(job.dataset_id).read_text()
    assert len(table.splitlines()) == 1 + 7 * 3


def test_nothing_asked_for_makes_no_task_and_no_group(source, tmp_path):
    nothing = {"rectangles": {}, "polygons": {}, "labels": {}, "thresholds": {}}
    (job,) = plan(source, tmp_path / "run", **nothing).jobs
    assert {u.stage for u in units_of(job)} == {"ingest", "integrated", "pixels", "finalise"}


def test_found_regions_may_be_none(source, tmp_path):
    nothing = {"rectangles": {}, "polygons": {}, "labels": {}, "thresholds": {}}
    (job,) = plan(source, tmp_path / "run", find=["squares"], **nothing).jobs
    run = run_all(job)
    assert "regions" not in open_results(run.results_store(job.dataset_id)).children
    assert set(finished_tasks(run, job)) == {u.task for u in units_of(job)}


def test_a_region_without_a_pixel_is_refused_before_anything_runs(source, tmp_path):
    asked = {
        "rectangles": {"far": [20, 30, 0, 4], "wide": [0, 99, 0, 99]},
        "polygons": {"thin": [[0.1, 0.1], [0.1, 0.4], [0.4, 0.1]]},
    }
    found = plan(source, tmp_path / "run", **asked)
    assert found.jobs == ()
    (refusal,) = found.refusals
    assert "'far' holds no pixel; the scan has 10 x 12 pixels" in refusal.reason
    assert "'thin'" in refusal.reason
    assert "'wide'" not in refusal.reason


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.ones((3, 3), dtype=int), "shape.*3, 3.*must|shape \\(3, 3\\), the scan has"),
        (np.zeros(SHAPE, dtype=int), "without a value above 0"),
        (np.ones(SHAPE), "must be integers"),
    ],
)
def test_an_image_that_is_no_label_image_is_refused(tmp_path, image, said):
    np.save(tmp_path / "x.npy", image)
    config = check_config({"input": {"files": ["a"]}, "regions": {"labels": {"x": str(tmp_path / "x.npy")}}}, "t")
    with pytest.raises(ConfigError, match=said):
        require_given(config.regions, SHAPE)


def test_a_label_image_is_read_from_tiff_and_never_unpickled(tmp_path):
    import tifffile

    from hpcxrf.pipeline.regions.given import read_labels

    tifffile.imwrite(tmp_path / "x.tif", labels().astype(np.uint16))
    assert (read_labels(tmp_path / "x.tif", SHAPE) == labels()).all()
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "y.tif").write_bytes(b"no image")
    for name in ("x.npy", "y.tif", "gone.npy", "x.png"):
        with pytest.raises(InputFileError, match=name):
            read_labels(tmp_path / name, SHAPE)


def test_a_threshold_on_what_is_not_fitted_is_refused_with_what_is(source, tmp_path):
    (job,) = plan(source, tmp_path / "run", thresholds={"t": {"component": "Cu", "above": 1}}).jobs
    with pytest.raises(ConfigError, match=r"'Cu' is not fitted; give one of Si, Ca, Fe"):
        run_all(job)
