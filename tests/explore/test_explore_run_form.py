"""The form of a run file and its text: in step, whatever is changed where, and every fault beside its option."""

import dataclasses
import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.config.run import RunConfig, check_config
from hpcxrf.config.settings import resolve_paths
from hpcxrf.errors import ConfigError
from hpcxrf.explore.given import dump_sections, list_given
from hpcxrf.explore.run_fields import describe_form, list_fields, list_sections
from hpcxrf.explore.run_text import NEW, check_text, describe_text, edit_text, find_places
from tests.cluster.drills import ROOT

BEGUN = "# of the leaf\n# second line\ninput:\n  files: [leaf.mda]\n"
PLACES = sorted(list_fields())
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["yes", "null", "~", "1e5", "1.75e5", "0x10", "12:30", "a: b", "# a", "- a", "[", "2.96", "", " a ", "2026-01-01"]
)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
# A valid value that is not the default, of options whose choices and limits do not give one.
EXAMPLES = {
    "input.files": ["b.mda", "c d.mda"],
    "input.catalogue": "archive.sqlite",
    "input.where": "shape_y > 100",
    "input.dataset_path": ["a/b", "c"],
    "input.map_shape": [3, 4],
    "input.positions": ["x", "y"],
    "sample.elements": ["Si", "Pt_L"],
    "sample.elements_table": "elements.csv",
    "sample.anode": "Rh",
    "sample.tube_filters_um": {"Be": 125.0},
    "detectors.exclude": [1, 2],
    "fit.energy_range_kev": [1.0, 11.5],
    "fit.previous": "results/a.zarr",
    "fit.override": "my override: 3.txt",
    "fit.parameters": {"energy_offset": {"lower": -1, "prior_sd": 0.5}},
    "fit.start": {"compton_angle": 90},
    "fit.fixed": ["energy_quadratic"],
    "fit.free": ["step_offset"],
    "regions.rectangles": {"vein": [0, 25, 10, 35]},
    "regions.polygons": {"leaf": [[0, 0], [0, 90], [40.5, 50]]},
    "regions.labels": {"tissue": "labels.npy"},
    "regions.thresholds": {"copper": {"component": "Cu", "above": 20}},
    "normalise.live_time": 0.25,
    "normalise.i0": "us_ic",
    "normalise.i0_clock": "b:A",
    "normalise.reference": 175000,
    "normalise.site": "generic-cpu",
    "normalise.scalers": {"us_ic": {"pvs": ["b:B"], "clock": ["b:A"], "clock_hz": 1e7}},
    "quantify.standards": ["axo_std.mda"],
    "quantify.table": "standards.yaml",
    "quantify.elements": ["Fe"],
    "quantify.relative_error": 0.25,
    "quantify.layer": {"matrix": "fitted", "formula": "SiO2"},
    "benchmark.datasets": {"sbplx": 3},
    "case_study.size": [16, 24],
}
OF_CATALOGUE = {"input.catalogue": "archive.sqlite", "input.files": []}
NEEDED = {
    "input.catalogue": OF_CATALOGUE,
    "input.where": OF_CATALOGUE,
    "sample.elements_table": OF_CATALOGUE,
    "sample.anode": {"sample.source": "tube", "sample.tube_kv": 50},
    "sample.tube_kv": {"sample.source": "tube", "sample.anode": "Rh"},
    "sample.tube_filters_um": {"sample.source": "tube", "sample.anode": "Rh", "sample.tube_kv": 50},
    "fit.previous": {"fit.calibration": "previous"},
    "fit.calibration": {"fit.calibration": "file"},
    "regions.remap": {"regions.remap": "nnls"},
    **{
        f"normalise.{key}": {"normalise.i0": "us_ic", "normalise.reference": 1e5}
        for key in ("i0", "i0_kind", "i0_clock", "i0_clock_hz", "reference")
    },
    **{
        f"quantify.{key}": {"quantify.standards": ["a.mda"], "normalise.live_time": "auto", "quantify.allow": ["no_i0"]}
        for key in ("standards", "table", "elements", "layer")
    },
}


def example(place):
    """A valid value that is not the default."""
    field = list_fields()[place]
    if place in EXAMPLES:
        return EXAMPLES[place]
    if field.kind == "switch":
        return not field.default
    if field.kind == "choice":
        return next(one for one in field.choices if one != field.default)
    if field.kind == "choices":
        return [one for one in field.choices if one not in field.default] or list(field.choices[:1])
    assert field.kind == "number", place
    return 7


def read(text, tmp_path):
    return describe_text(check_text(text, tmp_path))


def test_the_form_has_every_option_of_a_run_file_with_its_help():
    shown = yaml.safe_load((ROOT / "workflows" / "scan.yaml").read_text(encoding="utf-8"))
    # Groups are edited in the text.
    assert shown.pop("groups") == []
    written = {f"{section}.{key}": value for section, values in shown.items() for key, value in values.items()}
    fields = list_fields()
    assert set(written) <= set(fields)
    names = [field.name for field in dataclasses.fields(RunConfig)]
    assert [one.name for one in list_sections()] == [name for name in names if name != "groups"]
    assert {place for place, field in fields.items() if not field.help} <= {"benchmark.tasks"}
    for place, value in written.items():
        if place != "input.files":
            assert fields[place].default == value, place
    assert fields["fit.kbeta_sd"].range == "0 to 10"
    assert fields["fit.width_law"].choices == ("auto", "2.96", "3.58")
    assert fields["quantify.unit"].choices == (None, "ug/cm2", "ng/mm2")
    assert fields["input.files"].one_a_line
    assert json.loads(json.dumps(describe_form()))[0]["fields"][0]["place"] == "input.files"


@pytest.mark.parametrize("place", PLACES)
def test_an_option_goes_into_the_text_and_out_of_it_again(tmp_path, place):
    value = example(place)
    others = {one: {"value": other} for one, other in NEEDED.get(place, {}).items() if one != place}
    value = NEEDED.get(place, {}).get(place, value)
    text, faults = edit_text(BEGUN, {place: {"value": value}, **others})
    told = read(text, tmp_path)
    assert (faults, told["faults"]) == ([], [])
    assert text.startswith("# of the leaf\n# second line\ninput:")
    shown = told["values"][place]
    assert (shown["value"], shown["given"], shown["changed"]) == (value, True, True)
    # Oracle: the run file as a mapping, checked as the command line checks it.
    raw = {"input": {"files": ["leaf.mda"]}}
    for one, change in {**others, place: {"value": value}}.items():
        section, key = one.split(".")
        raw.setdefault(section, {})[key] = change["value"]
    assert check_text(text, tmp_path).config == check_config(resolve_paths(raw, tmp_path), "test")
    again, faults = edit_text(BEGUN, {place: {"yaml": shown["text"]}, **others})
    assert (again, faults) == (text, [])
    back, _ = edit_text(text, dict.fromkeys({place, *others}))
    left = read(back, tmp_path)["values"]
    assert not any(one["given"] for name, one in left.items() if name in {place, *others})


@given(st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=6))
def test_whatever_is_changed_the_text_says_exactly_that(changes):
    text, faults = edit_text(BEGUN, {place: {"value": value} for place, value in changes.items()})
    assert faults == []
    wanted = {"input": {"files": ["leaf.mda"]}}
    for place, value in changes.items():
        section, key = place.split(".")
        wanted.setdefault(section, {})[key] = value
    assert yaml.safe_load(text) == wanted
    if changes:
        place = next(iter(changes))
        back, _ = edit_text(text, {place: None})
        left = yaml.safe_load(back).get(place.partition(".")[0], {})
        assert place.partition(".")[2] not in left


@given(st.text(max_size=60) | VALUES.map(lambda value: yaml.safe_dump(value, allow_unicode=True)))
def test_any_text_is_answered_with_values_or_with_its_fault(text):
    told = describe_text(check_text(text, ROOT))
    assert json.dumps(told)
    assert told["faults"] or told["workload"]
    assert (told["values"] is None) == (check_text(text, ROOT).raw is None)


@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_is_none_of_an_option_is_a_fault_at_that_option(tmp_path, place):
    text, _ = edit_text(BEGUN, {place: {"value": {"nonsense": {"deep": [1]}}}})
    faults = read(text, tmp_path)["faults"]
    assert faults
    assert all(one["places"] == [place] for one in faults), faults


@pytest.mark.parametrize(
    ("sections", "places"),
    [
        ("fit: {kbeta: 3}", [["fit"]]),
        ("fitt: {kbeta_sd: 3}", [[]]),
        ("fit: {kbeta_sd: 20}", [["fit.kbeta_sd"]]),
        ("fit: {kbeta_sd: 1.0e+99}", [["fit.kbeta_sd"]]),
        ("fit: {energy_range_kev: [3, 1]}", [["fit.energy_range_kev"]]),
        ("fit: {calibration: previous}", [["fit.calibration", "fit.previous"]]),
        ("fit: {method: adam, objective: l1}", [["fit.objective", "fit.method"]]),
        ("fit: {fixed: [a], free: [a]}", [["fit.fixed", "fit.free"]]),
        ("sample: {elements: [Si, Si], anode: Rh}", [["sample.elements"], ["sample.anode"]]),
        ("sample: {anode: Rh, tube_kv: 3}", [["sample.anode", "sample.tube_kv"]]),
        ("detectors: {exclude: [1, 1]}", [["detectors.exclude"]]),
        ("pixels: {weights: one, phases: one}", [["pixels.weights"]]),
        ("pixels: {background: snip, method: full}", [["pixels.background"]]),
        ("pixels: {detectors: sum, method: full}", [["pixels.detectors"]]),
        ("regions: {rectangles: {a: [2, 1, 0, 1]}}", [["regions.rectangles"]]),
        ("regions: {polygons: {a: [[0, 0]]}, labels: {a: b}}", [["regions"], ["regions.polygons"]]),
        ("normalise: {i0_kind: count}", [["normalise.i0_kind"]]),
        ("normalise: {i0: us_ic, reference: 1e5}", [["normalise.reference"]]),
        ("normalise: {i0: a, reference: 3, site: nowhere}", [["normalise.site"]]),
        ("quantify: {table: a, layer: {}}", [["quantify.table", "quantify.layer"]]),
        ("benchmark: {}\nquantify: {table: a}", [["quantify"], ["quantify.table"]]),
        ("benchmark: {}\ncase_study: {}", [["case_study", "benchmark"]]),
        ("input: {files: []}", [["input.files"]]),
        ("input: {}", [["input.files"]]),
    ],
)
def test_every_fault_names_its_options_and_is_worded_as_on_the_command_line(hpcxrf, tmp_path, sections, places):
    text = sections if sections.startswith("input") else f"input: {{files: [leaf.mda]}}\n{sections}"
    faults = read(text, tmp_path)["faults"]
    assert [one["places"] for one in faults] == places
    (tmp_path / "run.yaml").write_text(text)
    ran = hpcxrf("plan", tmp_path / "run.yaml")
    assert ran.code == 2
    for one in faults:
        assert " ".join(one["text"].split()) in " ".join(ran.err.split())


def test_what_a_sentence_names_as_its_remedy_is_not_at_fault():
    assert find_places("regions.remap: needs the theta of regions.refine; set regions.refine: true") == (
        "regions.remap",
    )
    assert find_places("the store and the report are gone") == ()


def test_a_text_that_is_no_yaml_is_one_fault_without_a_place_and_keeps_the_text(tmp_path):
    for text in ("a: [", "- 1", "input: {files: [&a [*a]]}\n" + "x: " * 200, "3"):
        told = read(text, tmp_path)
        assert told["values"] is None
        assert told["text"] == text
        assert [one["places"] for one in told["faults"]] == [[]]
    with pytest.raises(ConfigError, match="mapping"):
        edit_text("- 1", {"fit.method": None})


def test_a_change_that_cannot_be_read_leaves_the_option_as_it_was(tmp_path):
    text, faults = edit_text(BEGUN, {"fit.start": {"yaml": "{a: ["}, "fit.suggest": {"value": False}})
    assert [one.places for one in faults] == [("fit.start",)]
    assert yaml.safe_load(text)["fit"] == {"suggest": False}
    text, faults = edit_text("input: {files: [a]}\nfit: 3\n", {"fit.suggest": {"value": False}})
    assert "not a section" in faults[0].text
    assert yaml.safe_load(text)["fit"] == 3
    for place, change in (("fit.nonsense", None), ("fit", None), ("__class__.x", {"value": 1})):
        with pytest.raises(ConfigError, match="not an option"):
            edit_text(BEGUN, {place: change})


def test_a_section_that_chooses_a_workload_stays_when_its_last_option_goes(tmp_path):
    text, _ = edit_text(BEGUN, {"benchmark.seed": {"value": 3}, "pixels.method": {"value": "nnls"}})
    back, _ = edit_text(text, {"benchmark.seed": None, "pixels.method": None})
    assert yaml.safe_load(back) == {"input": {"files": ["leaf.mda"]}, "benchmark": {}}
    assert read(back, tmp_path)["workload"] == "benchmark"


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"pixels": {"background_columns": None, "method": "nnls"}},
        {"fit": {"method": "adam", "objective": "mse"}, "benchmark": {}},
        {"case_study": {"size": [16, 24]}},
        {"normalise": {"i0": "us_ic", "reference": 3.0}},
    ],
)
def test_what_a_run_is_said_to_be_given_makes_the_same_run(tmp_path, sections):
    config = check_config({"input": {"files": ["/a/b.mda"]}, **sections}, "test")
    text = dump_sections(list_given(config))
    assert check_text(text, tmp_path).config == config
    assert not re.search(r"max_phases|kbeta_sd", text)


def test_the_text_from_which_a_new_run_begins_lacks_its_files_alone(tmp_path):
    assert [one["places"] for one in read(NEW, tmp_path)["faults"]] == [["input.files"]]
