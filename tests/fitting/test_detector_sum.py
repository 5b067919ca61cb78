"""The raw sum of detectors that see the components in different proportions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, amplitudes, channels, drawn, setup, table, theta_of

from hpcxrf.errors import FitError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.detector_sum import fit_detector_sum, sum_columns
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import replace_values

SLOPES = (0.0100, 0.0103)
LINES = table()
# Detector 1 sees half of the fluorescence and twice the scatter of detector 0.
FIRST = amplitudes(4e5, LINES)
SECOND = torch.cat([0.5 * FIRST[:-2], 2.0 * FIRST[-2:]])


@pytest.fixture(scope="module")
def detectors():
    counts, setups = [], []
    for d, (slope, amplitude) in enumerate(zip(SLOPES, (FIRST, SECOND), strict=True)):
        theta = theta_of(**(TRUTH | {"energy_slope": slope}))
        mean = model_spectrum(theta, amplitude, LINES, channels(0, 1499), constants=PHYSICS)
        counts.append(drawn(mean + 20.0, d))
        given = setup(LINES)
        setups.append(replace(given, parameters=replace_values(given.parameters, {"energy_slope": slope})))
    spectra = torch.stack(counts)
    return spectra, [fit_spectrum(s, p) for s, p in zip(spectra, setups, strict=True)], setups


def test_the_sum_holds_every_component_although_their_shares_differ(detectors):
    total = fit_detector_sum(*detectors)
    truth = FIRST + SECOND
    pull = (total.amplitude - truth) / total.amplitude_sigma
    assert float(pull.abs().max()) < 4.0
    each = sum(fit.amplitude for fit in detectors[1])
    assert float(((total.amplitude - each) / total.amplitude_sigma).abs().max()) < 1.0


def test_the_sums_sigma_is_not_below_that_of_its_detectors_together(detectors):
    total = fit_detector_sum(*detectors)
    together = np.sqrt(sum(np.square(fit.amplitude_sigma.numpy()) for fit in detectors[1]))
    assert bool((total.amplitude_sigma.numpy() >= together * (1 - 1e-12)).all())


def test_the_sum_is_fitted_as_well_as_its_detectors_although_their_axes_differ(detectors):
    total = fit_detector_sum(*detectors)
    assert total.status is FitStatus.CONVERGED
    assert total.r2 > min(fit.r2 for fit in detectors[1]) - 1e-3
    assert 0.8 < total.reduced_chi2 < 1.2


def test_a_detector_without_counts_has_no_share(detectors):
    spectra, fits, setups = detectors
    dead = fit_spectrum(torch.zeros(1500), setups[1])
    parts = sum_columns([fits[0], dead], setups)
    assert parts.share.tolist() == [1.0, 0.0]
    alone = fit_detector_sum(torch.stack([spectra[0], torch.zeros(1500)]), [fits[0], dead], setups)
    assert alone.amplitude.tolist() == pytest.approx(fits[0].amplitude.tolist(), rel=0.02, abs=60.0)


def test_detectors_that_are_all_dead_are_refused(detectors):
    _, _, setups = detectors
    dead = fit_spectrum(torch.zeros(1500), setups[0])
    with pytest.raises(FitError, match="no detector has counts"):
        fit_detector_sum(torch.zeros(2, 1500), [dead, dead], setups)
