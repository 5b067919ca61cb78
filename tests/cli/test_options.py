"""From a command line to a run configuration: options over a run file, `--set`, and what excludes each other."""

import json

import pytest
import yaml

from hpcxrf.cli import options
from hpcxrf.cli.options import build_config, name_output, read_request, read_settings
from hpcxrf.config.run import check_config, effective, workload_name
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.request import config_of_run, keep_configuration
from hpcxrf.store.rundir import create_or_resume

OPTIONS = {
    "elements": ("Si,Fe", ("sample", "elements"), ("Si", "Fe")),
    "energy": (12.5, ("sample", "incident_energy_kev"), 12.5),
    "energy_range": ((1.5, 9.0), ("fit", "energy_range_kev"), (1.5, 9.0)),
    "calibration": ("none", ("fit", "calibration"), "none"),
    "override": ("none", ("fit", "override"), "none"),
    "background": ("snip", ("fit", "background"), "snip"),
    "method": ("adam", ("fit", "method"), "adam"),
    "objective": ("l1", ("fit", "objective"), "l1"),
    "kbeta_sd": (0.15, ("fit", "kbeta_sd"), 0.15),
    "energy_sd": (0.1, ("fit", "incident_energy_sd_kev"), 0.1),
    "auto_elements": (True, ("fit", "auto_elements"), True),
    "suggest": (False, ("fit", "suggest"), False),
    "pixels": ("nnls", ("pixels", "method"), "nnls"),
    "detectors": ("sum", ("pixels", "detectors"), "sum"),
    "dataset_path": ("a/b", ("input", "dataset_path"), "a/b"),
    "energy_axis": (0, ("input", "energy_axis"), 0),
    "energy_offset": (0.0, ("input", "energy_offset_kev"), 0.0),
    "energy_slope": (0.01, ("input", "energy_slope_kev"), 0.01),
    "workers": (3, ("execution", "workers"), 3),
    "device": ("cpu", ("execution", "device"), "cpu"),
}


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "folder" / "run.yaml"
    path.parent.mkdir()
    path.write_text("# mine\ninput: {files: [a.mda]}\nsample: {elements: [Ca]}\nexecution: {workers: 2, threads: 1}\n")
    return path


def value_at(config, place):
    return getattr(getattr(config, place[0]), place[1])


@pytest.mark.parametrize("name", OPTIONS)
def test_every_named_option_replaces_its_value_of_the_run_file_and_no_other(run_file, name):
    given, place, value = OPTIONS[name]
    before, _ = read_request([run_file], {})
    config, text = read_request([run_file], {name: given})
    assert value_at(config, place) == value
    assert text == run_file.read_text()
    for other in OPTIONS.keys() - {name, "objective"}:
        if name != other:
            assert value_at(config, OPTIONS[other][1]) == value_at(before, OPTIONS[other][1])


@pytest.mark.parametrize("name", OPTIONS)
def test_the_run_file_of_options_says_the_same_as_they_do(tmp_path, name):
    given, place, value = OPTIONS[name]
    config, text = read_request([tmp_path / "a.mda"], {name: given})
    assert value_at(config, place) == value
    assert check_config(yaml.safe_load(text), "again") == config


def test_a_named_option_and_a_setting_of_its_place_are_refused_by_their_names(run_file):
    with pytest.raises(ConfigError, match=r"--energy-sd and --set fit\.incident_energy_sd_kev"):
        read_request([run_file], {"energy_sd": 0.2, "settings": ["fit.incident_energy_sd_kev=0.2"]})


def test_the_scans_of_a_command_line_cannot_be_set_a_second_time(tmp_path):
    with pytest.raises(ConfigError, match=r"the scans and --set input\.files"):
        read_request([tmp_path / "a.mda"], {"settings": ["input.files=[b.mda]"]})


def test_scans_after_a_run_file_replace_its_own(run_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, _ = read_request([run_file, tmp_path / "b.mda", tmp_path / "c" / "*.h50"], {})
    assert config.input.files == (str(tmp_path / "b.mda"), str(tmp_path / "c" / "*.h50"))
    assert config.sample.elements == ("Ca",)


@pytest.mark.parametrize("names", [("b.mda", "run.yaml"), ("run.yaml", "other.yml")])
def test_a_second_run_file_or_one_after_scans_is_refused(tmp_path, names):
    with pytest.raises(ConfigError, match="give one run file, first"):
        read_request([tmp_path / name for name in names], {})


def test_an_earlier_fit_that_is_named_is_where_the_calibration_starts(run_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parameters in ({"previous": "x.zarr"}, {"previous": "x.zarr", "calibration": "auto"}):
        config, _ = read_request([run_file], parameters)
        assert (config.fit.calibration, config.fit.previous) == ("previous", str(tmp_path / "x.zarr"))
    with pytest.raises(ConfigError, match="go together"):
        read_request([run_file], {"previous": "x.zarr", "calibration": "file"})


def test_a_wrong_value_is_refused_with_the_options_that_were_given(run_file):
    with pytest.raises(ConfigError) as error:
        read_request([run_file], {"detectors": "all", "settings": ["fit.kbeta_sd=-1"]})
    text = str(error.value)
    assert f"{run_file} with --detectors, --set fit.kbeta_sd: not a valid run file:" in text
    assert "pixels.detectors" in text
    assert "fit.kbeta_sd" in text


def test_a_workload_is_chosen_by_a_setting_too(run_file):
    config, _ = read_request([run_file], {"settings": ["benchmark.start=wide"]})
    assert workload_name(config) == "benchmark"
    assert config.benchmark.start == "wide"


def test_values_of_none_are_not_given(tmp_path):
    config, text = build_config([tmp_path / "a.mda"], {"execution": {"workers": None}, "fit": {"method": "adam"}})
    assert config.execution.workers is None
    assert yaml.safe_load(text) == {"input": {"files": [str(tmp_path / "a.mda")]}, "fit": {"method": "adam"}}
    assert read_settings({"workers": None, "settings": None, "output": "out"}) == []


def test_a_run_directory_is_named_after_the_run_file():
    from pathlib import Path

    assert name_output([Path("folder/archive.yaml")]) == Path("archive-run")


def test_elements_are_split_at_commas():
    assert options.split_elements(" Si,Fe, Pt_L ,") == ["Si", "Fe", "Pt_L"]
    assert options.split_elements(None) is None


def test_the_execution_of_the_command_line_is_that_of_the_run_directory(run_file, tmp_path):
    def keep(parameters):
        config, text = read_request([run_file], parameters)
        run = create_or_resume(tmp_path / "out", text, effective(config))
        keep_configuration(run, config)
        assert run.run_file.read_text() == run_file.read_text()
        # What it keeps is a run file that says the same from any folder.
        assert read_request([run.configuration_file], {})[0] == config
        return config_of_run(run)[0].execution

    assert keep({"workers": 5}).workers == 5
    # The same run under another command: what changes no result may change.
    assert keep({"settings": ["execution.datasets_in_flight=3"]}).datasets_in_flight == 3


def test_a_run_directory_of_the_first_version_has_the_execution_of_its_run_file(run_file, tmp_path):
    config, text = read_request([run_file], {})
    run = create_or_resume(tmp_path / "out", text, effective(config))
    assert not run.configuration_file.exists()
    assert config_of_run(run)[0] == config
    assert json.loads(run.effective_file.read_text()).keys() == effective(config).keys()
