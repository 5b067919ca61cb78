"""The separable fit against the published optimisers and other programs, from the same random starts."""

from importlib.util import find_spec
from statistics import median

import pytest
import torch

from hpcxrf.config.run import check_config
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.single import integrate
from hpcxrf.studies.peers.fit import fit_peer
from hpcxrf.studies.protocol import fit_protocol
from hpcxrf.studies.starts import random_start

pytestmark = pytest.mark.bench

ELEMENTS = "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn La_L Pd_L Mo_L Pb_M Ca_Ca"
SEEDS = range(5)
PACKAGES = {"sbplx": "nlopt", "mapstorch": "mapstorch", "pymca": "PyMca5"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@pytest.fixture(scope="module")
def spectrum(shared_data):
    """Counts and set-up of a measured standard, detector 0, at the calibration of its files."""
    path = shared_data / "aps-2ide/mda/axo_std.mda"
    raw = {
        "input": {"files": ["-"]},
        "sample": {"elements": ELEMENTS.split()},
        "fit": {"energy_range_kev": [1.0, 11.0], "background": "snip"},
    }
    config = check_config(raw, "bench")
    scan = open_scan(path, read_options(config))
    return torch.from_numpy(integrate(scan))[0], prepare(config, scan_facts(scan, path), 0).problem


def fits(spectrum, method):
    counts, setup = spectrum
    starts = [random_start(setup, "narrow", seed) for seed in SEEDS]
    if method in {"mapstorch", "pymca"}:
        return [fit_peer(method, counts, setup, begin) for begin in starts]
    return [fit_protocol(counts, setup, begin, method) for begin in starts]


@pytest.fixture(scope="module")
def ours(spectrum):
    # The first fit pays for what torch sets up once.
    return [fits(spectrum, "separable") for _ in range(2)][1]


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["adam", "sbplx", "mapstorch", "pymca"])
def test_separable_against(spectrum, ours, figure, method):
    package = PACKAGES.get(method)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install hpcxrf[bench]")
    theirs = fits(spectrum, method)
    for title, unit, of in (
        ("CPU s", "CPU s", lambda fit: fit.cpu_s),
        ("R2", "", lambda fit: fit.r2),
        ("deviance", "", lambda fit: fit.deviance),
    ):
        figure(
            name=f"axo_std detector 0, {len(SEEDS)} narrow starts, separable: median {title}",
            value=median(of(fit) for fit in ours),
            unit=unit,
            peer=method,
            peer_value=median(of(fit) for fit in theirs),
        )
    figure(
        name="same: worst R2",
        value=min(fit.r2 for fit in ours),
        unit="",
        peer=method,
        peer_value=min(fit.r2 for fit in theirs),
    )
