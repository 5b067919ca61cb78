"""Elements that are not listed, found in the residual of a fit."""

import json
import math
from dataclasses import replace

import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, table, theta_of
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.config.run import check_config
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum import identify
from hpcxrf.fitting.spectrum.candidates import (
    build_candidate_lines,
    build_edge_lines,
    build_pileup_lines,
    list_candidates,
)
from hpcxrf.fitting.spectrum.identify import family_limits, lines_agree, suggest
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit, mismatch_columns
from hpcxrf.fitting.spectrum.projected import build_metric, fit_together, join_column, limits, project, z_beside
from hpcxrf.fitting.spectrum.suggestion import EvidenceLine, Suggestion, add_elements, combine_detectors, threshold_at
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import INDEX
from hpcxrf.pipeline.prepare.suggestions import as_records, suggest_components

LISTED = ("Si", "Ca", "Fe", "Zn", "Ba_L")
COUNTS = {"Si": 2e4, "Ca": 8e4, "Fe": 3e5, "Zn": 9e4, "Ba_L": 2e4}
SCATTER = (6e4, 1.6e5)
EFFICIENCY = Detector()


def _expected(counts, theta, lines=None):
    lines = table(tuple(counts)) if lines is None else lines
    amplitude = torch.tensor([*counts.values(), *SCATTER], dtype=torch.float64)
    channel = channels(0, 1499)
    peaks = model_spectrum(theta, amplitude, lines, channel, constants=PHYSICS)
    return peaks + 60.0 * (1.6 - 1.2 * channel / 1500)


def _fit(counts, *, listed=LISTED, seed=1, theta=None):
    spectrum = drawn(_expected(counts, theta_of(**TRUTH) if theta is None else theta), seed)
    asked = setup(table(listed))
    return fit_spectrum(spectrum, asked), asked


def _names(fit, asked):
    return [s.name for s in suggest(fit, asked, efficiency=EFFICIENCY)]


@pytest.fixture(scope="module")
def complete():
    return _fit(COUNTS)


@pytest.mark.parametrize(("name", "counts"), [("Mn", 6e3), ("La_L", 6e3), ("Cu", 9e3), ("K", 6e3), ("Pb_M", 6e3)])
def test_a_planted_element_is_found_with_its_counts(name, counts):
    found = suggest(*_fit(COUNTS | {name: counts}), efficiency=EFFICIENCY)
    assert [s.name for s in found] == [name]
    assert found[0].z > 6.0
    assert found[0].counts == pytest.approx(counts, abs=4.0 * found[0].sigma + 0.05 * counts)
    assert found[0].z == pytest.approx(found[0].counts / found[0].sigma)
    assert 0.1 < found[0].surviving <= 1.0


def test_the_more_counts_the_more_sigma_a_suggestion_needs(monkeypatch):
    """Noise is normal, what tables are wrong by is not."""
    assert [threshold_at(n) for n in (0.0, 1e3, 3e6)] == [6.0, 6.0, 6.0]
    assert threshold_at(3e7) == pytest.approx(9.0)
    assert threshold_at(3e8) == pytest.approx(12.0)
    fit, asked = _fit(COUNTS | {"Mn": 9e3})
    seen = []
    monkeypatch.setattr(identify, "threshold_at", lambda counts: seen.append(counts) or 200.0)
    assert _names(fit, asked) == []
    assert seen == [float(fit.counts.sum())]
    assert [s.name for s in suggest(fit, asked, efficiency=EFFICIENCY, threshold=6.0)] == ["Mn"]
    # Pile-up has to have the counts that the rest of it says, whatever its z.
    assert _names(*_fit(COUNTS | {"Fe_Fe": 3e3})) == ["Fe_Fe"]


def test_nothing_is_suggested_where_the_list_is_complete(complete):
    assert _names(*complete) == []
    assert _names(*_fit(COUNTS, seed=2)) == []


def test_two_planted_elements_are_both_found_and_no_third():
    assert set(_names(*_fit(COUNTS | {"Mn": 9e3, "Se_L": 8e3}))) == {"Mn", "Se_L"}


def test_the_lines_that_speak_are_given_with_what_they_overlap():
    (found,) = suggest(*_fit(COUNTS | {"Mn": 9e3}), efficiency=EFFICIENCY)
    assert found.lines[0].energy_kev == pytest.approx(5.895, abs=0.01)
    assert found.lines[0].share > 0.8
    assert found.lines[0].z > 4.0
    (kbeta,) = [line for line in found.lines if line.energy_kev > 6.2]
    assert kbeta.energy_kev == pytest.approx(6.49, abs=0.01)
    assert kbeta.overlaps == "Fe"
    assert 0.3 < kbeta.overlap < 1.0


def test_lines_that_the_incident_energy_does_not_excite_are_no_evidence(monkeypatch):
    """At 11.7 keV the L2 lines of Re, whose edge is at 11.96, are in the table without a share, and have no energy."""
    monkeypatch.setattr(identify, "_SHOWN_LINES", 99)
    asked = setup(table(LISTED, 11.7))
    every = build_candidate_lines(asked, EFFICIENCY)
    of_re = every.ratio[every.component == every.component_names.index("Re_L")]
    assert bool((of_re == 0.0).any())
    theta = theta_of(**TRUTH | {"coherent_sct_energy": 11.7})
    peaks = _expected(COUNTS | {"Re_L": 2e4}, theta, table((*COUNTS, "Re_L"), 11.7))
    (found,) = suggest(fit_spectrum(drawn(peaks, 1), asked), asked, efficiency=EFFICIENCY)
    assert found.name == "Re_L"
    assert all(line.share > 0.0 and math.isfinite(line.energy_kev) for line in found.lines)
    assert json.dumps(as_records([found]), allow_nan=False)


def test_pileup_is_suggested_as_pileup_and_not_as_an_element():
    assert _names(*_fit(COUNTS | {"Fe_Fe": 3e3})) == ["Fe_Fe"]
    planted = {"Ca": 4e5, "Fe": 1.5e5, "Si": 2e4, "Ba_L": 2e3, "Ca_Ca": 4e3, "Ca_Fe": 3e3, "Fe_Fe": 560}
    names = set(_names(*_fit(planted, listed=("Si", "Ca", "Fe", "Ba_L"))))
    assert {"Ca_Ca", "Ca_Fe"} <= names <= {"Ca_Ca", "Ca_Fe", "Fe_Fe"}


def test_a_listed_pileup_is_not_suggested_again():
    planted = {"Ca": 4e5, "Fe": 1.5e5, "Si": 2e4, "Ba_L": 2e3, "Ca_Ca": 4e3}
    assert _names(*_fit(planted, listed=("Si", "Ca", "Fe", "Ba_L", "Ca_Ca"))) == []


def _off(complete, name, steps):
    """A fit whose model is as if theta were off by some steps."""
    fit, asked = complete
    column = evaluate_fit(fit, asked).jacobian[:, INDEX[name]]
    off = fit.model + steps * asked.parameters[INDEX[name]].scale * column
    return replace(fit, model=off.clamp(min=1.0)), asked


@pytest.mark.parametrize(("name", "steps"), [("energy_offset", 2.0), ("energy_slope", 2.0), ("fwhm_offset", 3.0)])
def test_a_theta_that_is_off_suggests_nothing(complete, name, steps):
    fit, asked = _off(complete, name, steps)
    assert float(((fit.counts - fit.model) ** 2 / fit.model).mean()) > 3.0
    assert _names(fit, asked) == []


def test_a_theta_that_is_off_and_cannot_be_mended_is_taken_for_something(complete):
    fit, asked = _off(complete, "energy_offset", 2.0)
    held = tuple(replace(p, free=False, prior_sd=1e-12) for p in asked.parameters)
    fixed = replace(fit, free=torch.zeros_like(fit.free))
    assert _names(fixed, replace(asked, parameters=held)) != []


def test_a_fit_without_solution_has_no_suggestions(complete):
    fit, asked = complete
    assert suggest(replace(fit, status=FitStatus.EMPTY), asked, efficiency=EFFICIENCY) == ()
    assert suggest(replace(fit, status=FitStatus.NONFINITE), asked, efficiency=EFFICIENCY) == ()


def test_a_listed_component_that_ended_at_zero_is_not_news():
    fit, asked = _fit(COUNTS | {"Mn": 9e3}, listed=(*LISTED, "Mn"))
    index = fit.component_names.index("Mn")
    amplitude = fit.amplitude.clone()
    amplitude[index] = 0.0
    without = replace(fit, amplitude=amplitude, model=fit.model - fit.component_counts[index])
    assert _names(without, asked) == []


def test_the_limit_of_detection_is_met_by_what_is_planted_there(complete):
    limit = family_limits(*complete, efficiency=EFFICIENCY)["Mn"]
    assert "Mn" not in _names(*_fit(COUNTS | {"Mn": limit}))
    assert "Mn" in _names(*_fit(COUNTS | {"Mn": 3.0 * limit}))
    assert "Fe" not in family_limits(*complete, efficiency=EFFICIENCY)


def test_candidates_are_excited_in_the_range_and_not_listed():
    found = list_candidates(["Fe", "Pb_M"], 1.0, 11.0, 10.0)
    assert {"Si", "Ar", "Cu", "La_L", "Au_M"} <= set(found)
    assert not {"Fe", "Pb_M", "Kr_L", "Xe_L", "Tc_L", "Po_M"} & set(found)
    # K edges at 8.979 and 9.659 keV: copper has 1 keV to spare, zinc too little.
    assert "Cu" in found
    assert "Zn" not in found
    assert "Na" not in found  # 1.04 keV, at the end of the range
    assert len(found) == len(set(found)) < 90


def test_pairs_of_strong_families_lie_at_the_sums_of_their_lines(complete):
    fit, asked = complete
    lines = build_pileup_lines(fit, asked)
    assert "Ca_Fe" in lines.component_names
    assert "Fe_Fe" in lines.component_names
    mine = lines.component == lines.component_names.index("Ca_Fe")
    assert float(lines.ratio[mine].sum()) == pytest.approx(1.0)
    strongest = float(lines.energy_kev[mine][lines.ratio[mine].argmax()])
    assert strongest == pytest.approx(3.692 + 6.405, abs=0.01)


def test_lines_of_an_edge_just_above_the_incident_energy_are_known():
    asked = setup(table(("Lu_L", "Fe"), incident_kev=10.1))
    lines = build_edge_lines(asked, EFFICIENCY)
    assert lines.component_names == ("Lu_L",)
    assert lines.edge_kev.tolist() == pytest.approx([10.349] * len(lines.edge_kev), abs=0.01)
    strongest = float(lines.energy_kev[lines.ratio.argmax()])
    assert strongest == pytest.approx(8.709, abs=0.01)
    assert build_edge_lines(setup(table(("Fe",))), EFFICIENCY).component_names == ()


def test_a_list_grows_by_what_reaches_the_threshold():
    found = [
        Suggestion(name=n, z=z, counts=1.0, sigma=1.0, detection_limit=1.0, surviving=1.0, lines=())
        for n, z in (("Mn", 30.0), ("Cu", 7.0), ("Fe", 50.0))
    ]
    assert add_elements(["Fe", "Ca"], found) == ("Fe", "Ca", "Mn", "Cu")
    assert add_elements(["Fe", "Ca"], found, threshold=10.0) == ("Fe", "Ca", "Mn")
    assert add_elements(["Fe"], []) == ("Fe",)


def test_detectors_that_say_the_same_say_it_more_surely():
    def one(name, z, counts, sigma, limit):
        line = EvidenceLine(energy_kev=5.9, share=0.9, z=z, overlaps="", overlap=0.0)
        return Suggestion(
            name=name, z=z, counts=counts, sigma=sigma, detection_limit=limit, surviving=0.5, lines=(line,)
        )

    first = (one("Mn", 10.0, 300.0, 30.0, 90.0), one("Cu", 7.0, 70.0, 10.0, 40.0))
    second = (one("Mn", 20.0, 800.0, 40.0, 120.0),)
    mn, cu = combine_detectors([first, second])
    assert (mn.name, cu.name) == ("Mn", "Cu")
    assert mn.counts == pytest.approx(1100.0)
    assert mn.sigma == pytest.approx(50.0)
    assert mn.z == pytest.approx(22.0)
    assert mn.detection_limit == pytest.approx(150.0)
    assert mn.lines == second[0].lines
    assert cu == first[1]
    assert combine_detectors([]) == ()


@pytest.mark.parametrize(
    ("observed", "expected", "share", "agree"),
    [
        ([8.0, 3.0], [8.5, 2.5], [0.88, 0.12], True),
        ([3.9, 3.0], [5.0, 2.5], [0.88, 0.12], False),  # nothing seen by itself
        ([8.0, 1.0], [7.0, 6.0], [0.55, 0.45], False),  # the second line is not there
        ([8.0, -2.0], [7.5, 6.0], [0.95, 0.05], True),  # too small a line to argue with
        ([1.0, 8.0], [3.0, 7.0], [0.60, 0.40], False),  # the main line could be seen, and is not
        ([1.0, 8.0], [2.0, 7.0], [0.60, 0.40], True),  # the main line is hidden under another
        ([14.0, 3.0], [7.0, 2.5], [0.88, 0.12], False),  # something else stands there
    ],
)
def test_a_family_must_be_borne_out_by_its_lines(observed, expected, share, agree):
    values = [torch.tensor(v, dtype=torch.float64) for v in (observed, expected, share)]
    assert lines_agree(*values) is agree


def test_z_and_limit_of_two_columns_are_those_computed_by_hand():
    explained = torch.tensor([[1.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    columns = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    residual = torch.tensor([0.5, -0.5, 0.7, 0.9], dtype=torch.float64)
    left = project(explained, columns, residual, build_metric(torch.zeros(4, 0).double()))
    # (2, 0, 1, 0) less its part along (1, 1, 0, 0) is (1, -1, 1, 0), of norm sqrt(3).
    assert left.columns[:, 0].tolist() == pytest.approx([1.0, -1.0, 1.0, 0.0])
    assert left.z.tolist() == pytest.approx([1.7 / math.sqrt(3.0), 0.9])
    assert left.surviving.tolist() == pytest.approx([math.sqrt(3.0 / 5.0), 1.0])
    assert limits(left).tolist() == pytest.approx([2.71 + 3.29 / math.sqrt(3.0), 2.71 + 3.29 / 3.0])
    amplitude, variance = fit_together(left, [0, 1])
    assert amplitude.tolist() == pytest.approx([1.7 / 3.0, 0.3])
    assert variance.tolist() == pytest.approx([1.0 / 3.0, 1.0 / 9.0])


def test_misfit_above_the_noise_scales_z_down():
    columns = torch.eye(4, dtype=torch.float64)[:, :1]
    residual = torch.tensor([6.0, 4.0, 4.0, 4.0], dtype=torch.float64)
    left = project(torch.zeros(4, 1).double(), columns, residual, build_metric(torch.zeros(4, 0).double()))
    assert float(left.z[0]) == pytest.approx(6.0 / math.sqrt((36 + 3 * 16) / 4))


def _random(seed, rows, columns):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


@given(st.integers(0, 10_000))
def test_projection_is_weighted_least_squares_in_the_covariance_of_the_flaws(seed):
    flaws, explained = _random(seed, 30, 3), _random(seed + 1, 30, 4)
    columns, residual = _random(seed + 2, 30, 3), _random(seed + 3, 30, 1)[:, 0]
    left = project(explained, columns, residual, build_metric(flaws))
    weight = torch.linalg.inv(torch.eye(30).double() + flaws @ flaws.T)
    for index in range(3):
        full = torch.cat([explained, columns[:, index : index + 1]], dim=1)
        covariance = torch.linalg.inv(full.T @ weight @ full)
        amplitude = (covariance @ full.T @ weight @ residual)[-1]
        assert float(left.z[index] * left.scale) == pytest.approx(
            float(amplitude / covariance[-1, -1].sqrt()), abs=1e-8
        )


@given(st.integers(0, 10_000))
def test_joining_a_column_is_projecting_against_it_from_the_start(seed):
    metric = build_metric(_random(seed, 30, 3))
    explained, columns = _random(seed + 1, 30, 4), _random(seed + 2, 30, 3)
    residual = _random(seed + 3, 30, 1)[:, 0]
    left = project(explained, columns, residual, metric)
    after = join_column(left, 1)
    fresh = project(torch.cat([explained, columns[:, 1:2]], dim=1), columns, residual, metric)
    assert float(after.z[1]) == 0.0
    assert after.z[[0, 2]].tolist() == pytest.approx(fresh.z[[0, 2]].tolist(), abs=1e-8)
    beside = z_beside(left, 1) * left.scale
    assert beside[[0, 2]].tolist() == pytest.approx((fresh.z * fresh.scale)[[0, 2]].tolist(), abs=1e-8)


def test_flaws_grow_with_the_counts_and_faint_ones_are_left_out(complete):
    fit, asked = complete
    faint = replace(
        fit,
        amplitude=fit.amplitude * 1e-4,
        model=fit.model * 1e-4,
        background=fit.background * 1e-4,
        component_counts=fit.component_counts * 1e-4,
    )
    few = mismatch_columns(evaluate_fit(faint, asked), EFFICIENCY)
    many = mismatch_columns(evaluate_fit(fit, asked), EFFICIENCY)
    assert few.shape[1] < 10
    assert many.shape[1] > 50
    assert bool((many.norm(dim=0) > 0.3).all())


@pytest.mark.parametrize(
    ("name", "listed", "wanted"),
    [
        ("aps-2ide/flyXRF.h5/2xfm_0011_2xfm3__0.h5", "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn", ["La_L"]),
        ("aps-2ide/mda/axo_std.mda", "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn Pd_L Mo_L La_L Ca_Ca", ["Pb_M"]),
        ("aps-2ide/mda/axo_std.mda", "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn Pd_L Mo_L La_L Ca_Ca Pb_M", []),
    ],
)
def test_measured_spectra_speak_for_what_their_list_lacks(shared_data, name, listed, wanted):
    from hpcxrf.fitting.spectrum.solve import solve_problem
    from hpcxrf.formats.registry import open_scan
    from hpcxrf.pipeline.prepare.facts import scan_facts
    from hpcxrf.pipeline.prepare.from_config import prepare
    from hpcxrf.pipeline.prepare.inputs import read_options
    from hpcxrf.pipeline.single import integrate

    raw = {"input": {"files": ["-"]}, "sample": {"elements": listed.split()}, "fit": {"energy_range_kev": [1.0, 11.0]}}
    config = check_config(raw, "test")
    scan = open_scan(shared_data / name, read_options(config))
    prepared = prepare(config, scan_facts(scan, shared_data / name), 0)
    fit = solve_problem(torch.from_numpy(integrate(scan))[0], prepared.problem)
    assert _names(fit, prepared.problem) == wanted


def test_suggestions_are_kept_with_the_results_and_shown_in_the_report(tmp_path, complete):
    from results_sample import make_store

    from hpcxrf.results.report.page.dataset import DatasetSummary
    from hpcxrf.results.report.report import RunSummary, write_report
    from hpcxrf.results.report.views import list_flags
    from hpcxrf.results.store.maps import open_results
    from hpcxrf.results.store.storage import update_attributes

    found = suggest(*_fit(COUNTS | {"Mn": 9e3}), efficiency=EFFICIENCY)
    store = tmp_path / "scan.zarr"
    make_store(store, shape_yx=(64, 80))
    assert not any("suggested" in flag for flag in list_flags(open_results(store)))
    update_attributes(store, {"suggested": {"0": as_records(found), "1": []}})
    assert "detector 0: suggested, not in your list: Mn" in list_flags(open_results(store))
    page = tmp_path / "report.html"
    dataset = DatasetSummary(dataset_id="scan", name="scan", source="scan", status="done", results_path=store)
    run = RunSummary(title="run", versions={}, configuration="", device="", started="", finished="", seconds=1.0)
    write_report(run, [dataset], page)
    text = page.read_text(encoding="utf-8")
    assert text.count("Suggested elements (not in your list, but present in the residual)") == 1
    # The caption of the spectrum of detector 0, and not of detector 1, which has no suggestion.
    assert text.count("from elements that are not in your list: Mn at 5.9 keV; see the table below") == 1
    assert "5.89 keV (" in text
    assert "overlaps Fe" in text


def test_nothing_is_looked_for_where_it_is_not_wanted(complete):
    fit, asked = _fit(COUNTS | {"Mn": 9e3})
    problems = [replace(one, detector=EFFICIENCY) for one in (asked, complete[1])]
    raw = {"input": {"files": ["-"]}, "sample": {"elements": list(LISTED)}}
    config = check_config(raw, "test")
    found = suggest_components(config.fit, [fit, complete[0]], problems)
    assert [[s.name for s in group] for group in found] == [["Mn"], []]
    quiet = check_config(raw | {"fit": {"suggest": False}}, "test")
    assert suggest_components(quiet.fit, [fit], problems[:1]) == [()]
