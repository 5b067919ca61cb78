"""Measured scans through the command line: the figures that are promised, and a whole run with its report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hpcxrf.formats.override import read_override

pytestmark = pytest.mark.more

AXO = (
    "Si",
    "P",
    "S",
    "Cl",
    "Ar",
    "K",
    "Ca",
    "Ti",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "La_L",
    "Pd_L",
    "Mo_L",
    "Pb_M",
    "Ca_Ca",
)
SRM = ("Si", "Cl", "Ar", "Ca", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")
LAGUNA = ("Si", "S", "Cl", "K", "Ca", "Ti", "Mn", "Fe", "Rh_L")
SCANS = {
    "axo_std": ((4, 11, 11, 2000), [895788, 844397, 593359, 696070]),
    "2xfm_0010": ((4, 11, 11, 2000), [107119, 103092, 52321, 54638]),
    "2xfm_0011": ((4, 11, 9, 2048), [100311, 96080, 48479, 50482]),
}
BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
)


def fitted(hpcxrf, path: Path, elements, low: float, high: float, *more) -> dict:
    ran = hpcxrf(
        "fit", path, "--elements", ",".join(elements), "--detector", "0", "--energy-range", low, high, *more, "--json"
    )
    assert ran.code == 0, ran.err
    return ran.json


def fits_to(facts: dict, r2: float) -> None:
    """Reaches the figure, by a fit that converged and cost CPU seconds that were measured."""
    assert facts["r2"] >= r2
    assert facts["r2"] < 1.0
    assert facts["r2_expected"] > r2
    assert facts["status"] == "converged"
    assert isinstance(facts["cpu_s"], float)
    assert facts["cpu_s"] > 0.0


def test_the_thin_film_standard_reaches_its_figure(hpcxrf, shared_data):
    facts = fitted(hpcxrf, shared_data / "aps-2ide" / "mda" / "axo_std.mda", AXO, 1, 11)
    fits_to(facts, 0.999)
    # What is on the film; its molybdenum is one with sulphur in the spectrum.
    for name in ("La_L", "Pb_M", "Pd_L", "Ca", "Fe", "Cu"):
        # What the model leaves of La is in the sigma of Pd, whose L lines lie beside argon.
        assert facts["amplitudes"][name] > (3.0 if name == "Pd_L" else 5.0) * facts["sigma"][name], name


def test_the_step_scan_reaches_its_figure_with_lanthanum_and_magnesium_added(hpcxrf, shared_data):
    folder = shared_data / "aps-2ide"
    listed = read_override(folder / "maps_fit_parameters_override.txt")
    elements = (*listed.elements, *listed.pileup, "La_L", "Mg")
    facts = fitted(hpcxrf, folder / "mda" / "2xfm_0010.mda", elements, 1, 11)
    fits_to(facts, 0.9975)
    assert facts["amplitudes"]["La_L"] > 5.0 * facts["sigma"]["La_L"]


def test_the_thin_glass_reaches_its_figure(hpcxrf, shared_data):
    path = shared_data / "larch-srm1832" / "srm1832.mca"
    facts = fitted(hpcxrf, path, SRM, 1, 13.5, "--energy", 12.5)
    fits_to(facts, 0.9995)
    theta = facts["theta"]
    # Where the peaks are, by eye: elastic at 12.49 keV, the Compton hump at 11.96 keV.
    assert theta["coherent_sct_energy"] == pytest.approx(12.49, abs=0.03)
    shift = 1.0 + theta["coherent_sct_energy"] / 511.0 * (1.0 - np.cos(np.radians(theta["compton_angle"])))
    assert theta["coherent_sct_energy"] / shift == pytest.approx(11.96, abs=0.15)


def test_a_tube_scan_that_is_taken_for_monochromatic_is_refused_by_name(hpcxrf, shared_data):
    path = shared_data / "pixl-laguna" / "laguna.h5"
    ran = hpcxrf("fit", path, "--elements", ",".join(LAGUNA), "--energy", "20.2")
    assert ran.code == 2
    assert ran.out == ""
    for said in (str(path), "--source tube", "Rh, 28 kV"):
        assert said in ran.err


def test_a_tube_that_the_file_names_is_taken_and_its_axis_found_from_nothing(hpcxrf, shared_data):
    path = shared_data / "pixl-laguna" / "laguna.h5"
    listed = ("Na", "Mg", "Al", "P", *LAGUNA[:-1], "Ar", "Cr", "Ni", "Cu", "Sr", "Ca_Ca")
    facts = fitted(hpcxrf, path, listed, 1, 19, "--calibration", "none")
    assert facts["theta"]["energy_slope"] == pytest.approx(0.0100, abs=5e-5)
    assert facts["theta"]["energy_offset"] == pytest.approx(0.0, abs=0.02)
    assert facts["reduced_chi2"] < 60.0
    assert any("excited by a Rh tube at 28 kV, as the scan file says" in note for note in facts["notes"])


def test_a_tube_scan_with_an_effective_energy_fits_without_an_elastic_line(hpcxrf, shared_data):
    path = shared_data / "pixl-laguna" / "laguna.h5"
    facts = fitted(hpcxrf, path, LAGUNA, 1, 19, "--source", "tube", "--energy", 20.2)
    fits_to(facts, 0.99)
    assert "COHERENT_SCT_AMPLITUDE" not in facts["amplitudes"]
    # calcium rules this salt flat
    assert facts["amplitudes"]["Ca"] == max(facts["amplitudes"].values())


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory) -> Path:
    """The three scans of the beamline in one run directory, as their override file says."""
    out = tmp_path_factory.mktemp("aps") / "run"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hpcxrf",
            "run",
            str(shared_data / "aps-2ide" / "mda"),
            "-o",
            str(out),
            "--detectors",
            "both",
            "--workers",
            "2",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 3 datasets done" in done.stderr
    return out


def store_of(run: Path, kind: str, name: str) -> Path:
    (store,) = (run / kind).glob(f"{name}-*.zarr")
    return store


@pytest.mark.parametrize("name", SCANS)
def test_the_stores_of_a_run_are_complete_and_hold_every_count(run, name):
    shape, totals = SCANS[name]
    for kind in ("spectra", "results"):
        root = json.loads((store_of(run, kind, name) / "zarr.json").read_text())["attributes"]
        assert root["complete"] is True
    spectra = xr.open_zarr(store_of(run, "spectra", name), chunks=None)
    assert spectra.counts.shape == shape
    assert spectra.counts.sum(("y", "x", "channel"), dtype="int64").values.tolist() == totals
    maps = xr.open_zarr(store_of(run, "results", name), group="maps", chunks=None)
    assert maps.detector.values.tolist() == ["sum", "0", "1", "2", "3"]
    assert maps.amplitude.shape[-2:] == shape[1:3]
    assert np.isfinite(maps.amplitude).all()
    assert (maps.status == 1).all()


@pytest.mark.parametrize("name", SCANS)
def test_pixels_add_up_to_the_integrated_fit_and_detectors_to_their_sum(run, name):
    store = store_of(run, "results", name)
    maps = xr.open_zarr(store, group="maps", chunks=None)
    spectrum = xr.open_zarr(store, group="spectrum", chunks=None)
    for element in ("Ca", "Fe"):
        pixels = maps.amplitude.sel(component=element).sum(("y", "x")).values
        whole = spectrum.amplitude.sel(component=element).values
        sigma = spectrum.sigma.sel(component=element).values
        assert (np.abs(pixels - whole) < np.maximum(4.0 * sigma, 0.05 * whole)).all()
        allowed = 4.0 * np.hypot.reduce(sigma)
        assert abs(whole[1:].sum() - whole[0]) < max(allowed, 0.05 * whole[0])


def test_two_scans_of_the_same_film_find_the_same_ratio_of_elements(run):
    """Step and fly scan differ in exposure and in everything about their files, not in the sample."""
    mean = {
        name: xr.open_zarr(store_of(run, "results", name), group="maps", chunks=None)
        .amplitude.sel(detector="sum", component=["Ca", "Fe", "Cu"])
        .mean(("y", "x"))
        .values
        for name in ("2xfm_0010", "2xfm_0011")
    }
    step, fly = (values / values.sum() for values in mean.values())
    assert np.abs(step / fly - 1.0).max() < 0.04


@pytest.mark.parametrize("name", ["2xfm_0010", "2xfm_0011"])
def test_pixels_of_an_even_film_scatter_as_their_sigma_says(run, name):
    maps = xr.open_zarr(store_of(run, "results", name), group="maps", chunks=None)
    # The first pixel of a line of the fly scan counted for 1.2 s, all others for 0.5 s.
    maps = maps.isel(x=slice(1, None))
    for element in ("Ca", "Fe", "Cu"):
        pixels = maps.sel(detector="sum", component=element)
        assert 0.75 < float(pixels.amplitude.std() / pixels.sigma.mean()) < 1.3


@pytest.mark.browser
def test_the_report_shows_every_picture_without_an_error(run, chromium, tmp_path):
    page = run / "report.html"
    assert page.stat().st_size < 10e6
    done = subprocess.run(
        [chromium, *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    loaded, images = re.search(r'data-images="(\d+)/(\d+)"', done.stdout).groups()
    assert loaded == images
    # The maps of 5 detectors of 3 scans, and regions where there are any, over the map of a component.
    text = page.read_text(encoding="utf-8")
    with_regions = text.count('<section class="detector regions">')
    assert 1 <= with_regions <= 3
    assert text.count('<figure class="spectrum') == 3 * 5
    n_maps = 0
    for name in SCANS:
        with xr.open_zarr(store_of(run, "results", name), group="maps", chunks=None) as maps:
            n_maps += maps.sizes["detector"] * maps.sizes["component"]
    assert int(images) >= n_maps + with_regions
    for name in SCANS:
        assert f"{name}.mda" in done.stdout
