"""One scan that is looked at: maps and counts are those of the stores, and what is wrong with these is said."""

import base64
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from explore_samples import NAME, SHAPE_YX, make_run
from store_damage import spoil_chunks
from store_scans import made_scan, whole, write_source

from hpcxrf.errors import ConfigError, DamagedStoreError, OutputError
from hpcxrf.explore.describe import describe_scan, describe_spectrum, read_atomic_number
from hpcxrf.explore.layers import list_layers, read_layer
from hpcxrf.explore.opening import open_session
from hpcxrf.explore.selections import pack_mask
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import find_target
from hpcxrf.store.ingest import ingest_scan


def opened(folder, dataset=None) -> Session:
    target = find_target(folder)
    assert target is not None
    return open_session(target, target.dataset(dataset))


@pytest.fixture
def copy(made, tmp_path):
    """A run that a test may spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    return folder


def test_a_map_is_that_of_the_store_and_nan_where_nothing_was_fitted(made, session):
    maps = xr.open_zarr(made.results, group="maps", chunks=None, consolidated=False)
    for detector in ("0", "1", "sum"):
        for name in ("amplitude", "sigma"):
            view = session.map(detector, name, "Fe")
            assert view.values.dtype == np.float32
            np.testing.assert_array_equal(view.values, maps[name].sel(detector=detector, component="Fe").values)
    assert (view.factor, view.unit) == (1, "counts")


def test_a_smaller_map_has_the_means_of_its_squares(session):
    whole = session.map("0", "amplitude", "Ca").values
    small = session.map("0", "amplitude", "Ca", side=11)
    assert (small.factor, small.values.shape) == (3, (7, 11))
    assert small.values[2, 3] == pytest.approx(whole[6:9, 9:12].mean(), rel=1e-6)
    status = session.map("0", "status", None, side=11).values
    np.testing.assert_array_equal(status, session.map("0", "status", None).values[::3, ::3])


def test_thumbnails_are_the_maps_of_all_components_in_their_order(session):
    small = session.thumbnails("1", "sigma", side=11)
    assert small.values.shape == (len(session.components), 7, 11)
    for index in (0, 5, 11):
        one = session.map("1", "sigma", session.components[index], side=11).values
        np.testing.assert_allclose(small.values[index], one)


def test_decisions_are_those_of_the_limit_of_the_pixel(session):
    # make_store: a detection limit of 15 counts everywhere, a photon adds 1: 1.645 (15 - 2.71) / 3.29 + 0.35.
    decision, amplitude = (session.map("0", name, "Cr").values for name in ("decision", "amplitude"))
    np.testing.assert_array_equal(decision == 1, amplitude > 1.645 * (15 - 2.71) / 3.29 + 0.35)
    assert set(np.unique(decision)) == {0.0, 1.0}


def test_the_counts_of_a_selection_are_exactly_those_that_zarr_reads(made, session):
    counts = zarr.open_group(made.spectra, mode="r")["counts"][...].astype(np.uint64)
    np.testing.assert_array_equal(counts, made.counts)
    rng = np.random.default_rng(1)
    some = rng.random(SHAPE_YX) < 0.3
    for selection, mask in (
        ({"kind": "all"}, np.ones(SHAPE_YX, dtype=bool)),
        ({"kind": "mask", "bits": pack_mask(some)}, some),
        ({"kind": "pixel", "y": 20, "x": 32}, np.arange(21 * 33).reshape(SHAPE_YX) == 20 * 33 + 32),
    ):
        for detector, which in (("0", [0]), ("1", [1]), ("sum", [0, 1])):
            selected = session.sum_counts(detector, session.select(selection))
            wanted = counts[which][:, mask].sum(axis=(0, 1))
            np.testing.assert_array_equal(selected.counts, wanted)
            assert selected.n_pixels == mask.sum()


def test_a_sum_leaves_out_the_detectors_that_the_fit_left_out(made, session):
    import dataclasses

    less = dataclasses.replace(session, attributes={**session.attributes, "detectors_left_out": {"0": "disagrees"}})
    assert session.parts_of("sum") == (0, 1)
    assert less.parts_of("sum") == (1,)
    with pytest.raises(ConfigError, match="there are 0, 1 and sum"):
        session.parts_of("2")


def test_live_time_is_that_of_the_pixels_that_were_measured(session):
    # made_scalars: 0.5 s times 0.8 to 1.0 along x; the last pixel was not measured.
    live = 0.5 * np.linspace(0.8, 1.0, SHAPE_YX[1])
    box = session.select({"kind": "box", "y": [1, 3], "x": [4, 6]})
    assert session.sum_counts("0", box).live_time_s == pytest.approx(2 * live[4:6].sum())
    assert session.sum_counts("sum", box).live_time_s == pytest.approx(4 * live[4:6].sum())
    last = session.select({"kind": "pixel", "y": 20, "x": 32})
    assert session.sum_counts("0", last).live_time_s == 0.0


def test_the_spectrum_of_a_selection_is_drawn_in_the_range_of_the_fit(made, session):
    mask = session.select({"kind": "box", "y": [2, 5], "x": [3, 9]})
    told = describe_spectrum(session, session.sum_counts("0", mask), 0.01)
    wanted = made.counts[0, 2:5, 3:9].sum(axis=(0, 1))
    assert told["counts"] == wanted.tolist()
    assert all(type(one) is int for one in told["counts"])
    drawn = told["spectrum"]
    first = told["spectrum_first_channel"]
    counts, energy = (np.frombuffer(base64.b64decode(drawn[name]), "<f4") for name in ("counts", "energy_kev"))
    np.testing.assert_array_equal(counts, wanted[first : first + counts.size])
    # results_sample: 0.0021 keV + 0.01 keV a channel, channels 100 to 1099 fitted.
    assert (first, counts.size) == (100, 1000)
    assert energy[0] == pytest.approx(0.0021 + 0.01 * 100)
    assert drawn["model"] is None
    assert any(label.startswith("Fe") for _, label, _ in drawn["markers"])


def test_the_description_has_what_the_page_needs(session):
    told = describe_scan(session)
    assert told["shape"] == list(SHAPE_YX)
    assert told["shape_full"] == [2, *SHAPE_YX, 1200]
    assert told["detectors"] == ["sum", "0", "1"]
    assert told["step_um"] == [0.5, 0.5]
    assert told["datasets"] == [NAME]
    assert told["run"] == "out"
    assert told["detectors_fit"] == ["0", "1", "sum"]
    assert told["has_spectra"]
    iron = next(one for one in told["components"] if one["name"] == "Fe")
    assert iron["z"] == 26
    assert iron["found"] == {"sum": True, "0": True, "1": True}
    assert 0.9 < iron["share"]["0"] <= 1
    assert iron["counts"]["0"] > 100
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert list(layers)[:4] == ["amplitude", "sigma", "decision", "misfit"]
    assert layers["status"]["meanings"]["1"] == "converged"
    assert not layers["status"]["each"]


def test_atomic_numbers_are_those_of_the_names():
    names = ("Fe", "Pb_L", "Si_Cl", "COMPTON_AMPLITUDE", "COHERENT_SCT_AMPLITUDE", "mine")
    assert [read_atomic_number(name) for name in names] == [26, 82, 17, 0, 0, 0]


def test_maps_work_without_the_spectra_and_these_are_refused_with_the_remedy(copy):
    shutil.rmtree(copy / "spectra" / f"{NAME}.zarr")
    session = opened(copy)
    assert session.map("0", "amplitude", "Fe").values.shape == SHAPE_YX
    mask = session.select({"kind": "pixel", "y": 1, "x": 1})
    with pytest.raises(OutputError, match=r"verify .* --redo && hpcxrf resume"):
        session.sum_counts("0", mask)
    told = describe_scan(session)
    assert not told["has_spectra"]
    assert told["shape_full"] == [2, *SHAPE_YX, 1200]


def test_a_store_of_results_alone_is_shown_and_one_of_spectra_too(copy, tmp_path):
    alone = tmp_path / "alone.zarr"
    shutil.copytree(copy / "results" / f"{NAME}.zarr", alone)
    session = opened(alone)
    assert session.map("0", "amplitude", "Fe").values.shape == SHAPE_YX
    with pytest.raises(OutputError, match="explore the run directory"):
        session.require_counts()
    # One that lies in its run has the spectra of that run.
    assert opened(copy / "results" / f"{NAME}.zarr").counts is not None


def test_names_that_are_not_there_are_refused(session):
    for arguments, fault in (
        (("2", "amplitude", "Fe"), "detector '2'"),
        (("0", "volume", "Fe"), "layer 'volume'"),
        (("0", "amplitude", "Xx"), "component 'Xx'"),
        (("0", "amplitude", None), "name one"),
    ):
        with pytest.raises(ConfigError, match=fault):
            session.map(*arguments)
    with pytest.raises(ConfigError, match="not a dataset"):
        session.target.dataset("../../etc")
    with pytest.raises(ConfigError, match="region 1: the scan has 0"):
        session.region(1)


def test_a_run_that_vanishes_or_changes_is_said_to_have(copy):
    session = opened(copy)
    session.map("0", "amplitude", "Fe")
    mask = session.select({"kind": "pixel", "y": 1, "x": 1})
    metadata = copy / "results" / f"{NAME}.zarr" / "zarr.json"
    text = metadata.read_text()
    metadata.unlink()
    metadata.write_text(text + " ")
    with pytest.raises(OutputError, match="was written again since it was opened"):
        session.map("0", "sigma", "Fe")
    shutil.rmtree(copy)
    for read in (lambda: session.map("1", "sigma", "Fe"), lambda: session.sum_counts("1", mask)):
        with pytest.raises(OutputError, match="is gone since it was opened: it was moved or removed"):
            read()


def test_a_damaged_chunk_is_named_with_the_remedy_and_the_rest_goes_on(copy):
    spectra, results = (copy / name / f"{NAME}.zarr" for name in ("spectra", "results"))
    spoil_chunks(results / "maps" / "sigma", "c/0")
    shard = next((spectra / "counts").glob("c.*"))
    content = bytearray(shard.read_bytes())
    content[40] ^= 0xFF
    shard.write_bytes(content)
    session = opened(copy)
    assert session.map("0", "amplitude", "Fe").values.shape == SHAPE_YX
    with pytest.raises(DamagedStoreError, match=r"results/leaf-1a2b3c4d.zarr: cannot be read .* makes it again"):
        session.map("0", "sigma", "Fe")
    mask = session.select({"kind": "pixel", "y": 1, "x": 1})
    with pytest.raises(DamagedStoreError, match=r"spectra/leaf.*: counts of rows .* again, after .* --redo`"):
        session.sum_counts("0", mask)


def test_an_unfinished_run_is_not_opened(copy):
    metadata = copy / "results" / f"{NAME}.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(OutputError, match="no dataset is finished; `hpcxrf status"):
        opened(copy)
    with pytest.raises(OutputError, match="is not finished"):
        opened(copy, NAME)


def test_pixels_without_a_number_are_nan_at_every_size(tmp_path):
    run = make_run(tmp_path / "nan", shape_yx=(6, 5))
    group = zarr.open_group(run.results, mode="r+")
    group["maps/status"][:, :, 2:] = 5
    group["maps/amplitude"][:, :, 0, 0] = np.nan
    session = opened(run.folder)
    whole, small = (session.map("0", "amplitude", "Fe", side) for side in (None, 2))
    assert np.isnan(whole.values[:, 2:]).all()
    assert np.isfinite(whole.values[1:, :2]).all()
    assert np.isnan(small.values[:, 1]).all()
    assert np.isfinite(small.values[1, 0])
    decision = session.map("0", "decision", "Fe").values
    assert np.isnan(decision[:, 2:]).all()
    assert np.isnan(decision[0, 0])
    assert np.isfinite(decision[1:, :2]).all()
    told = describe_scan(session)
    assert told["components"][0]["share"]["0"] is not None


def test_layers_of_rates_densities_regions_and_shifts_are_read_as_they_are():
    rng = np.random.default_rng(2)
    axes = {"detector": ["0", "sum"], "component": ["Si", "Fe"]}
    each, one = ("detector", "component", "y", "x"), ("detector", "y", "x")
    shift = rng.random((2, 2, 4, 5)).astype("f4")
    maps = xr.Dataset(
        {
            "amplitude": (each, np.ones((2, 2, 4, 5), "f4")),
            "detection_limit": (each, np.ones((2, 2, 4, 5), "f4")),
            "sigma": (each, np.ones((2, 2, 4, 5), "f4")),
            "status": (one, np.ones((2, 4, 5), "u1")),
            "theta_shift": (("detector", "parameter", "y", "x"), shift),
        },
        coords={
            **axes,
            "parameter": ["energy_offset", "compton_angle"],
            "parameter_unit": ("parameter", ["keV", "deg"]),
        },
    )
    rate, density = rng.random((2, 2, 4, 5)).astype("f4"), rng.random((1, 1, 4, 5)).astype("f4")
    label = np.zeros((2, 4, 5), "u2")
    label[0, 0], label[1, :2] = 1, 2
    groups = {
        "maps": maps,
        "normalised": xr.Dataset({"rate": (each, rate)}, coords={**axes, "detector": ["0", "combined"]}),
        "areal_density": xr.Dataset(
            {"areal_density": (each, density), "sigma": (each, density / 3)},
            coords={"detector": ["0"], "component": ["Fe"]},
        ),
        "regions": xr.Dataset({"label": (("layer", "y", "x"), label)}),
    }
    layers = list_layers(groups)
    assert "misfit" not in layers
    assert layers["normalised"].detectors == ("0", "combined")
    assert layers["areal_density"].components == ("Fe",)
    assert (layers["shift:energy_offset"].unit, layers["shift:compton_angle"].unit) == ("eV", "deg")

    def read(name, detector, *components):
        return read_layer(groups, layers[name], detector, components, {})

    np.testing.assert_allclose(read("shift:energy_offset", "sum")[0], 1000 * shift[1, 0])
    np.testing.assert_allclose(read("shift:compton_angle", "0")[0], shift[0, 1])
    np.testing.assert_array_equal(read("normalised", "combined", "Fe", "Si"), rate[1, ::-1])
    np.testing.assert_array_equal(read("areal_density", "0", "Fe"), density[0])
    np.testing.assert_allclose(read("areal_density_sigma", "0", "Fe"), density[0] / 3)
    # Where regions overlap, the first layer is seen.
    assert read("regions", "0")[0][:3, 0].tolist() == [1, 2, 0]
    with pytest.raises(ConfigError, match=r"detector 'sum'.*component 'Si'"):
        read("areal_density", "sum", "Si")


def test_a_scan_that_is_large_enough_for_tiles_is_summed_as_exactly(tmp_path):
    # More than 4096 pixels: the ingest writes sums of tiles.
    source = tmp_path / "source"
    source.mkdir()
    scan = made_scan(write_source(source), shape=(2, 70, 75, 40), dtype="uint16")
    ingest_scan(scan, tmp_path / "large.zarr")
    session = opened(tmp_path / "large.zarr")
    assert session.counts.store.has_tiles
    counts = whole(scan).astype(np.uint64)
    angle = np.linspace(0, 2 * np.pi, 50)
    lasso = {"kind": "polygon", "points": np.column_stack([35 + 30 * np.sin(angle), 37 + 33 * np.cos(angle)]).tolist()}
    mask = session.select(lasso)
    assert 2000 < mask.sum() < 4000
    for detector, which in (("1", [1]), ("sum", [0, 1])):
        selected = session.sum_counts(detector, mask)
        np.testing.assert_array_equal(selected.counts, counts[which][:, mask].sum(axis=(0, 1)))
