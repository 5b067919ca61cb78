import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from beamline_files import make_counts, write_bliss, write_larch, write_oxford, write_pyxrf, write_soleil
from catalogue_archives import rows_of, some_changes, walk, write_text_spectrum
from mda_files import write_step_scan

from hpcxrf.archive.catalogue.recognise import find_i0_names, shorten_fault
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.maps_writer import write_maps_v10
from tests.samples.bad_scans import write_whole

APS_ELEMENTS = ("Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A folder with `X.h50`, `X.h51` and `X.h52` of one scan."""
    folder = tmp_path / "archive" / "img.dat"
    folder.mkdir(parents=True)
    counts = np.random.default_rng(5).poisson(2.0, (3, 4, 6, 512)).astype(np.uint16)
    write_whole(folder / "X", counts, write_maps_v10)
    for member in folder.iterdir():
        assert member.name[:3] == "X.h"
    return folder


def test_the_detectors_of_a_scan_are_one_row_with_its_companions_and_counts(maps, tmp_path):
    out = tmp_path / "a.sqlite"
    names = sorted(one.name for one in maps.glob("X.h5?"))
    assert names == ["X.h50", "X.h51", "X.h52"]
    shutil.copyfile(maps / "X.h50", maps / "X.h5")
    walk(out, maps.parent)
    found = rows_of(out)
    row = found.pop("img.dat/X.h50")
    assert (row.state, row.format, row.n_detectors, row.shape_y, row.shape_x) == ("ok", "maps-v10", 3, 4, 6)
    assert row.companions == ("img.dat/X.h51", "img.dat/X.h52")
    assert row.size_bytes == sum((maps / name).stat().st_size for name in names)
    counts = np.random.default_rng(5).poisson(2.0, (3, 4, 6, 512))
    assert row.counts == counts.sum()
    assert row.live_time_s == pytest.approx(24.0)
    assert row.incident_energy_kev == pytest.approx(13.5)
    assert {name: (one.state, one.fault) for name, one in found.items()} == {
        "img.dat/X.h5": ("ignored", "derived from the detectors' files beside it")
    }


def test_a_detector_that_comes_or_changes_changes_its_scan(maps, tmp_path):
    out = tmp_path / "a.sqlite"
    (maps / "X.h52").rename(tmp_path / "late")
    walk(out, maps.parent)
    (tmp_path / "late").rename(maps / "X.h52")
    assert some_changes(walk(out, maps.parent)) == {"changed": 1}
    assert rows_of(out)["img.dat/X.h50"].n_detectors == 3
    scan_id = rows_of(out)["img.dat/X.h50"].scan_id
    (maps / "X.h50").unlink()
    report = walk(out, maps.parent)
    assert some_changes(report) == {"new": 1, "vanished": 1}
    shutil.copyfile(maps / "X.h51", maps / "X.h50")
    assert some_changes(walk(out, maps.parent)) == {"changed": 1, "vanished": 1}
    found = rows_of(out)
    assert (found["img.dat/X.h50"].scan_id, found["img.dat/X.h50"].n_detectors) == (scan_id, 3)
    assert (found["img.dat/X.h51"].state, found["img.dat/X.h51"].fault) == ("ignored", "now a detector of another scan")


def test_a_fly_scan_is_refused_without_its_spectra_and_changes_when_they_come(shared_data, tmp_path):
    source, archive, out = shared_data / "aps-2ide", tmp_path / "archive", tmp_path / "a.sqlite"
    (archive / "mda").mkdir(parents=True)
    shutil.copyfile(source / "mda" / "2xfm_0011.mda", archive / "mda" / "2xfm_0011.mda")
    walk(out, archive)
    row = rows_of(out)["mda/2xfm_0011.mda"]
    assert (row.state, row.format) == ("refused", None)
    assert "without its spectra" in row.fault
    (archive / "flyXRF.h5").mkdir()
    name = "flyXRF.h5/2xfm_0011_2xfm3__0.h5"
    shutil.copyfile(source / name, archive / name)
    assert some_changes(walk(out, archive)) == {"new": 1, "changed": 1}
    found = rows_of(out)
    assert (found["mda/2xfm_0011.mda"].state, found["mda/2xfm_0011.mda"].companions) == ("ok", (name,))
    assert (found[name].state, found[name].fault) == ("ignored", "the spectra of an MDA file among the inputs")
    # Without the MDA file the spectra are a scan of their own.
    (archive / "mda" / "2xfm_0011.mda").unlink()
    walk(out, archive)
    assert (rows_of(out)[name].state, rows_of(out)[name].format) == ("ok", "maps-raw")


def test_the_measured_scans_are_all_there_with_what_their_files_say(shared_data, tmp_path):
    out = tmp_path / "a.sqlite"
    walk(out, shared_data, jobs=2)
    good = rows_of(out, "state = 'ok'")
    assert {
        name: (row.format, row.n_detectors, row.shape_y, row.shape_x, row.n_channels) for name, row in good.items()
    } == {
        "aps-2ide/mda/2xfm_0010.mda": ("mda", 4, 11, 11, 2000),
        "aps-2ide/mda/2xfm_0011.mda": ("mda-fly", 4, 11, 9, 2048),
        "aps-2ide/mda/axo_std.mda": ("mda", 4, 11, 11, 2000),
        "larch-srm1832/srm1832.mca": ("epics-mca", 4, 1, 1, 2048),
        "pixl-laguna/laguna.h5": ("hdf5-array", 2, 25, 25, 4096),
    }
    step, text = good["aps-2ide/mda/2xfm_0010.mda"], good["larch-srm1832/srm1832.mca"]
    assert (step.date, step.instrument, step.incident_energy_kev) == ("2015-10-28T18:18:43", "2xfm", 10.0)
    assert step.live_time_s == pytest.approx(0.499 * 121, rel=0.005)
    assert (step.elements, step.elements_from) == (APS_ELEMENTS, "override file")
    assert step.override_path == str(shared_data / "aps-2ide" / "maps_fit_parameters_override.txt")
    assert good["aps-2ide/mda/axo_std.mda"].date == "2016-08-09T10:28:52"
    assert text.date == "2013-01-30T15:25:17"
    assert text.live_time_s == pytest.approx((96.360748 + 96.160698 + 87.729240 + 77.401505) / 4)
    assert text.counts == 22468034
    rest = {name: row.state for name, row in rows_of(out).items() if name not in good}
    assert set(rest.values()) == {"ignored"}


def test_the_catalogue_lists_what_a_run_takes(shared_data, tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    counts = make_counts()
    archive.mkdir()
    for write, name in (
        (write_pyxrf, "pyxrf.h5"),
        (write_larch, "larch.h5"),
        (write_bliss, "bliss.h5"),
        (write_soleil, "soleil.nxs"),
        (write_oxford, "oxford.h5oina"),
        (write_step_scan, "step.mda"),
    ):
        write(archive / name, counts)
    write_text_spectrum(archive / "deep" / "er" / "text.mca")
    np.save(archive / "cube.npy", np.ones((3, 4, 512), np.uint16))
    (archive / "notes.txt").write_text("nothing")
    (archive / "maps_fit_parameters_override.txt").write_text("ELEMENTS_TO_FIT: Si\n")
    taken, _ = find_scans([archive])
    walk(out, archive, jobs=2)
    rows = rows_of(out)
    assert {row.path for row in rows.values() if row.state in {"ok", "refused"}} == {
        str(path.relative_to(archive)) for path in taken
    }
    assert {name: row.format for name, row in rows.items() if row.state == "ok"} == {
        "pyxrf.h5": "pyxrf",
        "larch.h5": "larch-map",
        "bliss.h5": "bliss",
        "soleil.nxs": "soleil",
        "oxford.h5oina": "h5oina",
        "step.mda": "mda",
        "deep/er/text.mca": "epics-mca",
        "cube.npy": "npy",
    }
    assert rows["pyxrf.h5"].i0_names == ("i0",)
    assert rows["larch.h5"].i0_names == ("I0",)


def test_names_of_i0_are_those_of_the_site_and_those_that_look_like_one():
    names = (
        "2xfm:scaler3_cts1.B",
        "US_IC",
        "us_ic",
        "S:SRcurrentAI",
        "I0",
        "i0_1",
        "pico",
        "basic",
        "IC2",
        "sic",
        "mi0",
    )
    assert find_i0_names(names, {}) == ["US_IC", "us_ic", "S:SRcurrentAI", "I0", "i0_1", "IC2"]
    table = {"us_ic": ["2xfm:scaler3_cts1.B", "2xfm:mcs:mca2.VAL"], "ds_ic": ["other"], "ring": ["S:SRcurrentAI"]}
    assert find_i0_names(names[:4], table) == ["us_ic", "ring", "US_IC"]


def test_a_fault_is_one_line_without_the_name_of_its_own_file(tmp_path):
    path = tmp_path / "a\nb.mda"
    assert shorten_fault(f"{path}: is cut off\n{path}: and torn", path) == "is cut off; and torn"
    assert shorten_fault("x\x1b[31m\ny", path) == "x\\x1b[31m; y"


def test_a_row_is_frozen(maps, tmp_path):
    out = tmp_path / "a.sqlite"
    walk(out, maps.parent)
    row = rows_of(out)["img.dat/X.h50"]
    assert replace(row, member="1").member == "1"
    assert hash(row) == hash(rows_of(out)["img.dat/X.h50"])
