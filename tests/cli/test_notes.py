"""Notes for people: merged over detectors and datasets, warnings apart from facts."""

import io

import pytest
from rich.console import Console

from hpcxrf.cli.notes import is_warning, merge_detectors, print_notes


def test_equal_notes_of_several_detectors_are_one():
    notes = [
        "energy calibration from the scan file",
        "detector 0: live time is 0 in 3 pixels",
        "detector 1: live time is 0 in 4 pixels",
        "detector 2: live time is 0 in 3 pixels",
        "starting values from x.zarr, detector 0",
        "starting values from x.zarr, detector 1",
        "detector: windows from the override file",
    ]
    assert merge_detectors(notes) == [
        "energy calibration from the scan file",
        "detectors 0, 2: live time is 0 in 3 pixels",
        "detector 1: live time is 0 in 4 pixels",
        "starting values from x.zarr, detectors 0, 1",
        "detector: windows from the override file",
    ]


def test_a_note_is_never_lost_and_an_order_is_kept():
    notes = [f"detector {d}: {text}" for text in ("a", "b") for d in range(3)]
    assert merge_detectors(notes) == ["detectors 0, 1, 2: a", "detectors 0, 1, 2: b"]


@pytest.mark.parametrize(
    ("note", "warns"),
    [
        ("energy 13.5 keV from maps_fit_parameters_override.txt", False),
        ("starting values from o.txt", False),
        ("energy calibration from the scan file", False),
        ("simulated with seed 3", False),
        ("detector 1: a channel holds 65535 counts, the most that it can; pixels are flagged saturated", True),
        ("at a bound: fwhm_offset", True),
        ("not used of o.txt: bounds of fano, which no detector has within", True),
        ("x.h53 missing: the detectors that are there are counted from 0", True),
        ("scaler I0 is not finite in 3 of 100 measured pixels", True),
    ],
)
def test_a_note_on_what_may_be_wrong_is_a_warning_and_one_on_what_was_chosen_is_not(note, warns):
    assert is_warning(note) == warns


def test_warnings_come_first_and_datasets_with_the_same_note_share_a_line():
    out = Console(file=io.StringIO(), width=200, highlight=False)
    fact, doubt = "energy calibration from the scan file", "detector {}: live time is not known in 3 pixels"
    notes = {f"s{i}.mda": [fact, doubt.format(0), doubt.format(1)] for i in range(5)}
    print_notes(out, {**notes, "odd[1].mda": [fact, "incident energy from o.txt"]})
    assert out.file.getvalue().splitlines() == [
        "warning: s0.mda, s1.mda, s2.mda and 2 more: detectors 0, 1: live time is not known in 3 pixels",
        "note: s0.mda, s1.mda, s2.mda and 3 more: energy calibration from the scan file",
        "note: odd[1].mda: incident energy from o.txt",
    ]
