"""Which reader takes a file, what the others are told, and which files of a folder are scans."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.maps_writer import write_array_hdf5, write_maps_v10
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

SHAPE = (2, 3, 4, 32)


def write(folder, name, writer=write_maps_v10):
    folder.mkdir(exist_ok=True)
    size = SHAPE[:3]
    return writer(
        folder / f"{name}.h5",
        np.ones(SHAPE, np.uint32),
        live_time_s=np.ones(size),
        real_time_s=np.ones(size),
        icr_hz=np.ones(size),
        ocr_hz=np.ones(size),
        energy_calibration=(EnergyCalibration(offset_kev=0.0, slope_kev=0.01),) * 2,
    )


def names(paths):
    return [path.name for path in paths]


def test_the_measured_folder_holds_five_scans(shared_data):
    found, notes = find_scans([shared_data])
    assert names(found) == ["2xfm_0010.mda", "2xfm_0011.mda", "axo_std.mda", "srm1832.mca", "laguna.h5"]
    told = "\n".join(note.text for note in notes)
    for left_out in ("2xfm_0011_2xfm3__0.h5", "override.txt", "standardinfo.txt", "README.md"):
        assert left_out in told


def test_other_formats_are_recognised_too(shared_data):
    laguna = open_scan(shared_data / "pixl-laguna" / "laguna.h5")
    assert laguna.shape == (2, 25, 25, 4096)
    totals = laguna.read_counts(slice(0, 25)).sum(axis=(1, 2, 3), dtype=np.int64)
    assert totals.tolist() == [60369725, 54923501]
    assert open_scan(shared_data / "larch-srm1832" / "srm1832.mca").shape[0] == 4


def test_content_and_not_the_name_decides(shared_data, tmp_path):
    disguised = tmp_path / "scan.txt"
    disguised.write_bytes((shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda").read_bytes())
    assert open_scan(disguised).format == "mda"


def test_detectors_of_a_scan_appear_once_and_the_derived_file_not_at_all(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["MAPS/Spectra/mca_arr"] = np.zeros((32, 3, 4), "f4")
    for inputs in ([tmp_path], sorted(tmp_path.iterdir()), [tmp_path / "*.h5*"]):
        found, notes = find_scans(inputs)
        assert names(found) == ["a.h50", "b.h50"], inputs
        assert any("a.h5: left out: derived" in note.text for note in notes)
    assert names(find_scans([tmp_path / "a.h5"])[0]) == ["a.h5"]
    assert names(find_scans([tmp_path / "a.h51"])[0]) == ["a.h51"]


def test_an_array_beside_the_detectors_is_not_taken_for_derived(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "a", write_array_hdf5)
    assert names(find_scans([tmp_path])[0]) == ["a.h5", "a.h50"]


def test_the_truth_of_a_simulation_is_no_scan(tmp_path):
    write_scan(simulate_scan(demo_spec(shape=(1, 2, 2, 1536), name="s")), tmp_path)
    (tmp_path / "s.truth.hdf5").rename(tmp_path / "renamed.hdf5")
    found, notes = find_scans([tmp_path])
    assert names(found) == ["s.h50"]
    assert sum("truth" in note.text for note in notes) == 2
    with pytest.raises(InputFileError, match="truth of a simulated scan"):
        open_scan(tmp_path / "renamed.hdf5")


def test_folders_are_searched_to_the_bottom_in_order_without_hidden_files(tmp_path):
    write(tmp_path / "b", "z")
    write(tmp_path / "a", "y")
    (tmp_path / "a" / ".y.h52.partial").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.h50").write_bytes(b"1")
    found, _ = find_scans([tmp_path])
    assert found == [tmp_path / "a" / "y.h50", tmp_path / "b" / "z.h50"]
    assert find_scans([tmp_path / "b", tmp_path])[0] == [found[1], found[0]]


def test_a_zarr_store_in_a_folder_is_not_searched_for_scans(tmp_path):
    store = tmp_path / "out.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    (store / "c").write_bytes(b"chunk")
    found, notes = find_scans([tmp_path])
    assert found == []
    assert any("out.zarr: Zarr store" in note.text for note in notes)
    assert find_scans([store])[0] == [store]


def test_a_file_named_explicitly_is_kept_for_its_error(tmp_path):
    write(tmp_path, "a")
    missing, strange = tmp_path / "no.mda", tmp_path / "notes.txt"
    strange.write_text("nothing to see")
    found, _ = find_scans([missing, strange, tmp_path])
    assert found == [missing, strange, tmp_path / "a.h50"]
    only_truth = tmp_path / "x.truth.hdf5"
    only_truth.write_bytes(b"1")
    assert find_scans([only_truth])[0] == [only_truth]


def test_a_file_named_twice_appears_once(tmp_path, monkeypatch):
    write(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    found, _ = find_scans([Path("a.h50"), tmp_path / "a.h50", tmp_path / "." / "a.h51"])
    assert names(found) == ["a.h50"]


def test_an_empty_folder_and_a_pattern_without_files_are_told(tmp_path):
    found, notes = find_scans([tmp_path, tmp_path / "*.mda"])
    assert found == []
    assert [word in note.text for word, note in zip(("no files", "no file matches"), notes, strict=True)] == [
        True,
        True,
    ]


def test_an_explicit_companion_is_left_out_where_its_mda_is_an_input(shared_data):
    folder = shared_data / "aps-2ide"
    companion = folder / "flyXRF.h5" / "2xfm_0011_2xfm3__0.h5"
    assert names(find_scans([companion, folder / "mda" / "2xfm_0011.mda"])[0]) == ["2xfm_0011.mda"]
    assert find_scans([companion, folder / "mda" / "2xfm_0010.mda"])[0][0] == companion


@pytest.mark.parametrize("name", ["lost.h5", "lost.h51", "lost.HDF5", "lost.nxs", "lost.mda", "lost.npy"])
def test_what_is_in_the_place_of_a_scan_in_a_folder_is_no_other_file(tmp_path, name):
    """A web page of a portal, the pointer of a store of large files: the scan itself was lost."""
    write(tmp_path, "whole")
    (tmp_path / name).write_text("<html>403 Forbidden</html>")
    (tmp_path / "page.html").write_text("<html>403 Forbidden</html>")
    found, notes = find_scans([tmp_path])
    assert sorted(names(found)) == sorted(["whole.h50", name])
    assert [note.text for note in notes if "page.html" in note.text]
    assert not [note.text for note in notes if name in note.text]
    with pytest.raises(InputFileError, match=r"of no known format: it is named \.\w+, but begins with b'<html>"):
        open_scan(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"hello world, this is no scan at all", "no known format.*MDA.*MAPS.*MAPS_RAW.*MCA.*--dataset-path"),
        (b"ELEMENTS_TO_FIT: Si, P\n", "fit parameters"),
        (b"FILENAME: a\nELEMENTS_IN_STANDARD: Ca\n", "standards"),
    ],
)
def test_a_file_that_is_no_scan_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "it.dat"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"it\.dat: .*{message}"):
        open_scan(path)


def test_missing_files_folders_and_those_one_may_not_read_are_refused(tmp_path):
    with pytest.raises(InputFileError, match=r"no\.mda: no such file"):
        open_scan(tmp_path / "no.mda")
    with pytest.raises(InputFileError, match="folder"):
        open_scan(tmp_path)
    secret = write(tmp_path, "a")[0]
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        return  # the superuser may read everything
    with pytest.raises(InputFileError, match=r"a\.h50: cannot be read: .*permissions"):
        open_scan(secret)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "a")[0]

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputFileError, match=r"a\.h50: cannot be read: Permission denied"):
        open_scan(path)


def test_an_energy_slope_given_replaces_the_calibration_of_the_file(shared_data):
    options = ReadOptions(energy_slope_kev=0.0095, energy_offset_kev=-0.004)
    scan = open_scan(shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda", options)
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.004, slope_kev=0.0095),) * 4


def test_an_offset_or_slope_given_alone_leaves_the_other_of_the_file(tmp_path):
    path = tmp_path / "a.h50"
    with h5py.File(path, "w") as file:
        file["MAPS/Spectra/mca_arr"] = np.ones((16, 2, 3), "f4")
        file["MAPS/Spectra/Energy_Calibration"] = np.array([0.25, 0.5, 0.0])
    for options, expected in (
        (ReadOptions(energy_offset_kev=0.125), (0.125, 0.5)),
        (ReadOptions(energy_slope_kev=0.75), (0.25, 0.75)),
    ):
        scan = open_scan(path, options)
        assert [(c.offset_kev, c.slope_kev) for c in scan.calibration] == [expected]
        assert sum("set to" in note.text for note in scan.notes) == 1


@pytest.mark.parametrize("name", ["2xfm_0010.mda", "2xfm_0011.mda"])
@pytest.mark.parametrize("slope", [-0.01, 0.0, np.nan])
def test_a_slope_that_does_not_rise_is_refused_for_every_format(shared_data, name, slope):
    with pytest.raises(InputFileError, match=rf"{name}.*does not rise.*--energy-slope"):
        open_scan(shared_data / "aps-2ide" / "mda" / name, ReadOptions(energy_slope_kev=slope))


def test_an_offset_without_any_slope_is_refused_and_not_dropped(shared_data):
    with pytest.raises(InputFileError, match=r"2xfm_0010\.mda.*0\.1 keV.*--energy-slope"):
        open_scan(shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda", ReadOptions(energy_offset_kev=0.1))


@pytest.mark.parametrize("name", ["MAPS_RAW", "MAPS_RAW/data_a", "MAPS/Spectra/mca_arr", "counts"])
def test_a_damaged_object_of_an_hdf5_file_is_refused_and_others_go_on(tmp_path, name):
    path, good = tmp_path / "a.h5", tmp_path / "b.h5"
    for file_path, place in ((path, name), (good, "counts")):
        with h5py.File(file_path, "w") as file:
            file["MAPS_RAW/data_a" if place == "MAPS_RAW" else place] = np.ones((16, 3, 4), "i2")
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        address = h5py.h5o.get_info(file[name].id).addr
    content[address : address + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"a\.h5"):
        open_scan(path)
    scans, _ = find_scans([tmp_path])
    assert good in scans


def test_a_dataset_asked_for_by_its_path_is_an_array_whatever_the_file_is(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["MAPS/Spectra/mca_arr"] = np.zeros((32, 3, 4), "f4")
        file["mine"] = np.ones((2, 5, 16), "u2")
    assert open_scan(path).format == "maps-v10"
    options = ReadOptions(dataset_path="/mine", energy_axis=2, energy_slope_kev=0.01)
    assert open_scan(path, options).shape == (1, 2, 5, 16)
