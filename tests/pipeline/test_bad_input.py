"""Bad input at the command line: an exit code, a message with file, value and remedy."""

import errno
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from mda_files import write_step_scan

from hpcxrf.formats.maps_writer import write_maps_v10
from tests.samples.bad_scans import AXIS, FIT, SHAPE, cut, write_array, write_whole

INPUT, OUTPUT, IMPOSSIBLE, CONFIG = 3, 4, 5, 2


def refused(ran, code: int, *said: object) -> None:
    """The exit code, every word of the message, no traceback, and nothing on standard output."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    message = ran.err[ran.err.index("error: ") :]
    for word in said:
        assert str(word) in message


# Files that cannot be read --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "fit"])
def test_a_missing_file(hpcxrf, tmp_path, command):
    path = tmp_path / "no.mda"
    refused(hpcxrf(command, path), INPUT, path, "no such file", "check the name")


def test_a_run_of_nothing_but_a_missing_file(hpcxrf, tmp_path):
    missing = tmp_path / "no" / "*.mda"
    ran = hpcxrf("run", missing, "-o", tmp_path / "out", *FIT)
    refused(ran, INPUT, missing, "no file matches", "give files, folders or patterns")
    assert not (tmp_path / "out").exists()


def test_a_file_without_rights(hpcxrf, good, monkeypatch):
    """Root reads everything, so the refusal itself is put in place."""
    opened = Path.open

    def closed(path, *arguments, **options):
        if path == good:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", closed)
    refused(hpcxrf("inspect", good), INPUT, good, "Permission denied", "check its permissions")


def test_a_file_of_no_known_format(hpcxrf, tmp_path):
    path = tmp_path / "scan.mda"
    path.write_bytes(b"PK\x03\x04 an archive of something else")
    refused(hpcxrf("inspect", path), INPUT, path, "PK", "no known format", "named .mda", "copy it again")
    other = path.rename(tmp_path / "scan.dat")
    refused(hpcxrf("inspect", other), INPUT, other, "PK", "no known format", "MDA", "EPICS MCA text")


def test_a_zero_length_file(hpcxrf, tmp_path):
    path = tmp_path / "scan.h50"
    path.touch()
    refused(hpcxrf("inspect", path), INPUT, path, "0 bytes", "copy it again")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_hdf5_file(hpcxrf, counts, tmp_path, share):
    whole = write_whole(tmp_path / "whole.h5", counts, write_maps_v10)
    path = cut(whole, tmp_path / "cut.h50", share)
    refused(hpcxrf("inspect", path), INPUT, path, "copy it again")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_mda_file(hpcxrf, counts, tmp_path, share):
    whole = write_step_scan(tmp_path / "whole.mda", counts)
    path = cut(whole, tmp_path / "cut.mda", share)
    ran = hpcxrf("inspect", path)
    refused(ran, INPUT, path, "copy it again")
    assert re.search(r"\d+ bytes|byte \d+", ran.err)


@pytest.mark.parametrize("shape", [(), (2, 2, 2, 2, 64), (2, 0, 4, 64)])
def test_an_array_of_the_wrong_rank(hpcxrf, tmp_path, shape):
    path = tmp_path / "cube.npy"
    np.save(path, np.ones(shape, np.uint16))
    refused(hpcxrf("inspect", path), INPUT, path, "1 to 4 axes" if shape else path)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf")])
def test_non_finite_counts(hpcxrf, counts, tmp_path, value, said):
    spoiled = counts.astype(np.float32)
    spoiled[1, 2, 3, 700] = value
    path = write_array(tmp_path / "spoiled.h5", spoiled)
    ran = hpcxrf("inspect", path)
    refused(ran, INPUT, path)
    assert said in ran.err.lower()
    refused(hpcxrf("fit", path, *FIT, *AXIS), INPUT, path)


# Energy axes ----------------------------------------------------------------------------------


def test_a_falling_energy_axis_in_the_file(hpcxrf, counts, tmp_path):
    path = write_array(tmp_path / "falling.h5", counts)
    with h5py.File(path, "a") as file:
        file["energy_kev"] = 20.0 - 0.009 * np.arange(SHAPE[3])
    ran = hpcxrf("inspect", path)
    refused(ran, INPUT, path, "rise", "--energy-slope")
    # the remedy that it names works
    assert hpcxrf("inspect", path, *AXIS, "--json").code == 0


def test_a_falling_energy_axis_as_given(hpcxrf, good):
    ran = hpcxrf("inspect", good, "--energy-slope", "-0.01")
    refused(ran, INPUT, good, "-0.01", "rise")
    ran = hpcxrf("fit", good, *FIT, "--energy-slope", "-0.01")
    refused(ran, CONFIG, "energy_slope_kev", "-0.01", "greater than 0")


def test_no_energy_axis_at_all(hpcxrf, counts, tmp_path):
    path = write_array(tmp_path / "bare.h5", counts)
    ran = hpcxrf("fit", path, *FIT)
    refused(ran, CONFIG, path, "no energy calibration", "energy_slope_kev")


@pytest.mark.parametrize("elements", [("--elements", "Fe"), ()])
def test_all_that_nobody_says_of_a_scan_is_named_at_once(hpcxrf, counts, tmp_path, elements):
    path = write_array(tmp_path / "cube.h5", counts)
    refused(hpcxrf("fit", path, *elements), CONFIG, path, "incident energy is not known", "no energy calibration")


# What is asked for cannot be ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Xx", "fe", "Fe_X", "Og", "26"])
def test_an_element_that_does_not_exist(hpcxrf, good, name):
    ran = hpcxrf("fit", good, "--elements", f"Si,{name},Fe")
    refused(ran, IMPOSSIBLE, name)


def test_an_element_that_the_incident_energy_cannot_excite(hpcxrf, good):
    ran = hpcxrf("fit", good, "--elements", "Si,Fe,Mo", "--energy", "13.5")
    assert ran.code == 0
    assert "left out of this scan: Mo: K edge 20 keV is above the incident energy 13.5 keV; use Mo_L" in ran.err
    # Of nothing else there is nothing to fit.
    refused(hpcxrf("fit", good, "--elements", "Mo", "--energy", "13.5"), IMPOSSIBLE, "Mo", "13.5")
    # the remedy is the L family, or more energy
    assert hpcxrf("fit", good, "--elements", "Si,Fe,Mo_L", "--energy", "13.5").code == 0


def test_every_bad_element_is_named_at_once(hpcxrf, good):
    ran = hpcxrf("fit", good, "--elements", "Xx,Fe,Mo,Yy", "--energy", "13.5")
    refused(ran, IMPOSSIBLE, "Xx", "Yy")


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (("--elements", "Si,Xx"), IMPOSSIBLE, "Xx"),
        (("--elements", "Mo", "--energy", "13.5"), IMPOSSIBLE, "Mo"),
        (("--elements", "Si,Fe,Fe"), CONFIG, "Fe"),
        (("--elements", "Si", "--override", "no/override.txt"), INPUT, "no/override.txt"),
        (("--elements", "Si", "--source", "laser"), CONFIG, "laser"),
        (("--elements", "Si", "--source", "tube", "--anode", "Rh"), CONFIG, "tube_kv"),
        (("--elements", "Si", "--pixels", "magic"), CONFIG, "magic"),
    ],
)
def test_a_run_of_what_no_scan_allows_is_refused_before_anything_is_read(hpcxrf, good, tmp_path, wrong, code, said):
    ran = hpcxrf("run", good, "-o", tmp_path / "out", *wrong)
    refused(ran, code, said)
    assert not (tmp_path / "out").exists()


def test_a_run_file_that_starts_a_parameter_that_does_not_exist(hpcxrf, good, tmp_path):
    text = f"input: {{files: [{good}]}}\nsample: {{elements: [Fe]}}\nfit: {{start: {{warp: 9}}}}\n"
    ran = hpcxrf("run", write_run_file(tmp_path, text), "-o", tmp_path / "out")
    refused(ran, CONFIG, "warp", "energy_offset")
    assert not (tmp_path / "out").exists()


def test_duplicate_elements(hpcxrf, good):
    ran = hpcxrf("fit", good, "--elements", "Si,Fe,Ca,Fe")
    refused(ran, CONFIG, "more than once", "Fe")


def test_a_fit_range_outside_the_spectrum(hpcxrf, good):
    ran = hpcxrf("fit", good, *FIT, "--energy-range", 30, 40)
    refused(ran, IMPOSSIBLE, "30", "40")
    assert re.search(r"\d keV", ran.err)


@pytest.mark.parametrize("span", [(9, 2), (-1, 5), (3, 3)])
def test_a_fit_range_that_is_none(hpcxrf, good, span):
    ran = hpcxrf("fit", good, *FIT, "--energy-range", *span)
    refused(ran, CONFIG, "energy_range_kev", float(span[0]), float(span[1]), "must rise")


def test_an_element_without_a_line_in_the_fit_range(hpcxrf, good):
    ran = hpcxrf("fit", good, *FIT, "--energy-range", 3.0, 14.0)
    assert ran.code == 0
    assert "left out of this scan: Si (1.74 to 1.84 keV): no line lies in the fit range 3 to 14 keV" in ran.err
    ran = hpcxrf("fit", good, "--elements", "Si", "--energy", "13.5", "--energy-range", 3.0, 14.0)
    refused(ran, IMPOSSIBLE, good, "Si", "1.7", "3 to 14 keV", "widen")


def test_an_unknown_incident_energy(hpcxrf, counts, tmp_path):
    path = write_array(tmp_path / "bare.h5", counts)
    ran = hpcxrf("fit", path, "--elements", "Fe", *AXIS)
    refused(ran, CONFIG, path, "incident energy", "--energy")


def test_without_a_list_the_elements_are_found_in_the_spectrum(hpcxrf, good):
    ran = hpcxrf("fit", good)
    assert ran.code == 0
    assert "elements found in the spectrum: certain" in ran.err
    assert " Fe" in ran.err.partition("certain")[2].partition(";")[0]


def test_a_spectrum_without_counts(hpcxrf, counts, tmp_path):
    path = write_array(tmp_path / "dark.h5", np.zeros_like(counts))
    ran = hpcxrf("fit", path, *FIT, *AXIS)
    refused(ran, IMPOSSIBLE, path, "no counts")


def test_one_dead_detector_is_refused_and_the_others_are_fitted(hpcxrf, counts, tmp_path):
    path = write_array(tmp_path / "dead.h5", counts * np.array([1, 0])[:, None, None, None])
    assert hpcxrf("fit", path, *FIT, *AXIS, "--detector", 0).code == 0
    refused(hpcxrf("fit", path, *FIT, *AXIS, "--detector", 1), IMPOSSIBLE, path, "detector 1")
    both = hpcxrf("fit", path, *FIT, *AXIS, "--detector", "sum", "--json")
    alone = hpcxrf("fit", path, *FIT, *AXIS, "--detector", "0", "--json")
    assert both.code == 0, both.err
    assert both.json["amplitudes"]["Fe"] == pytest.approx(alone.json["amplitudes"]["Fe"], rel=1e-3)


# Run files ------------------------------------------------------------------------------------


def write_run_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_unknown_keys_of_a_run_file_are_refused_all_at_once(hpcxrf, tmp_path):
    text = "input: {files: [a.h50], file: b}\nsampel: {}\nfit: {backgroud: none, method: magic}\n"
    path = write_run_file(tmp_path, text)
    ran = hpcxrf("run", path, "-o", tmp_path / "out")
    refused(ran, CONFIG, path, "input.file", "sampel", "fit.backgroud", "fit.method", "magic")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "input: {files: [", "input: {files: []}\n"])
def test_what_is_no_run_file_is_refused(hpcxrf, tmp_path, text):
    path = write_run_file(tmp_path, text)
    refused(hpcxrf("run", path, "-o", tmp_path / "out"), CONFIG, path)


def test_a_run_file_that_is_not_there(hpcxrf, tmp_path):
    path = tmp_path / "no.yaml"
    refused(hpcxrf("run", path, "-o", tmp_path / "out"), CONFIG, path, "No such file")


def test_a_run_file_cannot_make_python_objects(hpcxrf, tmp_path):
    path = write_run_file(tmp_path, "!!python/object/apply:os.mkdir ['made']\n")
    refused(hpcxrf("run", path, "-o", tmp_path / "out"), CONFIG, path, "not YAML")
    assert not Path("made").exists()


# Output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ingest", "run", "simulate"])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_is_a_file(hpcxrf, good, tmp_path, command, below):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    arguments = {"ingest": [good], "run": [good, *FIT], "simulate": ["--size", 1, 1]}[command]
    ran = hpcxrf(command, *arguments, "-o", taken / below)
    refused(ran, OUTPUT, taken)
    assert re.search(r"another|choose|name", ran.err)
    assert taken.read_text() == "mine"


def test_a_run_refuses_a_folder_of_something_else(hpcxrf, good, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    ran = hpcxrf("run", good, *FIT, "-o", tmp_path)
    refused(ran, OUTPUT, tmp_path, "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_full_disk_while_ingesting_and_then_room(hpcxrf, good, tmp_path, monkeypatch):
    from hpcxrf.store import band_writer

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(band_writer, "write_band", full)
        ran = hpcxrf("ingest", good, "-o", tmp_path)
    refused(ran, OUTPUT, tmp_path, "disk or quota is full", "bytes are free", "free some space")
    again = hpcxrf("ingest", good, "-o", tmp_path, "--json")
    assert again.code == 0, again.err
    (store,) = map(Path, again.json["stores"].values())
    assert json.loads((store / "zarr.json").read_text())["attributes"]["complete"] is True


def test_a_store_of_another_schema_version(hpcxrf, good, tmp_path):
    made = hpcxrf("ingest", good, "-o", tmp_path, "--json").json
    (store,) = map(Path, made["stores"].values())
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["hpcxrf_schema_version"] = 99
    (store / "zarr.json").write_text(json.dumps(root))
    ran = hpcxrf("ingest", good, "-o", tmp_path)
    refused(ran, OUTPUT, store, "99", "1")
    assert json.loads((store / "zarr.json").read_text()) == root


def test_a_store_of_another_scan_is_not_overwritten(hpcxrf, counts, tmp_path):
    path = write_whole(tmp_path / "scan.h5", counts)
    out = tmp_path / "out"
    made = hpcxrf("ingest", path, "-o", out, "--json").json
    (store,) = map(Path, made["stores"].values())
    before = sorted((p, p.stat().st_mtime_ns) for p in store.rglob("*"))
    write_whole(path, counts + 1)
    refused(hpcxrf("ingest", path, "-o", out), OUTPUT, store)
    assert sorted((p, p.stat().st_mtime_ns) for p in store.rglob("*")) == before
