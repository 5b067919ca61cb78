"""CPU seconds of the integrated fits on measured spectra."""

import pytest
import torch

from hpcxrf.config.run import check_config
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
