"""Kept fits: what is read back is what was written, whatever happened between, and nothing else of a run changes."""

import json

import pytest
from explore_runs import copy_run, glass_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fits_process import wait

from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.fit_session import FitSession
from hpcxrf.explore.history import History, describe_changes

NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FITS = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "r2": NUMBERS,
        "elements": st.lists(st.text(max_size=5), max_size=3),
        "parameters": st.lists(st.fixed_dictionaries({"name": st.text(max_size=9), "value": NUMBERS}), max_size=3),
        "spectrum": st.none() | st.fixed_dictionaries({"counts": st.text(max_size=30)}),
    }
)


def history(folder, dataset_id="scan-1a2b3c4d"):
    return History(run_dir=folder, dataset_id=dataset_id)


@settings(max_examples=40)
@given(fits=st.lists(FITS, max_size=4, unique_by=lambda fit: fit["id"]))
def test_what_is_read_back_is_what_was_written(tmp_path_factory, fits):
    folder = tmp_path_factory.mktemp("history")
    for fit in fits:
        history(folder).append(fit)
    for fit in fits:
        assert history(folder).one(fit["id"]) == {**fit, "taken_back": False}
    # Of the list the spectra are nearly everything: it does without them.
    without = [{key: value for key, value in fit.items() if key != "spectrum"} for fit in fits]
    assert history(folder).summaries() == [{**fit, "taken_back": False} for fit in without]
    # One line a fit.
    file = history(folder).file
    assert len(file.read_bytes().splitlines() if fits else []) == len(fits)


def test_fits_are_those_of_their_dataset(tmp_path):
    history(tmp_path, "one").append({"id": "a"})
    history(tmp_path, "other").append({"id": "b"})
    assert [fit["id"] for fit in history(tmp_path, "one").summaries()] == ["a"]
    assert history(tmp_path, "other").one("a") is None
    assert history(tmp_path, "third").summaries() == []


def test_the_last_fit_is_taken_back_and_the_one_before_is_given(tmp_path):
    one = history(tmp_path)
    for name in "abc":
        one.append({"id": name})
    assert one.take_back()["id"] == "b"
    assert [fit["taken_back"] for fit in one.summaries()] == [False, False, True]
    one.append({"id": "d"})
    assert one.take_back()["id"] == "b"
    assert one.take_back()["id"] == "a"
    assert one.take_back() is None
    with pytest.raises(ConfigError, match="no kept fit is left to take back; keep one first"):
        history(tmp_path).take_back()


def test_a_torn_last_line_is_no_fit_and_the_next_one_is_whole(tmp_path):
    one = history(tmp_path)
    one.append({"id": "a"})
    with one.file.open("ab") as file:
        file.write(b'{"event":"fit","dataset_id":"scan-1a2b3c4d","fit":{"id":"b"')
    assert [fit["id"] for fit in history(tmp_path).summaries()] == ["a"]
    one.append({"id": "c"})
    assert [fit["id"] for fit in history(tmp_path).summaries()] == ["a", "c"]


@pytest.mark.parametrize(
    "line", ["nothing", "[]", '{"event":"fit","dataset_id":3}', '{"event":"fit","dataset_id":"a"}']
)
def test_a_damaged_line_is_named_and_nothing_is_guessed(tmp_path, line):
    one = history(tmp_path)
    one.append({"id": "a"})
    with one.file.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(OutputError, match=r"history\.jsonl, line 2: not a line of a history of fits; remove the line"):
        history(tmp_path).summaries()


def test_what_is_kept_in_memory_has_no_spectra(tmp_path):
    one = history(tmp_path)
    for name in "äbc":
        one.append({"id": name, "spectrum": {"counts": "x" * 100_000}})
    one.take_back()
    assert [fit["id"] for fit in one.summaries()] == ["ä", "b", "c"]
    assert len(repr(one._read)) < 3000
    assert len(one.one("b")["spectrum"]["counts"]) == 100_000
    assert one.one("c")["taken_back"]


def test_a_file_that_grows_beside_is_read_again(tmp_path):
    mine, other = history(tmp_path), history(tmp_path)
    mine.append({"id": "a"})
    assert len(other.summaries()) == 1
    mine.append({"id": "b"})
    assert len(other.summaries()) == 2
    mine.file.unlink()
    assert other.summaries() == []


def base(**changed):
    rows = [
        {"name": name, "unit": unit, "value": 0.1, "lower": 0.0, "upper": 1.0, "free": True, "at_bound": False}
        for name, unit in (("fwhm_offset", "keV"), ("compton_f_tail", "1"))
    ]
    return {
        "detector": "0",
        "selection": {"kind": "all"},
        "n_pixels": 9,
        "elements": ["Si", "Fe"],
        "kind": "full",
        "focus": None,
        "parameters": rows,
        "r2": 0.99,
        "deviance": 2.0,
        "verdict": "good",
        **changed,
    }


def row(index, **changed):
    rows = [dict(one) for one in base()["parameters"]]
    rows[index].update(changed)
    return rows


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"elements": ["Fe", "La_L", "Cu"]}, ["La_L, Cu added to the list", "Si removed"]),
        ({"parameters": row(0, free=False, value=0.12)}, ["held: fwhm_offset at 0.12 keV"]),
        ({"parameters": row(1, free=False, value=0.21)}, ["held: compton_f_tail at 0.21"]),
        ({"parameters": row(0, upper=0.5)}, ["bounds: fwhm_offset 0 to 0.5"]),
        ({"parameters": row(0, at_bound=True)}, ["now at a bound: fwhm_offset"]),
        ({"parameters": row(0, value=0.13)}, []),
        ({"focus": ["Fe"]}, ["only Fe fitted, in their energy window"]),
        ({"kind": "amplitudes"}, ["amplitudes alone fitted, at this theta"]),
        ({"selection": {"kind": "pixel", "y": 1, "x": 2}, "n_pixels": 1}, ["other pixels: 1"]),
        ({"detector": "sum"}, ["detector sum instead of 0"]),
        (
            {"r2": 0.995, "deviance": 1.5, "verdict": "doubtful"},
            ["R2 0.99500, before 0.99000", "deviance 1.500, before 2.000", "verdict doubtful, before good"],
        ),
        ({"r2": None}, []),
    ],
)
def test_what_differs_from_the_parent_is_said(changed, said):
    assert describe_changes(base(**changed), base()) == said


def test_a_parameter_that_is_fitted_again_is_said():
    before = base(parameters=row(0, free=False))
    assert describe_changes(base(), before) == ["fitted as well: fwhm_offset"]


@pytest.mark.parametrize("keep", [True, False])
def test_fits_survive_a_restart_and_the_run_stays_as_it_was(shared_data, tmp_path, keep):
    small = copy_run(glass_run(shared_data), tmp_path / "run")
    before = small.hashes()
    one = FitSession(small.run_dir, small.dataset_id)
    try:
        done = wait(one, one.submit({"detector": "1", "keep": keep})["id"])["fit"]
        request = {"detector": "1", "elements": [*one.opened.facts.elements, "W_L"], "keep": keep, "parent": done["id"]}
        last = wait(one, one.submit(request)["id"])["fit"]
        assert last["changed"][0] == "W_L added to the list"
        one.write({"kind": "run_file", "fit": last["id"], "regions": []})
        one.elements("1")
    finally:
        one.close()
    again = FitSession(small.run_dir, small.dataset_id)
    kept = again.history()
    assert [fit["id"] for fit in kept] == ([done["id"], last["id"]] if keep else [])
    if keep:
        # As JSON: a tuple is a list there.
        assert again.one(last["id"]) == json.loads(json.dumps(last))
        assert again.take_back()["id"] == done["id"]
        assert again.history()[1]["taken_back"]
    assert again.one("run-1")["parameters"] == again.run_fit("1")["parameters"]
    assert small.hashes() == before
    assert {p.name for p in small.run_dir.iterdir()} - set(before) == ({"explore"} if keep else set())
    if keep:
        assert (small.run_dir / "explore").stat().st_mode & 0o777 == 0o700
