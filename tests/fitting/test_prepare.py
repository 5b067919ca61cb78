"""From elements, energy and detector to a problem: no file, no configuration, every argument checked by its name."""

from dataclasses import replace

import pytest
import torch
from fit_samples import COMPONENTS, INCIDENT_KEV, TRUTH, drawn, expected_counts

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum import solve
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.near_edges import drop_unexcited, notes_of_left_out
from hpcxrf.fitting.spectrum.prepare import FitOptions, option_faults, prepare_spectrum
from hpcxrf.fitting.spectrum.problem import start_from
from hpcxrf.fitting.spectrum.solve import refit, solve_problem
from hpcxrf.fitting.spectrum.theta import default_parameters
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.constants import CONSTANT_SETS, PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import INDEX, PARAMETERS, pack, replace_values

NEAR = EnergyCalibration(offset_kev=0.0, slope_kev=0.01)


def prepared(elements=COMPONENTS, energy_kev=INCIDENT_KEV, **given):
    return prepare_spectrum(elements, energy_kev, **({"n_channels": 1500, "calibration": NEAR} | given))


def values_of(problem):
    return {p.name: p.value for p in problem.parameters}


def test_the_defaults_are_those_of_the_table_and_the_arguments_in_their_places():
    problem = prepared()
    assert problem.table.component_names == COMPONENTS
    assert (problem.energy_min_kev, problem.energy_max_kev) == (1.0, INCIDENT_KEV + 1.0)
    assert (problem.background, problem.method, problem.objective) == ("hats", "separable", "poisson")
    assert problem.detector == Detector()
    assert not problem.find_axis
    expected = {p.name: p.value for p in PARAMETERS} | {"coherent_sct_energy": INCIDENT_KEV}
    assert values_of(problem) == expected


def test_without_calibration_the_axis_is_determined_from_the_spectrum():
    problem = prepared(calibration=None)
    assert problem.find_axis
    fit = solve_problem(drawn(sum(expected_counts(1e6)), seed=3), problem)
    assert fit.status is FitStatus.CONVERGED
    assert fit.problem is problem
    assert float(fit.theta[1]) == pytest.approx(TRUTH["energy_slope"], rel=1e-3)


def test_the_fit_range_ends_with_the_spectrum():
    short = prepared(elements=["Ca", "Fe"], n_channels=1000)
    assert short.energy_max_kev == pytest.approx(9.99)


def test_start_goes_over_calibration_and_rows_and_fixed_over_free():
    problem = prepared(
        start={"energy_offset": 0.03, "compton_angle": 95.0},
        fixed=["compton_angle", "step_offset"],
        free=["step_offset"],
    )
    rows = {p.name: p for p in problem.parameters}
    assert rows["energy_offset"].value == 0.03
    assert (rows["compton_angle"].value, rows["compton_angle"].free) == (95.0, False)
    assert not rows["step_offset"].free
    assert rows["energy_slope"].free


def test_a_tube_has_no_elastic_column_and_a_fixed_energy():
    problem = prepared(options=FitOptions(source="tube"))
    assert not problem.elastic
    assert problem.edges_kev == ()
    assert not {p.name: p for p in problem.parameters}["coherent_sct_energy"].free


def test_rows_of_the_caller_are_taken_as_they_are():
    rows = default_parameters(INCIDENT_KEV, 0.02)
    incident = {p.name: p for p in prepared(parameters=rows).parameters}["coherent_sct_energy"]
    assert (incident.lower, incident.upper) == pytest.approx((INCIDENT_KEV - 0.03, INCIDENT_KEV + 0.03))


@pytest.mark.parametrize("method", ["adam", "sbplx"])
def test_the_published_methods_have_the_mean_square_by_default(method):
    assert prepared(options=FitOptions(method=method)).objective == "mse"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"background": "snap"}, "background is 'snap', must be 'hats', 'snip', 'none'"),
        ({"method": "newton"}, "method is 'newton'"),
        ({"objective": "l2"}, "objective is 'l2'"),
        ({"source": "sun"}, "source is 'sun'"),
        ({"kbeta_sd": -0.1}, "kbeta_sd is -0.1, must be 0 to 10"),
        ({"kbeta_sd": float("nan")}, "kbeta_sd is nan"),
        ({"incident_energy_sd_kev": 0.0}, "incident_energy_sd_kev is 0.0, must be above 0"),
        ({"energy_range_kev": (3.0, 2.0)}, "energy_range_kev is (3.0, 2.0), must be two energies that rise"),
        ({"method": "adam", "objective": "l1"}, "objective 'l1' is not available with method 'adam'"),
        ({"method": "adam", "kbeta_sd": 0.1}, "kbeta_sd 0.1 needs method 'separable'"),
        ({"constants": CONSTANT_SETS["maps-3.58"], "kbeta_sd": 0.1}, "not available with constants 'maps-3.58'"),
    ],
)
def test_an_option_that_is_not_valid_is_named_with_its_value(options, said):
    (fault,) = option_faults(FitOptions(**options))
    assert said in fault
    with pytest.raises(ConfigError, match=r"^invalid options: "):
        prepared(options=FitOptions(**options))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"elements": ["Fe", "Qq"]}, FitError, "^Qq: no such element"),
        ({"elements": ["Sr"]}, FitError, "^Sr: K edge"),
        ({"options": FitOptions(energy_range_kev=(5.0, 6.0))}, FitError, "^no line of Si"),
        ({"options": FitOptions(energy_range_kev=(20.0, 30.0))}, FitError, "^fit range 20 to 30 keV"),
        (
            {"calibration": EnergyCalibration(offset_kev=9.0, slope_kev=0.01)},
            ConfigError,
            "^starting values: energy_off",
        ),
        (
            {"calibration": EnergyCalibration(offset_kev=0.0, slope_kev=0.01, quadratic_kev=-9e-6)},
            ConfigError,
            "makes the axis fall before channel 1499",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_without_a_file_in_the_sentence(given, error, said):
    with pytest.raises(error, match=said):
        prepared(**given)


def test_a_refit_begins_at_the_earlier_theta_and_keeps_the_bounds():
    counts = drawn(sum(expected_counts(1e6)), seed=3)
    fit = solve_problem(counts, prepared())
    again = refit(drawn(sum(expected_counts(1e5)), seed=4), start_from(fit.problem, fit.theta))
    assert torch.equal(again.theta_initial, fit.theta)
    assert torch.equal(again.theta_lower, fit.theta_lower)
    assert again.status is FitStatus.CONVERGED


# --- edges near the incident energy: iron's K edge lies at 7.112 keV (Bearden and Burr 1967) --------

NAMES = ["Ca", "Ti", "Cr", "Mn", "Fe"]


def spectrum_below_or_above_iron(true_kev, *, iron, total=3e6, seed=7):
    """Counts of five families at a true incident energy, `iron` of them of the last."""
    lines = build_line_table(NAMES, max(true_kev, 7.2), efficiency=Detector())
    theta = pack(replace_values(PARAMETERS, {"coherent_sct_energy": max(true_kev, 7.2), "energy_slope": 0.01}))
    shares = torch.tensor([0.1, 0.1, 0.1, 0.2, iron, 0.0, 0.0], dtype=torch.float64)
    channel = torch.arange(1000, dtype=torch.float64)
    peaks = model_spectrum(theta, total * shares, lines, channel, constants=PHYSICS)
    theta[INDEX["coherent_sct_energy"]] = true_kev
    scatter = torch.tensor([0.0] * 5 + [0.1, 0.3], dtype=torch.float64)
    peaks += model_spectrum(theta, total * scatter, lines, channel, constants=PHYSICS)
    return drawn(peaks + 30.0, seed)


def test_an_edge_within_two_sd_of_the_nominal_energy_is_fitted_and_one_beyond_is_refused():
    problem = prepared(NAMES, 6.6, n_channels=1000)
    assert problem.table.component_names == tuple(NAMES)
    assert 7.112 in problem.edges_kev
    iron = problem.table.component == NAMES.index("Fe")
    assert (problem.table.edge_kev[iron] == 0.0).all()
    for options in ({"options": FitOptions(incident_energy_sd_kev=0.2)}, {"fixed": ["coherent_sct_energy"]}):
        with pytest.raises(FitError, match=r"Fe: K edge 7\.112 keV is above the incident energy 6\.6 keV"):
            prepared(NAMES, 6.6, n_channels=1000, **options)
    with pytest.raises(FitError, match="Fe: K edge"):
        prepared(NAMES, 6.6, n_channels=1000, options=FitOptions(source="tube"))


def test_a_family_above_the_nominal_energy_is_found_where_the_true_energy_excites_it():
    fit = solve_problem(spectrum_below_or_above_iron(7.2, iron=0.2), prepared(NAMES, 6.95, n_channels=1000))
    assert float(fit.theta[INDEX["coherent_sct_energy"]]) == pytest.approx(7.2, abs=0.005)
    found, sigma = float(fit.amplitude[4]), float(fit.amplitude_sigma[4])
    assert abs(found - 6e5) < 4 * sigma
    assert sigma < 0.01 * found
    assert any("edges at 7.112 keV lie between" in m for m in fit.messages)
    assert drop_unexcited([fit])[0].component_names == fit.component_names


def test_a_refit_begins_with_the_lines_of_the_energy_that_was_fitted(monkeypatch):
    fit = solve_problem(spectrum_below_or_above_iron(7.2, iron=0.2), prepared(NAMES, 6.95, n_channels=1000))
    counts = spectrum_below_or_above_iron(7.2, iron=0.2, total=3e5, seed=8)
    given = start_from(fit.problem, fit.theta)
    problems = []

    def seen(counts, problem, **options):
        problems.append(problem)
        return fit_spectrum(counts, problem, **options)

    monkeypatch.setattr(solve, "fit_spectrum", seen)
    again = refit(counts, given)
    (one,) = problems
    assert one.table.incident_energy_kev == pytest.approx(7.2, abs=0.005)
    assert any("edges at 7.112 keV lie between" in m for m in again.messages)
    assert abs(float(again.amplitude[4]) - 6e4) < 4 * float(again.amplitude_sigma[4])
    # The same as with the lines of the nominal energy first.
    monkeypatch.setattr(solve, "_take_lines_of_start", lambda problem: problem)
    problems.clear()
    twice = refit(counts, given)
    assert len(problems) == 2
    assert float(((again.amplitude - twice.amplitude) / twice.amplitude_sigma).abs().max()) < 0.1
    assert again.problem.table.incident_energy_kev == twice.problem.table.incident_energy_kev == 6.95


def test_a_family_is_dropped_where_the_fitted_energy_does_not_excite_it():
    fit = solve_problem(spectrum_below_or_above_iron(7.0, iron=0.0), prepared(NAMES, 6.95, n_channels=1000))
    assert float(fit.amplitude[4]) == 0.0
    assert torch.isnan(fit.amplitude_sigma[4])
    assert torch.isnan(fit.detection_limit[4])
    (dropped,) = drop_unexcited([fit])
    assert dropped.component_names == (*NAMES[:4], *fit.component_names[5:])
    assert dropped.problem.table.component_names == dropped.table.component_names == tuple(NAMES[:4])
    assert torch.equal(dropped.amplitude, fit.amplitude[[0, 1, 2, 3, 5, 6]])
    assert dropped.component_counts.shape[0] == 6
    (note,) = notes_of_left_out([dropped])
    fitted = float(fit.theta[INDEX["coherent_sct_energy"]])
    assert fitted == pytest.approx(7.0, abs=0.01)
    assert note.text.startswith(
        f"left out of this scan: Fe: K edge 7.112 keV is above the incident energy {fitted:.4g}"
    )
    # What another detector has stays in all of them.
    other = solve_problem(spectrum_below_or_above_iron(7.2, iron=0.2), prepared(NAMES, 6.95, n_channels=1000))
    kept = drop_unexcited([fit, other])
    assert [one.component_names for one in kept] == [other.component_names] * 2
    assert notes_of_left_out(kept) == []


def test_a_list_of_which_nothing_is_excited_is_refused_with_the_energy():
    fit = solve_problem(spectrum_below_or_above_iron(7.0, iron=0.0), prepared(NAMES, 6.95, n_channels=1000))
    nothing = build_line_table(["Fe"], 7.0, efficiency=Detector(), unexcited=["Fe"])
    fit = replace(fit, table=nothing)
    with pytest.raises(FitError, match=r"no element of the list can be fitted; .*Fe: K edge 7\.112 keV"):
        drop_unexcited([fit])


def test_a_family_of_which_the_ratios_are_an_estimate_is_said_to_be():
    problem = prepared(["Si", "Ca", "Fe", "Zn", "Sm_M"], parameters=None)
    fit = solve_problem(drawn(sum(expected_counts(1e5)), seed=3), problem)
    assert any(m.startswith("Sm_M: ratios of the M lines are an estimate") for m in fit.messages)


def test_a_fit_without_solution_has_no_theta_and_keeps_its_problem():
    problem = prepared()
    for fitted in (solve_problem, refit):
        fit = fitted(torch.zeros(1500), problem)
        assert fit.status is FitStatus.EMPTY
        assert torch.isnan(fit.theta).all()
        assert fit.problem is problem
