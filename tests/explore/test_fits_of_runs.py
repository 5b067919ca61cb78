"""Fits by eye of measured runs in this process: they begin at the run's own fit, and hold what they say they hold."""

import base64
import dataclasses
import json

import numpy as np
import pytest
import torch
from explore_runs import GLASS, film_run, glass_run, make_run, salt_run

from hpcxrf import api
from hpcxrf.errors import FitError
from hpcxrf.explore.fit_records import pack_stored_fit
from hpcxrf.explore.fits import pack_request
from hpcxrf.explore.fitting_process import Desk, answer, find_base
from hpcxrf.explore.requests import read_request
from hpcxrf.explore.run_facts import open_run_facts, read_run_fit
from hpcxrf.pipeline.stored_fits import open_stored_scan, read_scan_counts
from hpcxrf.results.store.maps import open_results

RUNS = {"film": film_run, "glass": glass_run, "salt": salt_run}


class Fitter:
    """A run, and requests that are checked and fitted here."""

    def __init__(self, small):
        self.small = small
        self.opened = open_run_facts(small.run_dir, small.dataset_id)
        self.desk = Desk(scan=open_stored_scan(small.run_dir, small.dataset_id))
        self.number = 0

    def run_fit(self, detector):
        return read_run_fit(self.opened, detector)

    def fit(self, counts=None, **request):
        self.number += 1
        read = read_request({"detector": "0", **request}, self.opened.facts)
        line = json.loads(pack_request(f"fit{self.number}", read, counts))
        return {"id": line["id"], **answer(line, self.desk)}

    def theta(self, detector="0", **changed):
        """The table of theta as a page sends it, with rows changed."""
        table = {
            row["name"]: {
                "mode": "fit" if row["free"] else "fix",
                **{key: row[key] for key in ("value", "lower", "upper")},
            }
            for row in self.run_fit(detector)["parameters"]
        }
        return {name: {**row, **changed.get(name, {})} for name, row in table.items()}


@pytest.fixture(scope="module")
def fitters(shared_data):
    made = {}

    def find(name):
        if name not in made:
            made[name] = Fitter(RUNS[name](shared_data))
        return made[name]

    return find


@pytest.fixture
def film(fitters):
    return fitters("film")


def by_name(fit, key="amplitudes"):
    return {row["name"]: row for row in fit[key]}


def amplitudes(fit):
    return {name: row["amplitude"] for name, row in by_name(fit).items()}


def model(fit):
    return np.frombuffer(base64.b64decode(fit["spectrum"]["model"]), "<f4").astype(float)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("detector", ["0", "1", "sum"])
def test_the_settings_of_the_run_give_its_theta_and_figures_again(fitters, name, detector):
    one = fitters(name)
    fit, stored = one.fit(detector=detector, theta=one.theta(detector)), one.run_fit(detector)
    for row, before in zip(fit["parameters"], stored["parameters"], strict=True):
        assert row["name"] == before["name"]
        assert abs(row["value"] - before["value"]) <= 1e-3 * (before["sigma"] or 1e-9), row["name"]
        assert row["free"] == before["free"]
    assert amplitudes(fit) == pytest.approx(amplitudes(stored), rel=1e-9)
    for key in ("r2", "r2_expected", "reduced_chi2", "deviance"):
        assert fit[key] == pytest.approx(stored[key], rel=1e-9), key
    assert (fit["verdict"], fit["status"]) == (stored["verdict"], stored["status"])
    assert not any("own fit is not met" in note["text"] for note in fit["notes"])
    # Limits and decisions of the store are those of the fit.
    for component, row in by_name(fit).items():
        assert row["limit"] == pytest.approx(by_name(stored)[component]["limit"], rel=1e-6)
        assert row["found"] == by_name(stored)[component]["found"]


@pytest.mark.parametrize(
    ("elements", "fit"),
    [
        # The start of the energy axis means nothing, and what a fit began from is not in the run.
        (GLASS, {"calibration": "none"}),
        # Elements were added by suggestion, each time from the theta of the fit with fewer.
        (GLASS[:-3], {"auto_elements": True}),
    ],
)
def test_the_settings_of_a_run_that_found_its_way_give_its_theta_again(shared_data, tmp_path, elements, fit):
    source = shared_data / "larch-srm1832" / "srm1832.mca"
    sample = {"elements": list(elements), "incident_energy_kev": 12.5}
    section = {"energy_range_kev": [1.0, 13.5], **fit}
    one = Fitter(make_run(tmp_path / "run", source, stages=("ingest", "integrated"), sample=sample, fit=section))
    found, stored = one.fit(theta=one.theta()), one.run_fit("0")
    assert found["elements"] == list(one.opened.facts.elements)
    assert [row["value"] for row in found["parameters"]] == [row["value"] for row in stored["parameters"]]
    assert amplitudes(found) == amplitudes(stored)
    moved = one.fit(theta=one.theta(fwhm_offset={"value": stored["parameters"][3]["value"] * 1.02}))
    for row, before in zip(moved["parameters"], stored["parameters"], strict=True):
        if before["sigma"] and not before["at_bound"]:
            assert abs(row["value"] - before["value"]) < 0.3 * before["sigma"], row["name"]


def test_a_run_whose_files_have_changed_says_that_its_fit_is_not_met(film):
    scan = film.desk.scan
    theta = {**scan.theta, "0": {**scan.theta["0"], "fwhm_offset": scan.theta["0"]["fwhm_offset"] + 1e-4}}
    desk = Desk(scan=dataclasses.replace(scan, theta=theta))
    fit = find_base(0, scan.elements, desk)
    assert any(note.kind == "warning" and "the run's own fit is not met" in note.text for note in fit.notes)
    assert not any("not met" in note.text for note in find_base(1, scan.elements, desk).notes)


def test_a_region_that_the_run_refined_gives_the_numbers_of_the_run_again(film):
    counts, _ = film.small.region(range(4), (0, 5), (0, 4))
    with open_results(film.small.run.results_store(film.small.dataset_id)) as tree:
        region = tree["regions"].to_dataset().sel(region="corner").load()
    assert region["counts"].sel(detector="2").values.tolist() == counts[2].tolist()
    for detector in ("2", "sum"):
        sent = counts if detector == "sum" else {2: counts[2]}
        fit = film.fit(sent, detector=detector, selection={"kind": "box", "y": [0, 5], "x": [0, 4]})
        one = region.sel(detector=detector)
        assert [row["value"] for row in fit["parameters"]] == pytest.approx(one["theta"].values.tolist(), rel=1e-9)
        assert list(amplitudes(fit).values()) == pytest.approx(one["amplitude"].values.tolist(), rel=1e-6)
        sigma = [row["sigma"] for row in fit["amplitudes"]]
        assert sigma == pytest.approx(one["sigma"].values.tolist(), rel=1e-6)


def test_amplitudes_at_the_theta_of_the_run_are_those_of_the_run(film):
    fit, stored = film.fit(kind="amplitudes", theta=film.theta()), film.run_fit("0")
    for name, row in by_name(stored).items():
        # The last pass has one weight more: a fiftieth of a standard deviation.
        assert abs(amplitudes(fit)[name] - row["amplitude"]) < 0.02 * row["sigma"], name
        assert 0.0 < by_name(fit)[name]["sigma"] < 1.2 * row["sigma"]
    assert [row["value"] for row in fit["parameters"]] == [row["value"] for row in stored["parameters"]]


def test_amplitudes_at_another_theta_are_those_of_the_library(film):
    theta = film.theta(fwhm_offset={"value": 0.14}, energy_offset={"value": -0.004})
    fit = film.fit(kind="amplitudes", theta=theta)
    base = find_base(0, film.opened.facts.elements, film.desk)
    same = api.fit_amplitudes(
        read_scan_counts(film.desk.scan, 0), base, theta={"fwhm_offset": 0.14, "energy_offset": -0.004}
    )
    assert list(amplitudes(fit).values()) == same.amplitude.tolist()
    shown = by_name(fit, "parameters")
    assert shown["fwhm_offset"]["value"] == 0.14
    assert shown["energy_offset"]["value"] == -0.004
    # The table stays one of a fit: what is free is free at the next full fit.
    assert shown["fwhm_offset"]["free"]


def test_what_is_held_stays_and_what_is_bounded_stays_inside(film):
    theta = film.theta(
        fwhm_offset={"mode": "fix", "value": 0.13},
        fwhm_fanoprime={"lower": 0.0003, "value": 0.0003},
        step_offset={"mode": "fit"},
    )
    fit = film.fit(theta=theta)
    rows = by_name(fit, "parameters")
    assert rows["fwhm_offset"]["value"] == 0.13
    assert not rows["fwhm_offset"]["free"]
    assert rows["fwhm_offset"]["sigma"] is None
    assert rows["fwhm_fanoprime"]["value"] == pytest.approx(0.0003)
    assert rows["fwhm_fanoprime"]["at_bound"]
    assert rows["fwhm_fanoprime"]["lower"] == 0.0003
    assert rows["step_offset"]["free"]
    assert fit["deviance"] > film.run_fit("0")["deviance"]


def test_a_start_that_was_moved_away_comes_back_to_the_theta_of_the_run(film):
    theta = film.theta(fwhm_offset={"value": 0.16}, energy_offset={"value": 0.02})
    fit, stored = film.fit(theta=theta), film.run_fit("0")
    for row, before in zip(fit["parameters"], stored["parameters"], strict=True):
        if before["sigma"] and not before["at_bound"]:
            # A search ends within a tenth of a standard deviation, from wherever it begins.
            assert abs(row["value"] - before["value"]) < 0.2 * before["sigma"], row["name"]


def test_elements_come_and_go_and_the_order_of_the_list_does_not_matter(film):
    listed = film.opened.facts.elements
    more = film.fit(elements=[*listed, "La_L"])
    assert more["elements"] == [*listed, "La_L"]
    assert by_name(more)["La_L"]["found"]
    assert more["deviance"] < 0.5 * film.run_fit("0")["deviance"]
    assert "La_L" in [one["name"] for one in film.fit()["suggested"]]
    assert "La_L" not in [one["name"] for one in more["suggested"]]
    fewer = film.fit(elements=[name for name in reversed(listed) if name != "Ni"])
    assert "Ni" not in by_name(fewer)
    assert amplitudes(film.fit(elements=list(reversed(listed)))) == amplitudes(film.fit())


def test_an_added_element_is_fitted_as_a_run_with_it_would(film, shared_data, tmp_path):
    elements = [*film.opened.facts.elements, "La_L"]
    fit = film.fit(elements=elements, detector="1")
    other = make_run(
        tmp_path / "run",
        shared_data / "aps-2ide" / "mda" / "2xfm_0011.mda",
        stages=("ingest", "integrated"),
        sample={"elements": elements, "incident_energy_kev": 10.0},
    )
    with open_results(other.run.results_store(other.dataset_id)) as tree:
        stored = pack_stored_fit(tree, "1")
    assert amplitudes(fit) == amplitudes(stored)
    assert [row["value"] for row in fit["parameters"]] == [row["value"] for row in stored["parameters"]]


@pytest.mark.parametrize("kind", ["amplitudes", "full"])
def test_a_focus_holds_what_is_outside_of_it(film, kind):
    before = film.fit(theta=film.theta(fwhm_offset={"mode": "fix", "value": 0.125}))
    rows = {
        row["name"]: {"mode": "fit" if row["free"] else "fix", "value": row["value"]} for row in before["parameters"]
    }
    fit = film.fit(kind=kind, theta=rows, focus=["Fe", "Co"], parent=before["id"])
    assert [row["value"] for row in fit["parameters"]] == [row["value"] for row in before["parameters"]]
    changed = {name for name, value in amplitudes(fit).items() if value != amplitudes(before)[name]}
    assert changed == {"Fe", "Co"}
    energy = np.frombuffer(base64.b64decode(fit["spectrum"]["energy_kev"]), "<f4")
    # Beyond the lines of iron and cobalt and their escape peaks nothing has moved.
    far = ((energy > 2.0) & (energy < 4.0)) | (energy > 8.2)
    assert np.abs(model(fit) - model(before))[far].max() <= 1e-4 * model(before)[far].max()
    near = (energy > 6.2) & (energy < 6.6)
    assert np.abs(model(fit) - model(before))[near].max() > 1.0
    assert any("only Fe, Co fitted" in note["text"] for note in fit["notes"])


def test_a_focus_on_an_added_element_leaves_all_others_as_they_were(film):
    before = film.fit()
    fit = film.fit(elements=[*film.opened.facts.elements, "La_L"], focus=["La_L"], parent=before["id"])
    found = amplitudes(fit)
    assert {name: found[name] for name in amplitudes(before)} == amplitudes(before)
    assert found["La_L"] > 0.0
    assert fit["r2"] > before["r2"]
    assert by_name(fit)["La_L"]["found"]


def test_a_focus_without_its_parent_holds_the_amplitudes_at_its_theta(film):
    alone = film.fit(kind="amplitudes", theta=film.theta())
    fit = film.fit(focus=["Fe"], theta=film.theta())
    others = {name: value for name, value in amplitudes(fit).items() if name != "Fe"}
    assert others == {name: value for name, value in amplitudes(alone).items() if name != "Fe"}


def test_theta_that_moved_since_the_parent_is_not_held_in_silence(film):
    before = film.fit()
    theta = film.theta(fwhm_offset={"value": 0.15})
    with pytest.raises(FitError, match="a focus holds theta, but fwhm_offset changed since the last fit; leave"):
        film.fit(focus=["Fe"], theta=theta, parent=before["id"])


def test_pixels_without_counts_and_elements_outside_of_the_range_say_what_to_do(film):
    nothing = {0: np.zeros(2048, np.int64)}
    with pytest.raises(FitError, match="these pixels have no counts; choose others"):
        film.fit(nothing, selection={"kind": "pixel", "y": 0, "x": 0})
    with pytest.raises(FitError, match=r"Fe_L \(0.70 to 0.84 keV\): no line lies in the fit range .*; take Fe_L off"):
        film.fit(elements=[*film.opened.facts.elements, "Fe_L"])


def test_the_fit_range_of_a_run_without_results_of_each_detector_is_summed_from_its_spectra(film):
    whole = read_scan_counts(film.desk.scan, 3)
    stored = film.desk.scan.counts["3"]
    without = {name: counts for name, counts in film.desk.scan.counts.items() if name == "sum"}
    again = read_scan_counts(dataclasses.replace(film.desk.scan, counts=without), 3)
    assert torch.equal(whole, stored)
    assert torch.equal(again, stored)
