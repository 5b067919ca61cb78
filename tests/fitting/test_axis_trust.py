"""Priors of a calibration by where it comes from."""

from dataclasses import replace

import pytest

from hpcxrf.fitting.spectrum.theta import FOUND, STATED, WRITTEN, default_parameters, trust_axis
from hpcxrf.physics.parameters import replace_values

SLOPE = 0.0103


def rows(trust, **changes):
    given = replace_values(default_parameters(12.0), {"energy_offset": -0.4, "energy_slope": SLOPE})
    given = tuple(replace(p, **changes[p.name]) if p.name in changes else p for p in given)
    return {p.name: p for p in trust_axis(given, trust, 13.0)}


@pytest.mark.parametrize(("trust", "offset_kev", "share"), [(STATED, 0.02, 0.001), (WRITTEN, 0.05, 0.01)])
def test_the_users_word_is_trusted_more_than_a_file(trust, offset_kev, share):
    found = rows(trust)
    assert found["energy_offset"].prior_sd == offset_kev
    assert found["energy_slope"].prior_sd == pytest.approx(share * SLOPE)
    assert found["energy_slope"].scale == pytest.approx(1e-3 * SLOPE)


@pytest.mark.parametrize("trust", [STATED, WRITTEN, FOUND])
def test_no_axis_bends_by_100_ev_in_the_middle_of_the_range(trust):
    bend = rows(trust)["energy_quadratic"]
    half = (13.0 + 0.4) / SLOPE / 2.0
    # An axis through both ends of the range leaves its chord by q n^2 / 4.
    assert max(abs(bend.lower), abs(bend.upper)) * half**2 < 0.1
    assert bend.prior_sd * half**2 == pytest.approx(trust.sag_sd_kev)


def test_what_a_site_sets_and_what_is_no_axis_stays():
    found = rows(STATED, energy_offset={"prior_sd": 0.3})
    assert found["energy_offset"].prior_sd == 0.3
    plain = {p.name: p for p in default_parameters(12.0)}
    assert found["fwhm_offset"] == plain["fwhm_offset"]
    assert found["coherent_sct_energy"] == plain["coherent_sct_energy"]
