"""What other programs write, by their own code, is read with its counts, axis and times: rosettasciio and silx."""

from pathlib import Path

import numpy as np
import pytest

from hpcxrf.formats.registry import open_scan
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, spec_spectrum

N = 512
COUNTS = np.array(make_counts(N))
OFFSET_KEV, SLOPE_KEV = -0.2, 0.02
ENERGY_KEV = OFFSET_KEV + SLOPE_KEV * np.arange(N)
CUBE = np.random.default_rng(8).poisson(np.broadcast_to(5.0 + COUNTS, (2, 3, N))).astype("u2")


def missing(extra: str) -> str:
    return f"not installed; pip install 'hpcxrf[{extra}]'"


def axis(number, name, size, offset, scale, units, *, navigate=True):
    kind = {"index_in_array": number, "_type": "UniformDataAxis", "is_binned": not navigate, "navigate": navigate}
    return {"name": name, "size": size, "offset": offset, "scale": scale, "units": units, **kind}


def signal(data, *axes):
    """A signal as rosettasciio's writers take it."""
    detector = {"EDS": {"live_time": 9.5, "real_time": 10.25}}
    metadata = {
        "General": {"title": "EDX"},
        "Signal": {"signal_type": "EDS_TEM"},
        "Acquisition_instrument": {"TEM": {"beam_energy": 200.0, "Detector": detector}},
    }
    empty = {"original_metadata": {}, "learning_results": {}, "tmp_parameters": {}, "models": {}}
    package = {"package_info": {"package": "none"}, "attributes": {"_lazy": False, "ragged": False}}
    return {"data": data, "axes": list(axes), "metadata": metadata, **empty, **package}


@pytest.mark.parametrize("layout", ["Y", "XY"])
def test_emsa_of_rosettasciio(tmp_path, layout):
    msa = pytest.importorskip("rsciio.msa", reason=missing("test"))
    energy = axis(0, "Energy", N, OFFSET_KEV, SLOPE_KEV, "keV", navigate=False)
    msa.file_writer(str(tmp_path / "a.msa"), signal(COUNTS.astype("f4"), energy), format=layout)
    scan = open_scan(tmp_path / "a.msa")
    assert (scan.format, scan.shape) == ("emsa", (1, 1, 1, N))
    assert axis_of(scan) == pytest.approx((OFFSET_KEV, SLOPE_KEV))
    np.testing.assert_array_equal(counts_of(scan).ravel(), COUNTS)
    assert scan.read_scalars().live_time_s.tolist() == [[[9.5]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[10.25]]]
    assert "beam of 200 kV" in notes_of(scan)


def test_hspy_of_rosettasciio(tmp_path):
    hspy = pytest.importorskip("rsciio.hspy", reason=missing("test"))
    height, width = axis(0, "height", 2, 1.0, 0.5, "µm"), axis(1, "width", 3, 0.0, 2.0, "µm")
    energy = axis(2, "Energy", N, 1e3 * OFFSET_KEV, 1e3 * SLOPE_KEV, "eV", navigate=False)
    hspy.file_writer(str(tmp_path / "a.hspy"), signal(CUBE, height, width, energy))
    scan = open_scan(tmp_path / "a.hspy")
    assert (scan.format, scan.shape) == ("hyperspy", (1, 2, 3, N))
    assert axis_of(scan) == pytest.approx((OFFSET_KEV, SLOPE_KEV))
    np.testing.assert_array_equal(counts_of(scan)[0], CUBE)
    np.testing.assert_allclose(scan.read_scalars().y_um[:, 0], [1.0, 1.5])


@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_columns_of_silx(tmp_path, suffix):
    utils = pytest.importorskip("silx.io.utils", reason=missing("test"))
    path = tmp_path / f"a{suffix}"
    utils.save1D(str(path), ENERGY_KEV, COUNTS, xlabel="Energy (keV)", ylabels=["Counts"], filetype=suffix[1:])
    scan = open_scan(path)
    assert (scan.format, scan.shape) == ("columns", (1, 1, 1, N))
    assert axis_of(scan) == pytest.approx((OFFSET_KEV, SLOPE_KEV))
    np.testing.assert_array_equal(counts_of(scan).ravel(), COUNTS)


def write_spec(path: Path, title: str, first: int = 0) -> Path:
    last = first + N - 1
    head = f"#F a.spec\n#D Mon Feb 02 10:00:00 2026\n\n#S 1 {title}\n#D Mon Feb 02 10:00:01 2026\n"
    mca = f"#@MCA %16C\n#@CHANN {N} {first} {last} 1\n#@CALIB {OFFSET_KEV} {SLOPE_KEV} 0\n#@CTIME 10 9.5 10.25\n"
    points = [f"{i % 3} {i // 3}\n{spec_spectrum(one.tolist())}" for i, one in enumerate(CUBE.reshape(-1, N))]
    path.write_text(head + mca + "#N 2\n#L samx  samy\n" + "\n".join(points) + "\n\n")
    return path


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize(
    ("title", "shape"), [("ascan samx 0 5 5 10", (1, 6, 1, N)), ("mesh samx 0 2 2 samy 0 1 1 10", (1, 2, 3, N))]
)
def test_a_spec_file_that_silx_converted_is_the_spec_file(tmp_path, title, shape, first):
    convert = pytest.importorskip("silx.io.convert", reason=missing("test"))
    source = write_spec(tmp_path / "a.spec", title, first)
    convert.write_to_h5(str(source), str(tmp_path / "a.h5"))
    before, after = open_scan(source), open_scan(tmp_path / "a.h5")
    assert (before.format, after.format) == ("spec", "bliss")
    assert before.shape == after.shape == shape
    for scan in (before, after):
        assert axis_of(scan) == pytest.approx((OFFSET_KEV + SLOPE_KEV * first, SLOPE_KEV))
        np.testing.assert_array_equal(counts_of(scan)[0], CUBE.reshape(shape[1:]))
        assert "give input.map_shape" not in notes_of(scan)


def test_without_a_calibration_a_converted_spec_file_has_no_axis(tmp_path):
    convert = pytest.importorskip("silx.io.convert", reason=missing("test"))
    source = write_spec(tmp_path / "a.spec", "ct 10")
    source.write_text(source.read_text().replace(f"#@CALIB {OFFSET_KEV} {SLOPE_KEV} 0", "#@CALIB 0 1 0"))
    convert.write_to_h5(str(source), str(tmp_path / "a.h5"))
    assert open_scan(tmp_path / "a.h5").calibration is None
    assert open_scan(source).calibration is None


def test_a_tree_that_silx_writes_is_read(tmp_path):
    dictdump = pytest.importorskip("silx.io.dictdump", reason=missing("test"))
    data = {
        "@NX_class": "NXdata",
        "@signal": "counts",
        "@axes": [".", ".", "energy"],
        "counts": CUBE,
        "counts@interpretation": "spectrum",
        "energy": ENERGY_KEV,
        "energy@units": "keV",
    }
    tree = {"@default": "entry", "entry": {"@NX_class": "NXentry", "@default": "data", "data": data}}
    dictdump.dicttonx(tree, str(tmp_path / "a.h5"))
    scan = open_scan(tmp_path / "a.h5")
    assert scan.shape == (1, 2, 3, N)
    assert axis_of(scan) == pytest.approx((OFFSET_KEV, SLOPE_KEV))
    np.testing.assert_array_equal(counts_of(scan)[0], CUBE)
