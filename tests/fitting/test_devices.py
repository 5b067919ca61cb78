"""Every path that can go to a GPU, on a device whose tensors do not mix with those of the processor.

What it computes is compared with the processor, and how much a GPU would have to be told is held low: a launch costs
some 5 us, and where the processor waits for the device, the device waits for the processor afterwards.
"""

from dataclasses import replace

import pytest
import torch
from fit_samples import channels, drawn, expected_counts, setup, table
from pixel_samples import BASIS, METHODS, MODEL, N_COMPONENTS, ONE_DETECTOR, SOLVERS, THETA, poisson_pixels, prepare
from pretend_device import capture, pretend_device, watched

from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.graphs import BatchGraph
from hpcxrf.fitting.pixels.parts import move_to
from hpcxrf.fitting.pixels.tangent import tangents_at
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, build_space
from hpcxrf.fitting.spectrum.separable import minimise, start
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines
from hpcxrf.physics.parameters import pack
from hpcxrf.pipeline.pixels.device import Staging

DEVICE = pretend_device()
BATCH = 16384
# Launches and waits of one batch with everything that there is, 18 of them for the expected deviance: measured, with
# room for a few more. A CUDA device repeats those of `linear` by a graph.
MOST = {
    "linear": (60, 0),
    "weight_classes": (107, 4),
    "nnls": (225, 1),
    "poisson": (770, 10),
    "nonlinear": (880, 2),
    "full": (6000, 30),
}
MAPS = ("amplitude", "sigma", "detection_limit", "deviance", "theta_shift", "theta_shift_sigma")


def pixels(method):
    counts = poisson_pixels((3.0 * BASIS.coefficients).expand(12 if method == "full" else 3000, -1)).to(torch.uint16)
    # One was not measured, one has no counts.
    counts[5] = 0
    return counts, torch.arange(len(counts)) != 3


def fitted_there(counts, measured, solve):
    """The fit on the device, back on the processor, and what the device was asked to do."""
    with watched():
        solver = solve(DEVICE)
        tile = Staging(device=DEVICE).put(counts.numpy(), measured.numpy())
    with watched() as use:
        found = fit_pixels(tile.counts, tile.measured, solver, batch=BATCH)
    with watched():
        return Staging(device=DEVICE).begin_return(found)(), use


def assert_same(there, here, within_sigma=1e-4):
    torch.testing.assert_close(there.status, here.status)
    for name in MAPS:
        one, other = getattr(there, name), getattr(here, name)
        assert (one is None) == (other is None), name
        if one is None:
            continue
        known = torch.isfinite(other)
        assert bool((torch.isfinite(one) == known).all()), name
        if name == "amplitude":
            assert float((((one - other) / here.sigma)[known]).abs().max()) < within_sigma
        else:
            torch.testing.assert_close(one[known], other[known], rtol=2e-3 + 0.2 * within_sigma, atol=1e-4)
    if here.deviance_z is not None:
        assert float((there.deviance_z - here.deviance_z).nan_to_num().abs().max()) < 0.02 + 2.0 * within_sigma


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_the_device_alone_and_seldom_waits_for_it(method):
    counts, measured = pixels(method)
    there, use = fitted_there(counts, measured, lambda device: prepare(method, device=device))
    # A likelihood is maximised to a deviance of 0.005, wherever that is reached first.
    here = fit_pixels(counts, measured, SOLVERS[method])
    assert_same(there, here, within_sigma=2e-2 if method == "poisson" else 1e-4)
    assert there.status[3] == FitStatus.NOT_MEASURED
    assert there.status[5] == FitStatus.EMPTY
    launches, waits = MOST[method]
    assert use.launches.total() <= launches, use.launches.most_common(5)
    assert use.waits.total() <= waits, use.waits


def test_batches_of_one_size_are_repeated_by_one_launch_and_have_the_same_bits():
    """Two to bring counts and mask to where they were captured, one for the fit, two for the results."""
    with watched():
        plain = prepare("linear", device=DEVICE)
        solver = replace(plain, graph=BatchGraph(capture=capture))
    launches = []
    for level in (3.0, 0.1, 20.0, 1.0):
        counts = poisson_pixels((level * BASIS.coefficients).expand(500, -1)).to(torch.uint16)
        counts[7] = 0
        measured = torch.arange(500) % 50 != round(level)
        with watched():
            tile = Staging(device=DEVICE).put(counts.numpy(), measured.numpy())
            expected = fit_pixels(tile.counts, tile.measured, plain, batch=BATCH)
        with watched() as use:
            found = fit_pixels(tile.counts, tile.measured, solver, batch=BATCH)
        with watched():
            # Later batches change nothing of what was given before.
            fit_pixels(tile.counts[torch.arange(499, -1, -1).to(DEVICE)], tile.measured, solver, batch=BATCH)
            for name in ("amplitude", "sigma", "detection_limit", "deviance", "deviance_z", "status"):
                torch.testing.assert_close(
                    getattr(found, name).cpu(), getattr(expected, name).cpu(), rtol=0.0, atol=0.0, equal_nan=True
                )
        assert use.waits.total() == 0
        launches.append(use.launches.total())
    assert launches[0] > 50
    assert launches[1:] == [5, 5, 5]


def test_another_size_or_other_results_are_not_taken_from_what_was_captured():
    with watched():
        plain = prepare("linear", device=DEVICE)
        solver = replace(plain, graph=BatchGraph(capture=capture))
        counts, measured = (part[:64].to(DEVICE) for part in pixels("linear"))
        for _ in range(3):
            fit_pixels(counts, measured, solver, batch=BATCH)
        few = fit_pixels(counts[:60], measured[:60], solver, batch=BATCH)
        bare = fit_pixels(counts, measured, solver, errors=False, batch=BATCH)
        assert len(few.amplitude) == 60
        assert bool(bare.sigma.cpu().isnan().all())
        expected = fit_pixels(counts[:60], measured[:60], plain, batch=BATCH)
        assert torch.equal(few.deviance.cpu().nan_to_num(), expected.deviance.cpu().nan_to_num())


def _cannot(_):
    raise RuntimeError("operation not permitted when stream is capturing")


def _does_nothing(run):
    """A capture that forgets what it saw: results stay what they were overwritten with."""
    capture(run)
    return lambda: None


@pytest.mark.parametrize("broken", [_cannot, _does_nothing])
def test_what_cannot_be_repeated_goes_on_operation_by_operation_and_says_so(broken, caplog):
    with watched():
        plain = prepare("linear", device=DEVICE)
        solver = replace(plain, graph=BatchGraph(capture=broken))
        counts, measured = (part[:64].to(DEVICE) for part in pixels("linear"))
        fits = [fit_pixels(counts, measured, solver, batch=BATCH) for _ in range(4)]
        expected = fit_pixels(counts, measured, plain, batch=BATCH)
        for found in fits:
            assert torch.equal(found.amplitude.cpu().nan_to_num(), expected.amplitude.cpu().nan_to_num())
            assert torch.equal(found.status.cpu(), expected.status.cpu())
    assert solver.graph.captured is None
    assert [record.message for record in caplog.records if "operation by operation" in record.message][1:] == []
    assert "operation by operation" in caplog.text


def test_a_captured_batch_gives_its_memory_back_where_there_is_too_little():
    with watched():
        solver = replace(prepare("linear", device=DEVICE), graph=BatchGraph(capture=capture))
        counts, measured = (part[:64].to(DEVICE) for part in pixels("linear"))
        for _ in range(2):
            fit_pixels(counts, measured, solver, batch=BATCH)
        assert solver.graph.captured is not None

        def full(*_, **__):
            raise torch.OutOfMemoryError("full")

        with pytest.raises(torch.OutOfMemoryError):
            fit_pixels(counts[:50], measured[:50], replace(solver, estimate=full), batch=BATCH)
        assert solver.graph.captured is None


def test_what_would_wait_cannot_be_captured():
    with watched():
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="captured"):
            capture(lambda: float(there.sum()))


def test_a_device_is_given_more_pixels_by_the_same_launches():
    """Not so on a processor, which works on what its cache holds."""
    used = []
    for n in (6, 12):
        counts, measured = (part[:n] for part in pixels("full"))
        used.append(fitted_there(counts, measured, lambda device: prepare("full", device=device))[1])
    assert used[1].launches.total() < 1.3 * used[0].launches.total()


@pytest.mark.parametrize("method", ["linear", "nnls"])
def test_clipped_backgrounds_run_on_the_device(method):
    counts, measured = pixels(method)
    peaks = BASIS.columns[:, :N_COMPONENTS]
    basis = replace(BASIS, columns=peaks, coefficients=BASIS.coefficients[:N_COMPONENTS])

    def solve(device):
        return prepare_solver(method, basis, ONE_DETECTOR, device, clipped=True)

    there, use = fitted_there(counts, measured, solve)
    assert_same(there, fit_pixels(counts, measured, solve(torch.device("cpu"))))
    assert use.launches.total() <= 650
    assert use.waits.total() <= 1


def test_pixels_that_are_followed_run_on_the_device():
    counts, measured = (part[:300] for part in pixels("nonlinear"))
    basis = replace(BASIS, tangents=tangents_at(THETA, MODEL))

    def solve(device):
        return prepare_solver("nonlinear", basis, ONE_DETECTOR, device)

    there, use = fitted_there(counts, measured, solve)
    assert_same(there, fit_pixels(counts, measured, solve(torch.device("cpu"))))
    assert use.waits.total() <= 4


def test_the_steps_of_an_integrated_fit_run_on_the_device():
    lines, counts = table(), drawn(sum(expected_counts(1e6)), 7)[100:1250].double()
    tailed = find_tailed_lines(lines, elastic=True, constants=PHYSICS)
    problem = LeastSquares(
        counts=counts,
        weights=1.0 / (counts + 1.0),
        model=SpectrumModel(table=lines, channel=channels(100, 1249), constants=PHYSICS, tailed=tailed),
        hats=counts.new_zeros((len(counts), 0)),
        space=build_space(setup().parameters),
    )
    theta = pack(setup().parameters)
    here = minimise(start(theta, problem), problem, iterations=6)
    with watched():
        moved, begin = move_to(DEVICE, problem), theta.to(DEVICE)
    with watched() as use:
        there = minimise(start(begin, moved), moved, iterations=6)
    with watched():
        torch.testing.assert_close(there.theta.cpu(), here.theta, rtol=1e-9, atol=1e-12)
    # Whether it is done, whether the step is taken, whether the pivoting goes on.
    assert use.waits.total() <= 6 * 5


def test_mixing_tensors_of_two_devices_is_an_error():
    with watched():
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="mixed"):
            there + torch.ones(3)
        torch.testing.assert_close((there + 1.0).cpu(), torch.full((3,), 2.0))


def test_what_a_device_is_asked_is_counted():
    with watched():
        there = torch.arange(4.0).to(DEVICE)
    with watched() as use:
        double = (there * 2.0)[1:]
        assert float(double.sum()) == 12.0
        there[there > 1.0] = 0.0
    assert use.launches["aten.mul.Tensor"] == 1
    assert dict(use.waits) == {"aten._local_scalar_dense.default": 1, "aten.index_put_.default": 1}
