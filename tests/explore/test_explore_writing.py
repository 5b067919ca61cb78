"""What is written out of the explorer: read back to the last bit, accepted by `hpcxrf plan`, and the same in a run."""

import csv
import io
import json
import shlex

import pytest
import yaml
from explore_runs import FILM, SmallRun, copy_run, film_run, glass_run, make_run
from test_fits_of_runs import Fitter
from test_fits_requests import ROWS

from hpcxrf.config.run import check_config, load_run_file
from hpcxrf.config.settings import apply_settings, parse_setting
from hpcxrf.errors import ConfigError
from hpcxrf.explore.requests import read_request
from hpcxrf.explore.run_facts import open_run_facts, read_run_fit
from hpcxrf.explore.writing import describe_command, list_given, write_fit
from hpcxrf.formats.override import read_override, theta_values

TRIANGLE = [[0.5, 0.5], [0.5, 8.25], [9.0, 3.0]]


@pytest.fixture(scope="module")
def film(shared_data):
    made = film_run(shared_data)
    return open_run_facts(made.run_dir, made.dataset_id)


@pytest.fixture(scope="module")
def glass(shared_data):
    made = glass_run(shared_data)
    return open_run_facts(made.run_dir, made.dataset_id)


def changed(fit, elements=(), **rows):
    """A fit with more elements and rows of theta that are other ones."""
    return {
        **fit,
        "id": "abc123",
        "elements": [*fit["elements"], *elements],
        "parameters": [{**row, **rows.get(row["name"], {})} for row in fit["parameters"]],
    }


def values(fit):
    return {row["name"]: row["value"] for row in fit["parameters"]}


@pytest.mark.parametrize("detector", ["0", "3", "sum"])
def test_an_override_file_reads_back_to_the_last_bit(film, tmp_path, detector):
    fit = read_run_fit(film, detector)
    written = write_fit({"kind": "override", "fit": "x"}, fit, film)
    assert written["file_name"] == "maps_fit_parameters_override.txt" + ("" if detector == "sum" else detector)
    (tmp_path / written["file_name"]).write_text(written["text"])
    read = read_override(tmp_path / written["file_name"])
    theta = values(fit)
    back = theta_values(read, law=3.58, target=film.facts.width_factor)
    assert len(back) == 21
    assert back == {name: theta[name] for name in back}
    assert read.elements == tuple(fit["elements"])


def test_an_override_file_of_no_fit_is_refused(film):
    with pytest.raises(ConfigError, match="an override file is that of a fit; choose one of the history"):
        write_fit({"kind": "override"}, None, film)


def test_pile_up_has_its_own_line(film, tmp_path):
    fit = changed(read_run_fit(film, "0"), ["Ca_Ca"])
    (tmp_path / "o").write_text(write_fit({"kind": "override"}, fit, film)["text"])
    assert read_override(tmp_path / "o").pileup == ("Ca_Ca",)


def test_a_new_run_file_is_the_old_one_with_the_changes(glass, tmp_path):
    fit = changed(
        read_run_fit(glass, "2"),
        ["W_L"],
        fwhm_offset={"free": False, "value": 0.16},
        escape_factor={"free": True},
        compton_angle={"upper": 150.0},
    )
    request = {"kind": "run_file", "fit": "abc123", "regions": [{"name": "a", "polygon": TRIANGLE}]}
    written = write_fit(request, fit, glass)
    file = tmp_path / written["file_name"]
    file.write_text(written["text"])
    config, _ = load_run_file(file)
    before = glass.config
    assert config.input == before.input
    assert config.sample.elements == (*before.sample.elements, "W_L")
    assert config.sample.incident_energy_kev == 12.5
    assert config.regions.polygons == {"a": tuple(map(tuple, TRIANGLE))}
    assert config.fit.energy_range_kev == (1.0, 13.5)
    assert config.fit.fixed == ("fwhm_offset",)
    assert config.fit.free == ("escape_factor",)
    assert config.fit.parameters["compton_angle"].upper == 150.0
    assert config.fit.start["fwhm_offset"] == 0.16
    assert set(config.fit.start) == {"fwhm_offset"}
    # Each of the four detectors has an energy axis of its own.
    assert not {"energy_offset", "energy_slope", "coherent_sct_energy"} & set(config.fit.start)
    assert "the energy axis is left out of fit.start" in written["text"]
    assert written["command"] == f"hpcxrf plan {file.name} && hpcxrf run {file.name} -o {glass.dataset_id}-new-run"


def test_hpcxrf_plan_takes_the_new_run_file(film, tmp_path, hpcxrf):
    fit = changed(read_run_fit(film, "1"), ["La_L"])
    written = write_fit({"kind": "run_file", "regions": [{"name": "a", "polygon": TRIANGLE}]}, fit, film)
    file = tmp_path / written["file_name"]
    file.write_text(written["text"])
    ran = hpcxrf("plan", file, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["datasets"] == 1


def test_a_run_of_the_new_file_gives_the_fit_of_the_explorer(film, tmp_path):
    fitter = Fitter(SmallRun(run_dir=film.run_dir, dataset_id=film.dataset_id))
    held = {"f_tail_offset": {"mode": "fix", "value": 0.03}}
    fit = fitter.fit(elements=[*FILM, "La_L"], theta=held)
    raw = yaml.safe_load(write_fit({"kind": "run_file"}, {**fit, "start": {"f_tail_offset": 0.03}}, film)["text"])
    assert raw["fit"] == {"start": {"f_tail_offset": 0.03}, "fixed": ["f_tail_offset"]}
    other = make_run(
        tmp_path / "run",
        raw["input"]["files"][0],
        stages=("ingest", "integrated"),
        sample=raw["sample"],
        fit=raw["fit"],
    )
    stored = read_run_fit(open_run_facts(other.run_dir, other.dataset_id), "0")
    assert values(stored)["f_tail_offset"] == 0.03
    ours = {row["name"]: row for row in fit["amplitudes"]}
    assert [row["name"] for row in stored["amplitudes"]] == list(ours)
    for row in stored["amplitudes"]:
        # A search from another start ends within a tenth of a standard deviation.
        assert abs(row["amplitude"] - ours[row["name"]]["amplitude"]) < 0.1 * row["sigma"], row["name"]


def test_what_was_moved_by_hand_is_a_start_and_all_of_theta_where_that_is_wanted(glass, film):
    fit = {**changed(read_run_fit(glass, "2")), "start": {"compton_angle": 100.0, "energy_offset": 0.01}}
    theta = values(fit)
    lines = yaml.safe_load(write_fit({"kind": "section"}, fit, glass)["text"])
    # Fitted from there; the start of the next run is where that ended.
    assert lines["fit"] == {"start": {"compton_angle": theta["compton_angle"]}}
    assert "fit" not in yaml.safe_load(write_fit({"kind": "section", "theta": "none"}, fit, glass)["text"])
    every = yaml.safe_load(write_fit({"kind": "section", "theta": "all"}, fit, glass)["text"])["fit"]["start"]
    free = {row["name"] for row in fit["parameters"] if row["free"]}
    assert set(every) == free - {"energy_offset", "energy_slope", "energy_quadratic", "coherent_sct_energy"}
    assert every == {name: theta[name] for name in every}
    with pytest.raises(ConfigError, match="theta is 'some'; give needed, all, none"):
        write_fit({"kind": "section", "theta": "some"}, fit, film)


def test_the_lines_of_a_section_are_yaml_and_options_that_say_the_same(film):
    fit = changed(read_run_fit(film, "0"), ["La_L"], fwhm_offset={"free": False, "value": 0.12})
    written = write_fit({"kind": "section", "regions": [{"name": "a b", "polygon": TRIANGLE}]}, fit, film)
    lines = yaml.safe_load(written["text"])
    assert set(lines) == {"sample", "fit", "regions"}
    assert lines["regions"] == {"polygons": {"a b": TRIANGLE}}
    words = shlex.split(written["command"])
    settings = [parse_setting(words[i + 1]) for i, word in enumerate(words) if word == "--set"]
    assert apply_settings({}, settings) == lines


def test_of_a_sum_the_elements_are_written_and_theta_is_not(film):
    written = write_fit({"kind": "section"}, changed(read_run_fit(film, "sum"), ["La_L"]), film)
    assert set(yaml.safe_load(written["text"])) == {"sample"}
    assert "theta of the sum is the mean of its detectors" in written["text"]


def test_regions_alone_change_nothing_else(film):
    written = write_fit({"kind": "run_file", "regions": [{"name": "a", "polygon": TRIANGLE}]}, None, film)
    raw = yaml.safe_load(written["text"])
    config = check_config(raw, "test")
    assert config.sample == film.config.sample
    assert config.fit == film.config.fit
    # The region of the run stays.
    assert set(config.regions.given) == {"corner", "a"}


def test_what_is_given_of_a_run_file_is_the_whole_of_it(film, glass):
    for opened in (film, glass):
        assert check_config(list_given(opened.config), "test") == opened.config


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "pdf"}, "kind is 'pdf'; give override, run_file, section, regions"),
        ({"kind": "regions"}, "no region is drawn; draw one first"),
        ({"kind": "run_file", "regions": "a"}, "regions is not a list"),
        ({"kind": "run_file", "regions": [{"polygon": TRIANGLE}]}, "a region has no name; give each a name"),
        ({"kind": "run_file", "regions": [{"name": "a", "polygon": TRIANGLE[:2]}]}, "'a': polygon must be at least 3"),
        ({"kind": "run_file", "regions": [{"name": "a", "polygon": [[0, 1], [2, 3], [4, float("nan")]]}]}, "draw it"),
        ({"kind": "run_file", "regions": [{"name": "a", "polygon": TRIANGLE}] * 2}, "two regions are called 'a'"),
        ({"kind": "run_file", "regions": [{"name": "corner", "polygon": TRIANGLE}]}, "several are called 'corner'"),
        ({"kind": "run_file", "regions": [{"name": "phase-1", "polygon": TRIANGLE}]}, "is reserved for regions"),
    ],
)
def test_a_fault_is_said_with_its_remedy(film, request_, said):
    with pytest.raises(ConfigError) as error:
        write_fit(request_, None, film)
    assert said in str(error.value)


def test_regions_are_a_table_that_no_spreadsheet_takes_for_formulas(film):
    regions = [{"name": "=1+1", "polygon": TRIANGLE}, {"name": 'a,"b"', "polygon": TRIANGLE}]
    written = write_fit({"kind": "regions", "regions": regions}, None, film)
    rows = list(csv.reader(io.StringIO(written["text"])))
    assert rows[0] == ["region", "corner", "y", "x"]
    assert rows[1] == ["'=1+1", "1", "0.5", "0.5"]
    assert rows[4][0] == 'a,"b"'
    assert [[float(row[2]), float(row[3])] for row in rows[4:]] == TRIANGLE


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, {}),
        ({"elements": ["Fe", "Ca"]}, {"sample": {"elements": ["Fe", "Ca"]}}),
        (
            {"theta": {"fwhm_offset": {"mode": "fix", "value": 0.12}}},
            {"fit": {"start": {"fwhm_offset": 0.12}, "fixed": ["fwhm_offset"]}},
        ),
        (
            {"theta": {"step_offset": {"mode": "fit", "upper": 0.05}}},
            {"fit": {"free": ["step_offset"], "parameters": {"step_offset": {"upper": 0.05}}}},
        ),
        ({"selection": {"kind": "pixel", "y": 3, "x": 4}}, {"regions": {"rectangles": {"selection": [3, 4, 4, 5]}}}),
        (
            {"selection": {"kind": "box", "y": [1, 3], "x": [2, 5]}},
            {"regions": {"rectangles": {"selection": [1, 3, 2, 5]}}},
        ),
        ({"selection": {"kind": "polygon", "points": TRIANGLE}}, {"regions": {"polygons": {"selection": TRIANGLE}}}),
    ],
)
def test_the_command_of_a_fit_says_what_was_clicked(film, request_, said):
    request = read_request({"detector": "0", **request_}, film.facts)
    words = shlex.split(describe_command(film, request))
    assert words[:2] == ["hpcxrf", "run"]
    settings = [parse_setting(words[i + 1]) for i, word in enumerate(words) if word == "--set"]
    assert json.loads(json.dumps(apply_settings({}, settings))) == said
    # A run file that the options go with.
    load_run_file(film.run_dir / "configuration.yaml", settings)


def test_amplitudes_and_a_focus_are_calls_of_the_library(film):
    theta = {"fwhm_offset": {"value": 0.12}}
    request = read_request({"detector": "0", "kind": "amplitudes", "theta": theta}, film.facts)
    assert describe_command(film, request) == "hpcxrf.fit_amplitudes(counts, fit, theta={'fwhm_offset': 0.12})"
    request = read_request({"detector": "0", "focus": ["Fe"]}, film.facts)
    assert describe_command(film, request) == "hpcxrf.fit_amplitudes(counts, fit, only=['Fe'])"


def test_the_table_that_the_requests_are_tested_with_is_that_of_a_run(film):
    assert [set(row) for row in film.facts.parameters["0"]] == [set(row) for row in ROWS]


def test_writing_changes_no_file(shared_data, tmp_path):
    small = copy_run(glass_run(shared_data), tmp_path / "run")
    before = small.hashes()
    opened = open_run_facts(small.run_dir, small.dataset_id)
    for kind in ("override", "run_file", "section"):
        write_fit({"kind": kind}, read_run_fit(opened, "0"), opened)
    assert small.hashes() == before
    assert not (small.run_dir / "explore").exists()
