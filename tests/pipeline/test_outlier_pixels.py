"""One bad value spoils no other pixel: outliers are found, flagged, counted, and left out of sums and weights."""

import numpy as np
import pytest
import xarray as xr

import hpcxrf
from hpcxrf.fitting.result import FitStatus
from tests.samples.run_samples import jobs_of, maps_of, run_maps, spectrum

ELEMENTS = ("Ca", "Fe", "Zn")
COUNTS = {"Ca": 460.0, "Fe": 200.0, "Zn": 60.0}
SHAPE = (2, 8, 9)
PLACE = (4, 5)
FE_CHANNEL = 640


def good_counts(dtype="u2", seed=3):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.5, 1.5, (1, *SHAPE[1:], 1))
    return rng.poisson(share * spectrum(COUNTS)[None, None, None] * np.ones((SHAPE[0], 1, 1, 1))).astype(dtype)


def run(folder, counts, **sections):
    folder.mkdir()
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(
        "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Ca, Fe, Zn\n"
    )
    (job,) = jobs_of(folder, folder / "run", pixels={"detectors": "both"}, **sections)
    return run_maps(job)


def notes_of(records):
    return [note.text for r in records.values() for note in r.notes]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return maps_of(run(tmp_path_factory.mktemp("good") / "scan", good_counts())[0])


@pytest.mark.parametrize(
    ("dtype", "channels", "value", "status"),
    [
        ("u4", [FE_CHANNEL], 2**32 - 1, FitStatus.SATURATED),
        ("u2", [FE_CHANNEL], 65534, FitStatus.OUTLIER),
        ("u4", [FE_CHANNEL], 2**31 - 1, FitStatus.OUTLIER),
        ("i4", [500], 65535, FitStatus.SATURATED),
        ("f4", [FE_CHANNEL], 2.0**32 - 1, FitStatus.SATURATED),
        ("f8", [700], 3e12, FitStatus.SATURATED),
        ("u2", [500], 4000, FitStatus.OUTLIER),
        ("u2", list(range(500, 503)), 30000, FitStatus.OUTLIER),
        ("u2", list(range(480, 540)), 30000, FitStatus.OUTLIER),
    ],
)
def test_a_bad_value_is_flagged_and_spoils_no_other_pixel(tmp_path, good, dtype, channels, value, status):
    counts = good_counts(dtype)
    counts[0, *PLACE, channels] = value
    store, records = run(tmp_path / "scan", counts)
    maps = maps_of(store)
    bad = np.zeros(SHAPE[1:], dtype=bool)
    bad[PLACE] = True
    for detector in ("0", "sum"):
        one, other = maps.sel(detector=detector), good.sel(detector=detector)
        assert ((one.status == status) == bad).all(), detector
        assert np.isnan(one.amplitude.values[:, bad]).all()
        assert np.isnan(one.sigma.values[:, bad]).all()
        shift = ((one.amplitude - other.amplitude) / other.sigma).where(~xr.DataArray(bad, dims=("y", "x")))
        assert float(np.abs(shift.sel(component=list(ELEMENTS))).max()) < 0.5, detector
    assert (maps.sel(detector="1").status == FitStatus.CONVERGED).all()
    if status is FitStatus.OUTLIER:
        (note,) = [n for n in notes_of(records) if "no detector can have counted" in n]
        assert "detector 0: 1 pixel has" in note
        assert "row 4, column 5" in note
    spectra = xr.open_zarr(store, group="spectrum", chunks=None)
    assert float(spectra.counts.sel(detector="0").max()) < 1e5
    assert float(spectra.r2.sel(detector="0")) > 0.99


def test_a_glitch_outside_of_the_fit_range_costs_no_pixel(tmp_path, good):
    counts = good_counts()
    counts[0, *PLACE, 40] = 60000
    store, records = run(tmp_path / "scan", counts)
    assert (maps_of(store).status == FitStatus.CONVERGED).all()
    assert not any("no detector can have counted" in n for n in notes_of(records))


def test_a_channel_that_every_pixel_has_is_the_detectors_and_flags_none(tmp_path):
    counts = good_counts()
    counts[0, ..., 500] = 3000
    store, _ = run(tmp_path / "scan", counts)
    assert not (maps_of(store).status == FitStatus.OUTLIER).any()


def test_a_hot_particle_is_no_outlier(tmp_path):
    counts = good_counts()
    hot = spectrum({"Ca": 100.0, "Fe": 2e5, "Zn": 3e4, "elastic": 1e3, "Compton": 1e3})
    counts[:, 2, 2] = np.random.default_rng(0).poisson(hot)
    store, _ = run(tmp_path / "scan", counts)
    maps = maps_of(store)
    assert (maps.status == FitStatus.CONVERGED).all()
    assert float(maps.amplitude.sel(detector="0", component="Fe").isel(y=2, x=2)) == pytest.approx(2e5, rel=0.02)


def test_the_library_flags_outliers_and_says_what_to_leave_out():
    counts = good_counts()[0]
    clean = counts.sum((0, 1))
    fit = hpcxrf.fit_spectrum(clean, ELEMENTS, 10.0, energy_offset_kev=0.0, energy_slope_kev=0.01)
    counts[*PLACE, FE_CHANNEL] = 65534
    maps = hpcxrf.fit_map(counts, fit)
    assert int(maps.status[PLACE]) == FitStatus.OUTLIER
    assert int((maps.status == FitStatus.CONVERGED).sum()) == counts.shape[0] * counts.shape[1] - 1
    assert "1 pixel has channels" in maps.attrs["notes"]


def test_the_fit_of_a_file_leaves_outliers_out(tmp_path):
    from hpcxrf.config.run import check_config
    from hpcxrf.pipeline.single import fit_file

    counts = good_counts()
    counts[0, *PLACE, FE_CHANNEL] = 65534
    np.save(tmp_path / "scan.npy", counts)
    raw = {
        "input": {"files": ["-"], "energy_offset_kev": 0.0, "energy_slope_kev": 0.01},
        "sample": {"elements": list(ELEMENTS), "incident_energy_kev": 10.0},
    }
    found = fit_file(tmp_path / "scan.npy", check_config(raw, "test"), "0")
    assert found.fit.r2 > 0.99
    assert any("no detector can have counted" in note.text for note in found.notes)
