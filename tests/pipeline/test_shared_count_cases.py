"""The inputs of ../shared/cases that concern counts, detectors and lists of elements, each with its right answer."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from hpcxrf.config.run import check_config
from hpcxrf.fitting.result import FitStatus
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.single import fit_file
from tests.samples.run_samples import maps_of, run_maps

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = pytest.mark.usefixtures("shared_cases")

ELEMENTS = ["K", "Ca", "Ti", "Mn", "Fe"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of the maps that gen_maps.py makes."""
    folder = tmp_path_factory.mktemp("made")
    script = str(CASES / "gen_maps.py")
    subprocess.run([sys.executable, "-B", script], cwd=folder, check=True, capture_output=True)
    return folder


def run(path, folder, elements=ELEMENTS, **sections):
    raw = {
        "input": {"files": [str(path)]},
        "sample": {"elements": list(elements)},
        "regions": {"find": []},
        "fit": {"suggest": False},
    }
    (job,) = make_plan(check_config(raw | sections, "test"), folder).jobs
    store, records = run_maps(job)
    return store, [note.text for record in records.values() for note in record.notes]


def total(maps, name):
    one = maps.sel(component=name)
    return float(one.amplitude.sum()), float(np.sqrt((one.sigma**2).sum()))


def test_the_detector_with_bragg_peaks_is_left_out_by_evidence(made, tmp_path):
    elements = [*ELEMENTS, "Zn"]
    store, notes = run(made / "bad_detector.h5", tmp_path / "run", elements, pixels={"detectors": "both"})
    assert any(note.startswith("detector 2 disagrees with the others and is left out of the sum") for note in notes)
    summed = maps_of(store).sel(detector="sum")
    truth = {"K": 2e5, "Ca": 3e5, "Ti": 3e4, "Mn": 5e4, "Fe": 4e5, "Zn": 1e5}
    for name, counts in truth.items():
        found, sigma = total(summed, name)
        assert abs(found - 0.75 * counts) < 5 * sigma, name
    assert (summed.status == FitStatus.CONVERGED).all()


def test_corrected_counts_are_noticed_and_sigma_carries_their_factor(made, tmp_path):
    raw, said = run(made / "raw.h5", tmp_path / "raw")
    corrected, notes = run(made / "corrected.h5", tmp_path / "corrected")
    assert not any("variance of raw counts" in note for note in said)
    assert any("counts are not whole and scatter" in note for note in notes)
    factor = xr.open_zarr(corrected, chunks=None).attrs["count_factor"]["0"]
    assert factor**0.5 == pytest.approx(1.58, abs=0.04)
    before, after = maps_of(raw).isel(detector=0), maps_of(corrected).isel(detector=0)
    for name, counts in {"K": 1.6e5, "Ca": 2.4e5, "Ti": 4e4, "Mn": 8e4, "Fe": 3.2e5}.items():
        (old, old_sigma), (new, new_sigma) = total(before, name), total(after, name)
        assert new / 2.50025 == pytest.approx(old, rel=1e-3)
        assert new / 2.50025 == pytest.approx(counts, rel=0.02)
        assert new_sigma / new == pytest.approx(old_sigma / old, rel=0.05)


@pytest.mark.parametrize(("energy", "iron"), [("7.050", None), ("7.112", 0.0), ("7.135", 5e4), ("7.160", 5e4)])
def test_every_scan_of_a_xanes_stack_is_mapped_with_one_list(tmp_path, energy, iron):
    path = CASES / "maps" / f"xanes_{energy}.h5"
    store, notes = run(path, tmp_path / "run", ["K", "Ca", "Ti", "Cr", "Mn", "Fe"])
    maps = maps_of(store).isel(detector=0)
    assert (maps.status == FitStatus.CONVERGED).all()
    assert ("Fe" in maps.component) == (iron is not None)
    assert any("left out of this scan: Fe" in note for note in notes) == (iron is None)
    if iron is not None:
        found, sigma = total(maps, "Fe")
        assert abs(found - iron) < 4 * sigma


def test_names_of_pyxrf_are_k_families(tmp_path):
    raw = {
        "input": {"files": ["-"], "dataset_path": "counts"},
        "sample": {"elements": ["K_K", "Ca_K", "Ti_K", "Fe_K", "Zn_K"], "incident_energy_kev": 12.0},
        "fit": {"calibration": "none"},
    }
    found = fit_file(CASES / "spectra" / "pyxrf_names.npz", check_config(raw, "test"), "0")
    truth = {"K": 1e4, "Ca": 2e4, "Ti": 3e3, "Fe": 5e4, "Zn": 1e4}
    assert found.fit.component_names[:5] == tuple(truth)
    for name, counts, sigma in zip(
        truth, found.fit.amplitude.tolist(), found.fit.amplitude_sigma.tolist(), strict=False
    ):
        assert abs(counts - truth[name]) < 3 * sigma, name
    assert [s.name for s in found.suggested] == ["Pb_M"]


def test_a_wide_map_is_read_by_what_nexus_says_and_else_by_the_usual_number_of_channels_with_a_note(made):
    with h5py.File(made / "wide.h5") as file:
        counts = file["entry/mca"][:]
    for name, said in (("wide_nexus.h5", ""), ("wide.h5", "guessed: axis 2 of shape (6, 700, 512) is the energy")):
        scan = open_scan(made / name)
        assert scan.shape == (1, 6, 700, 512)
        np.testing.assert_array_equal(scan.read_counts(slice(0, 6))[0], counts)
        texts = [note.text for note in scan.notes]
        assert texts == [] if not said else texts[0].startswith(said)
