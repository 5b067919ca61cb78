"""Requests for fits: each fault is one sentence with the remedy, and all of them come at once."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.errors import ConfigError
from hpcxrf.explore.requests import RunFacts, read_request
from hpcxrf.physics.parameters import PARAMETERS

ROWS = tuple(
    {
        "name": p.name,
        "unit": p.unit,
        "value": p.value,
        "sigma": None,
        "initial": p.value,
        "lower": p.lower,
        "upper": p.upper,
        "free": p.free,
        "at_bound": False,
    }
    for p in PARAMETERS
)
FACTS = RunFacts(
    detectors=("sum", "0", "1"),
    members=(0, 1),
    elements=("Si", "Ca", "Fe"),
    scatter=("COHERENT_SCT_AMPLITUDE", "COMPTON_AMPLITUDE"),
    incident_energy_kev=12.0,
    reach_kev=0.6,
    width_factor=3.58,
    parameters={"sum": ROWS, "0": ROWS, "1": ROWS},
)


def read(**request):
    return read_request({"detector": "0", **request}, FACTS)


def test_a_request_without_more_is_the_fit_of_the_run():
    request = read_request({}, FACTS)
    assert (request.detector, request.elements, request.kind, request.is_whole) == ("sum", FACTS.elements, "full", True)
    assert (request.values, request.fixed, request.free, request.bounds) == ({}, (), (), {})
    assert (request.focus, request.parent, request.keep) == (None, None, False)


def test_the_table_of_theta_is_read_by_name():
    request = read(
        theta={
            "fwhm_offset": {"mode": "fix", "value": 0.12, "lower": 0.02, "upper": 0.25},
            "energy_offset": {"mode": "fit", "value": 0.01, "lower": -0.1, "upper": 1.5},
            "step_offset": {"mode": "fit"},
        }
    )
    assert request.values == {"fwhm_offset": 0.12, "energy_offset": 0.01}
    assert request.fixed == ("fwhm_offset",)
    assert request.free == ("energy_offset", "step_offset")
    # Bounds of the run are not the user's: those of a region are about another theta.
    assert request.bounds == {"energy_offset": (-0.1, None)}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"detector": "7"}, "'7' is not a fitted detector; choose sum or 0 or 1"),
        ({"kind": "quick"}, "kind is 'quick'; give 'amplitudes' or 'full'"),
        ({"elements": ["Fe", "Xx"]}, "Xx: no such element"),
        ({"elements": []}, "elements is empty; choose at least one"),
        ({"elements": "Fe"}, "elements is not a list of names; give families such as Si, Fe, Pt_L"),
        ({"elements": ["Fe", "Fe"]}, "Fe: listed twice; remove one"),
        ({"elements": ["Fe", "Ag"]}, "Ag: K edge 25.51 keV is above the incident energy 12 keV; use Ag_L"),
        ({"elements": ["Fe", "Fe_Ca"]}, "Fe_Ca: the pile-up of Fe and Ca, but Ca is not listed"),
        ({"focus": ["Zn"]}, "focus: Zn is not a component of the fit; add it first"),
        ({"detector": "sum", "focus": ["Fe"]}, "focus: the sum has no theta of its own to hold; choose a detector"),
        ({"theta": {"fwhm": {"mode": "fix"}}}, "no parameter is called fwhm; there are energy_offset"),
        ({"theta": {"fwhm_offset": {"mode": "hold"}}}, "fwhm_offset: mode is 'hold'; give 'fit' or 'fix'"),
        ({"theta": {"fwhm_offset": {"value": "wide"}}}, "fwhm_offset: value must be a number"),
        ({"theta": {"fwhm_offset": {"value": True}}}, "fwhm_offset: value must be a number"),
        ({"theta": {"fwhm_offset": 3}}, "fwhm_offset: is not an object; give mode, value, lower and upper"),
        (
            {"theta": {"fwhm_offset": {"value": float("nan")}}},
            "fwhm_offset: value nan is not a number; give one between 0 and 0.25 keV",
        ),
        (
            {"theta": {"fwhm_offset": {"value": 7.0}}},
            "fwhm_offset: value 7 keV is beyond what a detector has; give one between 0 and 0.25",
        ),
        (
            {"theta": {"fwhm_offset": {"mode": "fit", "lower": 0.2, "upper": 0.1}}},
            "fwhm_offset: lower bound 0.2 is not below upper bound 0.1; exchange or widen them",
        ),
        (
            {"theta": {"fwhm_offset": {"mode": "fit", "value": 0.2, "upper": 0.15}}},
            "fwhm_offset: value 0.2 lies outside of its bounds 0.02 to 0.15; move one of them",
        ),
        (
            {"detector": "sum", "theta": {"fwhm_offset": {"value": 0.12}}},
            "fwhm_offset: theta of the sum is the mean of its detectors; choose a detector to change it",
        ),
        ({"parent": 3}, "parent is not the id of a fit; leave it out"),
        ({"selection": "all"}, "selection is not an object; give one with a kind, such as 'all'"),
        ({"elemnts": ["Fe"]}, "'elemnts' is not a part of a request; leave it out"),
    ],
)
def test_a_fault_is_one_sentence_with_the_remedy(request_, said):
    with pytest.raises(ConfigError) as error:
        read(**request_)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_an_object_is_refused():
    with pytest.raises(ConfigError, match="a fit is asked for by an object"):
        read_request(["0"], FACTS)


def test_all_faults_come_at_once():
    with pytest.raises(ConfigError) as error:
        read(kind="quick", elements=["Ag"], focus=["Zn"], theta={"fwhm": {}, "energy_offset": {"value": 99.0}})
    for word in ("kind", "Ag:", "Zn", "fwhm", "energy_offset"):
        assert word in str(error.value)


def test_an_edge_within_what_the_energy_is_known_to_may_be_listed():
    # The K edge of arsenic, 11.867 keV, is excited; that of selenium, 12.658 keV, is beyond 12 + 0.6 keV.
    assert "As" in read(elements=["Fe", "As"]).elements
    with pytest.raises(ConfigError, match=r"Se: K edge 12\.6.* is above"):
        read(elements=["Fe", "Se"])


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["detector", "selection", "elements", "kind", "theta", "focus", "parent", "keep", "x"])


@given(raw=st.dictionaries(_KEYS, _JSON, max_size=4))
def test_whatever_comes_is_a_request_or_a_fault_of_the_user(raw):
    with suppress(ConfigError):
        assert read_request(raw, FACTS).detector in FACTS.detectors
