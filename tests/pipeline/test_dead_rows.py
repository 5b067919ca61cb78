"""A row that was never exposed is not measured: no zeros in its maps, and the regions about it keep their live time."""

import numpy as np
import pytest
import xarray as xr
from run_samples import SLOPE_KEV, maps_of, run_all, spectrum

from hpcxrf.config.run import check_config
from hpcxrf.fitting.result import FitStatus
from hpcxrf.formats.maps_writer import write_array_hdf5
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.pipeline.plan import make_plan

SHAPE = (2, 7, 8)
DEAD_ROW = 3
# Of detector 1 alone.
DEAD_PIXEL = (5, 6)
REGIONS = {"find": [], "refine": False, "rectangles": {"across": [0, 7, 0, 4], "below": [5, 7, 4, 8]}}


@pytest.fixture(scope="module", params=[0.0, np.nan], ids=["zero", "nan"])
def store(request, tmp_path_factory):
    """Results of a scan with a row, and a pixel of one detector, of neither counts nor live time."""
    folder = tmp_path_factory.mktemp("dead")
    mean = np.broadcast_to(spectrum({"Ca": 60.0, "Fe": 120.0}), (*SHAPE, 1200))
    counts = np.random.default_rng(4).poisson(mean).astype(np.uint16)
    live = np.full(SHAPE, 0.5)
    counts[:, DEAD_ROW], live[:, DEAD_ROW] = 0, request.param
    counts[1, *DEAD_PIXEL], live[1, *DEAD_PIXEL] = 0, request.param
    ones = np.ones(SHAPE)
    (path,) = write_array_hdf5(
        folder / "scan.h5",
        counts,
        live_time_s=live,
        real_time_s=ones,
        icr_hz=ones,
        ocr_hz=ones,
        energy_calibration=(EnergyCalibration(offset_kev=0.0, slope_kev=SLOPE_KEV),) * SHAPE[0],
        incident_energy_kev=10.0,
    )
    raw = {
        "input": {"files": [str(path)]},
        "sample": {"elements": ["Ca", "Fe"], "incident_energy_kev": 10.0},
        "fit": {"suggest": False},
        "pixels": {"detectors": "both", "deviance": False},
        "regions": REGIONS,
    }
    (job,) = make_plan(check_config(raw, "test"), folder / "run").jobs
    store, records = run_all(job)
    return store, [note.text for note in records["integrated"].notes]


def test_unexposed_pixels_are_not_measured_and_have_no_numbers(store):
    maps = maps_of(store[0])
    dead = np.zeros(SHAPE[1:], dtype=bool)
    dead[DEAD_ROW] = True
    for detector in ("0", "1", "sum"):
        expected = dead.copy()
        expected[DEAD_PIXEL] = detector != "0"
        one = maps.sel(detector=detector)
        assert ((one.status == FitStatus.NOT_MEASURED) == expected).all(), detector
        assert (one.amplitude.isnull().any("component") == expected).all(), detector
        assert not (one.status == FitStatus.EMPTY).any()


def test_the_live_time_of_a_region_is_that_of_its_measured_pixels(store):
    regions = xr.open_zarr(store[0], group="regions", chunks=None).load()
    # 6 of 7 rows, 4 columns, half a second each; below, one pixel that not all detectors measured is no part of it.
    for region, n_pixels in (("across", 24), ("below", 7)):
        one = regions.sel(region=region)
        assert int(one.n_pixels) == n_pixels
        for detector, times in (("0", 1), ("1", 1), ("sum", 2)):
            assert float(one.live_time_s.sel(detector=detector)) == pytest.approx(0.5 * n_pixels * times), detector


def test_it_is_said_once_how_many_spectra_were_not_exposed(store):
    (text,) = [text for text in store[1] if "neither counts nor a live time" in text]
    assert text.startswith("17 spectra have neither counts nor a live time")
    assert not any("live time is 0 or not known" in text for text in store[1])
