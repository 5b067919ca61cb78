"""The energy axis from nothing."""

from dataclasses import replace

import pytest
import torch

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.peaks import find_peaks
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum import screen as screen_module
from hpcxrf.fitting.spectrum.from_nothing import fit_from_nothing
from hpcxrf.fitting.spectrum.integrated import FitProblem
from hpcxrf.fitting.spectrum.screen import propose_axes, screen
from hpcxrf.fitting.spectrum.search import find_starts
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

ELEMENTS = ("Si", "S", "K", "Ca", "Ti", "Mn", "Fe", "Cu", "Zn")
INCIDENT_KEV = 11.0


def _setup() -> FitProblem:
    table = build_line_table(ELEMENTS, INCIDENT_KEV, efficiency=Detector())
    bounded = tuple(
        replace(p, value=INCIDENT_KEV, lower=INCIDENT_KEV - 0.45, upper=INCIDENT_KEV + 0.45)
        if p.name == "coherent_sct_energy"
        else p
        for p in PARAMETERS
    )
    return FitProblem(table=table, constants=PHYSICS, parameters=bounded, energy_min_kev=1.0, energy_max_kev=12.0)


def _counts(offset_kev: float, slope_kev: float, incident_kev: float, seed: int) -> torch.Tensor:
    truth = replace_values(
        PARAMETERS, {"energy_offset": offset_kev, "energy_slope": slope_kev, "coherent_sct_energy": incident_kev}
    )
    amplitude = torch.tensor([3e4, 8e3, 5e3, 4e4, 2e3, 6e3, 5e4, 7e3, 9e3, 2e4, 4e4], dtype=torch.float64)
    channel = torch.arange(2300, dtype=torch.float64)
    mean = model_spectrum(pack(truth), amplitude, _setup().table, channel, constants=PHYSICS)
    inside = offset_kev + slope_kev * channel > 0.5
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.where(inside, mean + 5.0, 0.0).clamp(min=0.0), generator=generator)


@pytest.mark.parametrize(
    ("offset_kev", "slope_kev", "incident_kev"),
    [(0.0, 0.01, 11.0), (-0.955, 0.0082, 11.2), (0.85, 0.0147, 10.8), (0.1, 0.0071, 12.3)],
)
def test_the_true_axis_is_found_from_nothing_but_the_lines(offset_kev, slope_kev, incident_kev):
    fit = fit_from_nothing(_counts(offset_kev, slope_kev, incident_kev, 1), _setup())
    theta = dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))
    for energy_kev in (2.0, 10.0):
        channel = (energy_kev - offset_kev) / slope_kev
        found = theta["energy_offset"] + channel * (theta["energy_slope"] + channel * theta["energy_quadratic"])
        assert found == pytest.approx(energy_kev, abs=0.015)
    assert fit.status is FitStatus.CONVERGED
    assert fit.r2 > 0.995


def test_the_best_candidates_of_the_grid_are_distinct_and_the_right_axis_is_among_the_first():
    offset, slope = screen(_counts(0.0, 0.01, 11.0, 2), _setup(), keep=8)
    at_end = offset + 1000 * slope
    assert len({round(float(e), 2) for e in at_end}) == 8
    assert float(((at_end - 10.0).abs() + offset.abs())[:3].min()) < 0.1


def test_few_peaks_are_told_apart_by_the_grid_as_well():
    counts = _counts(0.0, 0.01, 11.0, 2)
    peaks = find_peaks(counts.numpy())
    few = replace(peaks, channel=peaks.channel[:3], area=peaks.area[:3], z=peaks.z[:3])
    many = propose_axes(counts, peaks, _setup(), keep=6, window=5.0, incident_kev=INCIDENT_KEV)
    more = propose_axes(counts, few, _setup(), keep=6, window=5.0, incident_kev=INCIDENT_KEV)
    assert many.offset_kev.shape[0] <= 6
    assert more.offset_kev.shape[0] > 6
    assert float(many.incident_kev[0]) == pytest.approx(11.0, abs=0.05)


def test_the_given_start_of_the_axis_means_nothing():
    counts, setup = _counts(0.1, 0.012, 11.0, 3), _setup()
    wrong = replace(setup, parameters=replace_values(setup.parameters, {"energy_offset": 0.4, "energy_slope": 0.006}))
    one, two = find_starts(counts, setup)[0], find_starts(counts, wrong)[0]
    by_name = [{p.name: p.value for p in s.parameters} for s in (one.problem, two.problem)]
    assert by_name[0]["energy_slope"] == pytest.approx(by_name[1]["energy_slope"], rel=1e-3)


def test_nothing_is_found_in_an_empty_spectrum():
    with pytest.raises(FitError, match="no counts"):
        find_starts(torch.zeros(2048), _setup())


def test_kernels_and_tensors_explain_as_much_on_axes_all_over_the_range():
    """Half of the axes put counts outside of the fit range, and some of them all."""
    setup, bins = _setup(), screen_module._rebin(_counts(0.0, 0.01, 11.0, 4))
    generator = torch.Generator().manual_seed(1)
    offset = torch.rand(200, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    slope = 0.004 * 10.0 ** torch.rand(200, generator=generator, dtype=torch.float64)
    offset[:5], slope[:5] = 20.0, 0.01
    shapes = screen_module._compute_shapes(setup)
    by_kernels = screen_module._choose_solver(bins, slope, shapes, setup)(offset, slope)
    by_tensors = screen_module._choose_solver(bins, -slope, shapes, setup)(offset, slope)
    whole = float(bins.square.sum())
    torch.testing.assert_close(by_kernels[0] / whole, by_tensors[0] / whole, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(by_kernels[1], by_tensors[1], rtol=1e-9, atol=1e-9 * float(by_tensors[1].max()))
    assert bool((by_kernels[0][:5] == 0.0).all())
    # What no axis can explain lies outside of the range.
    bound = screen_module._bound_costs(bins, offset, slope, setup)
    assert bool((1.0 - by_kernels[0] / whole >= bound - 1e-9).all())
    torch.testing.assert_close(bound[:5], torch.ones(5, dtype=torch.float64))


def test_bins_at_the_very_ends_of_the_range_are_inside_for_all():
    """Energies and ends that binary numbers hold exactly; most counts lie in the two bins at the ends."""
    slope = torch.full((1,), 2.0**-7, dtype=torch.float64)
    offset = torch.zeros_like(slope)
    counts = torch.full((2300,), 3.0, dtype=torch.float64)
    bins = screen_module._rebin(counts)
    low, high = 50, 100
    setup = replace(
        _setup(), energy_min_kev=float(slope * bins.centre[low]), energy_max_kev=float(slope * bins.centre[high])
    )
    bins = replace(bins, counts=bins.counts.scatter(0, torch.tensor([low, high]), 1e4))
    shapes = screen_module._compute_shapes(setup)
    explained = [screen_module._choose_solver(bins, s, shapes, setup)(offset, slope)[0] for s in (slope, -slope)]
    # A bin half way between two energies of the table may take either.
    torch.testing.assert_close(explained[0], explained[1], rtol=5e-3, atol=0.0)
    assert float(explained[0] / bins.square.sum()) > 0.4
    outside = torch.ones_like(bins.centre)
    outside[low : high + 1] = 0.0
    share = float((outside * bins.square).sum() / bins.square.sum())
    assert float(screen_module._bound_costs(bins, offset, slope, setup)) == pytest.approx(share, rel=1e-9)
