"""Whether `linear` maps are right at few counts: bias of a trace, and how often 68 % intervals hold the truth.

"Counts a pixel" are the expected ones of the family whose interval it is. Coverage by the counts of the whole pixel
stands beside it, of the families expected at 5 counts or more in it. Below that, estimates take few values, and no
interval covers 68 %, be its sigma the true one (0.67 to 0.82); ours is too wide rather than too narrow there, because a
family that came out near 0 is taken to be expected a little above.
"""

import pytest
import torch
from bench_pixels import (
    CONTINUUM,
    FAMILIES,
    KNOWN,
    MEAN,
    SHAPE,
    SPAN_KEV,
    fitted_as_stored,
    inside,
    made_cube,
    solver_of,
)

from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

pytestmark = pytest.mark.bench

N_PIXELS = SHAPE[0] * SHAPE[1]
TRACE = "V"  # Between Ti and Cr, each of which overlaps it.
LEAST_COUNTS = 5.0
TOTAL = sum(MEAN) + CONTINUUM
ROWS = 2000


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def lines(families):
    return build_line_table(families, 12.0, efficiency=Detector())


@pytest.fixture(scope="module")
def cube():
    """Counts (pixel, channel) uint16 of the cube of `bench_pixels`, and its true amplitudes (pixel, component)."""
    torch.set_num_threads(1)
    counts, amplitude = made_cube(lines(FAMILIES))
    return counts.to(torch.uint16), amplitude


def integrated(counts, families):
    start = replace_values(PARAMETERS, {"coherent_sct_energy": 12.0})
    setup = FitProblem(
        table=lines(families),
        constants=PHYSICS,
        parameters=start,
        energy_min_kev=SPAN_KEV[0],
        energy_max_kev=SPAN_KEV[1],
    )
    return fit_spectrum(sum(part.double().sum(dim=0) for part in counts.split(ROWS)), setup)


def linear(counts, fit):
    """Amplitudes and sigma (pixel, component) with the background in the fit, as a run makes them."""
    return fitted_as_stored(counts, solver_of("linear", fit, 4, len(counts)), deviance=False)()


def spectra(families, amplitude):
    """Expected counts (channel,) of families, and scatter, as the cube has them."""
    theta = pack(replace_values(PARAMETERS, KNOWN))
    channel = torch.arange(SHAPE[2], dtype=torch.float64)
    model = SpectrumModel(table=lines(families), channel=channel, constants=PHYSICS)
    phi = evaluate(theta, model).phi
    return phi[:, : len(amplitude)] @ torch.tensor(amplitude, dtype=torch.float64)


def drawn(expected, n, seed):
    """Poisson counts (pixel, channel) uint16 of one spectrum."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty((n, len(expected)), dtype=torch.uint16)
    rows = expected.clamp(min=0.0).float().expand(ROWS, -1)
    for i in range(0, n, ROWS):
        out[i : i + ROWS] = torch.poisson(rows, generator=generator).to(torch.uint16)
    return out


def fitted_trace(counts, level, seed):
    """Amplitude and sigma (pixel,) of a trace with so many expected counts in every pixel of the cube."""
    trace = drawn(spectra([TRACE], [level]), len(counts), seed)
    both = (counts.int() + trace.int()).to(torch.uint16)
    families = [*FAMILIES, TRACE]
    fit = integrated(both, families)
    found = linear(inside((both, None), fit, dtype=torch.uint16), fit)
    at = families.index(TRACE)
    return found.amplitude[:, at].double(), found.sigma[:, at].double()


def whole_pixels(total, n):
    """Counts (pixel, channel) uint16 of the cube's mean composition, with so many in the whole spectrum."""
    channel = torch.arange(SHAPE[2], dtype=torch.float64)
    continuum = torch.exp(-channel / 500.0) * (channel > 30)
    expected = spectra(FAMILIES, MEAN) + CONTINUUM * continuum / continuum.sum()
    return drawn(expected * (total / TOTAL), n, int(total))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("level", [1.0, 3.0, 10.0, 30.0, 100.0])
def test_a_trace_is_unbiased(cube, figure, level):
    amplitude, _ = fitted_trace(cube[0], level, int(level))
    error = float(amplitude.std()) / N_PIXELS**0.5
    wrong = float(amplitude.mean()) - level
    figure(
        name=f"linear, with background: bias of {TRACE} at {level:g} counts a pixel",
        value=wrong / error,
        unit="standard errors",
        includes=f"mean of {N_PIXELS} pixels less the truth: {wrong:+.4f} counts, standard error {error:.4f}; theta "
        "and background are those of the integrated fit",
    )
    assert abs(wrong) < 3.0 * error


@pytest.mark.timeout(600)
@pytest.mark.parametrize("level", [50.0, 100.0, 200.0, 400.0, 1e3, 1e4, 1e5])
def test_intervals_cover_by_the_counts_of_the_family(cube, figure, level):
    amplitude, sigma = fitted_trace(cube[0], level, int(level) + 1)
    cover = float(((amplitude - level).abs() < sigma).double().mean())
    figure(
        name=f"68 % intervals that hold the truth, {level:g} counts of the family a pixel",
        value=cover,
        unit="",
        includes=f"{TRACE} in {N_PIXELS} pixels, background and calibration fitted",
    )
    assert 0.66 < cover < 0.70


@pytest.mark.timeout(600)
@pytest.mark.parametrize("total", [50.0, 100.0, 200.0, 400.0, 1e3, 1e4, 1e5])
def test_intervals_cover_by_the_counts_of_the_whole_pixel(cube, figure, total):
    fit = integrated(cube[0], FAMILIES)
    counts = whole_pixels(total, 20_000)
    found = linear(inside((counts, None), fit, dtype=torch.uint16), fit)
    truth = torch.tensor(MEAN, dtype=torch.float64) * (total / TOTAL)
    wrong = (found.amplitude.double() - truth).abs()
    cover = (wrong < found.sigma).double().mean(dim=0)
    best = (wrong < found.amplitude.double().std(dim=0)).double().mean(dim=0)
    seen = truth >= LEAST_COUNTS
    told = f"{len(counts)} pixels, the {int(seen.sum())} components expected at {LEAST_COUNTS:g} counts or more"
    if not bool(seen.all()):
        rest = ~seen
        told += f"; the others: {float(cover[rest].min()):.2f} to {float(cover[rest].max()):.2f}, with the true "
        told += f"standard deviation {float(best[rest].min()):.2f} to {float(best[rest].max()):.2f}"
    value = float(cover[seen].mean())
    figure(
        name=f"68 % intervals that hold the truth, {total:g} counts in the whole pixel",
        value=value,
        unit="",
        includes=told,
    )
    assert 0.66 < value < 0.70
