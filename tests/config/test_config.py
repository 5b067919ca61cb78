"""Run files: what is refused, and how it is said."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.run import RunConfig, check_config, effective, load_run_file, workload_name
from hpcxrf.config.settings import Setting, parse_setting
from hpcxrf.errors import ConfigError

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


def test_the_smallest_run_file_names_files_and_nothing_else():
    config = check_config({"input": {"files": ["a.mda"]}}, "x.yaml")
    assert config.input.files == ("a.mda",)
    assert config.fit.background == "hats"


def test_all_faults_are_reported_at_once_with_their_places_and_values():
    raw = {
        "input": {"files": ["a"], "fiels": 1},
        "fit": {"background": "hat"},
        "pixels": {"deviance": "maybe", "background_columns": -1},
    }
    with pytest.raises(ConfigError) as error:
        check_config(raw, "x.yaml")
    text = str(error.value)
    for part in ("x.yaml", "input.fiels", "fit.background", "'hat'", "pixels.deviance", "pixels.background_columns"):
        assert part in text


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("fit", {"energy_range_kev": [11.0, 1.0]}, "must rise"),
        ("fit", {"fixed": ["gamma_offset"], "free": ["gamma_offset"]}, "both name gamma_offset"),
        ("fit", {"calibration": "previous"}, "go together"),
        ("fit", {"previous": "results/x.zarr"}, "go together"),
        ("fit", {"incident_energy_sd_kev": 0.0}, "greater than 0"),
        ("fit", {"parameters": {"gamma_offset": {"lowr": 1.0}}}, "lowr"),
        ("sample", {"elements": ["Fe", "Zn", "Fe"]}, "more than once: Fe"),
        ("sample", {"source": "tube", "anode": "Rh"}, "sample.tube_kv"),
        ("sample", {"incident_energy_kev": -3}, "greater than 0"),
        ("sample", {"incident_energy_kev": float("nan")}, "finite"),
    ],
)
def test_what_contradicts_itself_is_refused(section, values, said):
    with pytest.raises(ConfigError, match=said):
        check_config({"input": {"files": ["a"]}, section: values}, "x.yaml")


@pytest.mark.parametrize("method", ["adam", "sbplx"])
@pytest.mark.parametrize("objective", ["poisson", "l1"])
def test_the_published_methods_have_the_published_objective_only(method, objective):
    raw = {"input": {"files": ["a"]}, "fit": {"method": method, "objective": objective}}
    with pytest.raises(ConfigError, match=f"'{objective}' is not available with fit.method '{method}'.*mse"):
        check_config(raw, "x.yaml")
    raw["fit"]["objective"] = "mse"
    assert check_config(raw, "x.yaml").fit.objective == "mse"


@pytest.mark.parametrize(("method", "objective"), [("separable", "poisson"), ("adam", "mse"), ("sbplx", "mse")])
def test_the_objective_that_is_not_named_is_that_of_the_method(method, objective):
    raw = {"input": {"files": ["a"]}, "fit": {"method": method}}
    config = check_config(raw, "x.yaml")
    assert config.fit.objective == objective
    assert effective(config)["fit"]["objective"] == objective
    assert raw == {"input": {"files": ["a"]}, "fit": {"method": method}}


def test_no_files_are_refused():
    with pytest.raises(ConfigError, match="name at least one file"):
        check_config({"input": {"files": []}}, "x.yaml")


def test_a_yes_is_a_yes_and_a_no_is_a_no():
    # argparse's type=bool made True of "False"; YAML's false and the word both mean it here.
    for word, value in ((False, False), ("false", False), (True, True), ("no", False)):
        config = check_config({"input": {"files": ["a"]}, "pixels": {"deviance": word}}, "x")
        assert config.pixels.deviance is value


def test_files_are_relative_to_the_run_file(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "run.yaml"
    path.write_text("input: {files: [../a.mda, '*.h50']}\n")
    config, text = load_run_file(path)
    assert config.input.files == (str(tmp_path / "sub/../a.mda"), str(tmp_path / "sub/*.h50"))
    assert text == path.read_text()


@pytest.mark.parametrize("text", ["input: [", "\x00", "!!python/object/apply:os.system [ls]"])
def test_a_file_that_is_no_plain_yaml_is_refused_by_name(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run_file(path)


def test_a_missing_run_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load_run_file(tmp_path / "nowhere.yaml")


def test_the_effective_configuration_leaves_out_what_changes_no_result():
    one = check_config({"input": {"files": ["a"]}, "execution": {"workers": 1}}, "x")
    two = check_config({"input": {"files": ["a"]}, "execution": {"workers": 2}}, "x")
    assert effective(one) == effective(two)
    assert json.loads(json.dumps(effective(one))) == effective(one)


INPUT = {"input": {"files": ["a"]}}


@pytest.mark.parametrize(
    ("section", "workload"), [("pixels", "scan"), ("benchmark", "benchmark"), ("case_study", "case-study")]
)
def test_the_section_of_a_run_file_chooses_the_workload(section, workload):
    for values in ({}, None):
        assert workload_name(check_config({**INPUT, section: values}, "x")) == workload


def test_the_effective_configuration_holds_the_sections_of_the_workload_and_no_other():
    scan = {"input", "sample", "detector", "detectors", "fit", "pixels", "regions", "normalise", "quantify", "report"}
    scan |= {"groups"}
    assert effective(check_config(INPUT, "x")).keys() == scan
    benchmark = effective(check_config({**INPUT, "benchmark": {"seed": 3}}, "x"))
    others = {"normalise", "quantify", "report"}
    assert benchmark.keys() == scan - others - {"detectors", "pixels", "regions"} | {"benchmark"}
    assert benchmark["benchmark"]["seed"] == 3
    study = effective(check_config({**INPUT, "case_study": {"trials": 2}}, "x"))
    assert study.keys() == scan - others - {"groups"} | {"case_study"}
    for plain in (benchmark, study):
        assert effective(check_config(plain, "again")) == plain


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"benchmark": {}, "case_study": {}}, "case_study and benchmark: a run file has one of them"),
        ({"benchmark": {}, "pixels": {"method": "nnls"}}, "pixels: a benchmark does not use"),
        ({"benchmark": None, "regions": {}}, "regions: a benchmark does not use"),
    ],
)
def test_a_section_that_the_workload_does_not_use_is_refused_by_name(sections, named):
    with pytest.raises(ConfigError, match=named):
        check_config({**INPUT, **sections}, "x.yaml")


def test_a_command_of_one_workload_gives_its_section_and_refuses_that_of_another(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("input: {files: [a.mda]}\n")
    assert workload_name(load_run_file(path, workload="benchmark")[0]) == "benchmark"
    path.write_text("input: {files: [a.mda]}\ncase_study:\n")
    assert workload_name(load_run_file(path, workload="case-study")[0]) == "case-study"
    with pytest.raises(ConfigError, match=r"run\.yaml: describes a case-study, not a benchmark"):
        load_run_file(path, workload="benchmark")


# Values of the command line -----------------------------------------------------------------------


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "folder" / "run.yaml"
    path.parent.mkdir()
    path.write_text(
        "input: {files: [a.mda]}\nfit: {kbeta_sd: 0.1, start: {compton_angle: 90}}\nexecution: {workers: 2}\n"
    )
    return path


def test_a_value_of_the_command_line_replaces_that_of_the_file_and_leaves_its_neighbours(run_file):
    settings = [parse_setting(t) for t in ("fit.kbeta_sd=0.25", "fit.start.energy_offset=0.01", "detector.material=Ge")]
    config, text = load_run_file(run_file, settings)
    assert config.fit.kbeta_sd == 0.25
    assert config.fit.start == {"compton_angle": 90.0, "energy_offset": 0.01}
    assert config.detector.material == "Ge"
    assert config.execution.workers == 2
    assert text == run_file.read_text()


def test_the_value_of_a_setting_is_yaml():
    values = {"sample.elements=[Si, Fe]": ["Si", "Fe"], "fit.suggest=no": False, "fit.previous=null": None}
    for text, value in values.items():
        assert parse_setting(text).value == value
    assert parse_setting("fit.override=a=b.txt").value == "a=b.txt"


@pytest.mark.parametrize("text", ["workers=3", "fit.kbeta_sd", "=1", "fit.=1", ".fit=1", "fit.start={a"])
def test_what_is_no_setting_is_refused_with_the_form_that_one_has(text):
    with pytest.raises(ConfigError, match="--set") as error:
        parse_setting(text)
    assert text in str(error.value)


def test_paths_of_the_command_line_are_relative_to_the_working_directory(run_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [
        parse_setting("input.files=[b.mda, /c.mda]"),
        parse_setting("fit.override=o.txt"),
        parse_setting("regions.labels.leaf=leaf.npy"),
    ]
    config, _ = load_run_file(run_file, settings)
    assert config.input.files == (str(tmp_path / "b.mda"), "/c.mda")
    assert config.fit.override == str(tmp_path / "o.txt")
    assert config.regions.labels == {"leaf": str(tmp_path / "leaf.npy")}
    assert load_run_file(run_file, [parse_setting("fit.override=none")])[0].fit.override == "none"


@pytest.mark.parametrize(
    "texts", [("fit.kbeta_sd=1", "fit.kbeta_sd=1"), ("fit.start={}", "fit.start.compton_angle=80")]
)
def test_two_values_for_one_place_are_refused_by_their_options(run_file, texts):
    with pytest.raises(ConfigError) as error:
        load_run_file(run_file, [parse_setting(text) for text in texts])
    for text in texts:
        assert f"--set {text.split('=')[0]}" in str(error.value)


def test_a_setting_and_a_named_option_of_one_place_are_refused_by_name(run_file):
    settings = [
        Setting(place=("execution", "workers"), value=1, origin="--workers"),
        parse_setting("execution.workers=1"),
    ]
    with pytest.raises(ConfigError, match=r"--workers and --set execution\.workers: both set execution\.workers"):
        load_run_file(run_file, settings)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("fit.kbeta=1", "fit.kbeta_sd"),
        ("fit.air_path_mm=1", "detector.air_path_mm"),
        ("fitt.kbeta_sd=1", "fit"),
        ("benchmark.adam_step=1", "benchmark.adam_steps"),
        ("sample.element=[Fe]", "sample.elements"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(run_file, given, near):
    with pytest.raises(ConfigError) as error:
        load_run_file(run_file, [parse_setting(given)])
    assert str(error.value).startswith(f"{run_file} with --set {given.split('=')[0]}: not a valid run file:")
    assert f"unknown; did you mean {near}?" in str(error.value)
    raw = {**INPUT, given.split(".")[0]: {given.split(".")[1].split("=")[0]: 1}}
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        check_config(raw, "x.yaml")


def test_elements_without_brackets_are_refused_with_the_form_of_a_list(run_file):
    with pytest.raises(ConfigError, match=r"sample\.elements.*'Si,Fe'.*write a list, as \[Si, Fe\]"):
        load_run_file(run_file, [parse_setting("sample.elements=Si,Fe")])


def test_the_commented_scan_file_shows_every_option_at_its_default():
    raw = yaml.safe_load((WORKFLOWS / "scan.yaml").read_text())
    shown = check_config(raw, "scan.yaml")
    assert dataclasses.replace(shown, input=RunConfig(input=shown.input).input) == RunConfig(input=shown.input)
    for section in dataclasses.fields(RunConfig):
        if section.name in {"benchmark", "case_study"}:
            assert section.name not in raw
        elif section.name == "groups":
            assert raw["groups"] == []
        else:
            fields = {f.name for f in dataclasses.fields(getattr(shown, section.name))}
            assert set(raw[section.name]) == fields


def test_the_benchmark_file_shows_every_option_of_the_benchmark():
    raw = yaml.safe_load((WORKFLOWS / "benchmark.yaml").read_text())
    check_config(raw, "benchmark.yaml")
    assert set(raw["benchmark"]) == {f.name for f in dataclasses.fields(BenchmarkConfig)}


def test_the_case_study_file_shows_every_option_of_the_case_study_at_its_default_but_the_seed():
    raw = yaml.safe_load((WORKFLOWS / "case_study.yaml").read_text())
    shown = check_config(raw, "case_study.yaml").case_study
    assert shown is not None
    assert set(raw["case_study"]) == {f.name for f in dataclasses.fields(CaseStudyConfig)}
    assert dataclasses.replace(shown, seed=0) == CaseStudyConfig()


def test_paths_of_the_fit_are_relative_to_the_run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "input: {files: [a.mda]}\nfit: {calibration: previous, previous: results/x.zarr, override: o.txt}\n"
    )
    config, _ = load_run_file(path)
    assert config.fit.previous == str(tmp_path / "results/x.zarr")
    assert config.fit.override == str(tmp_path / "o.txt")


def test_the_demo_file_fits_what_the_demo_command_fits():
    from hpcxrf.simulate import demo_spec

    config = check_config(yaml.safe_load((WORKFLOWS / "demo.yaml").read_text()), "demo.yaml")
    assert config.sample.elements == tuple(demo_spec(seed=7).listed_elements)
