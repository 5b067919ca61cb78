"""Component names and the line table, against published energies, edges and ratios."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.physics.branching import Branching, maps_kbeta_ratio
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.detector import Detector, efficiency, escape_probability
from hpcxrf.physics.lines import build_line_table, build_table_from_arrays

BARE = Detector(be_window_um=0, air_path_mm=0, dead_layer_um=0, chip_thickness_um=1e6)
SETUP = Detector()


def table_of(*names, energy_kev=10.0, setup=BARE, **options):
    return build_line_table(names, energy_kev, efficiency=setup, **options)


def lines_of(table, name):
    """[(energy, ratio, edge)] of a component without its escape lines, strongest first."""
    mask = (table.component == table.component_names.index(name)) & (table.escape_parent < 0)
    columns = (table.energy_kev, table.ratio, table.edge_kev)
    rows = zip(*(c[mask].tolist() for c in columns), strict=True)
    return sorted(rows, key=lambda r: -r[1])


def ratio_between(lines, low, high):
    return sum(ratio for energy, ratio, _ in lines if low < energy < high)


@pytest.mark.parametrize(
    ("name", "incident_kev", "published_kev"),
    [
        ("Na", 10.0, 1.04098),
        ("Si", 10.0, 1.73998),
        ("Ca", 10.0, 3.69168),
        ("Fe", 10.0, 6.40384),
        ("Cu", 10.0, 8.04778),
        ("La_L", 10.0, 4.65097),
        ("Pb_L", 20.0, 10.5515),
        ("U_L", 30.0, 13.6147),
        ("Au_M", 10.0, 2.1229),
        ("Pb_M", 10.0, 2.3455),
    ],
)
def test_the_strongest_line_has_its_published_energy_in_kev(name, incident_kev, published_kev):
    lines = lines_of(table_of(name, energy_kev=incident_kev), name)
    assert lines[0][0] == pytest.approx(published_kev, abs=0.004)


KBETA_TO_KALPHA_1 = {"Al": 0.020, "Si": 0.042, "S": 0.093, "Cl": 0.122} | {
    "K": 0.174,
    "Ca": 0.189,
    "Ti": 0.196,
    "Fe": 0.203,
    "Ni": 0.205,
}


@pytest.mark.parametrize("name", KBETA_TO_KALPHA_1)
def test_kbeta_stands_to_kalpha_1_as_measured_tables_have_it(name):
    """Not as in the MAPS table, where sulfur has .050 and iron .172."""
    lines = lines_of(table_of(name), name)
    beta = ratio_between(lines, lines[0][0] + 0.02, 99)
    assert beta / lines[0][1] == pytest.approx(KBETA_TO_KALPHA_1[name], rel=0.015, abs=5e-4)


def test_iron_kalpha_2_is_half_of_kalpha_1_and_both_stay_apart():
    lines = lines_of(table_of("Fe"), "Fe")
    assert len(lines) == 3
    assert lines[1][1] / lines[0][1] == pytest.approx(0.51, abs=0.005)
    assert lines[0][0] - lines[1][0] == pytest.approx(0.0130, abs=3e-4)
    assert {edge for _, _, edge in lines} == {7.112}


@pytest.mark.parametrize(
    ("incident_kev", "edges"), [(14.0, {13.0352}), (15.5, {13.0352, 15.2}), (17.0, {13.0352, 15.2, 15.8608})]
)
def test_lead_l_lines_appear_subshell_by_subshell(incident_kev, edges):
    found = {edge for _, _, edge in lines_of(table_of("Pb_L", energy_kev=incident_kev), "Pb_L")}
    assert sorted(found) == pytest.approx(sorted(edges), abs=2e-3)


def test_l_ratios_depend_on_the_incident_energy():
    def l1_to_l3(incident_kev):
        lines = lines_of(table_of("Pb_L", energy_kev=incident_kev), "Pb_L")
        by_edge = {round(e): sum(r for _, r, edge in lines if edge == e) for _, _, e in lines}
        return by_edge[16] / by_edge[13]

    # The cross-section of the s shell falls more slowly than that of p3/2.
    assert l1_to_l3(60.0) > 1.5 * l1_to_l3(17.0)


@given(
    st.sampled_from(["Na", "S", "Fe", "Zn", "Mo", "Sn_L", "Pb_L", "Fe_L", "Pb_M", "U_M", "Si_Cl", "Fe_Pt_L"]),
    st.floats(21.0, 120.0),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_ratios_of_a_family_sum_to_one_whatever_the_energy(name, incident_kev, escape):
    table = table_of("Ar", name, energy_kev=incident_kev, setup=SETUP, escape=escape)
    sums = torch.zeros(2, dtype=torch.float64).index_add(0, table.component, table.ratio)
    torch.testing.assert_close(sums, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.all(table.ratio > 0)
    assert torch.all(table.edge_kev < incident_kev)
    assert torch.all(table.energy_kev[table.edge_kev > 0] < incident_kev)


def test_efficiency_weights_the_lines_of_a_family():
    bare, seen = (lines_of(table_of("Pb_M", setup=s, minimum_ratio=1e-9), "Pb_M") for s in (BARE, SETUP))
    share = {round(e, 4): r for e, r, _ in bare}
    quotient = np.array([[e, r / share[round(e, 4)]] for e, r, _ in seen if round(e, 4) in share])
    expected = efficiency(quotient[:, 0], SETUP)
    np.testing.assert_allclose(quotient[:, 1] / quotient[0, 1], expected / expected[0], rtol=2e-3)


def test_every_element_from_sodium_to_uranium_has_its_families():
    symbols = [
        "Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru",
        "Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir",
        "Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U",
    ]
    elements = " ".join(symbols).split()
    assert len(elements) == 82
    heavy = elements[elements.index("La") :]
    names = [*elements, *(f"{e}_L" for e in elements[10:]), *(f"{e}_M" for e in heavy)]
    table = table_of(*names, energy_kev=150.0, setup=SETUP)
    assert set(table.component.tolist()) == set(range(len(names)))
    assert torch.isfinite(table.ratio).all()
    main = [lines_of(table, e)[0][0] for e in elements]
    assert np.all(np.diff(main) > 0)


def test_tails_go_to_lines_but_not_to_pile_up_and_the_kbeta_tail_to_kbeta_alone():
    table = table_of("Fe", "Pb_L", "Pb_M", "Ca_Ca", energy_kev=20.0, escape=False)
    by_name = {n: table.component == i for i, n in enumerate(table.component_names)}
    assert table.has_tail[~by_name["Ca_Ca"]].all()
    assert not table.has_tail[by_name["Ca_Ca"]].any()
    assert table.energy_kev[table.is_kbeta].tolist() == pytest.approx([7.058], abs=0.003)


def test_the_columns_keep_the_order_of_the_names():
    names = ("Zn", "Ca_Ca", "Ar", "Pb_M")
    table = table_of(*names)
    assert table.component_names == names
    own = table.component[table.escape_parent < 0]
    assert torch.all(torch.diff(table.component) >= 0)
    assert own.unique().tolist() == [0, 1, 2, 3]
    assert table.table_version.startswith("xraylib 4")
    assert table.energy_kev.dtype == table.ratio.dtype == table.edge_kev.dtype == torch.float64
    assert table.component.dtype == table.escape_parent.dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "kind", "families"),
    [
        ("Fe", "K", (("Fe", "K"),)),
        ("Pt_L", "L", (("Pt", "L"),)),
        ("Au_M", "M", (("Au", "M"),)),
        ("Ca_Ca", "pileup", (("Ca", "K"), ("Ca", "K"))),
        ("Ca_K", "pileup", (("Ca", "K"), ("K", "K"))),
        ("Fe_Pt_L", "pileup", (("Fe", "K"), ("Pt", "L"))),
        ("Pt_L_Fe", "pileup", (("Pt", "L"), ("Fe", "K"))),
        ("Pt_L_Pb_M", "pileup", (("Pt", "L"), ("Pb", "M"))),
    ],
)
def test_a_component_name_says_which_families_are_meant(name, kind, families):
    component = parse_component(name)
    assert (component.kind, component.families) == (kind, families)


@pytest.mark.parametrize("name", ["fe", "Fe_", "Fe__Pt", "Fe_Pt_L_Ca", "", "Fe L", "Pt_L_M"])
def test_a_name_that_fits_no_pattern_is_refused(name):
    with pytest.raises(FitError, match="^" + re.escape(f"{name}: ")):
        parse_component(name)


def test_all_faults_of_a_list_come_in_one_message_with_value_and_remedy():
    names = ["Zz", "Fe", "Pb", "Fe", "C", "Si_Cl", "Cl_Si", "Fe_M", "Ca_Pb", "?"]
    with pytest.raises(FitError) as caught:
        table_of(*names)
    message = str(caught.value)
    for part in (
        "Zz: no such element",
        "Pb: K edge 88 keV is above the incident energy 10 keV; use Pb_M",
        "Fe: listed twice",
        "C: Z = 6, must be 11 (Na) to 92 (U)",
        "Cl_Si: the same as Si_Cl",
        "Fe_M: the library has no M lines for Z = 26; use Fe or Fe_L",
        "Ca_Pb: Pb: K edge",
        "?: not a component",
    ):
        assert part in message


def test_a_family_is_refused_just_below_its_edge_and_taken_just_above():
    with pytest.raises(FitError, match=r"Fe: K edge 7\.112 keV is above the incident energy 7\.1 keV"):
        table_of("Fe", energy_kev=7.1)
    assert lines_of(table_of("Fe", energy_kev=7.12), "Fe")


@pytest.mark.parametrize("energy_kev", [0.0, -10.0, float("nan"), float("inf"), 10000.0])
def test_an_incident_energy_that_is_no_x_ray_beam_is_refused(energy_kev):
    with pytest.raises(FitError, match="incident energy is"):
        table_of("Fe", energy_kev=energy_kev)


def test_pile_up_sums_the_lines_of_both_families_and_ignores_the_incident_energy():
    table = table_of("Fe_Fe", "Si_Cl", energy_kev=10.0)
    lines = lines_of(table, "Fe_Fe")
    # Ka+Ka 12.80, Ka+Kb 13.46, Kb+Kb 14.12 keV, in the ratio 1 : 2 x 0.1353 : 0.1353^2
    alpha, mixed = ratio_between(lines, 12.7, 12.9), ratio_between(lines, 13.4, 13.5)
    assert mixed / alpha == pytest.approx(2 * 0.1353, rel=0.01)
    assert alpha + mixed + ratio_between(lines, 14.0, 14.2) == pytest.approx(1.0)
    assert lines_of(table, "Si_Cl")[0][0] == pytest.approx(1.740 + 2.622, abs=0.003)
    assert torch.all(table.edge_kev == 0)


def test_pile_up_of_a_k_and_an_l_family_is_the_same_either_way_round():
    first, second = (table_of(n, energy_kev=20.0) for n in ("Fe_Pt_L", "Pt_L_Fe"))
    torch.testing.assert_close(first.energy_kev, second.energy_kev)
    torch.testing.assert_close(first.ratio, second.ratio)
    assert lines_of(first, "Fe_Pt_L")[0][0] == pytest.approx(6.4038 + 9.4423, abs=0.003)


def test_escape_lines_stand_1740_ev_below_their_parent_with_its_share():
    table = table_of("Fe", "Ca_Ca", "Si", setup=SETUP)
    escaped = table.escape_parent >= 0
    assert escaped.sum() == 1  # silicon cannot escape from silicon, pile-up is not followed
    parent = int(table.escape_parent[escaped])
    assert float(table.energy_kev[parent]) == pytest.approx(6.4039, abs=1e-3)
    assert float(table.energy_kev[escaped]) == pytest.approx(6.3995 - 1.7398, abs=1e-3)
    probability = escape_probability([6.3995], SETUP)[0, 0]
    assert float(table.ratio[escaped]) == pytest.approx(probability * 0.8808, rel=3e-3)
    assert table.mu_per_um[escaped] == table.mu_per_um[parent]


def test_a_germanium_detector_has_escape_lines_above_its_own_edge_only():
    germanium = Detector(material="Ge", chip_thickness_um=5000)
    table = table_of("Zn", "Mo", energy_kev=25.0, setup=germanium)
    parents = table.component[table.escape_parent >= 0]
    assert set(parents.tolist()) == {1}
    shift = table.energy_kev[table.escape_parent] - table.energy_kev
    assert float(shift[table.escape_parent >= 0].min()) == pytest.approx(9.876, abs=0.02)


def test_without_escape_there_is_no_escape_line():
    assert torch.all(table_of("Fe", setup=SETUP, escape=False).escape_parent == -1)


def test_user_lines_are_taken_as_recorded_and_never_switched_off():
    lines = {"strange": [(5.0, 3.0), (6.0, 1.0)]}
    table = table_of("Fe", "strange", user_lines=lines, escape=False)
    assert lines_of(table, "strange") == [(5.0, 0.75, 0.0), (6.0, 0.25, 0.0)]
    with pytest.raises(FitError, match="other: lines are given for it, but it is not among the elements"):
        table_of("Fe", user_lines={"other": [(5.0, 1.0)]})
    with pytest.raises(FitError, match=r"strange: user lines \(5, -1\)"):
        table_of("strange", user_lines={"strange": [(5.0, -1.0)]})


def test_branching_multiplies_the_lines_in_the_order_of_override_files():
    plain = lines_of(table_of("Fe"), "Fe")
    raised = lines_of(table_of("Fe", branching=Branching(k_ratios={"Fe": (1, 1, 1.2, 1)})), "Fe")
    assert raised[2][1] / raised[0][1] == pytest.approx(1.2 * plain[2][1] / plain[0][1])
    only_l3 = Branching(l_families={"Pb_L": (0, 0, 1)})
    edges = {e for _, _, e in lines_of(table_of("Pb_L", energy_kev=20.0, branching=only_l3), "Pb_L")}
    assert sorted(edges) == pytest.approx([13.0352], abs=2e-3)
    no_lb1 = Branching(l_ratios={"Pb_L": (1, 1, 0, *[1] * 9)})
    lines = lines_of(table_of("Pb_L", energy_kev=20.0, branching=no_lb1), "Pb_L")
    assert ratio_between(lines, 12.61, 12.62) == 0.0
    assert ratio_between(lines, 10.5, 10.6) > 0.5


def test_a_base_ratio_is_that_of_recorded_counts_before_the_multipliers():
    branching = Branching(kbeta_base={"S": 0.05}, k_ratios={"S": (1, 1, 2.6, 1)})
    for setup in (BARE, SETUP):
        lines = lines_of(table_of("S", setup=setup, branching=branching, escape=False), "S")
        beta = ratio_between(lines, lines[0][0] + 0.02, 99)
        assert beta / lines[0][1] == pytest.approx(0.13, rel=1e-12)
        assert sum(ratio for _, ratio, _ in lines) == pytest.approx(1.0)


def test_the_maps_ratio_is_the_published_one_the_library_s_from_gallium_on_and_between_them():
    assert (maps_kbeta_ratio("Ca"), maps_kbeta_ratio("Fe")) == (0.116, 0.172)
    for name in ("Ga", "As", "Mo"):
        lines = lines_of(table_of(name, energy_kev=30.0), name)
        main = lines[0][0]
        beta_1 = ratio_between(lines, main * 1.05, main * 1.13)
        assert maps_kbeta_ratio(name) == pytest.approx(beta_1 / lines[0][1], rel=0.15)
    assert 0.172 < maps_kbeta_ratio("Co") < 0.189
    assert 0.021 < maps_kbeta_ratio("P") < 0.050
    assert maps_kbeta_ratio("Mg") is None


def test_branching_with_a_wrong_number_of_multipliers_is_refused():
    with pytest.raises(ConfigError, match=r"Fe has \[1, 2\].*Pb_L has .*-1.*S has a K-beta ratio"):
        Branching(k_ratios={"Fe": (1, 2)}, l_families={"Pb_L": (1, 1, -1)}, kbeta_base={"S": -0.1})


def test_an_empty_list_gives_an_empty_table():
    table = table_of()
    assert table.component_names == ()
    assert table.energy_kev.shape == (0,)


def test_a_given_table_is_taken_as_it_is():
    table = build_table_from_arrays(
        component_names=["Fe"],
        component=[0, 0],
        energy_kev=[6.404, 7.058],
        ratio=[1.0, 0.17],
        is_kbeta=[False, True],
        incident_energy_kev=10.0,
    )
    assert table.ratio.tolist() == [1.0, 0.17]
    assert table.has_tail.tolist() == [True, True]
    assert table.escape_parent.tolist() == [-1, -1]
    assert table.table_version == "given"


def test_a_given_table_with_faults_is_refused_with_all_of_them():
    with pytest.raises(FitError, match=r"ratio has shape.*component reaches 1.*energy_kev must be"):
        build_table_from_arrays(
            component_names=["Fe"],
            component=[0, 1],
            energy_kev=[6.404, 0.0],
            ratio=[1.0, 0.5, 0.17],
            incident_energy_kev=10.0,
        )
