"""The periodic table: places, what a beam excites, and the evidence of a fit, against hand numbers and xraylib."""

import dataclasses

import pytest
import xraylib
from explore_runs import film_run, salt_run
from test_fits_requests import FACTS

from hpcxrf.explore.elements import build_elements, find_fwhm_kev, list_overlaps, list_places, read_evidence
from hpcxrf.explore.run_facts import open_run_facts, read_run_fit


def fit_of(amplitudes, suggested=(), overlaps=None, fwhm_offset=0.12):
    return {
        "elements": [name for name, *_ in amplitudes if not name.endswith("AMPLITUDE")],
        "amplitudes": [
            {"name": n, "amplitude": a, "sigma": s, "limit": limit, "found": a > limit} for n, a, s, limit in amplitudes
        ],
        "suggested": list(suggested),
        "overlaps": overlaps or {},
        "parameters": [{"name": "fwhm_offset", "value": fwhm_offset}, {"name": "fwhm_fanoprime", "value": 1e-4}],
    }


def table_of(fit, facts=FACTS):
    return {one["symbol"]: one for one in build_elements(fit, facts)}


def families(table, symbol):
    return {one["name"]: one for one in table[symbol]["families"]}


def test_every_element_has_its_place_and_its_name():
    places = list_places()
    assert [symbol for symbol, *_ in places] == [xraylib.AtomicNumberToSymbol(z) for z in range(1, 93)]
    assert len({(row, column) for _, _, row, column in places}) == 92
    by_symbol = {symbol: (name, row, column) for symbol, name, row, column in places}
    # As on the wall.
    assert by_symbol["H"] == ("Hydrogen", 1, 1)
    assert by_symbol["He"] == ("Helium", 1, 18)
    assert by_symbol["Al"] == ("Aluminium", 3, 13)
    assert by_symbol["Fe"] == ("Iron", 4, 8)
    assert by_symbol["Pt"] == ("Platinum", 6, 10)
    assert by_symbol["Xe"] == ("Xenon", 5, 18)
    assert by_symbol["Lu"] == ("Lutetium", 8, 17)
    assert by_symbol["U"] == ("Uranium", 9, 6)


def test_what_the_beam_excites_is_active_and_the_rest_says_why():
    table = table_of(fit_of([("Fe", 100.0, 10.0, 20.0)]))
    iron = families(table, "Fe")["Fe"]
    assert (iron["excited"], iron["reason"], iron["listed"]) == (True, None, True)
    assert iron["edge_kev"] == pytest.approx(7.112, abs=1e-3)
    assert iron["strongest_kev"] == pytest.approx(6.404, abs=2e-3)
    lead = families(table, "Pb")
    assert not lead["Pb"]["excited"]
    assert not lead["Pb_L"]["excited"]
    assert lead["Pb_M"]["excited"]
    assert lead["Pb_L"]["reason"].startswith("Pb_L: L edge 13.04 keV is above the incident energy 12 keV; use Pb_M")
    # L3 of gold, 11.919 keV, is below; its L-alpha is the strongest that is excited.
    assert families(table, "Au")["Au_L"]["strongest_kev"] == pytest.approx(9.713, abs=2e-3)
    # 12.658 keV is beyond what the energy may be, 11.867 keV is not.
    assert not families(table, "Se")["Se"]["excited"]
    assert families(table, "As")["As"]["excited"]
    assert table["C"]["families"] == []


def test_evidence_is_that_of_the_amplitude_or_of_the_suggestion():
    suggested = [{"name": "Zn", "z": 9.0, "counts": 90.0, "sigma": 10.0}]
    fit = fit_of([("Fe", 100.0, 8.0, 20.0), ("COMPTON_AMPLITUDE", 9.0, 1.0, 2.0)], suggested)
    evidence = read_evidence(fit, FACTS)
    assert set(evidence) == {"Fe", "Zn"}
    assert evidence["Fe"] == {"z": 12.5, "counts": 100.0, "sigma": 8.0, "limit": 20.0, "found": True, "overlaps": []}
    assert (evidence["Zn"]["z"], evidence["Zn"]["limit"], evidence["Zn"]["found"]) == (9.0, None, True)
    assert families(table_of(fit), "Zn")["Zn"]["evidence"]["counts"] == 90.0
    assert families(table_of(fit), "Ni")["Ni"]["evidence"] is None


def test_the_width_of_a_line_is_that_of_its_law():
    # By hand: 2.3548 sqrt((.12 / 2.3548)^2 + 3.58 * 6.4 * 1e-4) keV.
    fit = fit_of([("Fe", 1.0, 1.0, 1.0)])
    assert find_fwhm_kev(6.4, fit, FACTS) == pytest.approx(0.16464, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "listed", "expected"),
    [
        # Mn K-beta 6.490 keV beside Fe K-alpha 6.404 keV; Fe K-beta 7.058 keV beside Co K-alpha 6.930 keV.
        ("Fe", ["Mn", "Co", "Ni", "Ca"], ["Mn", "Co"]),
        # As K-alpha 10.54 keV and Pb L-alpha 10.55 keV.
        ("As", ["Pb_L", "Ca"], ["Pb_L"]),
        # Al 1.487 keV and Si 1.740 keV, nearly two widths of .131 keV apart.
        ("Si", ["Al"], []),
    ],
)
def test_families_with_strong_lines_within_one_width_overlap(name, listed, expected):
    facts = dataclasses.replace(FACTS, incident_energy_kev=20.0)
    fit = fit_of([(one, 1.0, 1.0, 1.0) for one in [name, *listed]])
    assert list_overlaps(name, fit["elements"], fit, facts) == expected


def test_amplitudes_that_are_correlated_in_the_fit_overlap():
    fit = fit_of([("Ca", 1.0, 1.0, 1.0), ("Fe", 1.0, 1.0, 1.0)], overlaps={"Ca": ["Fe"]})
    assert list_overlaps("Ca", fit["elements"], fit, FACTS) == ["Fe"]


def test_a_measured_film_and_a_tube_have_their_table(shared_data):
    for made, detector in ((film_run(shared_data), "sum"), (salt_run(shared_data), "1")):
        opened = open_run_facts(made.run_dir, made.dataset_id)
        table = table_of(read_run_fit(opened, detector), opened.facts)
        known = {name: one for element in table.values() for name, one in families(table, element["symbol"]).items()}
        assert set(opened.facts.elements) == {name for name, one in known.items() if one["listed"]}
        for name in opened.facts.elements:
            assert known[name]["excited"]
            assert known[name]["evidence"]["sigma"] > 0.0
        assert known["Ca"]["evidence"]["found"]
        assert not known["Ca"]["evidence"]["z"] < 20.0
    # A tube of 28 kV excites silver, a beam of 10 keV does not.
    assert known["Ag"]["excited"]
