"""Notes for people: merged over detectors and datasets, warnings apart from facts."""

import io

from rich.console import Console

from hpcxrf.cli.notes import merge_detectors, print_notes
from hpcxrf.notes import Note


def test_equal_notes_of_several_detectors_are_one():
    texts = [
        "energy calibration from the scan file",
        "detector 0: live time is 0 in 3 pixels",
        "detector 1: live time is 0 in 4 pixels",
        "detector 2: live time is 0 in 3 pixels",
        "starting values from x.zarr, detector 0",
        "starting values from x.zarr, detector 1",
        "detector: windows from the override file",
    ]
    assert [note.text for note in merge_detectors([Note("fact", text) for text in texts])] == [
        "energy calibration from the scan file",
        "detectors 0, 2: live time is 0 in 3 pixels",
        "detector 1: live time is 0 in 4 pixels",
        "starting values from x.zarr, detectors 0, 1",
        "detector: windows from the override file",
    ]


def test_a_note_is_never_lost_and_an_order_is_kept():
    notes = [Note("fact", f"detector {d}: {text}") for text in ("a", "b") for d in range(3)]
    assert merge_detectors(notes) == [Note("fact", "detectors 0, 1, 2: a"), Note("fact", "detectors 0, 1, 2: b")]


def test_the_same_words_as_a_fact_and_as_a_warning_are_two_notes():
    notes = [Note("fact", "detector 0: a"), Note("warning", "detector 1: a"), Note("warning", "detector 2: a")]
    assert merge_detectors(notes) == [Note("fact", "detector 0: a"), Note("warning", "detectors 1, 2: a")]


def test_warnings_come_first_and_datasets_with_the_same_note_share_a_line():
    out = Console(file=io.StringIO(), width=200, highlight=False)
    fact = Note("fact", "energy calibration is not from the scan file")
    doubts = [Note("warning", f"detector {d}: all is well in 3 pixels") for d in (0, 1)]
    notes = {f"s{i}.mda": [fact, *doubts] for i in range(5)}
    print_notes(out, {**notes, "odd[1].mda": [fact, Note("fact", "incident energy from o.txt")]})
    assert out.file.getvalue().splitlines() == [
        "warning: s0.mda, s1.mda, s2.mda and 2 more: detectors 0, 1: all is well in 3 pixels",
        "note: s0.mda, s1.mda, s2.mda and 3 more: energy calibration is not from the scan file",
        "note: odd[1].mda: incident energy from o.txt",
    ]
