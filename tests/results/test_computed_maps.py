"""Maps of single detectors that a store does not hold: by hand from counts, times, I0 and responses, in any part."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from hpcxrf.fitting.result import PixelFit
from hpcxrf.fitting.status import FitStatus
from hpcxrf.quantify.normalise import Combination, PixelFlag
from hpcxrf.results.accessor import register_accessor
from hpcxrf.results.opened import find_results
from hpcxrf.results.store.areal_density import TERMS, ResponseTable, create_areal_density, open_densities
from hpcxrf.results.store.derived import STORED_ATTRIBUTE, write_blocks
from hpcxrf.results.store.maps import create_results, finalise, write_block
from hpcxrf.results.store.normalised import create_normalised, open_rates
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.storage import update_attributes
from hpcxrf.store.schema import AREAL_DENSITY_VARIABLES

DETECTORS, COMPONENTS, FAMILIES = ("sum", "0", "1"), ("Ca", "Fe", "COMPTON_AMPLITUDE", "Pb_L"), ("Ca", "Fe", "Pb_L")
ENTRIES = (*DETECTORS, "combined")
SHAPE, BLOCK, REFERENCE = (10, 7), (4, 4), 2e5
RATES = ("rate", "sigma", "detection_limit")
"""Quantities of the group `normalised`."""
BLOCKS = [
    (slice(y, min(y + 4, SHAPE[0])), slice(x, min(x + 4, SHAPE[1]))) for y in range(0, 10, 4) for x in range(0, 7, 4)
]


def make_numbers(*, with_i0=True):
    """Counts, times and responses, in double precision but for what is stored as float32."""
    rng = np.random.default_rng(3)
    counts = {name: rng.gamma(2.0, 50.0, (3, 4, *SHAPE)).astype(np.float32) for name in ("amplitude", "sigma", "limit")}
    flag = np.full((4, *SHAPE), PixelFlag.NORMALISED, np.uint8)
    flag[1, 2, 3], flag[:, 5, 5], flag[2, 0, 0] = PixelFlag.NO_LIVE_TIME, PixelFlag.NO_I0, PixelFlag.NOT_FITTED
    for values in counts.values():
        values[2, :, 0, 0] = np.nan
    return {
        **counts,
        "flag": flag,
        "live": rng.uniform(0.2, 0.9, (4, *SHAPE)).astype(np.float32),
        "i0": rng.uniform(1e5, 3e5, SHAPE).astype(np.float32) if with_i0 else None,
        "i0_sigma": rng.uniform(1e3, 2e3, SHAPE).astype(np.float32),
        "stored": rng.gamma(2.0, 50.0, (7, 4, *SHAPE)).astype(np.float32),
        "response": rng.uniform(1.0, 100.0, (4, 3)),
        "relative": rng.uniform(0.0, 0.1, (4, 3, len(TERMS))),
        "floor": rng.uniform(0.0, 0.5, (4, 3)),
        "layer": rng.uniform(0.5, 1.0, (4, 3)),
    }


def write(path, numbers):
    create_results(
        path,
        detectors=DETECTORS,
        components=COMPONENTS,
        shape_yx=SHAPE,
        n_channels=8,
        attributes={"title": "made"},
        block_yx=BLOCK,
    )
    for d, (y, x) in ((d, block) for d in range(3) for block in BLOCKS):
        part = [
            torch.from_numpy(np.moveaxis(numbers[n][d, :, y, x], 0, -1).reshape(-1, 4))
            for n in ("amplitude", "sigma", "limit")
        ]
        ones = torch.ones(len(part[0]))
        write_block(
            path,
            d,
            y,
            x,
            PixelFit(
                amplitude=part[0],
                sigma=part[1],
                detection_limit=part[2],
                deviance=ones,
                status=torch.full((len(ones),), int(FitStatus.CONVERGED), dtype=torch.uint8),
            ),
        )
    with_i0 = numbers["i0"] is not None
    share = np.full((2, 4), 0.5)
    common = {"detectors": ENTRIES, "shape_yx": SHAPE, "block_yx": BLOCK, "stored": ["combined"], "positions_um": {}}
    create_normalised(
        path,
        components=COMPONENTS,
        attributes={"normalisation": "made"} | ({"reference": REFERENCE} if with_i0 else {}),
        with_i0=with_i0,
        combination=(DETECTORS[1:], Combination(share=share, weight=share)),
        **common,
    )
    origin = np.full((4, 3), "curve", dtype=object)
    create_areal_density(
        path,
        components=FAMILIES,
        attributes={"primary": "combined"},
        responses=ResponseTable(
            response=numbers["response"],
            relative_error=numbers["relative"],
            theta_floor=numbers["floor"],
            layer_factor=numbers["layer"],
            origin=origin,
        ),
        **common,
    )
    rates, densities = open_rates(path), open_densities(path)
    for y, x in BLOCKS:
        for row in range(4):
            write_blocks(
                rates, row, y, x, {"flag": numbers["flag"][row, y, x], "live_time_s": numbers["live"][row, y, x]}
            )
        if with_i0:
            write_blocks(rates, None, y, x, {name: numbers[name][y, x] for name in ("i0", "i0_sigma")})
        write_blocks(rates, 3, y, x, {name: numbers["stored"][i, :, y, x] for i, name in enumerate(RATES)})
        names = enumerate(AREAL_DENSITY_VARIABLES, start=3)
        write_blocks(densities, 3, y, x, {name: numbers["stored"][i, :3, y, x] for i, name in names})
    finalise(path, {})
    return path


def rates_by_hand(numbers):
    """Rates, sigma and detection limits (entry, component, y, x) of the detectors, in double precision."""
    i0 = REFERENCE if numbers["i0"] is None else numbers["i0"].astype(float)
    good = numbers["flag"][:3] == PixelFlag.NORMALISED
    factor = np.where(good, REFERENCE / (numbers["live"][:3].astype(float) * i0), np.nan)[:, None]
    rate, counting, limit = (numbers[name].astype(float) * factor for name in ("amplitude", "sigma", "limit"))
    error = 0.0 if numbers["i0"] is None else numbers["i0_sigma"] / i0
    return rate, counting, np.hypot(counting, rate * error), limit


@pytest.fixture(scope="module", params=[True, False], ids=["with I0", "without I0"])
def store(request, tmp_path_factory):
    numbers = make_numbers(with_i0=request.param)
    return write(tmp_path_factory.mktemp("computed") / "run" / "results" / "a.zarr", numbers), numbers


def test_rates_of_single_detectors_are_counts_per_live_time_at_the_reference(store):
    path, numbers = store
    rate, _, sigma, limit = rates_by_hand(numbers)
    maps = open_results(path)["normalised"].to_dataset()
    for name, expected in zip(RATES, (rate, sigma, limit), strict=True):
        assert maps[name].dtype == np.float32
        np.testing.assert_allclose(maps[name].values[:3], expected, rtol=5e-7, err_msg=name)
        assert np.isfinite(maps[name].values[0, 0]).sum() == SHAPE[0] * SHAPE[1] - 1


def test_areal_densities_are_rates_over_responses_with_all_errors(store):
    path, numbers = store
    places = [COMPONENTS.index(name) for name in FAMILIES]
    rate, _, sigma, limit = (values[:, places] for values in rates_by_hand(numbers))
    scale = (1.0 / (numbers["response"] * numbers["layer"]))[:3, :, None, None]
    common = np.linalg.norm(numbers["relative"], axis=-1)[:3, :, None, None]
    floor = numbers["floor"][:3, :, None, None]
    total = np.sqrt((sigma * scale) ** 2 + (rate * scale * common) ** 2 + floor**2)
    maps = open_results(path)["areal_density"].to_dataset()
    expected = dict(zip(AREAL_DENSITY_VARIABLES, (rate * scale, total, sigma * scale, limit * scale), strict=True))
    for name, values in expected.items():
        np.testing.assert_allclose(maps[name].values[:3], values, rtol=1e-6, err_msg=name)


def test_what_is_stored_is_given_as_it_is(store):
    path, numbers = store
    tree = open_results(path)
    for i, name in enumerate(RATES):
        np.testing.assert_array_equal(tree["normalised"][name][3], numbers["stored"][i])
    for i, name in enumerate(AREAL_DENSITY_VARIABLES, start=3):
        np.testing.assert_array_equal(tree["areal_density"][name][3], numbers["stored"][i, :3])


PICKS = [
    {"detector": 0, "component": 1, "y": slice(2, 9), "x": slice(None)},
    {"detector": -1, "component": -1, "y": -1, "x": -2},
    {"detector": [3, 0], "component": [2, 0], "y": [9, 1, 1], "x": slice(None, None, -1)},
    {"y": slice(None, None, 3), "x": slice(5, 1, -2)},
    {"component": slice(0, 0)},
    {"y": xr.DataArray([0, 5, 9], dims="point"), "x": xr.DataArray([6, 5, 0], dims="point")},
]


@pytest.mark.parametrize("group", ["normalised", "areal_density"])
def test_any_part_is_that_of_the_whole(store, group):
    path, _ = store
    whole, maps = (open_results(path)[group].to_dataset() for _ in range(2))
    whole.load()
    for pick in PICKS:
        xr.testing.assert_identical(maps.isel(pick).load(), whole.isel(pick))


def test_the_accessor_and_a_copy_in_another_process_see_the_same(store):
    path, numbers = store
    register_accessor()
    results = find_results(path)
    rate, *_ = rates_by_hand(numbers)
    found = results.normalised().xrf.map("Fe")
    np.testing.assert_allclose(found.sel(detector="1"), rate[2, 1], rtol=5e-7)
    again = pickle.loads(pickle.dumps(results.areal_density()))  # noqa: S301
    xr.testing.assert_identical(again.load(), results.areal_density().load())


def test_groups_that_hold_all_maps_are_read_as_they_are(store, tmp_path):
    """Stores of versions that wrote the maps of every detector say nothing of it."""
    path, _ = store
    old = tmp_path / "a.zarr"
    shutil.copytree(path, old)
    for group in ("normalised", "areal_density"):
        file = old / group / "zarr.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attributes": {"primary": "combined"}}))
    update_attributes(old, {"complete": False}, without=("consolidated_metadata",))
    tree = open_results(old)
    assert STORED_ATTRIBUTE not in tree["normalised"].attrs
    for group, name in (("normalised", "rate"), ("areal_density", "sigma")):
        assert np.isnan(tree[group][name][:3]).all()
        assert np.isfinite(tree[group][name][3]).all()
