"""TIFF, PNG and OME-Zarr read back by tifffile, PIL and ome-zarr: values, labels, pixel sizes, orientation."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from export_sample import COMPONENTS, CORNER, SHAPE, make_run, points_um
from PIL import Image

from hpcxrf.errors import OutputError
from hpcxrf.results.export import tiff
from hpcxrf.results.export.png import scale_levels
from hpcxrf.results.export.source import list_quantities, read_source
from hpcxrf.results.export.write import export_source
from hpcxrf.results.report.colours import NOT_FITTED, VIRIDIS, colour_limits
from hpcxrf.results.store.maps import open_results

IRON = COMPONENTS.index("Fe")
STEP_YX_UM = (2.0, 0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), spectra=False)


@pytest.fixture(scope="module")
def amplitude(store):
    return open_results(store)["maps"]["amplitude"].values


def test_a_tiff_is_a_stack_of_imagej_with_labels_and_pixel_sizes(store, amplitude, tmp_path):
    files = export_source(read_source(store), "tiff", tmp_path / "leaf.tif")
    assert len(files) == 3 * (3 + 3 + 3)
    with tifffile.TiffFile(tmp_path / "leaf_det1_amplitude.tif") as file:
        assert file.is_imagej
        assert file.series[0].axes == "CYX"
        values = file.asarray()
        about = file.imagej_metadata
        assert about["Labels"] == list(COMPONENTS)
        assert about["unit"] == "um"
        assert json.loads(about["Info"])["units"] == "count"
        low, high = colour_limits(amplitude[1, IRON].astype(float))
        assert about["Ranges"][2 * IRON : 2 * IRON + 2] == pytest.approx((low, high))
        for tag, step_um in (("XResolution", STEP_YX_UM[1]), ("YResolution", STEP_YX_UM[0])):
            above, below = file.pages[0].tags[tag].value
            assert below / above == pytest.approx(step_um, rel=0.05)
    assert values.dtype == np.float32
    assert values.tobytes() == amplitude[1].tobytes()
    assert np.unravel_index(np.nanargmax(values[IRON]), SHAPE) == CORNER


def test_pixels_without_a_number_stay_without_in_a_tiff(store, tmp_path):
    source = read_source(store)
    sigma = next(one for one in list_quantities(source, "0") if one.key == "sigma")
    assert np.isnan(sigma.values.values[:, 0, 0]).all()
    export_source(source, "tiff", tmp_path / "leaf")
    assert np.isnan(tifffile.imread(tmp_path / "leaf_det0_sigma.tif")[:, 0, 0]).all()


def test_points_that_are_no_raster_have_no_pixel_size(tmp_path, amplitude):
    store = make_run(tmp_path, positions_um=points_um(), spectra=False, layers=False)
    export_source(read_source(store), "tiff", tmp_path / "spiral")
    with tifffile.TiffFile(tmp_path / "spiral_det0_amplitude.tif") as file:
        assert "unit" not in file.imagej_metadata
        assert file.asarray().tobytes() == amplitude[0].tobytes()


def test_a_stack_beyond_the_format_is_refused_with_another_one(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_LARGEST_BYTES", 1000)
    with pytest.raises(OutputError, match=r"amplitude has .* export with --to ome-zarr"):
        export_source(read_source(store), "tiff", tmp_path / "leaf")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_has_the_colours_of_its_limits_and_the_shape_of_the_pixels(store, amplitude, tmp_path):
    [folder] = export_source(read_source(store), "png", tmp_path / "leaf")
    names = {path.name for path in folder.iterdir()}
    assert {"det0_amplitude_Fe.png", "det0_amplitude_Ti_Cr.png", "sum_areal_density_Fe.png", "limits.csv"} <= names
    with Image.open(folder / "det0_amplitude_Fe.png") as image:
        assert "Fe, detector 0" in image.info["Description"]
        width, height = image.size
        factor_y, factor_x = height // SHAPE[0], width // SHAPE[1]
        assert (height, width) == (SHAPE[0] * factor_y, SHAPE[1] * factor_x)
        assert factor_y / factor_x == pytest.approx(STEP_YX_UM[0] / STEP_YX_UM[1], rel=0.1)
        index = np.asarray(image)[::factor_y, ::factor_x]
        colours = np.asarray(image.convert("RGB"))[::factor_y, ::factor_x]
    assert colours[CORNER].tolist() == list(VIRIDIS[-3:])
    low, high = colour_limits(amplitude[0, IRON].astype(float))
    np.testing.assert_allclose(
        low + (index - 1.0) / 254 * (high - low), np.clip(amplitude[0, IRON], low, high), atol=(high - low) / 500
    )
    with (folder / "limits.csv").open(newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert float(rows["det0_amplitude_Fe.png"]["high"]) == high
    assert rows["sum_areal_density_Fe.png"]["units"] == "ug/cm2"
    assert rows["det0_amplitude_Ti_Cr.png"]["component"] == "Ti/Cr"


def test_what_was_not_fitted_is_grey():
    levels = scale_levels(np.array([[np.nan, 0.0], [1.0, 9.0]]), 0.0, 1.0)
    assert levels.tolist() == [[0, 1], [255, 255]]
    assert NOT_FITTED.startswith("#")


def test_an_ome_zarr_has_axes_scale_and_channels(store, amplitude, tmp_path):
    export_source(read_source(store), "ome-zarr", tmp_path / "leaf")
    group = zarr.open_group(tmp_path / "leaf_det0_amplitude.ome.zarr", mode="r")
    about = group.attrs["ome"]
    assert about["version"] == "0.5"
    [scales] = about["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in scales["axes"]] == [None, "micrometer", "micrometer"]
    scale, shift = scales["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([1.0, *STEP_YX_UM], rel=0.05)
    assert shift["translation"] == pytest.approx([0.0, 100.0, -7.0], abs=0.1)
    assert [channel["label"] for channel in about["omero"]["channels"]] == list(COMPONENTS)
    values = group[scales["datasets"][0]["path"]]
    assert values.metadata.dimension_names == ("c", "y", "x")
    assert values[:].tobytes() == amplitude[0].tobytes()


def test_the_reader_of_ome_zarr_opens_it(store, amplitude, tmp_path):
    hint = "ome-zarr is missing: pip install 'hpcxrf[bench]'"
    reader = pytest.importorskip("ome_zarr.reader", reason=hint)
    io = pytest.importorskip("ome_zarr.io", reason=hint)
    export_source(read_source(store), "ome-zarr", tmp_path / "leaf")
    [node] = reader.Reader(io.parse_url(tmp_path / "leaf_sum_amplitude.ome.zarr"))()
    assert node.metadata["channel_names"] == list(COMPONENTS)
    values = np.asarray(node.data[0])
    assert values.tobytes() == amplitude[2].tobytes()
    assert np.unravel_index(np.nanargmax(values[IRON]), SHAPE) == CORNER
