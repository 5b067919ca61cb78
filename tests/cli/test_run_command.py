"""`hpcxrf run`, `demo` and `report`: lines without a terminal, options obeyed, sections refused."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.samples.commands import ELEMENTS, child


@pytest.fixture(scope="module")
def finished(scan, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    done = child(
        "-m",
        "hpcxrf",
        "run",
        str(scan),
        "-o",
        str(out),
        "--workers",
        "1",
        "--elements",
        ELEMENTS,
        "--pixels",
        "nnls",
        "--detectors",
        "sum",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"report: {out / 'report.html'}" in done.stderr
    (out / "said.txt").write_text(done.stderr)
    return out


def test_a_run_without_a_terminal_prints_a_line_at_the_start_and_end_of_every_stage(finished):
    lines = (finished / "said.txt").read_text().splitlines()
    for stage in ("ingest into Zarr", "integrated spectra", "pixels", "close stores, draw"):
        assert len([line for line in lines if re.match(rf"{stage}: started$", line)]) == 1
        assert len([line for line in lines if re.match(rf"{stage}: (\d+) of \1 ended after [\d.]+ s$", line)]) == 1
    assert not [line for line in lines if re.search(r"━ +\d+/\d+ ", line)]


def test_the_end_of_a_run_names_the_suggested_elements_and_the_command_that_adds_them(finished):
    lines = (finished / "said.txt").read_text().splitlines()
    assert "suggested elements (not in your list, but present in the residual): Se" in lines
    (line,) = [line for line in lines if line.startswith("to add them:  ")]
    words = shlex.split(line.removeprefix("to add them:  "))
    assert words[:2] == ["hpcxrf", "run"]
    assert words[words.index("--elements") + 1] == f"{ELEMENTS},Se"
    assert words[words.index("-o") + 1] == f"{finished}-2"
    assert words.count("--elements") == words.count("-o") == 1
    assert words[words.index("--pixels") :][:2] == ["--pixels", "nnls"]


def test_a_run_obeys_its_options(finished):
    import xarray as xr

    (store,) = (finished / "results").glob("leaf-*.zarr")
    maps = xr.open_zarr(store, group="maps", chunks=None)
    assert maps.detector.values.tolist() == ["sum"]
    # what nnls means
    assert float(maps.amplitude.sel(component=ELEMENTS.split(",")).min()) >= 0.0
    kept = yaml.safe_load((finished / "run.yaml").read_text())
    assert kept["pixels"] == {"method": "nnls", "detectors": "sum"}


@pytest.mark.slow
def test_the_demonstration_ends_by_naming_a_report_and_is_not_done_twice(tmp_path):
    out = tmp_path / "demo"
    first = child("-m", "hpcxrf", "demo", "-o", str(out), "--workers", "2")
    assert first.returncode == 0, first.stderr
    assert first.stderr.rstrip().endswith(f"report: {out / 'run' / 'report.html'}")
    assert (out / "run" / "report.html").stat().st_size > 100_000
    stamps = {p: p.stat().st_mtime_ns for p in (out / "run" / "results").rglob("c/*")}
    assert child("-m", "hpcxrf", "demo", "-o", str(out), "--workers", "1").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (out / "run" / "results").rglob("c/*")} == stamps


def test_report_writes_the_page_again_and_nothing_else(hpcxrf, finished):
    page = finished / "report.html"
    ended = re.search(r"<dt>Finished</dt><dd>(.+?)</dd>", page.read_text())[1]
    page.unlink()
    others = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    ran = hpcxrf("report", finished)
    assert ran.code == 0, ran.err
    assert str(page) in ran.err
    assert page.read_text().count("data:image/") >= 2
    assert "leaf-" in page.read_text()
    # The time of the run, not of this command.
    assert f"<dt>Finished</dt><dd>{ended}</dd>" in page.read_text()
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p != page}
    assert after == others
    ran = hpcxrf("report", finished, "--single-file")
    assert f"one file: {finished / 'report-single-file.html'}" in ran.err
    assert "data:image/" in (finished / "report-single-file.html").read_text()


@pytest.mark.parametrize("make", [False, True])
def test_the_report_of_what_is_not_a_run_is_an_output_error(hpcxrf, tmp_path, make):
    folder = tmp_path / "no-run"
    if make:
        folder.mkdir()
    ran = hpcxrf("report", folder)
    assert ran.code == 4
    assert str(folder) in ran.err


def test_two_options_for_one_value_of_a_run_file_are_refused_by_name(hpcxrf, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("input: {files: [x.h50]}\n")
    ran = hpcxrf("run", path, "-o", tmp_path / "out", "--workers", "1", "--set", "execution.workers=2")
    assert ran.code == 2
    assert "--workers and --set execution.workers" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "plan", "submit"])
def test_a_section_that_the_workload_does_not_use_is_refused_by_name(hpcxrf, tmp_path, scan, command):
    path = tmp_path / "run.yaml"
    path.write_text(f"input: {{files: ['{scan}']}}\nbenchmark: {{start: wide}}\npixels: {{method: nnls}}\n")
    more = {"run": ("-o", tmp_path / "out"), "submit": ("--site", "generic-cpu"), "plan": ()}[command]
    ran = hpcxrf(command, path, *more)
    assert ran.code == 2
    assert "pixels: a benchmark does not use this section" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]
