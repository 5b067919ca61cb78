"""The command line: help without weight, JSON for scripts, and every command and option once."""

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from hpcxrf.cli.app import app
from hpcxrf.simulate import demo_spec, read_truth, simulate_scan, write_scan
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.spectra import open_spectra

SHAPE = (2, 8, 12, 2048)
ELEMENTS = "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,As,Pb_L"
COMMANDS = (
    "benchmark",
    "demo",
    "run",
    "fit",
    "inspect",
    "ingest",
    "report",
    "simulate",
    "doctor",
    "case-study",
    "plan",
    "site",
    "submit",
    "status",
    "logs",
    "cancel",
    "resume",
    "retry",
    "verify",
    "list",
    "dashboard",
)
APS = "aps-2ide/mda"
FACTS = {
    f"{APS}/2xfm_0010.mda": ((4, 11, 11, 2000), [107119, 103092, 52321, 54638], 10.0),
    f"{APS}/2xfm_0011.mda": ((4, 11, 9, 2048), [100311, 96080, 48479, 50482], 10.0),
    "aps-2ide/flyXRF.h5/2xfm_0011_2xfm3__0.h5": ((4, 11, 9, 2048), [100311, 96080, 48479, 50482], 10.0),
    f"{APS}/axo_std.mda": ((4, 11, 11, 2000), [895788, 844397, 593359, 696070], 10.0),
    "pixl-laguna/laguna.h5": ((2, 25, 25, 4096), [60369725, 54923501], None),
}
FIT_KEYS = ("r2", "r2_expected", "reduced_chi2", "cpu_s", "status", "suggested", "theta", "amplitudes", "sigma")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def scan(folder) -> Path:
    """Two detectors whose calibrations differ, MAPS v10; no override file beside it."""
    write_scan(simulate_scan(demo_spec(seed=5, shape=SHAPE, name="leaf")), folder)
    return folder / "leaf.h50"


@pytest.fixture(scope="module")
def true_amplitude(scan):
    """Expected counts by (detector, component), of the whole scan."""
    truth = read_truth(scan.with_name("leaf.truth.json"))
    totals = truth.amplitude.sum(axis=(2, 3))
    return [dict(zip(truth.components, totals[d], strict=True)) for d in range(SHAPE[0])]


def fitted(hpcxrf, scan, *more):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, *more, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )


def loaded_modules(*arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Top-level modules that a command imported."""
    code = (
        "import sys, json\n"
        f"sys.argv = ['hpcxrf', *{list(arguments)!r}]\n"
        "from hpcxrf.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    sys.stderr.write('LOADED' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = child("-c", code)
    return set(json.loads(done.stderr.split("LOADED")[1])), done


# Help ------------------------------------------------------------------------------------------


def test_help_names_every_command_and_imports_neither_torch_nor_dask():
    loaded, done = loaded_modules("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert "hpcxrf demo" in done.stdout
    assert "hpcxrf" in loaded
    assert not loaded & {"torch", "dask", "distributed", "zarr", "h5py", "xarray", "matplotlib"}


def test_help_of_a_command_and_the_version_are_as_light():
    for arguments in (("run", "--help"), ("--version",)):
        loaded, done = loaded_modules(*arguments)
        assert done.returncode == 0
        assert not loaded & {"torch", "dask", "distributed", "zarr", "h5py"}


def test_there_is_no_command_but_these():
    assert sorted(typer.main.get_command(app).commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_and_the_long_one_names_every_option(hpcxrf, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    short = hpcxrf(command, "--help")
    assert short.code == 0
    assert "Example" in short.out
    assert f"hpcxrf {command}" in short.out.split("Example")[1]
    parameters = typer.main.get_command(app).commands[command].params
    options = [p for p in parameters if p.param_type_name == "option"]
    hidden = [p for p in options if p.hidden]
    assert not [p for p in hidden if f" {p.opts[-1]} " in short.out]
    long = hpcxrf(command, "--help-all") if hidden else short
    assert long.code == 0
    for parameter in options:
        assert parameter.opts[-1] in long.out
        assert parameter.help, f"{command} {parameter.name}"


def test_the_short_help_of_a_run_names_the_few_options_that_most_need(hpcxrf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = hpcxrf("run", "--help").out
    few = ("elements", "energy", "pixels", "detectors", "workers", "device", "output", "set", "help", "help-all")
    assert sorted(set(re.findall(r" --([a-z-]+) ", text.split("Example")[0]))) == sorted(few)


def test_help_groups_the_commands_by_what_they_are_for(hpcxrf):
    text = hpcxrf("--help").out
    for panel, inside in (
        ("Maps on this machine", "run"),
        ("Single files", "inspect"),
        ("On a Slurm cluster", "submit"),
    ):
        assert inside in text.split(panel)[1].split("╰")[0]


def test_the_version_is_that_of_the_package(hpcxrf):
    import hpcxrf as package

    assert hpcxrf("--version").out.strip() == f"hpcxrf {package.__version__}"


def test_no_arguments_shows_the_help(hpcxrf):
    ran = hpcxrf()
    assert ran.code == 2
    assert "inspect" in ran.out + ran.err


@pytest.mark.parametrize("arguments", [("fitt", "x"), ("fit",), ("inspect", "x", "--jsno"), ("ingest", "x")])
def test_a_command_line_that_cannot_be_meant_is_exit_2(hpcxrf, arguments):
    ran = hpcxrf(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Usage" in ran.err


def test_python_m_hpcxrf_is_the_same_command():
    done = child("-m", "hpcxrf", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("hpcxrf ")


# inspect ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS)
def test_inspect_gives_the_totals_of_the_readme_of_the_data(hpcxrf, shared_data, name):
    shape, totals, energy = FACTS[name]
    ran = hpcxrf("inspect", shared_data / name, "--json")
    assert ran.code == 0, ran.err
    facts = ran.json
    assert tuple(facts["shape"]) == shape
    assert facts["total_counts"] == totals
    assert facts["incident_energy_kev"] == energy
    assert isinstance(facts["format"], str)
    assert 0.005 < facts["energy_slope_kev"] < 0.03
    assert abs(facts["energy_offset_kev"]) < 0.1


def test_inspect_of_mca_text_gives_four_detectors_and_no_energy(hpcxrf, shared_data):
    facts = hpcxrf("inspect", shared_data / "larch-srm1832" / "srm1832.mca", "--json").json
    assert facts["shape"] == [4, 1, 1, 2048]
    assert all(4.48e6 < total < 7.5e6 for total in facts["total_counts"])
    assert facts["incident_energy_kev"] is None
    assert facts["calibration"][0]["slope_kev"] == facts["energy_slope_kev"]


def test_inspect_says_the_same_to_people_on_standard_output(hpcxrf, shared_data):
    ran = hpcxrf("inspect", shared_data / "pixl-laguna" / "laguna.h5")
    assert ran.code == 0
    assert ran.err == ""
    for fact in ("60,369,725", "54,923,501", "25 x 25", "4096 channels", "unknown", "tube"):
        assert fact in ran.out


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("inspect",), {"torch", "dask", "distributed", "zarr", "xarray", "pandas", "matplotlib", "scipy"}),
        (("fit", "--elements", "Fe"), {"dask", "distributed", "zarr", "xarray", "pandas", "matplotlib", "scipy"}),
    ],
)
def test_a_command_on_one_file_loads_only_what_it_needs(shared_data, arguments, absent):
    loaded, done = loaded_modules(*arguments, str(shared_data / APS / "2xfm_0010.mda"), "--json")
    assert done.returncode == 0, done.stderr
    assert "numpy" in loaded
    assert not loaded & absent


def test_inspect_takes_what_an_array_file_does_not_say(hpcxrf, tmp_path):
    path = tmp_path / "cube.npy"
    np.save(path, np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6))
    ran = hpcxrf("inspect", path, "--energy-axis", 0, "--energy-offset", "-0.02", "--energy-slope", 0.1, "--json")
    assert ran.json["shape"] == [1, 5, 6, 4]
    assert ran.json["total_counts"] == [119 * 120 / 2]
    assert ran.json["energy_offset_kev"] == -0.02
    assert ran.json["energy_slope_kev"] == 0.1


# fit -------------------------------------------------------------------------------------------


def test_fit_gives_the_documented_keys_and_the_true_amplitudes(hpcxrf, scan, true_amplitude):
    facts = fitted(hpcxrf, scan, "--detector", 1)
    assert set(FIT_KEYS) <= facts.keys()
    assert facts["status"] == "converged"
    # The simulation hides it.
    assert [s["name"] for s in facts["suggested"]] == ["Se"]
    assert facts["detector"] == "1"
    assert 0.99 < facts["r2"] < 1.0
    assert 0.99 < facts["r2_expected"] < 1.0
    assert 0.5 < facts["reduced_chi2"] < 5.0
    assert facts["cpu_s"] > 0.0
    names = set(ELEMENTS.split(","))
    assert names < facts["amplitudes"].keys()
    assert facts["sigma"].keys() == facts["amplitudes"].keys() | facts["theta"].keys()
    for element in ("K", "Ca", "Fe"):
        found, true = facts["amplitudes"][element], true_amplitude[1][element]
        assert abs(found / true - 1.0) < 0.05
        assert 0.0 < facts["sigma"][element] < 0.05 * found


def test_the_energy_axis_of_a_fit_is_the_true_one(hpcxrf, scan):
    theta = fitted(hpcxrf, scan, "--detector", 1)["theta"]
    truth = read_truth(scan.with_name("leaf.truth.json")).theta[1]
    peak_kev = [t["energy_offset"] + 670 * t["energy_slope"] for t in (theta, truth)]
    assert abs(peak_kev[0] - peak_kev[1]) < 0.005


def test_a_fixed_parameter_has_no_sigma_and_json_says_null(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--json")
    assert "NaN" not in ran.out
    assert "Infinity" not in ran.out
    assert ran.json["sigma"]["step_offset"] is None
    assert ran.json["sigma"]["energy_slope"] > 0.0


def test_the_sum_of_detectors_has_the_sum_of_their_amplitudes(hpcxrf, scan, true_amplitude):
    facts = fitted(hpcxrf, scan, "--detector", "sum")
    assert len(facts["theta_by_detector"]) == 2
    for element in ("K", "Ca", "Fe"):
        true = sum(detector[element] for detector in true_amplitude)
        assert abs(facts["amplitudes"][element] / true - 1.0) < 0.05


def test_a_fit_for_people_is_on_standard_output_and_its_notes_are_not(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS)
    assert ran.code == 0
    for fact in ("R2", "amplitudes", "theta", "energy_slope", "Pb_L", "Suggested elements"):
        assert fact in ran.out
    assert "note: energy calibration from the scan file" in ran.err
    assert "note" not in ran.out


def test_a_fit_obeys_any_value_of_the_run_file_that_it_uses_and_refuses_the_others(hpcxrf, scan):
    facts = fitted(hpcxrf, scan, "--set", "fit.fixed=[fwhm_offset]", "--set", "fit.energy_range_kev=[1.5, 12]")
    assert facts["sigma"]["fwhm_offset"] is None
    for setting in ("pixels.method=nnls", "execution.workers=1", "benchmark.seed=1"):
        ran = hpcxrf("fit", scan, "--elements", "Fe", "--set", setting)
        assert ran.code == 2
        assert f"--set {setting.split('=')[0]}" in ran.err
        assert "input, sample, detector, fit" in ran.err


@pytest.mark.parametrize("given", ["2", "-1", "all"])
def test_a_detector_that_is_not_there_is_refused(hpcxrf, scan, given):
    ran = hpcxrf("fit", scan, "--elements", "Fe", f"--detector={given}")
    assert ran.code == 2
    assert str(scan) in ran.err
    assert repr(given) in ran.err
    assert "0 to 1" in ran.err


def write_override(path: Path, offset: float, slope: float, elements: str = "Ca, Fe") -> Path:
    path.write_text(
        "VERSION: 5.00\nDATE: 2024-01-01\nDETECTOR_ELEMENTS: 1\n"
        f"ELEMENTS_TO_FIT: {elements}\n"
        f"CAL_OFFSET_[E_OFFSET]: {offset}\nCAL_SLOPE_[E_LINEAR]: {slope}\n"
        "CAL_QUAD_[E_QUADRATIC]: 0.0\nCOHERENT_SCT_ENERGY: 13.5\n"
        "MAX_ENERGY_TO_FIT: 14.5\nMIN_ENERGY_TO_FIT: 1.2\n"
    )
    return path


def test_an_override_file_gives_elements_energy_range_and_calibration(hpcxrf, scan, tmp_path):
    override = write_override(tmp_path / "maps_fit_parameters_override.txt", 0.011, 0.00953)
    ran = hpcxrf("fit", scan, "--override", override, "--json")
    assert ran.code == 0, ran.err
    assert {"Ca", "Fe"} < ran.json["amplitudes"].keys()
    assert "Si" not in ran.json["amplitudes"]
    assert any("starting values from" in note for note in ran.json["notes"])
    low, high = (ran.json[f"{end}_channel"] * 0.00953 + 0.011 for end in ("first", "last"))
    assert abs(low - 1.2) < 0.05
    assert abs(high - 14.5) < 0.05


def test_an_override_of_none_is_no_file_and_auto_is_the_one_beside_the_scan(hpcxrf, scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "scan"
    beside.mkdir()
    for file in scan.parent.glob("leaf.h5*"):
        (beside / file.name).symlink_to(file)
    write_override(beside / "maps_fit_parameters_override.txt", 0.0, 0.00955)
    write_override(tmp_path / "none", 0.0, 0.00955)

    def notes(given):
        facts = fitted(hpcxrf, beside / scan.name, "--override", given, "--calibration", "file")
        return " | ".join(facts["notes"])

    assert "override" not in notes("none")
    assert "energy 13.5 keV from maps_fit_parameters_override.txt" in notes("auto")
    assert "energy 13.5 keV from none" in notes("./none")


@pytest.mark.parametrize("calibration", ["file", "override", "none"])
def test_every_start_of_the_calibration_ends_at_the_same_axis(hpcxrf, scan, tmp_path, calibration):
    override = write_override(tmp_path / "o.txt", 0.0, 0.00955)
    facts = fitted(hpcxrf, scan, "--override", override, "--calibration", calibration, "--energy", 13.5)
    said = {
        "file": "energy calibration from the scan file",
        "override": "starting values from o.txt",
        "none": "energy calibration determined from the spectrum",
    }
    assert said[calibration] in " | ".join(facts["notes"])
    assert abs(facts["theta"]["energy_offset"] + 670 * facts["theta"]["energy_slope"] - 6.39) < 0.01
    assert facts["r2"] > 0.99


def test_an_override_calibration_without_an_override_file_is_refused(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", "Fe", "--calibration", "override")
    assert ran.code == 2
    assert "maps_fit_parameters_override.txt" in ran.err
    assert str(scan) in ran.err


def test_the_published_method_reaches_the_same_amplitudes(hpcxrf, scan):
    ours = fitted(hpcxrf, scan)
    published = fitted(hpcxrf, scan, "--method", "adam")
    assert published["iterations"] == 500
    assert "adam minimises the mean square, as published" in published["notes"]
    assert published["r2"] <= ours["r2"] + 1e-4
    for element in ("K", "Ca", "Fe"):
        assert abs(published["amplitudes"][element] / ours["amplitudes"][element] - 1) < 0.15


def test_backgrounds_are_what_they_say(hpcxrf, scan):
    by_name = {name: fitted(hpcxrf, scan, "--background", name) for name in ("snip", "none")}
    hats = fitted(hpcxrf, scan)
    assert hats["r2"] >= by_name["snip"]["r2"] - 1e-3
    # without any background the continuum has nowhere to go
    assert by_name["none"]["reduced_chi2"] > 1.5 * hats["reduced_chi2"]


def test_the_fit_range_is_the_one_that_was_asked_for(hpcxrf, scan):
    facts = fitted(hpcxrf, scan, "--energy-range", 1.5, 12.0)
    energy = [
        facts["theta"]["energy_offset"] + facts["theta"]["energy_slope"] * facts[f"{end}_channel"]
        for end in ("first", "last")
    ]
    assert abs(energy[0] - 1.5) < 0.03
    assert abs(energy[1] - 12.0) < 0.03


def test_a_plot_is_a_picture(hpcxrf, scan, tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "fit.png"
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--plot", path)
    assert ran.code == 0, ran.err
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert min(width, height) > 300
    assert imread(path)[..., :3].std() > 0.02
    assert [file.name for file in tmp_path.iterdir()] == ["fit.png"]


def test_a_plot_into_no_folder_is_an_output_error(hpcxrf, scan, tmp_path):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--plot", tmp_path / "no" / "fit.png")
    assert ran.code == 4
    assert str(tmp_path / "no") in ran.err


# simulate, ingest ------------------------------------------------------------------------------


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


# run, report, doctor ---------------------------------------------------------------------------


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
    page.unlink()
    others = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    ran = hpcxrf("report", finished)
    assert ran.code == 0, ran.err
    assert str(page) in ran.err
    assert page.read_text().count("data:image/") >= 2
    assert "leaf-" in page.read_text()
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p != page}
    assert after == others


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


def test_a_command_refuses_by_name_a_section_that_it_does_not_act_on(hpcxrf, tmp_path, scan):
    ran = hpcxrf("fit", "--elements", "Fe", scan, "--set", "benchmark.start=wide")
    assert ran.code == 2
    assert "benchmark" in ran.err
    assert "hpcxrf fit" in ran.err


@pytest.mark.parametrize("command", ["run", "plan", "submit"])
def test_a_section_that_the_workload_does_not_use_is_refused_by_name(hpcxrf, tmp_path, scan, command):
    path = tmp_path / "run.yaml"
    path.write_text(f"input: {{files: ['{scan}']}}\nbenchmark: {{start: wide}}\npixels: {{method: nnls}}\n")
    more = {"run": ("-o", tmp_path / "out"), "submit": ("--site", "generic-cpu"), "plan": ()}[command]
    ran = hpcxrf(command, path, *more)
    assert ran.code == 2
    assert "pixels: a benchmark does not use this section" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_the_doctor_finds_this_installation_healthy():
    done = child("-m", "hpcxrf", "doctor", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    assert checks["ok"] is True
    names = {check["name"] for check in checks["checks"]}
    assert {"versions", "a fit", "a TLS cluster"} <= names
    assert all(check["found"] for check in checks["checks"])


def test_a_doctor_that_finds_a_fault_says_so_by_its_exit_code(hpcxrf, monkeypatch):
    from hpcxrf.cluster.login import doctor

    broken = {"ok": False, "checks": [{"name": "a fit", "ok": False, "found": "it is off"}]}
    monkeypatch.setattr(doctor, "examine", lambda site: broken)
    ran = hpcxrf("doctor")
    assert ran.code == 1
    assert "it is off" in ran.out
