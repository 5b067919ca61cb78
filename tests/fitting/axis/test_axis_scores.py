"""The kernels that score energy axes against their definition, written out over arrays."""

import numpy as np
import pytest

from hpcxrf.fitting.axis import candidates
from hpcxrf.fitting.axis.peaks import Peaks, WidthLaw
from hpcxrf.fitting.axis.tables import build_position_table
from hpcxrf.fitting.kernels import axis_layout as at

INCIDENT_KEV = 11.0


def gaussian(distance, sd):
    return np.exp(-0.5 * (distance / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))


@pytest.fixture
def seen():
    """Peaks of which some lie near lines, K-beta lines, escape peaks and sums of others; strong and faint ones."""
    energy = np.array([6.40, 7.06, 4.66, 3.69, 4.01, 8.05, 12.81, 10.4, 11.0, 1.74, 2.31, 0.4, 13.1, 8.64, 9.57, 5.9])
    area = np.array([9e5, 1.2e5, 6e3, 3e5, 4e4, 8e4, 2e3, 7e4, 5e4, 400.0, 900.0, 3e3, 250.0, 2e4, 3e3, 60.0])
    peaks = Peaks(
        channel=energy / 0.01,
        area=area,
        z=np.sqrt(area),
        width=WidthLaw(square=20.0, rise=0.02),
        lines=7,
        n_channels=1500,
    )
    return candidates._Seen.of(peaks, build_position_table(INCIDENT_KEV), elastic=True)


@pytest.fixture
def axes():
    rng = np.random.default_rng(5)
    near = 0.01 * np.exp(rng.normal(0.0, 0.004, 300)), rng.normal(0.0, 0.03, 300)
    far = rng.uniform(0.004, 0.02, 300), rng.uniform(-0.9, 0.9, 300)
    return np.concatenate([near[1], far[1]]), np.concatenate([near[0], far[0]])


def density_at(energy, seen):
    """(axis, peak) density of the table and of pile-up, 0 beyond the table."""
    place = np.rint((energy - seen.numbers[at.LOWEST_KEV]) / seen.numbers[at.STEP_KEV]).astype(int)
    inside = (place >= 0) & (place < seen.density.size)
    found = np.where(inside, seen.density[place.clip(0, seen.density.size - 1)], 0.0)
    return found + seen.peaks[at.ABOVE] * (energy > INCIDENT_KEV + at.ABOVE_KEV)


def test_positions_are_scored_by_the_table_at_each_peak(seen, axes):
    offset, slope = axes
    energy = offset[:, None] + slope[:, None] * seen.peaks[at.CHANNEL]
    span = seen.numbers[at.SPAN_KEV]
    inside = (energy > seen.numbers[at.LOWEST_KEV]) & (energy < seen.numbers[at.LOWEST_KEV] + 0.002 * seen.density.size)
    assert not inside.all()
    wanted = np.log((np.where(inside, density_at(energy, seen), 0.0) + seen.peaks[at.STRANGE]) * span).sum(axis=1)
    found = candidates._score_positions(offset, slope, seen)
    # An energy half way between two of the table may be either's.
    assert np.quantile(np.abs(found - wanted), 0.98) < 1e-9
    np.testing.assert_allclose(found, wanted, atol=0.5)


def test_partners_are_scored_as_the_definition_says(seen, axes):
    offset, slope = axes
    area, z, strange = seen.peaks[at.AREA], seen.peaks[at.Z], seen.peaks[at.STRANGE]
    energy = offset[:, None] + slope[:, None] * seen.peaks[at.CHANNEL]
    alphas, betas = candidates._k_lines()
    nearest = np.abs(energy[:, :, None] - alphas).argmin(axis=2)
    off = energy - alphas[nearest]
    at_alpha = np.exp(-0.5 * (off / 0.025) ** 2) * (np.abs(off) < 0.06)
    beta_kev, split = betas[nearest] + off, (betas - alphas)[nearest]
    ratio = area[:, None] / area
    distance = energy[:, None, :] - beta_kev[:, :, None]
    as_beta = (gaussian(distance, 0.025) * at_alpha[:, :, None] * ((ratio > 1.7) & (ratio < 50.0))).max(axis=1)
    lost = np.exp(-0.5 * ((energy[:, None, :] - energy[:, :, None] + 1.742) / 0.03) ** 2)
    as_escape = (lost * (ratio > 25.0)).max(axis=1) / (0.025 * np.sqrt(2.0 * np.pi))
    order = np.argsort(-area)[:4]
    sums = [energy[:, [i]] + energy[:, [j]] for i in order for j in order]
    as_sum = np.max([gaussian(energy - one, 0.03) for one in sums], axis=0) * (area < 0.05 * area.max())
    density = density_at(energy, seen) + 0.55 * as_beta + 0.08 * as_escape + 0.05 * as_sum
    weight = np.maximum(0.4 + 0.2 * np.log10(np.maximum(area, 1.0) / 30.0), 0.1)
    wanted = (weight * np.log((density + strange) * seen.numbers[at.SPAN_KEV])).sum(axis=1)
    last_kev = offset + slope * 1500
    shown = (np.abs(distance) < 0.08).any(axis=2)
    alone = (at_alpha > 0.6) & (z > 100.0) & (split > 0.25) & ~shown & (beta_kev < last_kev[:, None])
    scattered = ((energy > 0.87 * INCIDENT_KEV) & (energy < INCIDENT_KEV + 0.5)).any(axis=1)
    wanted += -3.0 * alone.any(axis=1) - 2.5 * (~scattered & (last_kev > INCIDENT_KEV))
    assert alone.any()
    assert not scattered.all()
    for one in (as_beta, as_escape, as_sum):
        assert (one > 1.0).any()
    np.testing.assert_allclose(candidates._score_partners(offset, slope, seen), wanted, rtol=1e-9, atol=1e-7)
