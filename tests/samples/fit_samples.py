"""Synthetic spectra and set-ups that the tests of the model and of the fits share."""

from dataclasses import fields, replace

import torch
from hypothesis import strategies as st

from hpcxrf.fitting.spectrum.integrated import FitProblem
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table, build_table_from_arrays
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES, PARAMETERS, pack, replace_values

INCIDENT_KEV = 12.0
COMPONENTS = ("Si", "Ca", "Fe", "Zn", "Ba_L", "Au_M", "Ca_Ca")
LOWER = torch.tensor([p.lower for p in PARAMETERS], dtype=torch.float64)
UPPER = torch.tensor([p.upper for p in PARAMETERS], dtype=torch.float64)

# Off the defaults everywhere, so that no term is silently zero.
TRUTH = {
    "energy_offset": 0.013,
    "energy_slope": 0.01004,
    "energy_quadratic": 2e-8,
    "fwhm_offset": 0.105,
    "fwhm_fanoprime": 1.5e-4,
    "coherent_sct_energy": 12.03,
    "compton_angle": 93.0,
    "compton_fwhm_corr": 1.7,
    "compton_f_tail": 0.25,
    "compton_gamma": 2.6,
    "compton_hi_f_tail": 0.02,
    "f_tail_offset": 0.025,
    "kb_f_tail_offset": 0.04,
    "gamma_offset": 2.3,
}


def theta_of(**values):
    """Default theta with the values that are named."""
    return pack(replace_values(PARAMETERS, values))


def table(components=COMPONENTS, incident_kev=INCIDENT_KEV, **options):
    return build_line_table(components, incident_kev, efficiency=Detector(), **options)


def as_float32(lines):
    """The table with its real columns in float32, as a network in single precision would hold it."""
    single = {
        f.name: getattr(lines, f.name).float()
        for f in fields(lines)
        if isinstance(getattr(lines, f.name), torch.Tensor) and getattr(lines, f.name).dtype == torch.float64
    }
    return replace(lines, **single)


def one_line(energy_kev=6.4, **options):
    """A table of one component of one line, nothing but what is asked for."""
    given = {"ratio": 1.0, "has_tail": True, "incident_energy_kev": INCIDENT_KEV} | options
    return build_table_from_arrays(component_names=["X"], component=[0], energy_kev=[energy_kev], **given)


def channels(first, last):
    """First to last, both included."""
    return torch.arange(first, last + 1, dtype=torch.float64)


@st.composite
def thetas(draw, *, batch=()):
    """Theta anywhere in its bounds, corners included, each parameter on its own."""
    count = 1
    for size in batch:
        count *= size
    share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
    flat = draw(st.lists(share, min_size=count * len(PARAMETER_NAMES), max_size=count * len(PARAMETER_NAMES)))
    shares = torch.tensor(flat, dtype=torch.float64).reshape(*batch, len(PARAMETER_NAMES))
    return (LOWER + shares * (UPPER - LOWER)).clamp(LOWER, UPPER)


def random_thetas(seed, *batch, incident_kev=(9.0, 15.0)):
    """Theta uniform in its bounds; the incident energy in a range where the lines are excited."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(*batch, len(PARAMETER_NAMES), generator=generator, dtype=torch.float64)
    theta = LOWER + shares * (UPPER - LOWER)
    low, high = incident_kev
    theta[..., INDEX["coherent_sct_energy"]] = low + (high - low) * shares[..., 0]
    return theta


def setup(lines=None, **options):
    """A fit from the defaults, near enough to `TRUTH` to need no search."""
    start = replace_values(PARAMETERS, {"coherent_sct_energy": INCIDENT_KEV, "energy_slope": 0.01, "gamma_offset": 2.5})
    given = {
        "table": lines or table(),
        "constants": PHYSICS,
        "parameters": start,
        "energy_min_kev": 1.0,
        "energy_max_kev": 13.0,
    }
    return FitProblem(**(given | options))


def amplitudes(total, lines=None, *, elastic=True):
    """Amplitudes of the sample's components, elastic and Compton, that add up to `total`."""
    n = len((lines or table()).component_names)
    shape = torch.tensor([3.0, 9.0, 30.0, 12.0, 6.0, 2.0, 0.5], dtype=torch.float64)[:n]
    scatter = torch.tensor([8.0, 20.0] if elastic else [20.0], dtype=torch.float64)
    weights = torch.cat([shape, scatter])
    return total * weights / weights.sum()


def expected_counts(total, *, lines=None, elastic=True, truth=None, n_channels=1500):
    """Noise-free counts of the full spectrum, with a falling continuum of a tenth of the total."""
    theta, channel = theta_of(**(TRUTH if truth is None else truth)), channels(0, n_channels - 1)
    peaks = model_spectrum(
        theta, amplitudes(total, lines, elastic=elastic), lines or table(), channel, constants=PHYSICS, elastic=elastic
    )
    return peaks, 0.1 * total / n_channels * (1.6 - 1.2 * channel / n_channels)


def drawn(expected, seed):
    """Poisson counts of an expectation."""
    return torch.poisson(expected, generator=torch.Generator().manual_seed(seed))
