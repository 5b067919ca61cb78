"""Reasons of failures that are counted together."""

import pytest

from hpcxrf.runner.kinds import name_kind


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("scans/a.h5: is cut short at /x/y.dat", "<file>: is cut short at <file>"),
        ("'/my data/a.h5': is cut, see a-1", "<file>: is cut, see <dataset>"),
        (
            "/d/a.h5: neither /MAPS/mca_arr nor /entry/data is there",
            "<file>: neither /MAPS/mca_arr nor /entry/data is there",
        ),
        ("10 keV/channel of MAPS HDF5 (.h5 or .h50-.h57)", "10 keV/channel of MAPS HDF5 (.h5 or .h50-.h57)"),
        ("\n", "no reason was recorded"),
    ],
)
def test_of_a_reason_only_what_is_a_file_of_its_own_is_left_out(reason, kind):
    assert name_kind(reason, "a-1", "a.h5") == kind
