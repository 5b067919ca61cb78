"""Spectra per CPU second of every pixel method, one thread, on a cube with known truth; PyMca and mapstorch beside.

The cube lies in memory, uint16 as the store gives it, 2048 channels a pixel of which the fit range is a view; what is
prepared once a scan (the solver) is not counted, as the peers' configuration is not. The peers are given their
better one of uint16 and float32.
"""

import copy
import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hpcxrf.fitting.pixels.basis import group_background, pixel_basis
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.full import full_model, full_solver
from hpcxrf.fitting.pixels.nnls import tensor_solver as nnls_by_tensors
from hpcxrf.fitting.pixels.parts import move_to
from hpcxrf.fitting.pixels.poisson import fit_poisson, likelihood
from hpcxrf.fitting.pixels.tangent import fit_tangent, tangent_operator, tangents_at
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

pytestmark = pytest.mark.bench

CPU = torch.device("cpu")
SHAPE = (200, 200, 2048)
FAMILIES = ["Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn"]
# Mean counts a pixel of the families, elastic and Compton; the continuum brings the rest of 5355.
MEAN = (40, 15, 60, 50, 30, 200, 800, 25, 20, 60, 1500, 10, 30, 250, 500, 600, 865)
CONTINUUM = 300.0
KNOWN = {"coherent_sct_energy": 12.0, "energy_offset": 0.004, "energy_slope": 0.01003, "fwhm_offset": 0.113}
SPAN_KEV = (1.0, 13.0)
PEER_PIXELS = 10_000


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@pytest.fixture(scope="module")
def table():
    return build_line_table(FAMILIES, 12.0, efficiency=Detector())


def made_cube(table, level=1.0, pixels=SHAPE[0] * SHAPE[1]):
    """Counts (pixel, channel) float32 and true amplitudes (pixel, component); every family on its own pattern."""
    generator = torch.Generator().manual_seed(20)
    theta = pack(replace_values(PARAMETERS, KNOWN))
    channel = torch.arange(SHAPE[2], dtype=torch.float64)
    model = SpectrumModel(table=table, channel=channel, constants=PHYSICS)
    phi = evaluate(theta, model).phi
    continuum = torch.exp(-channel / 500.0) * (channel > 30)
    columns = torch.cat([phi, (continuum / continuum.sum())[:, None]], dim=1).float()
    share = 2.0 * level * torch.rand(pixels, columns.shape[1], generator=generator)
    amplitude = share * torch.tensor([*MEAN, CONTINUUM])
    counts = torch.empty(amplitude.shape[0], SHAPE[2])
    for i in range(0, len(counts), 2000):
        expected = (amplitude[i : i + 2000] @ columns.T).clamp(min=0.0)
        counts[i : i + 2000] = torch.poisson(expected, generator=generator)
    return counts, amplitude[:, :-1]


@pytest.fixture(scope="module")
def cube(table):
    torch.set_num_threads(1)
    return made_cube(table)


@pytest.fixture(scope="module")
def fitted(cube, table):
    """The integrated fit of the cube, as a run makes it, from nearby parameters."""
    counts, _ = cube
    start = replace_values(PARAMETERS, {"coherent_sct_energy": 12.0})
    setup = FitProblem(
        table=table, constants=PHYSICS, parameters=start, energy_min_kev=SPAN_KEV[0], energy_max_kev=SPAN_KEV[1]
    )
    return fit_spectrum(counts.sum(dim=0, dtype=torch.float64), setup)


def model_of(fit):
    stop = fit.first_channel + len(fit.counts)
    return SpectrumModel(
        table=fit.table,
        channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
        constants=PHYSICS,
        tailed=find_tailed_lines(fit.table, elastic=True, constants=PHYSICS),
    )


def basis_of(fit, groups, n_pixels):
    phi = evaluate(fit.theta, model_of(fit)).phi
    background = group_background(fit.background_parts, groups)
    return pixel_basis(phi, fit.amplitude, background, n_pixels, first_channel=fit.first_channel)


def inside(cube, fit, n=None, dtype=torch.float32):
    first = fit.first_channel
    return cube[0][:n].to(dtype)[:, first : first + len(fit.counts)]


def solver_of(method, fit, groups, n_pixels, device=CPU):
    """As a run makes it, but that no pixel is followed."""
    basis = basis_of(fit, groups, n_pixels)
    if method == "full":
        return full_solver(move_to(device, full_model(model_of(fit), fit.theta, basis)), basis, device)
    if method == "nonlinear":
        basis = replace(basis, tangents=tangents_at(fit.theta, model_of(fit)))
    return prepare_solver(method, basis, None, device)


def fitted_as_stored(counts, solver, **options):
    """A fit of counts whose highest is known, as the store knows it."""
    every = torch.ones(len(counts), dtype=torch.bool)
    highest = float(counts.to(torch.float32).max())
    return lambda: fit_pixels(counts, every, solver, highest=highest, **options)


def best_rate(run, n_pixels, repeats=3):
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return n_pixels / min(seconds)


# --- peers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pymca(cube, fitted):
    """Spectra per CPU second and mean amplitudes of FastXRFLinearFit, without background and with SNIP.

    With weights of the mean spectrum, as ours, and its default of fitting again without what came out negative.
    """
    if find_spec("PyMca5") is None:
        pytest.skip("PyMca5 is not installed: pip install hpcxrf[bench]")
    from PyMca5.PyMcaPhysics.xrf.ClassMcaTheory import McaTheory
    from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

    first = fitted.first_channel
    stop = first + len(fitted.counts)
    values = dict(zip(fitted.parameter_names, fitted.theta.tolist(), strict=True))
    found = {}
    for name, strip in (("none", 0), ("snip", 1)):
        config = copy.deepcopy(McaTheory().config)
        config["peaks"] = {family: ["K"] for family in FAMILIES}
        config["fit"].update(
            energy=[12.0],
            energyweight=[1.0],
            energyflag=[1],
            energyscatter=[1],
            scatterflag=1,
            stripflag=strip,
            stripalgorithm=1,
            snipwidth=25,
            continuum=0,
            hypermetflag=1,
            fitweight=0,
            linearfitflag=1,
            use_limit=1,
            xmin=first,
            xmax=stop,
            sumflag=0,
            escapeflag=0,
        )
        config["detector"].update(
            zero=values["energy_offset"],
            gain=values["energy_slope"],
            noise=values["fwhm_offset"],
            fano=PHYSICS.width_factor * values["fwhm_fanoprime"] / 0.00385,
        )
        fit = FastXRFLinearFit()
        fit.setFitConfiguration(config)
        keep = {}

        def run(counts, fit=fit, keep=keep):
            keep["out"] = fit.fitMultipleSpectra(
                x=np.arange(SHAPE[2], dtype=np.float64), y=counts, weight=1, save=False
            )

        given = (cube[0][:PEER_PIXELS].numpy().astype(dtype)[None] for dtype in ("f4", "u2"))
        rate = max(best_rate(lambda counts=counts: run(counts), PEER_PIXELS) for counts in given)
        names = [str(label).split(" ")[0] for label in keep["out"].labels("parameters")]
        means = keep["out"]["parameters"].reshape(len(names), -1).mean(axis=1)
        found[name] = (rate, dict(zip(names, means.tolist(), strict=True)))
    return found


@pytest.fixture(scope="module")
def mapstorch(cube, fitted):
    """Spectra per CPU second of solve_mca_amplitudes, without background and with SNIP."""
    if find_spec("mapstorch") is None:
        pytest.skip("mapstorch is not installed: pip install hpcxrf[bench]")
    from mapstorch.default import default_param_vals
    from mapstorch.opt import solve_mca_amplitudes

    values = dict(zip(fitted.parameter_names, fitted.theta.tolist(), strict=True))
    params = default_param_vals | {
        name.upper(): value for name, value in values.items() if name.upper() in default_param_vals
    }
    last = fitted.first_channel + len(fitted.counts) - 1
    rates = {}
    for name, snip, n in (("none", False, PEER_PIXELS), ("snip", True, 400)):
        counts = cube[0][:n].numpy()
        rates[name] = best_rate(
            lambda counts=counts, snip=snip: solve_mca_amplitudes(
                counts,
                (fitted.first_channel, last),
                params,
                elements_to_fit=FAMILIES,
                energy_dim=1,
                use_snip=snip,
                progress_bar=False,
            ),
            n,
            repeats=2,
        )
    return rates


# --- figures ------------------------------------------------------------------------------------


WITHOUT = "amplitudes, status; no sigma, limits or deviance"


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["pymca", "mapstorch"])
@pytest.mark.parametrize(("background", "title"), [("none", "no background"), ("snip", "background")])
def test_linear_amplitudes_alone(cube, fitted, figure, request, peer, background, title):
    theirs = request.getfixturevalue(peer)[background]
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    solver = solver_of("linear", fitted, 0 if background == "none" else 4, len(cube[0]))
    counts = inside(cube, fitted, dtype=torch.uint16)
    run = fitted_as_stored(counts, solver, deviance=False, errors=False)
    operator = solver.operator
    bands = operator.banded.bands
    figure(
        name=f"linear, {title}, amplitudes alone",
        value=best_rate(run, len(counts), 9),
        unit="spectra / CPU s",
        peer=f"{peer}{', SNIP' if background == 'snip' else ''}",
        peer_value=theirs,
        includes=f"{operator.columns.shape[0]} columns in {len(bands)} bands; {bands[-1].stop} sums of "
        f"{counts.shape[1]} channels, which costs at most {100 * operator.loss:.2f} % of any variance; {WITHOUT}",
    )


def test_reading_is_the_limit(cube, fitted, figure):
    """What the same memory, in the same view, gives when nothing is done but to read it."""
    counts = inside(cube, fitted, dtype=torch.uint16)
    words = counts[:, : counts.shape[1] // 2 * 2].view(torch.int32)
    rate = best_rate(words.amax, len(counts), 9)
    figure(
        name="limit: reading the uint16 counts once",
        value=rate,
        unit="spectra / CPU s",
        includes="the highest of all 32-bit words of the fit range",
    )
    figure(name="read bandwidth, uint16 fit range", value=rate * 4 * words.shape[1], unit="B / s")
    floats = inside(cube, fitted)
    rate = best_rate(floats.sum, len(counts), 9)
    figure(name="limit: reading float32 counts once", value=rate, unit="spectra / CPU s")
    figure(name="read bandwidth, float32 fit range", value=rate * 4 * floats.shape[1], unit="B / s")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize(
    ("method", "pixels", "errors", "deviance"),
    [
        ("linear", 40_000, True, False),
        ("linear", 40_000, True, True),
        ("nnls", 40_000, False, False),
        ("nnls", 40_000, True, False),
        ("poisson", 6000, False, True),
        ("poisson", 6000, True, True),
        ("nonlinear", 20_000, False, False),
        ("nonlinear", 20_000, True, True),
        ("full", 32, True, True),
    ],
)
def test_methods(cube, fitted, figure, method, pixels, errors, deviance, dtype):
    if dtype == "float32" and method in {"poisson", "full"}:
        pytest.skip("the conversion is nothing beside the fit")
    solver = solver_of(method, fitted, 4, len(cube[0]))
    counts = inside(cube, fitted, pixels, dtype=getattr(torch, dtype))
    run = fitted_as_stored(counts, solver, errors=errors, deviance=deviance)
    rate = best_rate(run, len(counts), 5 if method in {"linear", "nnls"} else 2)
    included = [
        "amplitudes, status",
        *(["sigma, detection limits"] if errors else []),
        *(["deviance"] if deviance else []),
        *(["shifts of theta"] if method in {"nonlinear", "full"} else []),
    ]
    title = "nonlinear (tangent)" if method == "nonlinear" else method
    figure(
        name=f"{title}, {', '.join(included)}{'' if dtype == 'uint16' else ' (float32)'}",
        value=rate,
        unit="spectra / CPU s",
        includes=f"4 background columns; {dtype}; {pixels} pixels",
    )


LEVELS = (10, 180, 1700, 5300)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("counts_a_pixel", LEVELS)
@pytest.mark.parametrize(
    ("method", "pixels"), [("linear", 12_000), ("nnls", 6000), ("poisson", 1500), ("nonlinear", 6000)]
)
def test_kernels_beside_tensor_operations(cube, fitted, table, figure, method, pixels, counts_a_pixel):
    """All of amplitudes, sigma, limit, status and deviance; the tensor operations are those that a GPU runs."""
    given, _ = cube if counts_a_pixel == LEVELS[-1] else made_cube(table, counts_a_pixel / LEVELS[-1], pixels)
    first = fitted.first_channel
    # As a store keeps them.
    dtype = torch.uint8 if float(given[:pixels].max()) <= 255.0 else torch.uint16
    counts = given[:pixels].to(dtype)[:, first : first + len(fitted.counts)]
    share = counts_a_pixel / LEVELS[-1]
    scaled = basis_of(fitted, 4, len(cube[0]) / share)
    if method == "nonlinear":
        scaled = replace(scaled, tangents=tangents_at(fitted.theta, model_of(fitted)))
    kernel = prepare_solver(method, scaled)
    tensors = tensor_solver(method, kernel, scaled)
    runs = [fitted_as_stored(counts, solver) for solver in (kernel, tensors)]
    # In turn: the machine is not the same for long.
    best = [min(times) for times in zip(*[[seconds_of(run) for run in runs] for _ in range(5)], strict=True)]
    figure(
        name=f"{method}, kernel, {counts_a_pixel} counts a pixel",
        value=pixels / best[0],
        unit="spectra / CPU s",
        peer="tensor operations",
        peer_value=pixels / best[1],
        includes=f"amplitudes, sigma, detection limits, status, deviance; {str(dtype).removeprefix('torch.')}",
    )


def tensor_solver(method, kernel, basis):
    """The same fit as a device without kernels computes it."""
    if method == "linear":
        return replace(kernel, compiled=None)
    operator = kernel.operator
    if method == "nnls":
        return replace(nnls_by_tensors(operator), law=kernel.law)
    if method == "nonlinear":
        tangent = tangent_operator(basis, basis.tangents, operator)

        def step(counts, signed, *, deviance, errors):
            del deviance
            return fit_tangent(counts, signed, tangent, errors=errors)

        return replace(kernel, estimate=step, compiled=None)
    prepared = likelihood(operator)

    def estimate(counts, signed, *, deviance, errors):
        del deviance
        return fit_poisson(counts, signed, operator, prepared, errors=errors)

    return replace(kernel, estimate=estimate, compiled=None)


def seconds_of(run):
    began = time.process_time()
    run()
    return time.process_time() - began


def test_poisson_is_at_the_optimum(cube, fitted, figure):
    """Deviance beyond that of a bounded quasi-Newton search in float64 that begins at the result."""
    counts = inside(cube, fitted, 6000, dtype=torch.uint16)[::100]
    solver = solver_of("poisson", fitted, 4, len(cube[0]))
    found = fit_pixels(counts, torch.ones(len(counts), dtype=torch.bool), solver)
    columns = solver.operator.columns.double().numpy()
    beyond = []
    free = counts.shape[1] - len(columns)
    for y, amplitude, merit in zip(
        counts.double().numpy(), found.amplitude.double().numpy(), found.deviance.double().tolist(), strict=True
    ):
        best = best_deviance(y, columns, amplitude)
        beyond.append(merit * free - best)
    worst = max(beyond)
    figure(
        name="poisson: deviance beyond the optimum, worst pixel",
        value=worst,
        unit="",
        includes=f"{len(beyond)} pixels, scipy L-BFGS-B in float64 from several starts as the optimum",
    )
    assert worst < 0.05


def best_deviance(y, columns, amplitude):
    scale = columns.sum(axis=1) * y.sum() / columns.sum()
    scale = np.maximum(scale, 1.0)

    def deviance(x):
        mu = np.maximum((x * scale) @ columns, 1e-9)
        ratio = y / mu
        value = 2.0 * (mu.sum() - y.sum() + (y[y > 0] * np.log(ratio[y > 0])).sum())
        return value, 2.0 * scale * (columns @ (1.0 - ratio))

    n = len(columns)
    near = np.full(n, 0.1)
    near[: len(amplitude)] = np.maximum(amplitude, 0.1) / scale[: len(amplitude)]
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-14, "gtol": 1e-7, "maxcor": 30}
    found = [
        minimize(deviance, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * n, options=options).x
        for start in (near, np.full(n, 1.0))
    ]
    # The deviance that the maps hold sees no expectation below a thousandth of a count.
    expected = (np.maximum((x * scale) @ columns, 1e-3) for x in found)
    logs = np.where(y > 0, y, 1.0)
    return min(2.0 * (mu - y + y * np.log(logs / mu)).sum() for mu in expected)


def test_bias(cube, fitted, table, figure, request):
    """Of the families with more than 20 expected counts a pixel, in the mean over the cube."""
    counts, amplitude = inside(cube, fitted, dtype=torch.uint16), cube[1]
    every = torch.ones(len(counts), dtype=torch.bool)
    found = fit_pixels(counts, every, solver_of("linear", fitted, 4, len(cube[0])), deviance=False)
    bright = amplitude[:, : len(FAMILIES)].mean(dim=0) > 20.0
    ratio = found.amplitude.double().mean(dim=0) / amplitude.double().mean(dim=0)
    ratio = ratio[: len(FAMILIES)]
    worst = float((ratio[bright] - 1.0).abs().max())
    figure(name="worst bias of a family with more than 20 counts a pixel", value=100 * worst, unit="%")
    scatter = (found.amplitude - amplitude)[:, : len(FAMILIES)].double().std(dim=0)
    iron = FAMILIES.index("Fe")
    lines = table.ratio[table.component == iron]
    mean = float(amplitude[:, iron].double().mean())
    # MAPS counts the strongest line alone as the amplitude: less than 1 is possible then.
    strongest = float(lines.max() / lines.sum())
    for title, part in (("counts of the family", 1.0), ("counts of the strongest line", strongest)):
        figure(
            name=f"rms / sqrt of iron, amplitude = {title}",
            value=part * float(scatter[iron]) / (part * mean) ** 0.5,
            unit="",
        )
    if find_spec("PyMca5") is not None:
        _, theirs = request.getfixturevalue("pymca")["snip"]
        for name in ("Si", "Ca", "Fe", "Zn"):
            i = FAMILIES.index(name)
            given = float(amplitude[:PEER_PIXELS, i].mean())
            label = next(key for key in theirs if key.startswith(name))
            figure(
                name=f"fitted / true, {name}",
                value=float(ratio[i]),
                unit="",
                peer="pymca, SNIP",
                peer_value=theirs[label] / given,
            )
