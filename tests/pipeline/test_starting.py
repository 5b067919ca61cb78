"""What lies between the run file and the solver: line ratios, bounds, starting values, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.formats.override import read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.notes import Note
from hpcxrf.physics.background import snip_maps
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import PARAMETERS, pack
from hpcxrf.pipeline.prepare.branching import read_branching
from hpcxrf.pipeline.prepare.checks import refuse_start
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.prepare.resolve import resolve
from hpcxrf.pipeline.prepare.sources import Origin, Value, read_sources
from hpcxrf.pipeline.records import ScanFacts
from hpcxrf.pipeline.request import check_request
from hpcxrf.pipeline.single import integrate
from hpcxrf.results.store.maps import create_results, finalise

DEFAULTS = {p.name: p for p in PARAMETERS}


def config_of(**sections):
    given = {"sample": {"elements": ["S", "Ca", "Fe"], "incident_energy_kev": 10.0}}
    return check_config({"input": {"files": ["a.mda"]}, **given, **sections}, "x.yaml")


def facts_of(source="scan.mda"):
    axis = EnergyCalibration(offset_kev=0.01, slope_kev=0.0095)
    return ScanFacts(
        source=Path(source), n_detectors=2, n_channels=2048, calibration=(axis, axis), incident_energy_kev=None
    )


def override_of(folder, text, name="o.txt"):
    path = folder / name
    path.write_text("DATE: 2025-01-01\n" + text)
    return str(path)


def rows_of(config, facts=None, detector=0):
    prepared = prepare(config, facts or facts_of(), detector)
    return {p.name: p for p in prepared.problem.parameters}, " | ".join(note.text for note in prepared.notes)


@pytest.fixture
def every_line(monkeypatch):
    """Lines a few eV apart stay apart."""
    monkeypatch.setattr("hpcxrf.fitting.spectrum.prepare.condense", lambda table: table)


def kbeta_to_kalpha_1(table, name):
    mine = (table.component == table.component_names.index(name)) & (table.escape_parent < 0)
    beta = table.ratio[mine & table.is_kbeta].sum()
    return float(beta / table.ratio[mine & ~table.is_kbeta].max())


# line ratios


@pytest.mark.usefixtures("every_line")
def test_a_kbeta_multiplier_belongs_to_the_ratio_of_the_maps_table(tmp_path):
    lines = "".join(f"BRANCHING_RATIO_ADJUSTMENT_K: {row}\n" for row in ("S, 1, 1, 2.6, 1", "Fe, 1, 1, 1.2, 1"))
    config = config_of(fit={"override": override_of(tmp_path, lines)})
    prepared = prepare(config, facts_of(), 0)
    plain = prepare(config_of(fit={"override": "none"}), facts_of(), 0)
    table = prepared.problem.table
    # The MAPS table has .050 and .172; the library, which is right, .093 and .203 before the windows.
    assert kbeta_to_kalpha_1(table, "S") == pytest.approx(0.050 * 2.6, rel=1e-3)
    assert kbeta_to_kalpha_1(table, "Fe") == pytest.approx(0.172 * 1.2, rel=1e-3)
    assert kbeta_to_kalpha_1(table, "Ca") == kbeta_to_kalpha_1(plain.problem.table, "Ca")
    assert any("S 0.130, Fe 0.206" in note.text and "o.txt" in note.text for note in prepared.notes)
    assert not any("not used" in note.text for note in prepared.notes)


def test_a_multiplier_of_one_asks_for_nothing(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1., 1., 1., 1.\n"
    prepared = prepare(config_of(fit={"override": override_of(tmp_path, lines)}), facts_of(), 0)
    plain = prepare(config_of(fit={"override": "none"}), facts_of(), 0)
    assert torch.equal(prepared.problem.table.ratio, plain.problem.table.ratio)
    assert not any("multipliers" in note.text for note in prepared.notes)


@pytest.mark.usefixtures("every_line")
def test_l_multipliers_act_on_the_library_and_what_is_not_fitted_plays_no_part(tmp_path):
    lines = (
        "BRANCHING_FAMILY_ADJUSTMENT_L: Pb_L, 0., 1., 1.\n"
        "BRANCHING_RATIO_ADJUSTMENT_L: Pb_L, 1, 1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1\n"
        "BRANCHING_FAMILY_ADJUSTMENT_L: Sn_L, 0., 0., 1.\n"
    )
    sample = {"elements": ["Fe", "Pb_L"], "incident_energy_kev": 20.0}
    fit = {"override": override_of(tmp_path, lines), "energy_range_kev": [1.0, 19.0]}
    prepared = prepare(config_of(sample=sample, fit=fit), facts_of(), 0)
    plain = prepare(config_of(sample=sample, fit=fit | {"override": "none"}), facts_of(), 0)

    def l_beta(table):
        mine = (table.component == 1) & (table.escape_parent < 0)
        l1 = table.ratio[mine & ((table.edge_kev - 15.8608).abs() < 0.01)].sum()
        beta, alpha = (table.ratio[mine & ((table.energy_kev - kev).abs() < 0.002)].sum() for kev in (12.614, 10.5515))
        return float(l1), float(beta / alpha)

    (l1, ratio), (l1_plain, ratio_plain) = (l_beta(p.problem.table) for p in (prepared, plain))
    assert (l1, l1_plain > 0.05) == (0.0, True)
    assert ratio == pytest.approx(0.5 * ratio_plain, rel=0.02)
    said = [note.text for note in prepared.notes if "line ratios of Pb_L" in note.text]
    assert len(said) == 1
    assert "Sn_L" not in " ".join(note.text for note in prepared.notes)


def test_pile_up_takes_the_ratios_of_its_families(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1, 1, 2.4, 1\n"
    sample = {"elements": ["Ca", "Fe_Fe"], "incident_energy_kev": 10.0}
    fit = {"override": override_of(tmp_path, lines), "energy_range_kev": [1.0, 15.0]}
    table = prepare(config_of(sample=sample, fit=fit), facts_of(), 0).problem.table
    mine = table.component == 1
    mixed = table.ratio[mine & ((table.energy_kev - 13.46).abs() < 0.05)].sum()
    alpha = table.ratio[mine & ((table.energy_kev - 12.80).abs() < 0.05)].sum()
    # 2 x K-beta / K-alpha, with K-alpha-1 being 1 / 1.51 of K-alpha
    assert float(mixed / alpha) == pytest.approx(2 * 0.172 * 2.4 / 1.51, rel=0.01)


def test_a_multiplier_whose_table_is_not_known_is_left_out_and_said(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Mg, 1, 1, 3.6, 1\n"
    override = read_override(Path(override_of(tmp_path, lines)))
    found = read_branching(override, ["Mg", "Fe"])
    assert not found.applied.k_ratios
    assert found.unknown == ("Mg",)
    sample = {"elements": ["Mg", "Fe"], "incident_energy_kev": 10.0}
    _, notes = rows_of(config_of(sample=sample, fit={"override": str(override.path)}))
    (note,) = [n for n in notes.split(" | ") if "K multipliers" in n]
    assert "not used of o.txt" in note
    assert "Mg" in note


def test_a_wrong_number_of_multipliers_is_refused_with_the_file(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1, 2\n"
    override = read_override(Path(override_of(tmp_path, lines)))
    with pytest.raises(ConfigError, match=r"o\.txt.*Fe has \[1\.0, 2\.0\], must be 4"):
        read_branching(override, ["Fe"])


@pytest.mark.parametrize("name", ["axo_std.mda", "2xfm_0010.mda"])
@pytest.mark.parametrize("detector", [0, 2])
def test_the_real_override_file_costs_no_r2(shared_data, name, detector, monkeypatch):
    path = shared_data / "aps-2ide" / "mda" / name
    raw = {"input": {"files": [str(path)]}}
    if name == "axo_std.mda":
        listed = read_override(path.parent.parent / "maps_fit_parameters_override.txt").elements
        raw["sample"] = {"elements": [*listed, "La_L", "Pb_M", "Pd_L", "Mo_L"]}
    config = check_config(raw, "x.yaml")
    scan = open_scan(path, read_options(config))
    counts = torch.from_numpy(integrate(scan))[detector]
    facts = scan_facts(scan, path)
    adjusted = prepare(config, facts, detector)
    monkeypatch.setattr("hpcxrf.pipeline.prepare.resolve.read_branching", lambda *_: None)
    plain = prepare(config, facts, detector)
    ratios = [kbeta_to_kalpha_1(p.problem.table, "Ca") for p in (adjusted, plain)]
    assert ratios[0] > ratios[1] + 1e-3
    fits = [fit_spectrum(counts, p.problem) for p in (adjusted, plain)]
    assert fits[0].r2 >= fits[1].r2 - 1e-4
    assert fits[0].r2 > 0.99


# bounds


def test_bounds_of_an_override_file_hold_within_what_a_detector_can_be(tmp_path):
    text = (
        "CAL_OFFSET: 0.0\nCAL_OFFSET_MIN: -0.9\nCAL_OFFSET_MAX: 0.9\n"
        "CAL_SLOPE: 0.0095\nCAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\n"
        "CAL_QUAD_MIN: -1e-4\nCAL_QUAD_MAX: 1e-4\nCOMPTON_ANGLE_MIN: 70\n"
        "FWHM_OFFSET_MAX: 0.01\n"
    )
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert (rows["energy_slope"].lower, rows["energy_slope"].upper) == (0.008, 0.015)
    assert (rows["energy_offset"].lower, rows["energy_offset"].upper) == (-0.9, 0.9)
    assert (rows["compton_angle"].lower, rows["compton_angle"].upper) == (70.0, 170.0)
    for name in ("energy_quadratic", "fwhm_offset"):
        assert rows[name].lower == DEFAULTS[name].lower
        assert rows[name].upper == DEFAULTS[name].upper
    assert "bounds from o.txt: energy_offset -0.9 to 0.9, energy_slope 0.008 to 0.015" in notes
    assert "not used of o.txt: bounds of fwhm_offset" in notes


def test_one_bound_for_both_ends_holds_a_parameter(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nGAMMA_OFFSET_MIN: 2\nGAMMA_OFFSET_MAX: 2\n"
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert (rows["gamma_offset"].free, rows["gamma_offset"].value) == (False, 2.0)
    assert "fixed, as o.txt gives them one bound for both: gamma_offset" in notes


def test_bounds_of_the_axis_mean_nothing_where_it_is_to_be_found(tmp_path):
    text = "CAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\nCOMPTON_ANGLE_MIN: 70\n"
    fit = {"override": override_of(tmp_path, text), "calibration": "none"}
    rows, _ = rows_of(config_of(fit=fit))
    assert rows["energy_slope"].lower == DEFAULTS["energy_slope"].lower
    assert rows["compton_angle"].lower == 70.0


def test_a_start_outside_of_its_bounds_widens_them_and_is_said(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0075\nCAL_SLOPE_MIN: 0.008\nMAX_ENERGY_TO_FIT: 11\nMIN_ENERGY_TO_FIT: 1\n"
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert rows["energy_slope"].value == 0.0075
    assert rows["energy_slope"].lower < 0.0075
    assert "bounds widened to hold the start of energy_slope" in notes


@pytest.mark.parametrize(("sd", "reach"), [(None, 0.45), (0.3, 0.45), (1.0, 1.5), (0.02, 0.03)])
def test_the_incident_energy_may_end_one_and_a_half_deviations_away(sd, reach):
    fit = {} if sd is None else {"incident_energy_sd_kev": sd}
    row = rows_of(config_of(fit=fit))[0]["coherent_sct_energy"]
    assert (row.lower, row.upper) == pytest.approx((10.0 - reach, 10.0 + reach))
    assert row.prior_sd == (0.3 if sd is None else sd)
    assert row.value == 10.0


def test_bounds_of_the_incident_energy_hold_for_the_energy_of_the_file_alone(tmp_path):
    text = "COHERENT_SCT_ENERGY: 10\nCOHERENT_SCT_ENERGY_MIN: 9.7\nCOHERENT_SCT_ENERGY_MAX: 10.6\n"
    override = override_of(tmp_path, text)

    def reach(energy_kev, **fit):
        sample = {"elements": ["Ca"], "incident_energy_kev": energy_kev}
        config = config_of(sample=sample, fit={"override": override, **fit})
        row = rows_of(config)[0]["coherent_sct_energy"]
        return row.lower, row.upper

    assert reach(None) == (9.7, 10.6)
    assert reach(12.0) == pytest.approx((11.55, 12.45))
    assert reach(None, incident_energy_sd_kev=1.0) == pytest.approx((8.5, 11.5))


def test_the_table_of_a_site_goes_over_file_and_built_in(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\n"
    site = {
        "energy_slope": {"lower": 0.009},
        "energy_offset": {"lower": -1.0, "upper": 1.0, "prior_sd": 0.2, "scale": 0.02},
        "coherent_sct_energy": {"prior_sd": 0.05},
    }
    fit = {"override": override_of(tmp_path, text), "parameters": site}
    rows, notes = rows_of(config_of(fit=fit))
    assert (rows["energy_slope"].lower, rows["energy_slope"].upper) == (0.009, 0.015)
    offset = rows["energy_offset"]
    assert (offset.lower, offset.upper, offset.prior_sd, offset.scale) == (-1.0, 1.0, 0.2, 0.02)
    energy = rows["coherent_sct_energy"]
    assert (energy.lower, energy.prior_sd) == (pytest.approx(9.55), 0.05)
    assert "from fit.parameters: coherent_sct_energy, energy_offset, energy_slope" in notes


def test_all_that_is_wrong_with_a_sites_table_is_said_at_once():
    site = {
        "enery_offset": {"lower": -1.0},
        "gamma_offset": {"lower": 7.0},
        "fwhm_offset": {"lower": -0.1},
        "compton_gamma": {"lower": 0.0},
        "energy_slope": {"upper": 5.0},
        "compton_angle": {"lower": 80.0, "upper": 100.0},
    }
    fit = {"parameters": site, "start": {"compton_angle": 120.0}}
    with pytest.raises(ConfigError) as error:
        refuse_start(config_of(fit=fit).fit)
    for said in (
        "no parameter is called enery_offset",
        "gamma_offset: lower 7 must be below upper 6",
        "fwhm_offset: lower -0.1 must lie between 0 and inf",
        "compton_gamma: lower 0 must be above 0",
        "energy_slope: upper 5 must lie between 0.0001 and 0.2",
        "compton_angle is 120, must lie between 80 and 100",
    ):
        assert said in str(error.value)


# what is said of an override file


@pytest.mark.parametrize(
    ("text", "fit", "starts", "width"),
    [
        ("COHERENT_SCT_ENERGY: 10\nELEMENTS_TO_FIT: Ca, Fe\n", {}, False, False),
        ("COMPTON_ANGLE: 91\n", {}, True, False),
        ("FWHM_FANOPRIME: 1e-4\n", {}, True, True),
        ("FWHM_FANOPRIME_MAX: 4e-4\n", {}, False, True),
        ("FWHM_FANO_COEFF: 2.96\n", {}, False, False),
        ("CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\n", {}, True, False),
        ("CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\n", {"calibration": "none"}, False, False),
        ("CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\n", {"calibration": "file"}, False, False),
        ("COMPTON_ANGLE: 91\n", {"start": {"compton_angle": 92}}, False, False),
        ("FWHM_FANOPRIME: 1e-4\n", {"start": {"fwhm_fanoprime": 2e-4}}, False, False),
    ],
)
def test_an_override_file_is_named_for_what_it_gives(tmp_path, text, fit, starts, width):
    config = config_of(fit={"override": override_of(tmp_path, text), **fit})
    _, notes = rows_of(config)
    assert ("starting values from o.txt" in notes) is starts
    assert ("peak width law" in notes) is width


def test_a_calibration_that_the_override_file_does_not_have_is_refused(tmp_path):
    override = override_of(tmp_path, "COHERENT_SCT_ENERGY: 10\n")
    fit = {"override": override, "calibration": "override"}
    with pytest.raises(ConfigError, match=r"scan\.mda.*no CAL_OFFSET and CAL_SLOPE"):
        prepare(config_of(fit=fit), facts_of(), 0)
    start = {"energy_offset": 0.02, "energy_slope": 0.0097}
    rows, _ = rows_of(config_of(fit=fit | {"start": start}))
    assert {n: rows[n].value for n in start} == start


@pytest.mark.parametrize(
    ("fit", "width"),
    [
        ({"background": "snip", "constants": "maps-3.58"}, 0.8),
        ({"background": "snip", "constants": "maps-legacy-2.96"}, 0.8),
        ({"background": "snip"}, None),
        ({"constants": "maps-3.58"}, None),
        ({}, None),
    ],
)
def test_a_snip_width_acts_in_the_peak_clipping_of_maps_or_is_reported(tmp_path, fit, width):
    config = config_of(fit={"override": override_of(tmp_path, "SNIP_WIDTH: 0.8\n"), **fit})
    prepared = prepare(config, facts_of(), 0)
    assert prepared.problem.snip_width == width
    (note,) = [n.text for n in prepared.notes if "SNIP_WIDTH 0.8" in n.text]
    assert note.startswith("not used of o.txt") is (width is None)


def test_a_snip_width_changes_the_background_as_the_clipping_of_maps_does(tmp_path):
    channel = torch.arange(2048, dtype=torch.float64)
    counts = 40.0 + 3000.0 * torch.exp(-0.5 * ((channel - 650.0) / 8.0) ** 2)
    fits = {}
    for width in ("", "SNIP_WIDTH: 0.5\n", "SNIP_WIDTH: 1.5\n"):
        given = {"override": override_of(tmp_path, width), "background": "snip", "constants": "maps-3.58"}
        problem = prepare(config_of(fit=given), facts_of(), 0).problem
        fits[width] = fit_spectrum(counts, problem).background
        start = {p.name: p.value for p in problem.parameters}
        low, high = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, 2048)
        of_maps = snip_maps(
            counts.numpy(),
            energy_offset=start["energy_offset"],
            energy_slope=start["energy_slope"],
            energy_quadratic=start["energy_quadratic"],
            channel_range=(low, high),
            snip_width=float(width.split()[1]) if width else 0.5,
            constants=problem.constants,
        )
        assert torch.equal(fits[width], torch.from_numpy(of_maps)[low : high + 1])
    assert torch.equal(fits[""], fits["SNIP_WIDTH: 0.5\n"])
    assert not torch.equal(fits[""], fits["SNIP_WIDTH: 1.5\n"])


def test_a_snip_width_of_nothing_is_refused_where_it_would_act(tmp_path):
    fit = {"override": override_of(tmp_path, "SNIP_WIDTH: 0\n"), "background": "snip", "constants": "maps-3.58"}
    with pytest.raises(ConfigError, match=r"o\.txt: SNIP_WIDTH is 0, must be above 0"):
        prepare(config_of(fit=fit), facts_of(), 0)


# sources and origins


def test_the_override_file_of_a_detector_is_read_once(tmp_path, monkeypatch):
    reads = []

    def read(path):
        reads.append(path)
        return read_override(path)

    monkeypatch.setattr("hpcxrf.pipeline.prepare.sources.read_override", read)
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCAL_SLOPE_MIN: 0.008\nELEMENTS_TO_FIT: Ca, Fe\nCOHERENT_SCT_ENERGY: 10\n"
    prepare(config_of(sample={}, fit={"override": override_of(tmp_path, text)}), facts_of(), 0)
    assert len(reads) == 1


def test_every_value_knows_its_origin(tmp_path):
    text = (
        "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCOMPTON_ANGLE: 300\nELEMENTS_TO_FIT: Ca, Fe\nCOHERENT_SCT_ENERGY: 10\n"
        "BE_WINDOW_THICKNESS: 24\nAIRPATH: 5000\nMIN_ENERGY_TO_FIT: 1.5\nMAX_ENERGY_TO_FIT: 10.5\n"
    )
    config = config_of(
        sample={},
        detector={"air_path_mm": 20.0},
        fit={"override": override_of(tmp_path, text), "calibration": "file", "start": {"energy_offset": 0.02}},
    )
    settings = resolve(config, read_sources(config.fit, facts_of(), 0))
    assert settings.elements == Value(("Ca", "Fe"), Origin.OVERRIDE)
    assert settings.incident_energy_kev == Value(10.0, Origin.OVERRIDE)
    assert settings.start["energy_offset"] == Value(0.02, Origin.RUN_FILE)
    assert settings.start["energy_slope"] == Value(0.0095, Origin.SCAN)
    assert settings.start["compton_angle"] == Value(170.0, Origin.OVERRIDE, written=300.0)
    assert settings.detector["be_window_um"] == Value(24.0, Origin.OVERRIDE)
    assert settings.detector["air_path_mm"] == Value(20.0, Origin.RUN_FILE)
    assert settings.energy_range_kev == Value((1.5, 10.5), Origin.OVERRIDE)
    plain = config_of()
    settings = resolve(plain, read_sources(plain.fit, facts_of(), 1))
    assert settings.incident_energy_kev == Value(10.0, Origin.RUN_FILE)
    assert (settings.energy_range_kev, settings.branching, settings.width) == (None, None, None)


def test_the_notes_are_written_from_the_origins(tmp_path):
    text = "COMPTON_ANGLE: 300\nELEMENTS_TO_FIT: Ca, Fe\nCOHERENT_SCT_ENERGY: 10\nBE_WINDOW_THICKNESS: 24\n"
    _, notes = rows_of(config_of(sample={}, fit={"override": override_of(tmp_path, text)}))
    assert notes.split(" | ") == [
        "incident energy 10 keV from o.txt",
        "starting values from o.txt",
        "start of compton_angle 300 is taken as 170",
        "energy calibration from the scan file",
        "detector: be_window_um 24.0 from o.txt",
    ]


# options that exclude each other


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"kbeta_sd": 0.15, "constants": "maps-3.58"}, "kbeta_sd 0.15 .* maps-3.58"),
        ({"kbeta_sd": 0.15, "method": "adam"}, "needs method separable"),
        ({"auto_elements": True, "suggest": False}, "auto_elements adds what suggest finds"),
    ],
)
def test_options_that_exclude_each_other_are_refused(fit, said):
    with pytest.raises(ConfigError, match=said):
        check_request(config_of(fit=fit))


def test_objective_method_and_kbeta_reach_the_fit():
    fit = {"objective": "l1", "method": "separable", "kbeta_sd": 0.12}
    setup = prepare(config_of(fit=fit), facts_of(), 0).problem
    assert (setup.objective, setup.method, setup.kbeta_sd) == ("l1", "separable", 0.12)
    prepared = prepare(config_of(fit={"method": "sbplx"}), facts_of(), 0)
    assert (prepared.problem.method, prepared.problem.objective) == ("sbplx", "mse")
    assert Note("fact", "sbplx minimises the mean square, as published") in prepared.notes
    assert "mean square" not in rows_of(config_of())[1]


# L edges of lead: 13.035 (L3), 15.200 (L2) and 15.861 keV (L1), Bearden and Burr 1967.
@pytest.mark.parametrize(
    ("energy_kev", "fit", "source", "edges"),
    [
        (15.0, {}, "monochromatic", (15.2,)),
        (15.0, {"incident_energy_sd_kev": 0.05}, "monochromatic", ()),
        (15.0, {"incident_energy_sd_kev": 1.0}, "monochromatic", (13.0352, 15.2, 15.8608)),
        (15.3, {}, "monochromatic", (15.2, 15.8608)),
        (16.6, {}, "monochromatic", ()),
        (15.0, {}, "tube", ()),
    ],
)
def test_edges_that_the_true_energy_may_pass_are_known(energy_kev, fit, source, edges):
    sample = {"elements": ["Ca", "Pb_L"], "incident_energy_kev": energy_kev, "source": source}
    config = config_of(sample=sample, fit={"override": "none", **fit})
    prepared = prepare(config, facts_of(), 0)
    assert prepared.problem.edges_kev == pytest.approx(edges, abs=1e-3)
    assert bool((prepared.problem.table.edge_kev < energy_kev).all())


@pytest.mark.parametrize(("nominal_kev", "true_kev"), [(15.08, 15.3), (15.3, 15.08)])
def test_lines_between_nominal_and_true_energy_come_and_go(nominal_kev, true_kev):
    names = ("Ca", "Fe", "Zn", "Pb_L")
    true = prepare(config_of(sample={"elements": names, "incident_energy_kev": true_kev}), facts_of(), 0)
    values = {p.name: p.value for p in true.problem.parameters}
    amplitude = torch.tensor([2e4, 9e4, 4e4, 3e5, 6e4, 1e5], dtype=torch.float64)
    counts = (
        model_spectrum(
            pack(true.problem.parameters),
            amplitude,
            true.problem.table,
            torch.arange(2048, dtype=torch.float64),
            constants=true.problem.constants,
        ).detach()
        + 5.0
    )
    assert values["coherent_sct_energy"] == true_kev
    asked = prepare(config_of(sample={"elements": names, "incident_energy_kev": nominal_kev}), facts_of(), 0)
    fit = solve_problem(counts, asked.problem)
    assert fit.r2 > 0.9999
    assert fit.table.incident_energy_kev == pytest.approx(true_kev, abs=0.01)
    assert float(fit.amplitude[3]) == pytest.approx(3e5, rel=5e-3)
    assert any("edges at 15.2 keV lie between" in m for m in fit.messages)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--auto-elements", "--no-suggest"), "auto_elements adds what suggest finds"),
        (("--kbeta-sd", "0.1", "--method", "adam"), "kbeta_sd 0.1 needs method separable"),
        (("--objective", "l2"), "fit.objective"),
        (("--energy-sd", "0"), "fit.incident_energy_sd_kev"),
        (("--previous", "nowhere.zarr"), "nowhere.zarr: no results store"),
        (("--previous", "nowhere.zarr", "--calibration", "file"), "go together"),
    ],
)
def test_options_of_the_command_line_land_in_the_run_file(hpcxrf, shared_data, options, said):
    path = shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda"
    ran = hpcxrf("fit", path, *options)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


# an earlier fit


THETA = {p.name: p.value for p in PARAMETERS} | {
    "energy_offset": -0.02,
    "energy_slope": 0.0097,
    "coherent_sct_energy": 10.08,
    "fwhm_fanoprime": 1.5e-4,
    "compton_angle": 97.0,
}


def store_of(path, *, complete=True, constants="physics", theta=None):
    create_results(
        path,
        detectors=("sum",),
        components=("Fe",),
        shape_yx=(2, 2),
        n_channels=8,
        attributes={
            "constants": constants,
            "theta_by_detector": theta or {"0": THETA, "1": THETA | {"energy_slope": 0.0096}},
        },
    )
    if complete:
        finalise(path, {})
    return path


def previous(path, **more):
    return {"calibration": "previous", "previous": str(path), "override": "none", **more}


def test_an_earlier_fit_gives_each_detector_its_theta(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    config = config_of(fit=previous(store))
    check_request(config)
    rows, notes = rows_of(config)
    assert {n: p.value for n, p in rows.items()} == THETA
    assert rows_of(config, detector=1)[0]["energy_slope"].value == 0.0096
    assert "starting values from scan-1.zarr, detector 0" in notes


def test_an_earlier_fit_goes_over_the_override_file_and_below_the_users_word(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCOMPTON_ANGLE: 80\n"
    fit = previous(store, override=override_of(tmp_path, text), start={"energy_offset": 0.05})
    rows, _ = rows_of(config_of(fit=fit))
    assert rows["energy_slope"].value == 0.0097
    assert rows["compton_angle"].value == 97.0
    assert rows["energy_offset"].value == 0.05


def test_the_width_of_other_constants_is_restated(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    fit = previous(store, constants="maps-3.58")
    fanoprime = rows_of(config_of(fit=fit))[0]["fwhm_fanoprime"].value
    own = rows_of(config_of(fit=previous(store)))[0]["fwhm_fanoprime"].value
    assert own == 1.5e-4
    # Width squared is factor x energy x fanoprime, and must stay.
    assert fanoprime * 3.58 == pytest.approx(own * PHYSICS.width_factor)


def test_another_incident_energy_starts_at_its_nominal_value(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    sample = {"elements": ["Fe"], "incident_energy_kev": 11.0}
    rows, notes = rows_of(config_of(sample=sample, fit=previous(store)))
    assert rows["coherent_sct_energy"].value == 11.0
    assert "it was 10.08 keV there" in notes


def test_what_is_no_finished_store_is_refused(tmp_path):
    unfinished = store_of(tmp_path / "unfinished.zarr", complete=False)
    bare = store_of(tmp_path / "bare.zarr", theta={"0": {"energy_slope": 0.01}})
    newer = store_of(tmp_path / "newer.zarr")
    file = newer / "zarr.json"
    text = json.loads(file.read_text())
    text["attributes"]["hpcxrf_schema_version"] = 999
    file.write_text(json.dumps(text))
    for path, said in (
        (tmp_path / "nowhere.zarr", "no results store"),
        (unfinished, "is not finished"),
        (bare, "no fitted theta"),
        (newer, "schema version 999"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            check_request(config_of(fit=previous(path)))
        assert str(path) in str(error.value)
        assert "fit.previous" in str(error.value)


def test_a_store_without_this_detector_is_refused(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr", theta={"0": THETA})
    with pytest.raises(ConfigError, match="has no detector 1, it has 0"):
        prepare(config_of(fit=previous(store)), facts_of(), 1)


def test_a_detector_whose_fit_failed_starts_no_other(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr", theta={"0": THETA, "1": None})
    config = config_of(fit=previous(store))
    check_request(config)
    assert rows_of(config)[0]["energy_slope"].value == THETA["energy_slope"]
    with pytest.raises(ConfigError, match=r"scan-1\.zarr the fit of detector 1 has no solution"):
        prepare(config, facts_of(), 1)


def test_a_fit_without_solution_has_no_theta():
    prepared = prepare(config_of(fit={"override": "none"}), facts_of(), 0)
    fit = solve_problem(torch.zeros(2048), prepared.problem)
    assert fit.status is FitStatus.EMPTY
    assert torch.isnan(fit.theta).all()
    assert torch.isfinite(fit.theta_initial).all()


def test_an_override_file_of_nonsense_is_still_refused(tmp_path):
    override = override_of(tmp_path, "CAL_SLOPE_MIN: 0.02\nCAL_SLOPE_MAX: 0.01\n")
    with pytest.raises(InputFileError, match=r"CAL_SLOPE_MIN 0\.02 is above"):
        check_request(config_of(fit={"override": override}))


def test_the_setup_of_a_plain_request_has_the_built_in_table():
    rows, _ = rows_of(config_of(fit={"override": "none"}))
    for name, p in DEFAULTS.items():
        if name not in {"energy_offset", "energy_slope", "coherent_sct_energy"}:
            assert dataclasses.replace(rows[name], value=p.value) == p
