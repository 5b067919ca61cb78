"""`hpcxrf simulate` and `hpcxrf ingest`: what is written can be read."""

from pathlib import Path

import numpy as np
import pytest

from hpcxrf.simulate import read_truth
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.spectra import open_spectra


@pytest.mark.parametrize(
    ("written", "read", "first"), [("maps-v10", "maps-v10", "s.h50"), ("array", "hdf5-array", "s.h5")]
)
def test_what_is_simulated_can_be_inspected_and_ingested(hpcxrf, tmp_path, written, read, first):
    out = tmp_path / "sim"
    ran = hpcxrf(
        "simulate",
        "-o",
        out,
        "--seed",
        3,
        "--size",
        5,
        7,
        "--channels",
        2048,
        "--detectors",
        3,
        "--format",
        written,
        "--name",
        "s",
    )
    assert ran.code == 0, ran.err
    assert (out / "s.truth.json").is_file()
    facts = hpcxrf("inspect", out / first, "--json").json
    assert facts["format"] == read
    assert facts["shape"] == [3, 5, 7, 2048]
    truth = read_truth(out / "s.truth.json")
    expected = truth.amplitude.sum(axis=(1, 2, 3))
    assert np.allclose(facts["total_counts"], expected, rtol=0.2)
    ingested = hpcxrf("ingest", out, "-o", tmp_path / "stores", "--json")
    assert ingested.code == 0, ingested.err
    (store,) = map(Path, ingested.json["stores"].values())
    assert ingested.json["failed"] == {}
    stored = open_spectra(store)
    assert stored.shape == (3, 5, 7, 2048)
    assert [stored.integrated(d).sum() for d in range(3)] == facts["total_counts"]


def test_the_same_seed_gives_the_same_counts_and_another_gives_others(hpcxrf, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        hpcxrf("simulate", "-o", tmp_path / name, "--seed", seed, "--size", 2, 3, "--name", "s")
    totals = [hpcxrf("inspect", tmp_path / n / "s.h50", "--json").json["total_counts"] for n in "abc"]
    assert totals[0] == totals[1] != totals[2]


def test_a_format_that_is_not_written_is_refused(hpcxrf, tmp_path):
    ran = hpcxrf("simulate", "-o", tmp_path, "--format", "mda")
    assert ran.code == 2
    assert "'mda'" in ran.err
    assert "maps-v10 or array" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_ingesting_twice_changes_nothing(hpcxrf, scan, tmp_path):
    first = hpcxrf("ingest", scan, "-o", tmp_path, "--json")
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    checksum = tree_sha256(tmp_path)
    second = hpcxrf("ingest", scan, "-o", tmp_path, "--json")
    assert (first.code, second.code) == (0, 0)
    assert first.json == second.json
    assert tree_sha256(tmp_path) == checksum
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == stamps


def test_the_scans_of_a_run_file_are_ingested(hpcxrf, tmp_path):
    hpcxrf("simulate", "-o", tmp_path / "in", "--seed", 3, "--size", 2, 3, "--name", "s")
    (tmp_path / "in" / "notes.dat").write_text("not a scan")
    file = tmp_path / "run.yaml"
    file.write_text("input: {files: [in]}\n")
    ran = hpcxrf("ingest", file, "-o", tmp_path / "stores")
    assert ran.code == 0, ran.err
    [line] = ran.out.splitlines()
    assert line.startswith(f"{tmp_path / 'in' / 's.h50'} -> {tmp_path / 'stores'}/s-")
    # What was left out of a folder is named.
    assert "notes.dat" in ran.err
