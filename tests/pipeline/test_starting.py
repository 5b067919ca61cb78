"""Starting values between the run file and the solver: override files, origins, energies, and what is refused."""

import dataclasses

import pytest
import torch

from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.formats.override import read_override
from hpcxrf.notes import Note
from hpcxrf.physics.background import snip_maps
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import pack
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.resolve import resolve
from hpcxrf.pipeline.prepare.sources import Origin, Value, read_sources
from hpcxrf.pipeline.request import check_request
from tests.samples.prepare_samples import config_of, facts_of, override_of, rows_of

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


@pytest.mark.parametrize(
    ("given", "override", "scan", "contradicts"),
    [
        (12.0, None, None, []),
        (12.0, None, 12.04, []),
        (12.0, None, 13.0, [("the scan file", 13)]),
        (None, 12.0, 13.0, [("the scan file", 13)]),
        (12.0, 11.0, None, [("o.txt", 11)]),
        (12.0, 12.0, 13.0, [("the scan file", 13)]),
        (12.0, 11.0, 13.0, [("the scan file", 13), ("o.txt", 11)]),
        (None, None, 13.0, []),
    ],
)
def test_an_incident_energy_that_another_source_contradicts_is_warned_of(tmp_path, given, override, scan, contradicts):
    text = "COMPTON_ANGLE: 90\n" if override is None else f"COHERENT_SCT_ENERGY: {override}\n"
    config = config_of(
        sample={"elements": ["Ca", "Fe"], "incident_energy_kev": given}, fit={"override": override_of(tmp_path, text)}
    )
    prepared = prepare(config, dataclasses.replace(facts_of(), incident_energy_kev=scan), 0)
    used = given or override or scan
    assert [n.text for n in prepared.notes if n.kind == "warning"] == [
        f"incident energy {used:g} keV is used, but {file} says {other} keV" for file, other in contradicts
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
