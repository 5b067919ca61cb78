"""MDA step and fly scans, on the measured files and on hand-made ones."""

import struct
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from mda_files import record, write_step_scan

from hpcxrf.errors import InputFileError
from hpcxrf.formats import mda
from hpcxrf.formats.mda_layout import ExtraVariable, map_file, read_header, read_scan
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions

CHANNELS = 16


def some_counts(shape=(2, 3, 4, CHANNELS)):
    return np.random.default_rng(1).poisson(20.0, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "kind", "shape", "totals", "live_s"),
    [
        ("2xfm_0010", "mda", (4, 11, 11, 2000), [107119, 103092, 52321, 54638], 0.499),
        ("2xfm_0011", "mda-fly", (4, 11, 9, 2048), [100311, 96080, 48479, 50482], 0.496),
        ("axo_std", "mda", (4, 11, 11, 2000), [895788, 844397, 593359, 696070], 0.983),
    ],
)
def test_the_measured_scans_have_the_totals_and_live_times_of_their_readme(
    shared_data, name, kind, shape, totals, live_s
):
    scan = open_scan(shared_data / "aps-2ide" / "mda" / f"{name}.mda")
    assert (scan.format, scan.shape) == (kind, shape)
    counts = scan.read_counts(slice(0, shape[1]))
    assert counts.shape == shape
    assert counts.sum(axis=(1, 2, 3), dtype=float).tolist() == totals
    scalars = scan.read_scalars()
    assert np.median(scalars.live_time_s[0]) == pytest.approx(live_s, abs=1e-3)
    assert scalars.measured is None
    assert scan.calibration is None
    assert scan.incident_energy_kev is None  # the undulators' energies in the file are not the beam's


def test_step_rates_agree_with_the_spectra_and_positions_are_micrometres(shared_data):
    scan = open_scan(shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda")
    scalars = scan.read_scalars()
    recorded = scalars.ocr_hz * scalars.real_time_s
    counts = scan.read_counts(slice(0, 11)).sum(axis=-1)
    assert np.median(recorded / counts) == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(scalars.x_um[3, :3], [-1500, -1450, -1400])
    np.testing.assert_allclose(scalars.y_um[:3, 5], [3250, 3300, 3350])
    ring = scalars.scaler_names.index("S:SRcurrentAI")
    assert scalars.scaler_units[ring] == "mA"
    assert 101 < scalars.scaler_values[ring].mean() < 103


def test_the_first_column_of_the_fly_scan_was_exposed_longer(shared_data):
    scan = open_scan(shared_data / "aps-2ide" / "mda" / "2xfm_0011.mda")
    scalars = scan.read_scalars()
    assert np.median(scalars.live_time_s[:, :, 0]) == pytest.approx(1.2, abs=0.01)
    assert np.median(scalars.live_time_s[:, :, 1:]) == pytest.approx(0.495, abs=0.005)
    assert np.median(scalars.ocr_hz[0, :, 1:]) == pytest.approx(1790, rel=0.05)
    assert scalars.scaler_values.shape[1:] == (11, 9)
    clock = scalars.scaler_values[scalars.scaler_names.index("2xfm:mcs:mca1.VAL")]
    # the scaler's 25 MHz clock knows the exposure of each column: columns belong together
    np.testing.assert_allclose(clock[:, 1:] / 25e6, scalars.real_time_s[0, :, 1:], rtol=2e-3)
    assert any("11 x 9" in note.text for note in scan.notes)


def test_the_fly_file_opens_by_itself(shared_data):
    scan = open_scan(shared_data / "aps-2ide" / "flyXRF.h5" / "2xfm_0011_2xfm3__0.h5")
    assert (scan.format, scan.shape) == ("maps-raw", (4, 11, 9, 2048))
    assert scan.read_counts(slice(4, 6)).shape == (4, 2, 9, 2048)


def test_a_hand_made_step_scan_comes_back_exactly(tmp_path):
    counts = some_counts()
    scan = open_scan(write_step_scan(tmp_path / "a.mda", counts))
    assert scan.shape == counts.shape
    np.testing.assert_array_equal(scan.read_counts(slice(0, 3)), counts)
    np.testing.assert_array_equal(scan.read_counts(slice(1, 2)), counts[:, 1:2])
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 2.0 * 0.9)
    np.testing.assert_allclose(scalars.icr_hz[1], 200.0)
    np.testing.assert_allclose(scalars.x_um[0], [0, 500, 1000, 1500])  # the unit of the other axis
    by_name = dict(zip(scalars.scaler_names, scalars.scaler_values, strict=True))
    np.testing.assert_allclose(by_name["ic"][2], [2.0, 2.1, 2.2, 2.3], rtol=1e-6)
    np.testing.assert_allclose(by_name["ring"][:, 3], [100, 101, 102])
    assert scan.notes == ()


def test_a_positioner_in_microns_is_not_scaled(tmp_path):
    scan = open_scan(write_step_scan(tmp_path / "a.mda", some_counts(), unit="microns"))
    np.testing.assert_allclose(scan.read_scalars().y_um[:, 0], [0, 1, 2])


def test_a_scan_that_stopped_half_way_says_so_and_marks_what_is_missing(tmp_path):
    counts = some_counts()
    scan = open_scan(write_step_scan(tmp_path / "a.mda", counts, last_row=1, last_point=2))
    measured = np.zeros((3, 4), dtype=bool)
    measured[0], measured[1, :2] = True, True
    scalars = scan.read_scalars()
    np.testing.assert_array_equal(scalars.measured, measured)
    np.testing.assert_array_equal(scan.read_counts(slice(0, 3)), counts * measured[:, :, np.newaxis])
    assert np.isnan(scalars.live_time_s[:, ~measured]).all()
    assert not np.isnan(scalars.live_time_s[:, measured]).any()
    assert any("stopped after 1 of 3 rows (6 of 12 points)" in note.text for note in scan.notes)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_with_the_bytes_expected(tmp_path, keep):
    whole = write_step_scan(tmp_path / "a.mda", some_counts())
    size = whole.stat().st_size
    (tmp_path / "b.mda").write_bytes(whole.read_bytes()[: int(keep * size)])
    with pytest.raises(InputFileError, match=rf"b\.mda: truncated.*has {int(keep * size)}"):
        open_scan(tmp_path / "b.mda")


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_count_that_is_none_is_refused_with_its_place(tmp_path, bad):
    counts = some_counts()
    counts[1, 2, 3, 5] = bad
    scan = open_scan(write_step_scan(tmp_path / "a.mda", counts))
    scan.read_counts(slice(0, 2))
    with pytest.raises(InputFileError, match=r"a\.mda: detector 1, row 2, column 3, channel 5"):
        scan.read_counts(slice(1, 3))


def test_rows_outside_the_scan_are_refused(tmp_path):
    scan = open_scan(write_step_scan(tmp_path / "a.mda", some_counts()))
    for rows in (slice(0, 4), slice(0, 3, 2), slice(2, 1)):
        with pytest.raises(InputFileError, match="rows"):
            scan.read_counts(rows)


def test_several_threads_may_read_at_once(tmp_path):
    counts = some_counts((2, 12, 4, CHANNELS))
    scan = open_scan(write_step_scan(tmp_path / "a.mda", counts))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda y: scan.read_counts(slice(y, y + 1)), range(12)))
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), counts)


@pytest.mark.parametrize("rank", [1, 4])
def test_another_rank_is_refused(tmp_path, rank):
    path = tmp_path / "a.mda"
    path.write_bytes(struct.pack(f">fii{rank}iii", 1.3, 1, rank, *[4] * rank, 1, 0) + bytes(64))
    with pytest.raises(InputFileError, match=f"rank {rank}"):
        open_scan(path)


def write_fly_mda(path, height=3, width=5, done=5):
    """A rank-2 file with one scaler."""
    head_size = struct.calcsize(">fii2iii")
    positions = [("m:y", "mm", np.arange(height))]
    detectors = [("ring", "mA", np.zeros(height))]

    def outer(subs):
        return record(0, rank=2, last=height, name="F1", positions=positions, detectors=detectors, subs=subs)[1]

    row = record(
        0,
        rank=1,
        last=done,
        name="FH",
        positions=[("m:x", "", np.arange(width))],
        detectors=[("mcs:mca1.VAL", "", np.arange(width))],
    )[1]
    first = head_size + len(outer([0] * height))
    subs = [first + y * len(row) for y in range(height)]
    extra = first + height * len(row)
    head = struct.pack(">fii2iii", 1.3, 5, 2, height, width, 1, extra)
    path.write_bytes(head + outer(subs) + row * height + b"\0\0\0\0")
    return path


def write_fly_spectra(path, counts, *, live=True):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for letter, spectra in zip("abcd", counts, strict=False):
            file[f"MAPS_RAW/data_{letter}"] = np.moveaxis(spectra, -1, 0).astype("i2")
        size = counts.shape[:3]
        file["MAPS_RAW/realtime"] = np.full(size, 0.5, "f4")
        if live:
            file["MAPS_RAW/inputcounts"] = np.full(size, 200, "f4")
            file["MAPS_RAW/ouputcounts"] = np.full(size, 150, "f4")
    return path


def test_a_fly_scan_without_its_spectra_says_where_it_looked(tmp_path):
    with pytest.raises(InputFileError, match=r"scan_\*_0\.h5 .*flyXRF\.h5"):
        open_scan(write_fly_mda(tmp_path / "scan.mda"))


@pytest.mark.parametrize("folder", ["flyXRF.h5", "../flyXRF.h5"])
def test_spectra_wider_than_the_mda_have_unknown_scalers_there(tmp_path, folder):
    place = tmp_path / "mda"
    place.mkdir()
    counts = some_counts((3, 3, 6, CHANNELS))
    write_fly_spectra((place / folder).resolve() / "scan_det__0.h5", counts)
    scan = open_scan(write_fly_mda(place / "scan.mda"))
    np.testing.assert_array_equal(scan.read_counts(slice(0, 3)), counts)
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 0.5 * 0.75)
    np.testing.assert_allclose(scalars.icr_hz, 400.0)
    np.testing.assert_array_equal(scalars.scaler_values[0, 1, :5], np.arange(5))
    assert np.isnan(scalars.scaler_values[0, :, 5]).all()
    np.testing.assert_array_equal(scalars.measured[:, 5], [False] * 3)


def test_negative_fly_counts_are_refused(tmp_path):
    counts = some_counts((2, 3, 5, CHANNELS))
    counts[0, 1, 2, 3] = -4
    scan = open_scan(write_fly_spectra(tmp_path / "f_0.h5", counts))
    with pytest.raises(InputFileError, match="detector 0, row 1, column 2, channel 3: -4"):
        scan.read_counts(slice(0, 3))


def test_no_live_time_is_made_up_where_the_file_has_no_rates(tmp_path):
    scan = open_scan(write_fly_spectra(tmp_path / "f_0.h5", some_counts(), live=False))
    scalars = scan.read_scalars()
    assert scalars.live_time_s is None
    assert scalars.icr_hz is None


def variable(name, unit, value):
    return ExtraVariable(name=name, description="", unit=unit, text="", numbers=(value,))


def test_rows_share_the_names_of_their_detectors_unless_they_differ(shared_data):
    path = shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda"
    data = map_file(path)
    header = read_header(path, data)
    outer = read_scan(path, data, header.scan_at)
    first, second = (read_scan(path, data, at) for at in outer.sub_at[:2])
    assert second.detectors == first.detectors
    assert second.detectors is not first.detectors
    like_first = read_scan(path, data, outer.sub_at[1], first)
    assert like_first.detectors is first.detectors
    assert like_first == second
    assert read_scan(path, data, header.scan_at, first) == outer


def test_only_a_monochromator_gives_the_incident_energy():
    undulator = variable("ID02ds:Energy.VAL", "keV", 10.29)
    mono = variable("2ida:mono:Energy", "eV", 10000.0)
    assert mda.find_incident_energy_kev((undulator,)) is None
    assert mda.find_incident_energy_kev((undulator, mono)) == pytest.approx(10.0)
    assert mda.find_incident_energy_kev((variable("2ida:mono:Energy", "keV", 0.0),)) is None
    for name in ("2idb:BraggERdbkAO.VAL", "2ida2:mono:E_RBV", "2idd:BraggEAO.VAL"):
        assert mda.find_incident_energy_kev((variable(name, "keV", 12.5),)) == pytest.approx(12.5)
    angle = variable("2idb:BraggThetaRdbkAO.VAL", "keV", 12.5)
    assert mda.find_incident_energy_kev((angle,)) is None


def test_no_byte_of_the_file_can_make_the_reader_fail_otherwise(tmp_path):
    whole = bytearray(write_step_scan(tmp_path / "a.mda", some_counts((1, 2, 2, 4))).read_bytes())
    rng = np.random.default_rng(4)
    path, refused = tmp_path / "b.mda", 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(12, len(whole)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            scan = mda.open_file(path, ReadOptions())
            scan.read_counts(slice(0, scan.shape[1]))
            scan.read_scalars()
        except InputFileError:
            refused += 1
    assert 0 < refused < 300


def test_the_path_may_hold_signs_of_patterns(tmp_path):
    place = tmp_path / "a[1]"
    place.mkdir()
    counts = some_counts((1, 3, 5, CHANNELS))
    write_fly_spectra(place / "s[2]_x_0.h5", counts)
    assert open_scan(write_fly_mda(place / "s[2].mda")).shape == counts.shape


def test_columns_that_a_fly_scan_did_not_reach_are_marked(tmp_path):
    write_fly_spectra(tmp_path / "scan_det__0.h5", some_counts((1, 3, 5, CHANNELS)))
    scan = open_scan(write_fly_mda(tmp_path / "scan.mda", done=3))
    np.testing.assert_array_equal(scan.read_scalars().measured, [[True] * 3 + [False] * 2] * 3)
    assert any("9 of 15 points" in note.text for note in scan.notes)


def test_a_point_with_other_words_is_read_and_one_with_too_many_points_refused(tmp_path):
    counts = some_counts()
    path = write_step_scan(tmp_path / "a.mda", counts)
    data = map_file(path)
    outer = read_scan(path, data, read_header(path, data).scan_at)
    row = read_scan(path, data, outer.sub_at[1])
    third, spectrum = row.sub_at[2], read_scan(path, data, row.sub_at[2])
    whole = bytearray(path.read_bytes())
    name_at = whole.index(spectrum.detectors[0].name.encode(), third)
    changed = whole.copy()
    changed[name_at] = ord("X")
    changed[spectrum.time_at] = ord("N")
    path.write_bytes(changed)
    np.testing.assert_array_equal(open_scan(path).read_counts(slice(0, 3)), counts)
    damaged = whole.copy()
    damaged[third + 8 : third + 12] = struct.pack(">i", CHANNELS + 1)
    path.write_bytes(damaged)
    with pytest.raises(InputFileError, match=f"last point is {CHANNELS + 1}, must be 0 to {CHANNELS}"):
        open_scan(path).read_counts(slice(0, 3))
