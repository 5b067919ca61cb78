"""One list of elements over many scans: what its names mean, and what a scan cannot show."""

import pytest

from hpcxrf.errors import FitError
from hpcxrf.physics.element_list import leave_out, leave_out_unexcited, read_element_list


def test_a_name_with_k_is_the_k_family_where_potassium_is_not_listed_by_itself():
    read = read_element_list(["K_K", "Ca_K", "Ti_K", "Pb_L"])
    assert read.names == ("K", "Ca", "Ti", "Pb_L")
    assert len(read.notes) == 1
    assert "K_K is read as K, Ca_K is read as Ca, Ti_K is read as Ti" in read.notes[0].text


def test_a_name_with_k_is_a_pileup_with_potassium_where_that_is_listed():
    read = read_element_list(["K", "Ca", "Ca_K", "K_K"])
    assert read.names == ("K", "Ca", "Ca_K", "K_K")
    assert not read.notes


def test_reading_a_list_again_changes_nothing():
    for names in (["K_K", "Ca_K"], ["K", "Ca", "Ca_K"], ["Fe", "Pt_L", "Fe_Pt_L"]):
        once = read_element_list(names)
        assert read_element_list(once.names).names == once.names


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Fe", "Fe_K"], r"^Fe_K: the same as Fe; remove one$"),
        (["Fe_K", "Fe"], r"the same as Fe; remove one"),
        (["Ca_K", "Ca_K"], r"remove one"),
        (["Fe", "Fe"], r"Fe: listed twice"),
        (["K", "Ca_K"], r"Ca_K: the pile-up of Ca and potassium, as K is listed, but Ca is not listed; write Ca"),
        (["Si", "Si_Cl"], r"Si_Cl: the pile-up of Si and Cl, but Cl is not listed; list Cl as well"),
        (["Si_Cl"], r"Si and Cl are not listed"),
        (["Fe", "Fe_Pt_L"], r"Pt_L is not listed"),
        (["Qq"], r"Qq: no such element"),
        (["Qq_K"], r"no such element"),
        (["Ca_M"], r"the library has no M lines"),
        (["iron"], r"not a component"),
        (["Np"], r"must be 11"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_the_reason(names, words):
    with pytest.raises(FitError, match=words):
        read_element_list(names)


def test_all_faults_are_told_at_once():
    with pytest.raises(FitError) as caught:
        read_element_list(["Qq", "Si", "Si_Cl", "Fe", "Fe"])
    assert str(caught.value).count(";") >= 3


def test_what_the_energy_cannot_excite_is_left_out_with_the_edge_and_the_rest_kept():
    kept = leave_out_unexcited(["K", "Mn", "Fe", "Fe_Fe"], 7.05)
    assert kept.names == ("K", "Mn")
    assert any("Fe: K edge 7.112 keV is above the incident energy 7.05 keV" in n.text for n in kept.notes)
    assert any("Fe_Fe: a pile-up of Fe" in n.text for n in kept.notes)
    assert leave_out_unexcited(["K", "Mn", "Fe"], 7.135).names == ("K", "Mn", "Fe")


def test_elements_lighter_than_sodium_are_left_out():
    kept = leave_out_unexcited(read_element_list(["O", "C_K", "Si"]).names, 10.0)
    assert kept.names == ("Si",)
    assert any("O: Z = 8" in n.text for n in kept.notes)


def test_a_pileup_goes_with_its_parent_and_is_not_read_as_a_family():
    """Without its parent potassium, Ca_K would be read as the K lines of calcium."""
    kept = leave_out(["K", "Ca", "Ca_K"], {"K": "K: not here"})
    assert kept.names == ("Ca",)
    assert len(kept.notes) == 2
