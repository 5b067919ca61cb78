"""Selections of pixels: each kind against a count by hand or another program, and every fault by its name."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from hpcxrf.errors import ConfigError
from hpcxrf.explore.selections import SelectionSources, mask_polygon, pack_mask, select_pixels

SHAPE = (7, 9)
MAP = np.arange(63, dtype=np.float32).reshape(SHAPE)
MAP[3, 4] = np.nan


def read_map(detector, layer, component):
    assert (detector, layer, component) == ("0", "amplitude", "Fe")
    return MAP


def read_region(number):
    assert number == 2
    return MAP > 60


def select(**selection):
    return select_pixels(selection, SHAPE, SelectionSources(read_map=read_map, read_region=read_region))


def test_all_a_pixel_a_box_and_a_region():
    assert select(kind="all").sum() == 63
    assert np.argwhere(select(kind="pixel", y=6, x=8)).tolist() == [[6, 8]]
    assert np.argwhere(select(kind="pixel", y=6.0, x=0)).tolist() == [[6, 0]]
    assert np.argwhere(select(kind="box", y=[1, 3], x=[2, 4])).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert np.argwhere(select(kind="region", number=2)).tolist() == [[6, 7], [6, 8]]


def test_a_threshold_takes_both_limits_and_no_pixel_without_a_value():
    limits = {"kind": "threshold", "detector": "0", "layer": "amplitude", "component": "Fe"}
    assert np.flatnonzero(select(**limits, low=30, high=32)).tolist() == [30, 32]
    assert select(**limits, low=None, high=3).sum() == 4
    assert select(**limits, low=60, high=None).sum() == 3
    assert select(**limits, low=-1e9, high=None).sum() == 62


@given(st.integers(0, 2**63 - 1))
def test_a_mask_reads_back_bit_by_bit(bits):
    mask = np.array([bool(bits >> place & 1) for place in range(63)]).reshape(SHAPE)
    mask[0, 0] = True
    np.testing.assert_array_equal(select(kind="mask", bits=pack_mask(mask)), mask)


def test_the_bits_of_a_mask_are_big_endian_and_row_by_row():
    # 63 pixels are 8 bytes; the first bit of the first byte is the pixel (0, 0), the next one (0, 1).
    assert np.argwhere(select(kind="mask", bits="QAAAAAAAAAA=")).tolist() == [[0, 1]]


corners = st.lists(st.tuples(st.floats(-3, 10), st.floats(-3, 12)), min_size=3, max_size=12)


@given(corners)
def test_a_polygon_holds_the_centres_that_matplotlib_finds_inside(points):
    # Matplotlib joins no even-odd rule for outlines that cross themselves: those of a fan around the middle do not.
    middle = np.mean(points, axis=0)
    turned = np.array(sorted(points, key=lambda p: np.arctan2(p[0] - middle[0], p[1] - middle[1]))) + 0.0123
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    outline = Outline(np.vstack([turned, turned[:1]])[:, ::-1])
    centres = np.column_stack([x.ravel(), y.ravel()])
    wanted = outline.contains_points(centres).reshape(SHAPE)
    different = mask_polygon(turned, SHAPE) != wanted
    # A centre on an edge is on one side of it here, and may be on the other there.
    assert not (different & (distances(turned, y, x) > 1e-9)).any()


def distances(points, y, x):
    """Distance of every centre from the nearest edge."""
    nearest = np.full(y.shape, np.inf)
    for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        along = ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / max((y1 - y0) ** 2 + (x1 - x0) ** 2, 1e-300)
        along = np.clip(along, 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(y - y0 - along * (y1 - y0), x - x0 - along * (x1 - x0)))
    return nearest


@given(st.floats(-3, 10), st.floats(-3, 12), st.floats(-3, 10), st.floats(-3, 12))
def test_an_edge_that_is_gone_along_and_back_holds_nothing(y0, x0, y1, x1):
    assert not mask_polygon(np.array([[y0, x0], [y1, x1], [y1, x1]]), SHAPE).any()
    assert not mask_polygon(np.array([[y0, x0], [y1, x1], [y0, x0]]), SHAPE).any()


def test_a_polygon_that_crosses_itself_leaves_out_what_it_goes_round_twice():
    # A star of five points: its middle is gone round twice, and is outside by the even-odd rule.
    angle = np.pi / 2 + 4 * np.pi / 5 * np.arange(5)
    star = np.column_stack([20 + 18.3 * np.sin(angle), 20 + 18.3 * np.cos(angle)])
    mask = mask_polygon(star, (41, 41))
    assert not mask[20, 20]
    assert mask[34, 20]
    assert mask.sum() == pytest.approx(0.5 * 5 * 18.3**2 * np.sin(np.pi / 5) ** 2 * 1.2, rel=0.6)


def test_polygons_with_a_common_edge_share_no_pixel_and_leave_none_out():
    left, right = [[-1, -1], [-1, 4], [7, 4], [7, -1]], [[-1, 4], [-1, 9], [7, 9], [7, 4]]
    masks = [select(kind="polygon", points=points) for points in (left, right)]
    assert not (masks[0] & masks[1]).any()
    assert (masks[0] | masks[1]).all()
    # Pixels at x = 4 belong to the polygon at higher x.
    assert masks[1][0, 4]


def test_a_polygon_that_reaches_beyond_the_scan_is_cut():
    assert select(kind="polygon", points=[[-50, -50], [-50, 50], [50, 50], [50, -50]]).all()


@pytest.mark.parametrize(
    ("selection", "fault"),
    [
        ([], "not an object"),
        ({"kind": "circle"}, "not one of all, pixel"),
        ({"kind": ["pixel"]}, "not one of"),
        ({"kind": "pixel", "y": 7, "x": -1}, "selection.y: 7 is outside the scan, 0 to 6; selection.x: -1"),
        ({"kind": "pixel", "y": True, "x": 0}, "True is not a whole number"),
        ({"kind": "pixel", "y": 1.5, "x": 10**400}, "1.5 is not a whole number; selection.x"),
        ({"kind": "pixel", "y": 1}, "selection.x: missing"),
        ({"kind": "all", "x": 1}, "selection.x: not known of a all"),
        ({"kind": "box", "y": [3, 3], "x": [0, 10]}, "selection.y: 3 to 3 is outside the scan or empty"),
        ({"kind": "box", "y": "01", "x": [0, 1, 2]}, "not [first, stop]"),
        ({"kind": "polygon", "points": [[0, 0], [1, 1]]}, "3 to 20000 corners"),
        ({"kind": "polygon", "points": [[0, 0], [1, 1], [1, None]]}, "[1, None] is not [y, x]"),
        ({"kind": "polygon", "points": [[90, 0], [91, 1], [90, 1]]}, "holds no pixel"),
        ({"kind": "polygon", "points": [[0, 0]] * 20_001}, "20001, must be"),
        ({"kind": "region", "number": "2"}, "'2' is not a whole number"),
        ({"kind": "mask", "bits": "!!"}, "is not base64"),
        ({"kind": "mask", "bits": "AAAA"}, "3 bytes, must be 8 of 7 x 9 pixels"),
        ({"kind": "mask", "bits": "AAAAAAAAAAA="}, "holds no pixel"),
        ({"kind": "mask", "bits": 7}, "is not base64"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_every_fault(selection, fault):
    with pytest.raises(ConfigError) as refused:
        select_pixels(selection, SHAPE, SelectionSources(read_map=read_map, read_region=read_region))
    assert fault in str(refused.value)
    assert "over the map" in str(refused.value) or "of the list" in str(refused.value)


def test_a_threshold_without_limits_or_with_strange_names_is_refused():
    for low, high, name in ((None, None, "Fe"), ("1", None, "Fe"), (1, None, 3)):
        with pytest.raises(ConfigError, match="selection"):
            select(kind="threshold", detector="0", layer="amplitude", component=name, low=low, high=high)


def test_numbers_that_json_has_and_floats_have_not_are_no_places():
    with pytest.raises(ConfigError):
        select(kind="polygon", points=json.loads("[[1e999, 0], [0, 0], [1, 1]]"))
