"""Folders of synthetic archives: what they hold, how they are resumed, and the command that writes them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpcxrf.cli.options import build_config
from hpcxrf.errors import InputFileError, OutputError
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.override import find_override, read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.records import ScanFacts
from hpcxrf.simulate import archive_spec, read_index, read_truth, write_archive
from hpcxrf.simulate.archive_files import _hold_interrupt, dataset_files
from hpcxrf.simulate.spec import list_families
from hpcxrf.store.files import tree_sha256

SEED = 5
WHOLE = slice(None)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archives") / "one"
    write_archive(folder, 6, SEED, jobs=1)
    return folder


# What is written -------------------------------------------------------------------------------


def test_the_folder_holds_scans_override_files_truth_and_the_index(archive):
    assert sorted(p.name for p in archive.iterdir()) == [
        "archive.csv",
        "archive.json",
        *(f"sim-{i:05d}" for i in range(6)),
        "truth",
    ]
    scans, _ = find_scans([archive])
    assert [s.name for s in scans] == [f"sim-{i:05d}.h50" for i in range(6)]
    for index in range(6):
        assert all(f.is_file() for f in dataset_files(archive, archive_spec(SEED, index)))


def test_the_index_says_what_the_specifications_say(archive):
    rows = read_index(archive / "archive.csv")
    for index, row in enumerate(rows):
        spec = archive_spec(SEED, index)
        assert (row.dataset, row.seed) == (spec.name, spec.seed)
        assert (row.detectors, row.channels) == (len(spec.detectors), 2048)
        assert row.incident_energy_kev == spec.incident_energy_kev
        assert row.nominal_energy_kev == spec.file_energy_kev
        families, listed = set(row.families.split()), set(row.listed.split())
        assert families == set(list_families(spec))
        assert listed == set(spec.listed_elements)
        assert set(row.unlisted.split()) == families - listed
        assert set(row.absent.split()) == listed - families


def test_what_is_no_index_is_refused(tmp_path):
    path = tmp_path / "archive.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputFileError, match=r"archive\.csv"):
        read_index(path)


def test_truth_and_written_counts_agree_within_poisson(archive):
    for row in read_index(archive / "archive.csv"):
        truth = read_truth(archive / "truth" / f"{row.dataset}.truth.json")
        expected = truth.amplitude.sum(axis=(1, 2, 3)) + truth.pileup.sum(axis=(1, 2))
        raw = open_scan(archive / row.dataset / f"{row.dataset}.h50")
        counts = raw.read_counts(WHOLE).sum(axis=(1, 2, 3), dtype=np.int64)
        assert row.counts == counts[0]
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
        assert truth.spec == archive_spec(SEED, int(row.dataset[4:]))


def test_scans_open_with_the_true_calibration_and_the_nominal_energy(archive):
    for row in read_index(archive / "archive.csv"):
        raw = open_scan(archive / row.dataset / f"{row.dataset}.h50")
        truth = read_truth(archive / "truth" / f"{row.dataset}.truth.json")
        assert raw.shape == truth.spec.shape
        assert raw.incident_energy_kev == pytest.approx(row.nominal_energy_kev, abs=1e-5)
        assert raw.calibration is not None
        for claimed, theta in zip(raw.calibration, truth.theta, strict=True):
            assert claimed.slope_kev == pytest.approx(theta["energy_slope"], rel=1e-6)
            assert claimed.offset_kev == pytest.approx(theta["energy_offset"], abs=1e-6)


def test_a_fit_takes_elements_and_energy_from_the_override_file_and_the_axis_from_the_scan(archive):
    for row in read_index(archive / "archive.csv"):
        path = archive / row.dataset / f"{row.dataset}.h50"
        found = find_override(path, 0)
        assert found == path.with_name("maps_fit_parameters_override.txt")
        override = read_override(found)
        assert override.elements == tuple(row.listed.split())
        assert override.values == {"COHERENT_SCT_ENERGY": row.nominal_energy_kev}
        raw = open_scan(path)
        facts = ScanFacts(
            source=path,
            n_detectors=row.detectors,
            n_channels=row.channels,
            calibration=raw.calibration,
            incident_energy_kev=raw.incident_energy_kev,
        )
        config, _ = build_config([path], {})
        prepared = prepare(config, facts, row.detectors - 1)
        start = {p.name: p.value for p in prepared.problem.parameters}
        assert start["coherent_sct_energy"] == row.nominal_energy_kev
        assert start["energy_slope"] == raw.calibration[row.detectors - 1].slope_kev
        assert set(row.listed.split()) <= set(prepared.problem.table.component_names)


# Again, more, elsewhere ------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Checksums of what a reader sees; HDF5 files of the same content have the same bytes here."""
    return {
        str(p.relative_to(folder)): tree_sha256(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name not in {"archive.csv", "archive.json"}
    }


def test_number_and_processes_change_no_dataset(archive, tmp_path):
    write_archive(tmp_path / "few", 2, SEED, jobs=2)
    few, many = contents(tmp_path / "few"), contents(archive)
    assert len(few) > 8
    assert few == {name: many[name] for name in few}
    lines = (archive / "archive.csv").read_text().splitlines()
    assert (tmp_path / "few" / "archive.csv").read_text().splitlines() == lines[:3]


def test_a_larger_number_extends_and_a_smaller_is_refused(archive, tmp_path):
    seen = []
    write_archive(tmp_path / "grows", 1, SEED, jobs=1)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "grows").rglob("sim-00000*.*")}
    write_archive(tmp_path / "grows", 2, SEED, jobs=1, progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert len(read_index(tmp_path / "grows" / "archive.csv")) == 2
    with pytest.raises(OutputError, match="n is 2, requested 1"):
        write_archive(tmp_path / "grows", 1, SEED)


def test_what_is_missing_is_written_again_and_nothing_else(archive, tmp_path):
    folder = tmp_path / "resumed"
    write_archive(folder, 3, SEED, jobs=1)
    before = contents(folder)
    removed = [
        folder / "sim-00001" / "sim-00001.h50",
        folder / "truth" / "sim-00002.truth.json",
        folder / "archive.csv",
    ]
    for path in removed:
        path.unlink()
    left = folder / "sim-00001" / ".sim-00001.h50.1.partial"
    left.write_bytes(b"half")
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("*sim-00000*") if p.is_file()}
    write_archive(folder, 3, SEED, jobs=1)
    assert contents(folder) == before
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    lines = (archive / "archive.csv").read_text().splitlines()
    assert (folder / "archive.csv").read_text().splitlines() == lines[:4]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 6}, "seed is 5, requested 6"),
        ({"channels": 1024}, "channels is 2048, requested 1024"),
        ({"detectors": 2}, "detectors is None, requested 2"),
        ({"shape_yx": (9, 8)}, r"shape_yx is \(8, 8\), requested \(9, 8\)"),
    ],
)
def test_a_folder_of_other_options_is_refused_with_the_difference(archive, changed, words):
    before = contents(archive)
    with pytest.raises(OutputError, match=words):
        write_archive(archive, 6, **({"seed": SEED} | changed))
    assert contents(archive) == before


def test_an_archive_of_another_generator_is_refused(tmp_path):
    write_archive(tmp_path / "a", 1, SEED, jobs=1)
    path = tmp_path / "a" / "archive.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    with pytest.raises(OutputError, match="version is 0"):
        write_archive(tmp_path / "a", 1, SEED)
    path.write_text("{}")
    with pytest.raises(OutputError, match=r"archive\.json"):
        write_archive(tmp_path / "a", 1, SEED)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        write_archive(tmp_path, 1, SEED)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_scan_is_named(tmp_path):
    write_archive(tmp_path / "a", 1, SEED, jobs=1)
    scan = tmp_path / "a" / "sim-00000" / "sim-00000.h50"
    scan.write_bytes(scan.read_bytes()[:100])
    with pytest.raises(OutputError, match=r"sim-00000\.h50: is damaged"):
        write_archive(tmp_path / "a", 1, SEED, jobs=1)


def test_processes_that_start_inherit_that_ctrl_c_waits():
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def is_held():
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()

    with _hold_interrupt():
        assert is_held() == "True"
    assert is_held() == "False"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_archive_is_completed_by_the_same_command(archive, tmp_path, stop):
    folder = tmp_path / "stopped"
    command = [
        sys.executable,
        "-m",
        "hpcxrf",
        "simulate",
        "archive",
        "--n",
        "6",
        "--seed",
        str(SEED),
        "--jobs",
        "2",
        "-o",
        str(folder),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        while not list(folder.glob("truth/*.json")) and child.poll() is None:
            time.sleep(0.01)
        # As a terminal does it, all processes get the signal.
        os.killpg(child.pid, stop)
        _, said = child.communicate(timeout=60)
    assert child.returncode in {130, 75, 4}
    assert "same command again" in said
    assert "Traceback" not in said
    assert not (folder / "archive.csv").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert contents(folder) == contents(archive)
    assert (folder / "archive.csv").read_bytes() == (archive / "archive.csv").read_bytes()


# The command -----------------------------------------------------------------------------------


def test_the_command_writes_an_archive_of_the_shape_that_is_asked_for(hpcxrf, tmp_path):
    out = tmp_path / "out"
    ran = hpcxrf(
        "simulate",
        "archive",
        "--n",
        1,
        "--seed",
        2,
        "--shape",
        4,
        6,
        "--channels",
        1024,
        "--detectors",
        2,
        "--jobs",
        1,
        "-o",
        out,
    )
    assert ran.code == 0, ran.err
    assert str(out / "archive.csv") in ran.err
    assert open_scan(out / "sim-00000" / "sim-00000.h50").shape == (2, 4, 6, 1024)


def test_help_of_the_archive_has_an_example(hpcxrf):
    ran = hpcxrf("simulate", "archive", "--help")
    assert ran.code == 0
    assert "hpcxrf simulate archive --n 1200" in ran.out


def test_options_of_one_scan_before_archive_are_refused(hpcxrf, tmp_path):
    ran = hpcxrf("simulate", "--seed", 3, "archive", "--n", 1, "--seed", 2, "-o", tmp_path / "a")
    assert ran.code == 2
    assert "--seed" in ran.err
    assert not (tmp_path / "a").exists()


def test_one_scan_still_needs_a_folder(hpcxrf):
    ran = hpcxrf("simulate")
    assert ran.code == 2
    assert "-o" in ran.err
