"""A fit from nothing against a fit that starts at the truth, on simulated spectra whose truth is known."""

import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch

from hpcxrf.config.run import check_config
from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.flags import AMBIGUOUS, NOT_FOUND
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.from_nothing import fit_from_nothing
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.search import find_starts_near
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.parameters import INDEX, replace_values
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.records import ScanFacts
from hpcxrf.runner.worker import one_thread
from hpcxrf.simulate import DetectorSpec, PhaseSpec, ScanSpec, random_spectrum_spec, simulate_spectrum, true_theta
from hpcxrf.simulate.spec import SCATTER_COMPONENTS

SCATTER = {"elastic": 25.0, "compton": 60.0, "continuum": 30.0}
ELEMENTS = {
    "Si": 8.0,
    "S": 6.0,
    "K": 30.0,
    "Ca": 60.0,
    "Ti": 4.0,
    "Mn": 5.0,
    "Fe": 90.0,
    "Ni": 3.0,
    "Cu": 9.0,
    "Zn": 40.0,
}
MANY = ELEMENTS | SCATTER
E0 = INDEX["coherent_sct_energy"]
WORSE = 1e-3
# The nominal energy lies below the L2 edge of bismuth, the true one above it. The background takes up what is then
# missing, better or worse as its knots happen to lie: 0.02 in R2 between two fits of the same axis.
NO_COMMON_GROUND = {317}


def spec_of(
    counts,
    *,
    offset_kev=0.05,
    slope_kev=0.0105,
    incident_kev=12.0,
    off_kev=-0.3,
    channels=2048,
    total=1e6,
    listed=None,
    seed=3,
):
    """One spectrum of these components; the nominal incident energy is off by `off_kev`."""
    scale = total / sum(counts.values())
    axis = EnergyCalibration(offset_kev=offset_kev, slope_kev=slope_kev)
    return ScanSpec(
        name="spectrum",
        seed=seed,
        shape=(1, 1, 1, channels),
        incident_energy_kev=incident_kev,
        detectors=(DetectorSpec(calibration=axis),),
        phases=(PhaseSpec(name="sample", counts={k: v * scale for k, v in counts.items()}),),
        listed_elements=listed or tuple(k for k in counts if k not in SCATTER_COMPONENTS),
        real_time_s=total / 2e4,
        i0_drift=0.0,
        file_energy_kev=incident_kev + off_kev,
    )


def setup_of(spec, **fit):
    sample = {"elements": list(spec.listed_elements), "incident_energy_kev": spec.file_energy_kev}
    options = {"calibration": "none", "override": "none"} | fit
    config = check_config({"input": {"files": ["-"]}, "sample": sample, "fit": options}, "test")
    facts = ScanFacts(
        source=Path("-"), n_detectors=1, n_channels=spec.shape[3], calibration=None, incident_energy_kev=None
    )
    return prepare(config, facts, 0).problem


def counts_of(spec):
    return torch.from_numpy(simulate_spectrum(spec).counts.astype("float64"))


def both(spec, **fit):
    """The fit from nothing, and the one that starts at the truth."""
    counts, setup = counts_of(spec), setup_of(spec, **fit)
    truth = true_theta(spec, spec.detectors[0])
    informed = replace(setup, parameters=replace_values(setup.parameters, truth))
    return fit_from_nothing(counts, setup), fit_spectrum(counts, informed)


def energy_error_kev(theta, spec):
    """Largest error of the energy axis from 2 keV to the incident energy."""
    axis = spec.detectors[0].calibration
    energy = torch.linspace(2.0, spec.incident_energy_kev, 20, dtype=torch.float64)
    channel = (energy - axis.offset_kev) / axis.slope_kev
    # A bend of 1e-8 moves the channels by less than one.
    true = axis.offset_kev + channel * (axis.slope_kev + channel * axis.quadratic_kev)
    found = theta[0] + channel * (theta[1] + channel * theta[2])
    return float((found - true).abs().max())


@pytest.mark.parametrize(
    "given",
    [
        {"slope_kev": 0.0041, "offset_kev": 0.1, "incident_kev": 11.0, "off_kev": 0.25, "channels": 4096},
        {"slope_kev": 0.0285, "offset_kev": -0.2, "incident_kev": 14.0, "channels": 1024},
        {"slope_kev": 0.014, "offset_kev": 0.3, "incident_kev": 11.0, "channels": 1024, "total": 3e5},
        {"slope_kev": 0.0085, "offset_kev": -0.35, "incident_kev": 15.0, "off_kev": 0.3},
        {"slope_kev": 0.0105, "offset_kev": 0.05, "total": 1e8},
    ],
    ids=["flat-4096", "steep-1024", "1024", "offset", "1e8-counts"],
)
def test_the_axis_is_found_as_well_as_from_the_truth(given):
    spec = spec_of(MANY, **given)
    fit, truth = both(spec)
    assert truth.r2 - fit.r2 <= WORSE
    # Lines of the simulation lie up to 2 eV beside the model's, and above the last one the axis is extrapolated.
    assert energy_error_kev(fit.theta, spec) < 0.025
    assert float(fit.theta[E0]) == pytest.approx(spec.incident_energy_kev, abs=0.03)
    assert fit.flags == ()
    assert fit.status is FitStatus.CONVERGED


def test_an_axis_that_does_bend_is_followed_and_doubted():
    """Farther than detectors do, but no straight axis explains the spectrum: by 0.06 keV in the middle."""
    spec = spec_of(MANY, total=1e7, slope_kev=0.0052, channels=4096)
    detector = spec.detectors[0]
    bent = replace(detector.calibration, quadratic_kev=4.0 * 0.06 / 2400.0**2)
    spec = replace(spec, detectors=(replace(detector, calibration=bent),))
    fit = fit_from_nothing(counts_of(spec), setup_of(spec))
    assert AMBIGUOUS in fit.flags
    assert any("yet a straight one leaves" in note.text for note in fit.notes)
    channel = torch.arange(300.0, 2300.0, 100.0, dtype=torch.float64)
    found = fit.theta[0] + channel * (fit.theta[1] + channel * fit.theta[2])
    true = bent.offset_kev + channel * (bent.slope_kev + channel * bent.quadratic_kev)
    assert float((found - true).abs().max()) < 0.02


def test_a_thousand_counts_are_enough():
    spec = spec_of(MANY, offset_kev=-0.15, slope_kev=0.0095, total=1e3, off_kev=0.3)
    fit, truth = both(spec)
    assert truth.r2 - fit.r2 <= WORSE
    assert energy_error_kev(fit.theta, spec) < 0.08


@pytest.mark.parametrize("seed", [101, 105, 201])
def test_spectra_of_every_kind_end_where_the_truth_ends(seed):
    spec = random_spectrum_spec(seed)
    fit, truth = both(spec)
    assert truth.r2 - fit.r2 <= WORSE
    assert energy_error_kev(fit.theta, spec) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1024, 2048, 4096])
@pytest.mark.parametrize("seed", sorted({*range(300, 320)} - NO_COMMON_GROUND))
def test_many_spectra_of_every_kind_end_where_the_truth_ends(seed, channels):
    spec = random_spectrum_spec(seed, channels=channels)
    fit, truth = both(spec)
    assert truth.r2 - fit.r2 <= WORSE


@pytest.mark.parametrize("off_kev", [0.9, -0.9])
def test_an_incident_energy_known_to_1_kev_is_found_when_that_is_said(off_kev):
    spec = spec_of(MANY, offset_kev=-0.1, slope_kev=0.009, incident_kev=12.5, off_kev=off_kev)
    fit, truth = both(spec, incident_energy_sd_kev=1.0)
    assert truth.r2 - fit.r2 <= WORSE
    assert energy_error_kev(fit.theta, spec) < 0.015
    assert float(fit.theta[E0]) == pytest.approx(12.5, abs=0.03)


@pytest.mark.parametrize("off_kev", [1.3, -1.3])
def test_an_incident_energy_that_is_wrong_is_found_and_said(off_kev):
    spec = spec_of(MANY, offset_kev=-0.9, slope_kev=0.009, incident_kev=12.5, off_kev=off_kev)
    fit, _ = both(spec)
    assert energy_error_kev(fit.theta, spec) < 0.015
    assert float(fit.theta[E0]) == pytest.approx(12.5, abs=0.03)
    assert fit.flags == ()
    assert any("elastic peak stands at 12.5" in m and f"not {12.5 + off_kev:g}" in m for m in fit.messages)
    assert fit.problem.parameters[E0].value == pytest.approx(12.5, abs=0.05)


def test_without_the_scatter_peaks_the_lines_still_give_the_axis():
    spec = spec_of(MANY, offset_kev=-0.1, slope_kev=0.009, incident_kev=12.5, off_kev=0.2)
    fit, truth = both(spec, energy_range_kev=[1.0, 10.5])
    assert truth.r2 - fit.r2 <= WORSE
    assert energy_error_kev(fit.theta, spec) < 0.03
    assert fit.flags == ("no_scatter",)
    assert float(fit.theta[E0]) == pytest.approx(12.7, abs=0.05)  # its prior is all that is known


@pytest.mark.parametrize("names", ["Ca Fe", "Ca Fe Zn"])
def test_few_elements_are_flagged_and_the_scatter_peaks_give_the_axis(names):
    spec = spec_of({n: ELEMENTS[n] for n in names.split()} | SCATTER)
    fit, truth = both(spec)
    assert truth.r2 - fit.r2 <= WORSE
    assert fit.flags == ("few_elements",)
    assert any("few_elements" in m for m in fit.messages)
    assert energy_error_kev(fit.theta, spec) < 0.03


@pytest.mark.parametrize("element", ["Fe", "Mn", "Cu"])
def test_the_axis_of_a_pure_metal_is_refused(element):
    spec = spec_of({element: 60.0, "elastic": 3.0, "compton": 5.0, "continuum": 2.0}, listed=("Mn", "Fe", "Cu"))
    fit = fit_from_nothing(counts_of(spec), setup_of(spec))
    assert NOT_FOUND in fit.flags
    assert any(m.startswith(f"{NOT_FOUND}: ") and "are needed" in m for m in fit.messages)


def test_five_families_are_not_few_and_pile_up_is_none():
    five = {n: ELEMENTS[n] for n in ("K", "Ca", "Mn", "Fe", "Zn")} | SCATTER
    assert both(spec_of(five))[0].flags == ()
    listed = ("K", "Ca", "Mn", "Fe", "Ca_Ca")
    four = {n: ELEMENTS[n] for n in listed[:4]} | SCATTER
    assert both(spec_of(four, listed=listed))[0].flags == ("few_elements",)


@pytest.mark.parametrize("total", [1e3, 1e5])
def test_a_single_line_fixes_no_axis(total):
    """Iron alone, with manganese listed beside it, and nothing else to tell their lines apart by."""
    spec = spec_of({"Fe": 60.0, "continuum": 2.0}, off_kev=0.0, total=total, listed=("Mn", "Fe"))
    fit = fit_from_nothing(counts_of(spec), setup_of(spec, energy_range_kev=[1.0, 9.0]))
    assert fit.flags[:2] == ("few_elements", "no_scatter")
    assert {AMBIGUOUS, NOT_FOUND} & set(fit.flags)


def test_a_spectrum_without_counts_is_refused():
    with pytest.raises(FitError, match="no counts"):
        fit_from_nothing(torch.zeros(2048), setup_of(spec_of(MANY)))


def _same(one, two):
    """Whether all that was fitted is the same, bit by bit, parts of parts included."""
    if isinstance(one, torch.Tensor):
        return torch.equal(torch.nan_to_num(one), torch.nan_to_num(two))
    if not is_dataclass(one):
        return one == two
    names = [f.name for f in fields(one) if f.name not in {"cpu_s", "table"}]
    return type(one) is type(two) and all(_same(getattr(one, name), getattr(two, name)) for name in names)


def test_a_second_fit_has_the_same_bits():
    spec = spec_of(MANY)
    counts, setup = counts_of(spec), setup_of(spec)
    before = counts.clone()
    assert _same(fit_from_nothing(counts, setup), fit_from_nothing(counts, setup))
    assert torch.equal(counts, before)


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def _on_one_thread(counts, setup):
    with one_thread():
        return fit_from_nothing(counts, setup)


@pytest.mark.usefixtures("two_threads")
def test_the_threads_of_the_process_change_no_bit_of_a_task():
    spec = spec_of(MANY)
    counts, setup = counts_of(spec), setup_of(spec)
    first = _on_one_thread(counts, setup)
    torch.set_num_threads(3)
    assert _same(first, _on_one_thread(counts, setup))
    assert torch.get_num_threads() == 3


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_a_fit_on_two_threads_has_the_figures_of_one():
    spec = spec_of(MANY)
    counts, setup = counts_of(spec), setup_of(spec)
    alone, split = _on_one_thread(counts, setup), fit_from_nothing(counts, setup)
    assert split.theta.tolist() == pytest.approx(alone.theta.tolist(), rel=1e-8)
    assert split.amplitude.tolist() == pytest.approx(alone.amplitude.tolist(), rel=1e-8)


def test_starts_near_a_calibration_bring_its_peaks_into_place():
    spec = spec_of(MANY, off_kev=0.2)
    near = {"energy_offset": 0.03, "energy_slope": 0.0105 * 1.004}
    setup = setup_of(spec)
    setup = replace(setup, parameters=replace_values(setup.parameters, near))
    starts = find_starts_near(counts_of(spec), setup)
    assert starts.shape[0] >= 2
    for theta in starts:
        assert energy_error_kev(theta, spec) < 0.02
    assert all(math.isfinite(v) for v in starts.flatten().tolist())


@pytest.mark.parametrize("names", [("energy_offset",), ("energy_slope",), ("energy_offset", "energy_slope")])
def test_a_fixed_axis_stays_where_it_is_and_costs_nothing(names):
    spec = spec_of(MANY)
    axis = {"energy_offset": 0.05, "energy_slope": 0.0105}
    fit = fit_from_nothing(
        torch.from_numpy(simulate_spectrum(spec).counts.astype(float)),
        setup_of(spec, fixed=list(names), start={name: axis[name] for name in names}),
    )
    for name in names:
        assert float(fit.theta[INDEX[name]]) == axis[name]
    assert fit.r2 > 0.999
    assert energy_error_kev(fit.theta, spec) < 0.015
