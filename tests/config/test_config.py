"""Run files: what is refused, and how it is said."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.run import RunConfig, check_config, effective, load_run_file
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
        ("sample", {"source": "tube"}, "effective"),
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
    with pytest.raises(ConfigError, match=f"{objective} cannot be had of fit.method {method}.*mse"):
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


def test_the_commented_scan_file_shows_every_option_at_its_default():
    raw = yaml.safe_load((WORKFLOWS / "scan.yaml").read_text())
    shown = check_config(raw, "scan.yaml")
    assert dataclasses.replace(shown, input=RunConfig(input=shown.input).input) == RunConfig(input=shown.input)
    for section in dataclasses.fields(RunConfig):
        if section.name not in {"benchmark", "case_study"}:
            fields = {f.name for f in dataclasses.fields(getattr(shown, section.name))}
            assert set(raw[section.name]) == fields


def test_the_benchmark_file_shows_every_option_of_the_benchmark():
    raw = yaml.safe_load((WORKFLOWS / "benchmark.yaml").read_text())
    check_config(raw, "benchmark.yaml")
    assert set(raw["benchmark"]) == {f.name for f in dataclasses.fields(BenchmarkConfig)}


def test_the_case_study_file_shows_every_option_of_the_case_study_at_its_default_but_the_seed():
    raw = yaml.safe_load((WORKFLOWS / "case_study.yaml").read_text())
    shown = check_config(raw, "case_study.yaml").case_study
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
