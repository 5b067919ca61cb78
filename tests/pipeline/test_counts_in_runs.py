"""Whole runs of scans whose counts are not raw: NaN, negative and scaled counts; one list over many scans."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hpcxrf.config.run import check_config
from hpcxrf.errors import InputFileError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.formats.maps_writer import write_array_hdf5
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.pipeline.plan import make_plan
from tests.samples.run_samples import jobs_of, maps_of, run_all, run_maps, spectrum

COUNTS = {"Ca": 460.0, "Fe": 200.0, "Zn": 60.0}
ELEMENTS = tuple(COUNTS)


def raw_counts(shape=(2, 8, 9), seed=3):
    return np.random.default_rng(seed).poisson(np.broadcast_to(spectrum(COUNTS), (*shape, 1200))).astype("f4")


def run(folder, counts, **sections):
    folder.mkdir()
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(
        "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Ca, Fe, Zn\n"
    )
    (job,) = jobs_of(folder, folder / "run", **({"pixels": {"detectors": "both"}} | sections))
    return run_maps(job)


def notes_of(records):
    return [note.text for r in records.values() for note in r.notes]


# --- NaN and negative counts ----------------------------------------------------------------------


def test_spectra_of_nan_are_pixels_not_measured(tmp_path):
    counts = raw_counts()
    counts[:, 2, 3] = np.nan
    counts[1, 5, 5:] = np.nan
    store, records = run(tmp_path / "scan", counts)
    whole = maps_of(run(tmp_path / "whole", raw_counts())[0])
    maps = maps_of(store)
    first, second = np.zeros((2, 8, 9), dtype=bool)
    first[2, 3] = True
    second[2, 3] = second[5, 5:] = True
    for detector, missing in (("0", first), ("1", second), ("sum", second)):
        one = maps.sel(detector=detector)
        assert ((one.status == FitStatus.NOT_MEASURED) == missing).all(), detector
        assert np.isnan(one.amplitude.values[:, missing]).all()
        assert (one.status.values[~missing] == FitStatus.CONVERGED).all()
        shift = ((one.amplitude - whole.sel(detector=detector).amplitude) / one.sigma).values[:, ~missing]
        assert np.abs(shift[:3]).max() < 0.5
    assert any(n.startswith("6 spectra are not a number throughout") for n in notes_of(records))
    status = xr.open_zarr(store, group="maps").status
    assert "not_measured" in status.attrs["flag_meanings"].split()
    # Of the spectra store, numbers alone are left.
    (spectra,) = (store.parent.parent / "spectra").glob("*.zarr")
    opened = xr.open_zarr(spectra)
    assert int(opened.measured.sum()) == 71
    assert opened.missing.dtype == np.uint8
    assert int(opened.missing.sum()) == 6


def test_a_detector_that_was_off_throughout_is_no_part_of_the_sum(tmp_path):
    counts = raw_counts()
    counts[1] = np.nan
    maps = maps_of(run(tmp_path / "scan", counts)[0])
    assert (maps.status.sel(detector="sum") == FitStatus.CONVERGED).all()
    assert float(maps.amplitude.sel(detector="sum", component="Ca").mean()) == pytest.approx(460.0, rel=0.02)


def test_a_few_negative_counts_are_0_and_said(tmp_path):
    counts = raw_counts()
    counts[0, :3, :, 3] = -316.0
    store, records = run(tmp_path / "scan", counts)
    assert any("27 of 172800 counts were negative, down to -316" in n for n in notes_of(records))
    whole = maps_of(run(tmp_path / "whole", raw_counts())[0])
    assert np.array_equal(maps_of(store).amplitude, whole.amplitude)


@pytest.mark.parametrize(("where", "value"), [(np.s_[0, 0, 0, 5], np.nan), (np.s_[0, 0], -1.0)])
def test_a_single_nan_and_many_negatives_are_refused(tmp_path, where, value):
    counts = raw_counts()
    counts[where] = value
    with pytest.raises(InputFileError, match=r"scan\.npy"):
        run(tmp_path / "scan", counts)


# --- scaled counts --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    store, records = run(tmp_path_factory.mktemp("raw") / "scan", raw_counts((1, 12, 12)))
    return maps_of(store), xr.open_zarr(store, group="spectrum", chunks=None).load(), notes_of(records)


@pytest.mark.parametrize(("factor", "rounded"), [(2.50025, False), (2.50025, True), (0.25, False), (4.0, True)])
def test_sigma_limits_and_deviance_of_scaled_counts_carry_their_factor(tmp_path, raw, factor, rounded):
    counts = raw_counts((1, 12, 12)) * np.float32(factor)
    store, records = run(tmp_path / "scan", np.rint(counts) if rounded else counts)
    maps, spectra = maps_of(store), xr.open_zarr(store, group="spectrum", chunks=None)
    (note,) = [n for n in notes_of(records) if "variance of raw counts" in n]
    assert ("not whole" in note) == (not rounded)
    measured = maps.attrs.get("count_factor") or xr.open_zarr(store, chunks=None).attrs["count_factor"]
    assert measured["0"] == pytest.approx(factor, rel=0.1)
    # Where most channels hold one count, 2.50025 rounded to 3 is a fifth more, in the background as in a line.
    tolerance = 0.2 if rounded and not factor.is_integer() else 0.1
    # What was scaled has the relative errors of what it was made from.
    before, before_spectra, _ = raw
    for name in ELEMENTS:
        relative = maps.sigma.sel(component=name).mean() / maps.amplitude.sel(component=name).mean()
        expected = before.sigma.sel(component=name).mean() / before.amplitude.sel(component=name).mean()
        assert float(relative / expected) == pytest.approx(1.0, rel=0.07)
        scatter = float(maps.amplitude.sel(component=name).std()) / float(maps.sigma.sel(component=name).mean())
        assert scatter == pytest.approx(1.0, abs=0.2)
        ratio = (spectra.sigma / before_spectra.sigma).sel(component=name, detector="0")
        # The size of the model's flaws is estimated again: the less the counts tell of it, the nearer the usual one.
        assert float(ratio) == pytest.approx(factor, rel=0.3)
        limit = (maps.detection_limit.sel(component=name) / before.detection_limit.sel(component=name)).mean()
        assert float(limit) == pytest.approx(factor, rel=tolerance)
    assert float(maps.deviance.mean() / before.deviance.mean()) == pytest.approx(1.0, rel=0.15)


def test_of_raw_counts_nothing_is_said(raw):
    assert not any("variance of raw counts" in note or "not whole" in note for note in raw[2])


def test_fractions_of_few_pixels_are_said_to_be_unknown(tmp_path):
    _, records = run(tmp_path / "scan", 1.5 * raw_counts((1, 2, 2)) + np.float32(0.25))
    assert any("not whole" in n and "too few pixels" in n for n in notes_of(records))


# --- one list over many scans ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Maps and notes of a scan below and one above the edge of iron, of one run file."""
    folder = tmp_path_factory.mktemp("stack")
    for energy, iron in ((7.05, 0.0), (7.16, 300.0)):
        counts = {"Ca": 200.0, "Mn": 300.0} | ({"Fe": iron} if iron else {})
        mean = np.broadcast_to(spectrum(counts, incident_kev=energy), (1, 6, 8, 1200))
        write_array_hdf5(
            folder / f"at-{energy}.h5",
            np.random.default_rng(1).poisson(mean).astype("u2"),
            live_time_s=np.ones((1, 6, 8)),
            real_time_s=np.ones((1, 6, 8)),
            icr_hz=np.ones((1, 6, 8)),
            ocr_hz=np.ones((1, 6, 8)),
            energy_calibration=(EnergyCalibration(offset_kev=0.0, slope_kev=0.01),),
            incident_energy_kev=energy,
        )
    raw = {
        "input": {"files": [str(folder)]},
        "sample": {"elements": ["Ca_K", "Mn_K", "Fe_K", "O"]},
        "fit": {"suggest": False},
        "regions": {
            "find": [],
            "thresholds": {"iron": {"component": "Fe", "above": 1}, "calcium": {"component": "Ca", "above": 1}},
        },
    }
    found = {}
    for job in make_plan(check_config(raw, "test"), folder / "run").jobs:
        store, records = run_all(job)
        regions = xr.open_zarr(store, group="regions", chunks=None).region.values.tolist()
        found[Path(job.source).stem] = maps_of(store), notes_of(records), regions
    return found


def test_a_scan_below_an_edge_is_mapped_without_that_element_and_says_so(stack):
    maps, notes, regions = stack["at-7.05"]
    assert maps.component.values.tolist()[:2] == ["Ca", "Mn"]
    assert "Fe" not in maps.component.values
    assert any(
        re.match(r"left out of this scan: Fe: K edge 7.112 keV is above the incident energy 7.0[456]", n) for n in notes
    )
    assert float(maps.amplitude.sel(component="Mn").mean()) == pytest.approx(300.0, rel=0.02)
    assert regions == ["calcium"]
    assert "regions.thresholds.iron: this scan is fitted without Fe, and has no such region" in notes


def test_a_scan_above_it_has_it(stack):
    maps, notes, regions = stack["at-7.16"]
    assert float(maps.amplitude.sel(component="Fe").mean()) == pytest.approx(300.0, rel=0.02)
    assert not any("Fe: K edge" in n for n in notes)
    assert regions == ["iron", "calcium"]
    assert any("O: Z = 8" in n for n in notes)
    assert any("Fe_K is read as Fe" in n for n in notes)
