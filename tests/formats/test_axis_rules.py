"""Axes of arrays: what names them decides, then what lies beside them; where two readings remain both are named."""

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axis_rules import Hints, guess_axes
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from tests.samples.array_files import make_counts, read_all

POSITIONS = {60: ("sx", "sy")}


def order_of(shape, hints=None, **options):
    return guess_axes("file", shape, hints or Hints(), ReadOptions(**options)).order


@pytest.mark.parametrize(
    ("shape", "energy"),
    [
        ((6, 700, 512), 2),  # the last, of a usual number, beats a longer one
        ((5000, 1024), 1),
        ((2048, 11, 9), 0),
        ((1917, 30, 40), 0),
        ((512, 512, 1917), 2),
        ((30, 40, 1917), 2),
        ((64, 5, 4), 0),
        ((8, 8, 8), 2),
    ],
)
def test_lengths_decide_where_nothing_else_does(shape, energy):
    axes = guess_axes("file", shape, Hints(), ReadOptions())
    assert axes.energy == energy
    assert axes.notes[0].kind == "warning"
    assert "--energy-axis" in axes.notes[0].text


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((2048, 100, 512), (0, 2)),  # both of a usual number
        ((4096, 1024), (0, 1)),
        ((700, 6, 600), (0, 2)),  # neither
        ((700, 512, 6), (0, 1)),
        ((512, 6, 700), (0, 2)),
        ((5000, 300), (0, 1)),
    ],
)
def test_two_readings_of_the_channels_are_refused_with_both(shape, readings):
    with pytest.raises(InputFileError, match="can be read in two ways") as caught:
        order_of(shape)
    for axis in readings:
        assert f"--energy-axis {axis} (" in str(caught.value)
        assert order_of(shape, energy_axis=axis)[3] == axis


def test_an_array_of_energies_beside_it_decides():
    assert order_of((700, 6, 600), Hints(n_energies=600))[3] == 2
    assert order_of((700, 6, 600), Hints(n_energies=700))[3] == 0


def test_nexus_interpretation_decides_without_a_note():
    axes = guess_axes("file", (6, 700, 512), Hints(spectra_last=True), ReadOptions())
    assert (axes.order, axes.notes) == ((None, 0, 1, 2), ())
    assert order_of((4096, 1024), Hints(spectra_last=True))[3] == 1


@pytest.mark.parametrize(
    ("shape", "hints", "order"),
    [
        ((60, 4, 1024), Hints(), (None, 0, 1, 2)),
        ((3, 4, 1024), Hints(), (None, 0, 1, 2)),
        ((3, 4, 1024), Hints(vectors={3: ("y",), 4: ("x",)}), (None, 0, 1, 2)),
        ((60, 4, 1024), Hints(vectors=POSITIONS), (1, 0, None, 2)),
        ((4, 60, 1024), Hints(vectors=POSITIONS), (0, 1, None, 2)),
        ((60, 4, 1024), Hints(vectors=POSITIONS, maps=frozenset({(60, 4)})), (None, 0, 1, 2)),
        ((60, 50, 1024), Hints(vectors=POSITIONS), (None, 0, 1, 2)),  # 50 detectors are not usual
        ((60, 4, 1024), Hints(names=("point", "", "channel")), (1, 0, None, 2)),
        ((60, 4, 1024), Hints(names=("", "detector", "energy")), (1, 0, None, 2)),
        ((60, 4, 1024), Hints(names=("y", "x", "energy"), vectors=POSITIONS), (None, 0, 1, 2)),
        ((6, 10, 4, 1024), Hints(maps=frozenset({(6, 10)})), (2, 0, 1, 3)),
        ((4, 6, 10, 1024), Hints(maps=frozenset({(6, 10)})), (0, 1, 2, 3)),
        ((4, 6, 10, 1024), Hints(), (0, 1, 2, 3)),
        ((6, 10, 4, 1024), Hints(names=("y", "x", "", "energy")), (2, 0, 1, 3)),
    ],
)
def test_an_axis_is_detectors_only_where_something_says_so(shape, hints, order):
    assert order_of(shape, hints) == order


def test_one_vector_alone_leaves_two_readings_and_both_are_named():
    hints = Hints(vectors={60: ("i0",)})
    with pytest.raises(InputFileError, match=r"input\.detector_axis: 1 \(60 points.*input\.map_shape: \[60, 4\]"):
        order_of((60, 4, 1024), hints)
    assert order_of((60, 4, 1024), hints, detector_axis=1) == (1, 0, None, 2)
    assert order_of((60, 4, 1024), hints, map_shape=(60, 4)) == (None, 0, 1, 2)
    assert order_of((60, 4, 1024), hints, map_shape=(6, 10)) == (1, 0, None, 2)


def test_three_points_of_four_detectors_may_as_well_be_a_map_of_three_rows():
    with pytest.raises(InputFileError, match="can be read in two ways, and a, b of 3 values leave both open"):
        order_of((3, 4, 1024), Hints(vectors={3: ("b", "a")}))


def test_a_long_first_axis_of_four_leaves_two_readings():
    with pytest.raises(InputFileError, match=r"input\.detector_axis: 2 .* or input\.detector_axis: 0"):
        order_of((60, 50, 4, 1024))
    assert order_of((60, 50, 4, 1024), detector_axis=-2) == (2, 0, 1, 3)


@pytest.mark.parametrize(("axis", "fault"), [(3, "has axes 0 to 2"), (2, "is that of the channels")])
def test_a_detector_axis_that_cannot_be_is_refused(axis, fault):
    with pytest.raises(InputFileError, match=fault):
        order_of((60, 4, 1024), detector_axis=axis)


def test_points_beside_their_positions_are_detectors_and_rows(tmp_path):
    counts = make_counts((4, 6, 10, 1024))
    x, y = np.meshgrid(np.arange(10.0), np.arange(6.0))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/xspress3/data"] = counts.reshape(4, 60, 1024).transpose(1, 0, 2)
        for name, values in (("stage_x", x), ("stage_y", y)):
            file[f"entry/{name}"] = values.ravel()
            file[f"entry/{name}"].attrs["units"] = "mm"
    scan = open_scan(tmp_path / "a.h5")
    assert scan.shape == (4, 6, 10, 1024)
    np.testing.assert_array_equal(read_all(scan), counts)
    np.testing.assert_allclose(scan.read_scalars().x_um, 1e3 * x)
    np.testing.assert_allclose(scan.read_scalars().y_um, 1e3 * y)


def test_positions_that_are_named_need_no_unit_and_are_checked(tmp_path):
    counts = make_counts((6, 10, 1024))
    x, y = np.meshgrid(np.arange(10.0), np.arange(6.0))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mca"] = counts.reshape(60, 1024)
        file["one"], file["two"], file["short"] = x.ravel(), y.ravel(), np.arange(7.0)
    assert open_scan(tmp_path / "a.h5").shape == (1, 60, 1, 1024)
    scan = open_scan(tmp_path / "a.h5", ReadOptions(positions=("one", "/two")))
    assert scan.shape == (1, 6, 10, 1024)
    np.testing.assert_array_equal(read_all(scan)[0], counts)
    np.testing.assert_array_equal(scan.read_scalars().x_um, x)
    with pytest.raises(InputFileError, match=r"input\.positions names three, which the file does not have"):
        open_scan(tmp_path / "a.h5", ReadOptions(positions=("one", "three")))
    with pytest.raises(InputFileError, match=r"names short of float64 \(7,\); must be 60 numbers"):
        open_scan(tmp_path / "a.h5", ReadOptions(positions=("one", "short")))


def test_a_map_shape_lays_points_out_and_does_not_reshape_maps(tmp_path):
    np.save(tmp_path / "points.npy", make_counts((60, 1024)))
    scan = open_scan(tmp_path / "points.npy", ReadOptions(map_shape=(6, 10)))
    assert scan.shape == (1, 6, 10, 1024)
    np.testing.assert_array_equal(read_all(scan)[0], make_counts((60, 1024)).reshape(6, 10, 1024))
    np.save(tmp_path / "map.npy", make_counts((6, 10, 1024)))
    with pytest.raises(InputFileError, match=r"input\.map_shape \[10, 6\], but .* is a map of 6 x 10"):
        open_scan(tmp_path / "map.npy", ReadOptions(map_shape=(10, 6)))


def test_energies_are_found_by_the_name_of_the_nexus_axis(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("entry/data")
        group.attrs["signal"], group.attrs["axes"] = "counts", ["y", "x", "channel_energy"]
        group["counts"] = make_counts((3, 4, 300))
        group["channel_energy"] = 200.0 + 10.0 * np.arange(300)
        group["channel_energy"].attrs["units"] = "eV"
    (calibration,) = open_scan(tmp_path / "a.h5").calibration
    assert (calibration.offset_kev, calibration.slope_kev) == (pytest.approx(0.2), pytest.approx(0.01))
