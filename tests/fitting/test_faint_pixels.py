"""Pixels of few counts by the kernel, beside the tensor operations and beside double precision."""

from dataclasses import replace

import pytest
import torch
from pixel_samples import BASIS, deviance_of_faint, fit, poisson_pixels

from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.compiled import compile_expectation, find_deviance, fit_compiled
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.result import FitStatus

MAPS = ("amplitude", "sigma", "detection_limit", "deviance", "deviance_z", "status")


def scan_of(counts_a_pixel, basis=BASIS):
    """The basis of a scan whose mean pixel has so many counts."""
    scale = counts_a_pixel / float(basis.expected.sum())
    return replace(basis, expected=scale * basis.expected, coefficients=scale * basis.coefficients)


FAINT = scan_of(10.0)
KERNEL = prepare_solver("linear", FAINT)
TENSORS = replace(KERNEL, compiled=None)


def pixels(level, n=700, seed=3):
    """Pixels of unlike composition; some hold none of a component."""
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(FAINT.coefficients), generator=generator).double()
    share[torch.rand(share.shape, generator=generator) < 0.2] = 0.0
    return poisson_pixels(level / 10.0 * share * FAINT.coefficients, seed)


def assert_same(counts, measured=None):
    measured = torch.ones(len(counts), dtype=torch.bool) if measured is None else measured
    ours, theirs = (fit_pixels(counts, measured, solver) for solver in (KERNEL, TENSORS))
    assert torch.equal(ours.status, theirs.status)
    for name in MAPS:
        assert torch.equal(getattr(ours, name).isnan(), getattr(theirs, name).isnan())
    assert float(((ours.amplitude - theirs.amplitude) / theirs.sigma).abs().nan_to_num().max()) < 1e-4
    assert float((ours.sigma / theirs.sigma - 1.0).abs().nan_to_num().max()) < 2e-4
    assert float((ours.detection_limit / theirs.detection_limit - 1.0).abs().nan_to_num().max()) < 1e-3
    # Of a hot pixel both are sums of large numbers.
    rounding = 1e-5 * theirs.deviance.abs() + 2e-7 + 1e-8 * counts.to(torch.float64).nan_to_num(neginf=0.0).sum(dim=1)
    rounding = rounding.nan_to_num(nan=1.0) + deviance_of_faint(counts)
    assert bool(((ours.deviance - theirs.deviance).abs().nan_to_num() < rounding).all())
    return ours


@pytest.mark.parametrize("level", [0.3, 10.0, 45.0, 2000.0])
def test_the_kernel_gives_what_the_tensors_give(level):
    counts = pixels(level)
    found = assert_same(counts)
    coefficients = counts.double() @ KERNEL.operator.projector.double()
    exact = poisson_deviance(counts.double(), coefficients @ FAINT.columns.T, floor=1e-3)
    exact = exact / (counts.shape[1] - FAINT.columns.shape[1])
    allowed = 2e-5 * (1e-3 + exact) + deviance_of_faint(counts)
    assert bool(((found.deviance - exact).abs() < allowed).all())


def test_also_for_what_is_empty_broken_negative_hot_or_not_measured():
    counts = pixels(10.0, 9)
    counts[1] = 0.0
    counts[2, 7] = float("nan")
    counts[3, 9] = -float("inf")
    counts[4, 11] = -2.0
    counts[5] = poisson_pixels((2e4 * FAINT.coefficients * (torch.arange(8) == 1))[None])
    counts[6, 300] = 5e4
    counts[7, -1] = 3.0
    counts[7, 0] = 2.0
    measured = torch.arange(9) != 8
    found = assert_same(counts, measured)
    assert found.status[1:4].tolist() == [FitStatus.EMPTY, FitStatus.NONFINITE, FitStatus.NONFINITE]


def test_the_type_of_the_counts_where_they_lie_and_the_tile_change_no_bit():
    """Words of 8 bytes begin anywhere, and the last channels fill none."""
    counts = pixels(10.0, 600).clamp(max=200.0)
    counts[300, -3:] = torch.tensor([1.0, 0.0, 2.0])
    whole = fit(counts, solver=KERNEL)
    for dtype in (torch.float32, torch.uint8, torch.uint16, torch.uint32):
        longer = torch.zeros((600, counts.shape[1] + 9), dtype=torch.float32)
        for first in (0, 1, 3, 9):
            longer.fill_(7.0)
            longer[:, first : first + counts.shape[1]] = counts
            for start, stop in ((0, 600), (41, 48), (299, 301), (130, 590)):
                tile = longer.to(dtype)[start:stop, first : first + counts.shape[1]]
                found = fit(tile, solver=KERNEL)
                for name in MAPS:
                    assert torch.equal(getattr(found, name), getattr(whole, name)[start:stop]), (dtype, name)


@pytest.mark.parametrize("n_channels", [512, 513, 514, 515, 516, 517, 518, 519])
def test_any_number_of_channels_is_read_to_its_end(n_channels):
    basis = replace(FAINT, columns=FAINT.columns[:n_channels], expected=FAINT.expected[:n_channels])
    solver = prepare_solver("linear", basis)
    tensors = replace(solver, compiled=None)
    counts = pixels(10.0, 40)[:, :n_channels].clone()
    counts[:, -3:] = torch.arange(120.0).reshape(40, 3) % 3.0
    for dtype in (torch.uint8, torch.uint16, torch.float32):
        ours, theirs = (fit(counts.to(dtype), solver=one) for one in (solver, tensors))
        assert float(((ours.amplitude - theirs.amplitude) / theirs.sigma).abs().max()) < 1e-4
        allowed = 1e-5 * theirs.deviance + 2e-7 + deviance_of_faint(counts, basis)
        assert bool(((ours.deviance - theirs.deviance).abs() < allowed).all())


def test_every_count_of_every_type_is_found():
    """One channel of one pixel at a time, up to the largest number of a type."""
    n = FAINT.columns.shape[0]
    for dtype, largest in ((torch.uint8, 255), (torch.uint16, 65535), (torch.uint32, 4_000_000_000)):
        counts = torch.zeros((n, n), dtype=torch.int64)
        counts.diagonal().copy_(torch.linspace(1, largest, n).long())
        found = fit(counts.to(dtype), solver=KERNEL)
        exact = counts.double() @ KERNEL.operator.projector.double()[:, : FAINT.n_components]
        # Single precision tells 4e9 counts from no fewer than 128 more.
        allowed = 1e-4 * found.sigma + 1e-6 * exact.abs().amax(dim=1, keepdim=True)
        assert bool(((found.amplitude - exact).abs() < allowed).all())


def test_a_bright_tile_of_a_faint_scan_is_fitted_as_its_scan():
    """What a tile holds chooses nothing: its pixels have the bits that they have among faint ones."""
    bright, faint = pixels(3000.0, 50), pixels(10.0, 50)
    alone, among = fit(bright, solver=KERNEL), fit(torch.cat([faint, bright]), solver=KERNEL)
    for name in MAPS:
        assert torch.equal(getattr(alone, name), getattr(among, name)[50:])


def test_faint_and_bright_pixels_side_by_side_have_the_bits_that_they_have_alone():
    """Whether a pixel is faint is a matter of its own counts, whatever its companions are and in whichever order."""
    counts = torch.cat([pixels(level, 60, seed) for seed, level in enumerate((10.0, 64.0, 64.0, 400.0))])
    counts = counts[torch.randperm(len(counts), generator=torch.Generator().manual_seed(7))]
    together = fit(counts, solver=KERNEL)
    total = counts.sum(dim=1)
    assert int(((total > 55) & (total < 75)).sum()) > 20
    for i in range(0, len(counts), 7):
        for dtype in (torch.float32, torch.uint16):
            alone = fit(counts[i : i + 1].to(dtype), solver=KERNEL)
            for name in MAPS:
                assert torch.equal(getattr(alone, name), getattr(together, name)[i : i + 1])


def test_counts_that_are_not_whole_or_negative_zeros_are_fitted_as_any():
    counts = pixels(10.0, 40)
    counts[::2] *= 0.37
    counts[1::4][counts[1::4] == 0.0] = -0.0
    counts[3] = 0.0
    counts[3, 100] = -0.0
    found = assert_same(counts)
    assert found.status[3] == FitStatus.EMPTY
    plain = fit(counts + 0.0, solver=KERNEL)
    for name in MAPS:
        assert torch.equal(getattr(found, name).nan_to_num(), getattr(plain, name).nan_to_num())


def test_the_total_is_that_of_its_channels_and_the_deviance_that_of_all():
    compiled = replace(KERNEL.compiled, total=slice(10, 400))
    counts = pixels(10.0, 40)
    counts[::3, 450] = 300.0
    found = fit_compiled(counts.to(torch.uint16), compiled, deviance=True, errors=False)
    assert torch.equal(found.total, counts[:, 10:400].sum(dim=1))
    whole = fit_compiled(counts.to(torch.uint16), KERNEL.compiled, deviance=True, errors=False)
    assert torch.equal(found.misfit, whole.misfit)
    assert float(whole.misfit[::3].min()) > 1e3


def test_more_columns_than_a_vector_holds():
    generator = torch.Generator().manual_seed(5)
    more = (
        FAINT.columns[:, :6].roll(17, dims=0),
        FAINT.columns[:, :6].roll(-23, dims=0),
        FAINT.columns[:, :6].roll(71, dims=0),
    )
    columns = torch.cat([FAINT.columns[:, :6], *more, FAINT.columns[:, 6:]], dim=1)
    coefficients = torch.cat([FAINT.coefficients[:6].repeat(4) / 4.0, FAINT.coefficients[6:]])
    basis = replace(FAINT, columns=columns, coefficients=coefficients, expected=columns @ coefficients, n_components=24)
    solver = prepare_solver("linear", basis)
    counts = torch.poisson((columns @ coefficients).expand(100, -1).clamp(min=0.0), generator=generator).to(torch.uint8)
    ours, theirs = (fit(counts, solver=one) for one in (solver, replace(solver, compiled=None)))
    assert float(((ours.amplitude - theirs.amplitude) / theirs.sigma).abs().max()) < 1e-4
    assert bool(((ours.deviance - theirs.deviance).abs() < 1e-5 + deviance_of_faint(counts.float(), basis)).all())


@pytest.mark.parametrize(("width", "apart"), [(6.0, 163.0), (6.0, 1.0), (2.0, 30.0), (0.6, 30.0)])
def test_the_deviance_of_faint_pixels_is_within_a_hundredth_of_its_noise(width, apart):
    """Also where neighbours are a channel apart, and amplitudes far below 0 lead below the least expectation."""
    channel = torch.arange(600.0, dtype=torch.float64)[:, None]
    centres = torch.tensor([100.0, 260.0, 260.0 + apart, 480.0], dtype=torch.float64)
    peaks = torch.exp(-0.5 * ((channel - centres) / width) ** 2)
    columns = torch.cat([peaks, torch.exp(-channel / 200.0), torch.ones_like(channel)], dim=1)
    columns = columns / columns.sum(dim=0)
    few = replace(
        FAINT, columns=columns, coefficients=torch.full((6,), 5.0).double(), expected=5.0 * columns.sum(dim=1)
    )
    solver = prepare_solver("linear", replace(few, n_components=4))
    generator = torch.Generator().manual_seed(11)
    share = torch.rand((500, 6), generator=generator).double() ** 3
    share[:100] = 0.0
    share[:100, 5] = 1.0
    totals = torch.tensor([3.0, 10.0, 30.0, 55.0]).double().repeat(125)[:, None]
    counts = torch.poisson(totals * share / share.sum(dim=1, keepdim=True) @ columns.T, generator=generator)
    found = fit(counts.to(torch.uint8), solver=solver).deviance * (600 - 6)
    exact = poisson_deviance(counts, counts @ solver.operator.projector.double() @ columns.T, floor=1e-3)
    kept = counts.sum(dim=1) > 0
    spread = torch.stack([exact[i::4].std() for i in range(4)]).repeat(125)
    assert float(((found - exact).abs() / spread)[kept].max()) < 0.02


def test_more_channels_are_summed_where_columns_are_hard_to_tell_apart():
    channel = torch.arange(600.0, dtype=torch.float64)[:, None]
    numbers = []
    for apart in (163.0, 1.0):
        centres = torch.tensor([100.0, 260.0, 260.0 + apart, 480.0], dtype=torch.float64)
        columns = torch.exp(-0.5 * ((channel - centres) / 6.0) ** 2) + 1e-3
        columns = columns / columns.sum(dim=0)
        basis = replace(FAINT, columns=columns, coefficients=torch.ones(4).double(), expected=columns.sum(dim=1))
        number = prepare_solver("linear", replace(basis, n_components=4)).compiled.faint[3]
        assert float(number.sum()) == 600.0
        numbers.append(len(number))
    assert numbers[0] < numbers[1]


def test_known_coefficients_may_be_any():
    """Columns of changes have no counts of their own, and coefficients of either sign."""
    channel = torch.arange(600.0, dtype=torch.float64)
    peak = torch.exp(-0.5 * ((channel - 302.3) / 0.7) ** 2)
    columns = torch.stack([torch.exp(-channel / 200.0), peak, -torch.gradient(peak)[0]])
    columns[:2] /= columns[:2].sum(dim=1, keepdim=True)
    factors = torch.tensor([[20.0, 20.0, 10.0]])
    counts = torch.poisson((factors.double() @ columns).clamp(min=0.0), generator=torch.Generator().manual_seed(1))
    found = find_deviance(counts.to(torch.uint8), factors, compile_expectation(columns))
    exact = poisson_deviance(counts, factors.double() @ columns, floor=1e-3)
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=0.0)
