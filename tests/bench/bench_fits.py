"""CPU seconds of the integrated fits on measured spectra, and spectra per CPU second of the pixel fits."""

import time

import pytest
import torch

from hpcxrf.config import check_config
from hpcxrf.fitting.integrated import fit_spectrum
from hpcxrf.fitting.pixels import fit_pixels, group_background, pixel_basis, pixel_operator
from hpcxrf.fitting.setup import SpectrumSetup
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import DetectorSetup
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import PARAMETERS, pack
from hpcxrf.pipeline.single import fit_file

pytestmark = pytest.mark.bench

FILE_LIST = "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn"
REAL = {
    "aps-2ide/mda/axo_std.mda": (FILE_LIST + " La_L Pd_L Mo_L Pb_M Ca_Ca", None, (1.0, 11.0)),
    "aps-2ide/mda/2xfm_0010.mda": (FILE_LIST + " La_L Mg", None, (1.0, 11.0)),
    "larch-srm1832/srm1832.mca": ("Si Cl Ar Ca V Cr Mn Fe Co Ni Cu Zn", 12.5, (1.0, 13.5)),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("calibration", ["auto", "none"])
def test_integrated_spectra(shared_data, figure, name, calibration):
    elements, energy_kev, span = REAL[name]
    raw = {
        "input": {"files": ["-"]},
        "sample": {"elements": elements.split(), "incident_energy_kev": energy_kev},
        "fit": {"energy_range_kev": span, "calibration": calibration},
    }
    config = check_config(raw, "bench")
    fits = [fit_file(shared_data / name, config, "0").fit for _ in range(4)]
    start = "from nothing" if calibration == "none" else "from the files"
    title = f"{name.rsplit('/', 1)[-1]} detector 0, {start}"
    figure(name=f"{title}: cold", value=fits[0].cpu_s, unit="CPU s")
    figure(name=f"{title}: warm", value=min(f.cpu_s for f in fits[1:]), unit="CPU s")
    figure(name=f"{title}: R2", value=fits[0].r2, unit="")


@pytest.mark.parametrize(
    ("method", "deviance"), [("linear", False), ("linear", True), ("nnls", False)]
)
def test_pixels(figure, method, deviance):
    table = build_line_table(FILE_LIST.split(), 10.0, efficiency=DetectorSetup())
    channel = torch.arange(1200, dtype=torch.float64)
    amplitude = torch.full((17,), 3e4, dtype=torch.float64)
    mean = model_spectrum(pack(PARAMETERS), amplitude, table, channel, constants=PHYSICS) + 20.0
    setup = SpectrumSetup(
        table=table,
        constants=PHYSICS,
        parameters=PARAMETERS,
        energy_min_kev=1.0,
        energy_max_kev=11.0,
    )
    fit = fit_spectrum(mean, setup)
    phi = (fit.component_counts / fit.amplitude[:, None]).T
    basis = pixel_basis(phi, fit.amplitude, group_background(fit.background_parts, 4), 400)
    operator = pixel_operator(basis)
    expected = basis.expected.clamp(min=0.0).expand(16384, -1)
    counts = torch.poisson(expected, generator=torch.Generator().manual_seed(1)).to(torch.uint16)
    every = torch.ones(16384, dtype=torch.bool)
    rates = []
    for _ in range(4):
        began = time.process_time()
        fit_pixels(counts, every, operator, method=method, deviance=deviance)
        rates.append(16384 / (time.process_time() - began))
    included = "sigma, limits, status" + (", deviance" if deviance else "")
    figure(
        name=f"pixels {method}, {phi.shape[1]} components + 4, {phi.shape[0]} channels: {included}",
        value=max(rates),
        unit="spectra / CPU s",
    )
