"""The same numbers on a CUDA device, within a ten-thousandth of their uncertainty."""

import pytest
import torch
from fit_samples import drawn, expected_counts, setup

from hpcxrf.fitting.integrated import fit_spectrum
from hpcxrf.fitting.pixels import fit_pixels, group_background, pixel_basis, pixel_operator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device that torch sees; needs a CUDA build"
    ),
]


def _on(device, operator):
    names = ("columns", "projector", "gram", "weighted", "variance", "variance_floor", "measured")
    moved = {name: getattr(operator, name).to(device) for name in names}
    return type(operator)(**moved, n_components=operator.n_components)


@pytest.mark.parametrize("method", ["linear", "nnls"])
def test_pixels_agree_across_devices(method):
    fit = fit_spectrum(drawn(expected_counts(1e6)[0], 1), setup())
    phi = (fit.component_counts / fit.amplitude.clamp(min=1e-9)[:, None]).T
    basis = pixel_basis(phi, fit.amplitude, group_background(fit.background_parts, 4), 100)
    operator = pixel_operator(basis)
    expected = basis.expected.clamp(min=0.0).expand(5000, -1)
    counts = torch.poisson(expected, generator=torch.Generator().manual_seed(2)).to(torch.uint16)
    every = torch.ones(5000, dtype=torch.bool)
    here = fit_pixels(counts, every, operator, method=method)
    device = torch.device("cuda:0")
    there = fit_pixels(counts.to(device), every.to(device), _on(device, operator), method=method)
    difference = (there.amplitude.cpu() - here.amplitude).abs() / here.sigma
    assert float(difference.max()) < 1e-4
    assert bool((there.status.cpu() == here.status).all())
