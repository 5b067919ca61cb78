"""Regions found on maps whose answer is known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from hpcxrf.config.regions import RegionsConfig, most_regions
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.regions.find import find_regions
from hpcxrf.pipeline.regions.phases import find_areas, find_phases, phase_image
from hpcxrf.pipeline.regions.region import Region, contrast, layers_of, region_maps, stabilised
from hpcxrf.pipeline.regions.spots import find_hot_spots, find_squares

NAMES = ("Mn", "Ca", "K", "Zn")
BACKGROUND = 9.0
SHAPE = (60, 80)


def noisy_maps(true, seed=0):
    """Signed estimates of true counts (component, y, x) with the noise of counts and of a background."""
    rng = np.random.default_rng(seed)
    found = rng.poisson(true) + rng.normal(0.0, BACKGROUND**0.5, true.shape)
    return as_maps(found.astype(np.float32), (true + BACKGROUND).astype(np.float32))


def as_maps(amplitude, variance):
    n = len(amplitude)
    return region_maps(NAMES[:n], amplitude, amplitude.reshape(n, -1), variance.reshape(n, -1))


def hot_spots(maps, *, k, min_pixels):
    return find_hot_spots(maps, k=k, most=4, min_pixels=min_pixels, seed=0)


def three_phases():
    """Substrate, a disc rich in Ca, and a vein of it rich in K as well."""
    y, x = np.indices(SHAPE)
    disc = (y - 30) ** 2 + (x - 35) ** 2 < 24**2
    vein = disc & (np.abs(y - 30) < 4)
    true = np.broadcast_to(np.array([3.0, 20.0, 50.0, 1.0])[:, None, None], (4, *SHAPE)).copy()
    true[1][disc], true[2][vein] = 90.0, 300.0
    return true, 1 + disc.astype(int) + vein


@pytest.mark.parametrize("mean", [4.0, 10.0, 100.0, 3000.0])
def test_the_stabilised_noise_is_1_whatever_the_counts(mean):
    counts = np.random.default_rng(1).poisson(mean, 200_000).astype(float)[None]
    spread = stabilised(counts, np.array([3 / 8])).std()
    assert spread == pytest.approx(1.0, abs=0.03)


def test_background_and_noise_are_read_from_the_uncertainties():
    maps = noisy_maps(np.full((2, *SHAPE), 50.0))
    assert maps.offset == pytest.approx(BACKGROUND, abs=2.0)
    assert maps.noise == pytest.approx(1.0, abs=0.05)


def test_phases_are_those_that_were_put_in():
    true, phase = three_phases()
    image, score = phase_image(noisy_maps(true), most=5, min_pixels=16, seed=0)
    assert image.max() == 3
    assert score > 0.5
    # Numbered by size: substrate, disc, vein.
    assert (image == phase).mean() > 0.995


def test_a_phase_says_what_it_is_rich_in():
    true, _ = three_phases()
    phases = find_phases(noisy_maps(true), most=4, min_pixels=16, seed=0)
    assert [p.name for p in phases] == ["phase-1", "phase-2", "phase-3"]
    assert "rich in K" in phases[2].reason
    assert "cluster 3 of 3" in phases[2].reason


def test_a_scan_of_one_composition_has_neither_phases_nor_spots():
    for mean in (0.5, 20.0, 2000.0):
        maps = noisy_maps(np.full((4, *SHAPE), mean))
        assert find_phases(maps, most=6, min_pixels=4, seed=0) == []
        assert find_areas(maps, k=3, most=6, min_pixels=4, seed=0) == []
        assert hot_spots(maps, k=3, min_pixels=4) == []


def test_maps_without_a_number_have_no_regions():
    blank = np.full((4, *SHAPE), np.nan, dtype=np.float32)
    kinds = ("phases", "areas", "hot_spots", "squares")
    assert find_regions(as_maps(blank, blank), RegionsConfig(find=kinds)) == []
    zero = np.zeros((4, *SHAPE), dtype=np.float32)
    assert find_regions(as_maps(zero, zero + 9), RegionsConfig(find=kinds)) == []


def test_a_phase_of_few_pixels_is_not_made():
    true, _ = three_phases()
    maps = noisy_maps(true)
    vein = find_phases(maps, most=4, min_pixels=1, seed=0)[2].n_pixels
    left = find_phases(maps, most=4, min_pixels=vein + 1, seed=0)
    assert len(left) == 2


def test_areas_are_the_connected_parts_of_phases():
    true = np.full((2, *SHAPE), 10.0)
    true[0][5:15, 5:15] = true[0][30:50, 40:50] = 200.0
    areas = find_areas(noisy_maps(true), k=3, most=4, min_pixels=16, seed=0)
    assert [a.n_pixels for a in areas] == [200, 100]
    assert areas[0].mask[30:50, 40:50].all()


def test_hot_spots_of_two_elements_in_one_place_are_one_and_large_areas_are_none():
    true = np.full((3, *SHAPE), 5.0)
    true[0][10:16, 20:26] = true[1][10:16, 20:26] = 150.0
    true[2][:, :30] = 500.0
    true[1][40:45, 50:56] = 100.0
    spots = hot_spots(noisy_maps(true), k=5, min_pixels=16)
    assert len(spots) == 2
    assert spots[0].mask[10:16, 20:26].all()
    assert spots[0].n_pixels == 36
    assert "Mn" in spots[0].reason
    assert "Ca" in spots[0].reason
    assert spots[1].mask[40:45, 50:56].all()
    assert hot_spots(noisy_maps(true), k=1, min_pixels=16)[0].n_pixels == 36
    assert hot_spots(noisy_maps(true), k=5, min_pixels=37) == []


def test_a_bright_phase_is_no_hot_spot_nor_are_the_noisy_parts_of_it():
    true = np.full((2, 200, 200), 8.0)
    true[:, :, :90] = 40.0
    assert hot_spots(noisy_maps(true), k=5, min_pixels=4) == []
    true[0, 50:56, 50:56] = 200.0
    (spot,) = hot_spots(noisy_maps(true), k=5, min_pixels=16)
    assert spot.n_pixels == 36


def test_squares_are_the_patches_that_differ():
    true = np.full((4, *SHAPE), 20.0)
    patches = [(0, slice(0, 20), slice(0, 20)), (1, slice(40, 60), slice(60, 80)), (2, slice(40, 60), slice(0, 20))]
    for component, y, x in patches:
        true[component, y, x] = 200.0
    squares = find_squares(noisy_maps(true), k=3, side=20)
    corners = {tuple(np.argwhere(s.mask)[0]) for s in squares}
    assert corners == {(0, 0), (40, 60), (40, 0)}
    assert all(s.n_pixels == 400 for s in squares)


def test_squares_are_those_of_an_exhaustive_greedy_search():
    rng = np.random.default_rng(4)
    true = 5.0 + 200.0 * rng.random((3, 12, 15, 1, 1)) ** 3
    true = (true * np.ones((1, 1, 1, 5, 5))).transpose(0, 1, 3, 2, 4).reshape(3, 60, 75)
    maps, side = noisy_maps(true), 10
    squares = find_squares(maps, k=4, side=side)
    corners = [(y, x) for y in range(0, 51, 2) for x in [*range(0, 65, 2), 65]]
    mean = np.array([maps.amplitude[:, y : y + side, x : x + side].mean((1, 2)) for y, x in corners])
    root = 2 * np.sqrt(np.maximum(mean, 0) + maps.offset)
    # So many counts leave no share of noise: scaled to unit variance each component counts alike.
    scaled = (root - root.mean(0)) / root.std(0)
    best = int(np.linalg.norm(scaled - scaled.mean(0), axis=1).argmax())
    chosen = [best]
    while len(chosen) < 4:
        free = [
            i
            for i, (y, x) in enumerate(corners)
            if all(abs(y - corners[j][0]) >= side or abs(x - corners[j][1]) >= side for j in chosen)
        ]
        chosen.append(max(free, key=lambda i: min(np.linalg.norm(scaled[i] - scaled[j]) for j in chosen)))
    assert [tuple(np.argwhere(s.mask)[0]) for s in squares] == [corners[i] for i in chosen]


def test_a_scan_smaller_than_a_square_has_none():
    true, _ = three_phases()
    assert find_squares(noisy_maps(true), k=3, side=61) == []
    assert find_squares(noisy_maps(true[:, :25, :25]), k=3, side=25) == []


def test_pixels_that_were_not_fitted_are_in_no_region():
    true, _ = three_phases()
    maps = noisy_maps(true)
    amplitude = maps.amplitude.copy()
    amplitude[:, 25:30, 30:50] = np.nan
    maps = as_maps(amplitude, np.maximum(amplitude, 0) + np.float32(BACKGROUND))
    regions = find_regions(maps, RegionsConfig(find=("phases", "areas", "hot_spots", "squares")))
    assert len(regions) > 5
    assert not any(r.mask[25:30, 30:50].any() for r in regions)


def test_the_same_seed_gives_the_same_regions():
    true, _ = three_phases()
    config = RegionsConfig(find=("phases", "areas", "hot_spots", "squares"))
    first, second = (find_regions(noisy_maps(true), config) for _ in range(2))
    assert [(r.name, r.reason) for r in first] == [(r.name, r.reason) for r in second]
    assert all((a.mask == b.mask).all() for a, b in zip(first, second, strict=True))
    assert len(first) <= most_regions(config)


def test_what_stands_out_is_named_with_the_most_outstanding_first():
    true = np.full((3, *SHAPE), 50.0)
    true[0, :5], true[1, :5], true[2, :5] = 200.0, 0.0, 50.0
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:5] = True
    assert contrast(noisy_maps(true), mask) == "rich in Mn; poor in Ca"


@settings(max_examples=60, deadline=None)
@given(arrays(bool, (6, 4, 5)).filter(lambda masks: masks.any()))
def test_layers_keep_every_pixel_of_regions_that_overlap(masks):
    regions = [Region(name=str(i), kind="polygons", reason="", mask=m) for i, m in enumerate(masks)]
    layer, images = layers_of(regions)
    for i, mask in enumerate(masks):
        assert ((images[layer[i]] == i + 1) == mask).all()
    assert len(images) == max(layer) + 1


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"find": ["phase"]}, "regions.find.0"),
        ({"k": 0}, "regions.k"),
        ({"rectangles": {"a": [3, 3, 0, 4]}}, "regions.rectangles.a.*holds no pixel"),
        ({"rectangles": {"a": [-1, 3, 0, 4]}}, "regions.rectangles.a"),
        ({"polygons": {"a": [[0, 0], [1, 1]]}}, "2 corners"),
        ({"thresholds": {"a": {"component": "Cu"}}}, "above or below"),
        ({"thresholds": {"a": {"component": "Cu", "above": 5, "below": 5}}}, "above less than below"),
        ({"labels": {"a": "x.npy"}, "rectangles": {"a": [0, 1, 0, 1]}}, "several are called 'a'"),
        ({"rectangles": {"square-7": [0, 1, 0, 1]}}, "reserved for regions that are found"),
        ({"remap": True, "refine": False}, "regions.remap"),
    ],
)
def test_regions_that_contradict_themselves_are_refused(regions, said):
    from hpcxrf.errors import ConfigError

    with pytest.raises(ConfigError, match=said):
        check_config({"input": {"files": ["a"]}, "regions": regions}, "x.yaml")
