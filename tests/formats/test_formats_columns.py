"""Columns of numbers: separators, decimal commas, units, several spectra; and tables that are no spectra."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import find_scans
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, open_text

COUNTS = make_counts()
KEV = [0.02 + 0.01 * i for i in range(64)]


def table(*columns, separator=" ", head="", comma=False) -> str:
    rows = [separator.join(f"{v:.6g}" for v in row) for row in zip(*columns, strict=True)]
    text = "\n".join(rows) + "\n"
    return head + (text.replace(".", ",") if comma else text)


def test_the_spectrum_of_two_columns_takes_its_axis_from_the_first(shared_cases, hpcxrf):
    path = shared_cases / "files" / "two_columns_kev_counts.txt"
    facts = hpcxrf("inspect", path, "--json").json
    energy, counts = np.loadtxt(path).T
    assert (facts["format"], facts["shape"]) == ("columns", [1, 1, 1, len(counts)])
    slope, offset = np.polyfit(np.arange(len(energy)), energy, 1)
    assert facts["energy_slope_kev"] == pytest.approx(slope, rel=1e-6)
    assert facts["energy_offset_kev"] == pytest.approx(offset, abs=1e-5)
    assert facts["total_counts"] == [counts.sum()]


PLAIN = [(separator, False) for separator in (" ", "\t", ",", ", ", ";")]
COMMAS = [(separator, True) for separator in (" ", "\t", ";", "; ")]


@pytest.mark.parametrize(("separator", "comma"), PLAIN + COMMAS)
@pytest.mark.parametrize("head", ["", "energy{s}counts\n", "# made by hand\n# Energy (keV){s}Counts\n"])
def test_every_separator_and_decimal_sign_gives_the_same_spectrum(tmp_path, separator, comma, head):
    scan = open_text(tmp_path, table(KEV, COUNTS, separator=separator, comma=comma, head=head.format(s=separator)))
    assert scan.format == "columns"
    assert counts_of(scan).ravel().tolist() == COUNTS
    assert axis_of(scan) == pytest.approx((0.02, 0.01))


@pytest.mark.parametrize(
    ("column", "name", "axis"),
    [
        ([10.0 * i - 200.0 for i in range(64)], "Energy (eV)", (-0.2, 0.01)),
        ([10.0 * i for i in range(64)], "", (0.0, 0.01)),
        ([1.0 * i for i in range(64)], "energy_ev", (0.0, 0.001)),
        ([float(i) for i in range(64)], "Channel", None),
        ([float(i + 1) for i in range(64)], "", None),
    ],
)
def test_the_unit_is_that_of_the_name_or_of_the_step(tmp_path, column, name, axis):
    head = f"{name},Counts\n" if name else ""
    scan = open_text(tmp_path, table(column, COUNTS, separator=",", head=head))
    assert counts_of(scan).ravel().tolist() == COUNTS
    assert (scan.calibration is None) if axis is None else axis_of(scan) == pytest.approx(axis)


def test_channel_energy_and_counts_side_by_side_are_told_apart(tmp_path):
    channels = range(64)
    for head in ("Channel,Energy,Counts\n", ""):
        scan = open_text(tmp_path, table(channels, KEV, COUNTS, separator=",", head=head))
        assert counts_of(scan).ravel().tolist() == COUNTS
        assert axis_of(scan) == pytest.approx((0.02, 0.01))


def test_one_column_is_counts_by_channel(tmp_path):
    scan = open_text(tmp_path, "counts\n" + "\n".join(map(str, COUNTS)) + "\n")
    assert (counts_of(scan).ravel().tolist(), scan.calibration) == (COUNTS, None)


def test_several_columns_of_counts_are_points_or_by_their_names_detectors(tmp_path):
    other = make_counts(seed=2)
    points = open_text(tmp_path, table(KEV, COUNTS, other, separator=",", head="energy_kev,spot 1,spot 2\n"))
    assert points.shape == (1, 2, 1, 64)
    detectors = open_text(tmp_path, table(KEV, COUNTS, other, separator=",", head="energy_kev,det1,det2\n"))
    assert detectors.shape == (2, 1, 1, 64)
    np.testing.assert_array_equal(counts_of(detectors)[:, 0, 0], [COUNTS, other])


def test_fits_backgrounds_and_error_bars_are_not_spectra(tmp_path):
    smooth = [v + 0.5 for v in COUNTS]
    head = "Energy,Spectrum,Fitted,Background,K alpha\n"
    scan = open_text(tmp_path, table(KEV, COUNTS, smooth, smooth, smooth, separator=",", head=head))
    assert counts_of(scan).ravel().tolist() == COUNTS
    assert "left out: Fitted, Background, K alpha" in notes_of(scan)
    scan = open_text(tmp_path, table(KEV, COUNTS, np.log10(np.add(COUNTS, 1)), head="energy counts log_counts\n"))
    assert counts_of(scan).ravel().tolist() == COUNTS
    bars = np.sqrt(COUNTS)
    scan = open_text(tmp_path, table(KEV, COUNTS, bars))
    assert counts_of(scan).ravel().tolist() == COUNTS
    assert "left out: column 3" in notes_of(scan)


@pytest.mark.parametrize(
    ("lines", "live", "axis"),
    [
        ("Live Time (s),50.25\neV/channel,10\nOffset,-20\nChannel,Counts\n", 50.25, (-0.02, 0.01)),
        ("# live_time_s: 12.5\n# keV per channel = 0.02\n# channel counts\n", 12.5, (0.0, 0.02)),
        ("Life time: 30000 ms\nPrimary energy: 20.0\nchannel counts\n", 30.0, None),
        ("Livetime - 7\nGain: 10\nchannel counts\n", 7.0, None),
    ],
)
def test_times_and_axis_come_from_the_lines_above(tmp_path, lines, live, axis):
    separator = "," if "," in lines else " "
    scan = open_text(tmp_path, table(range(64), COUNTS, separator=separator, head=lines))
    assert scan.read_scalars().live_time_s.tolist() == [[[live]]]
    assert (scan.calibration is None) if axis is None else axis_of(scan) == pytest.approx(axis)


def test_one_time_a_spectrum_belongs_to_its_spectrum(tmp_path):
    head = "Live time,10,11\nReal time,12\nenergy,counts 1,counts 2\n"
    scalars = open_text(tmp_path, table(KEV, COUNTS, COUNTS, separator=",", head=head)).read_scalars()
    assert scalars.live_time_s.tolist() == [[[10.0], [11.0]]]
    assert scalars.real_time_s.tolist() == [[[12.0], [12.0]]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_the_encoding_of_the_text_does_not_matter(tmp_path, encoding):
    text = table(KEV, COUNTS, separator="\t", head="Energie (keV)\tZählrate\n")
    scan = open_text(tmp_path, text.encode(encoding))
    assert counts_of(scan).ravel().tolist() == COUNTS


XANES_EV = [7050.0 + 2.0 * i for i in range(64)]
FALLING = COUNTS[::-1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (table(XANES_EV, COUNTS), r"energies from 7050 to 7176: an energy scan \(XANES"),
        (table(XANES_EV, COUNTS, FALLING, head="# energy i0 itrans\n"), r"absorption spectrum \(XANES\).*i0, itrans"),
        (table([0.01 * i**1.5 for i in range(64)], COUNTS, head="energy counts\n"), "steps of the energy are uneven"),
        (table(KEV, COUNTS, head="2theta counts\n"), "table by '2theta'"),
        (table(KEV, COUNTS, head="time counts\n"), "table by 'time'"),
        (table(range(64), COUNTS, FALLING, head="index x y\n"), r"table of positions \(x, y\)"),
        (table(range(64), COUNTS, FALLING, head="point samx samy\n"), r"table of positions \(samx, samy\)"),
        (table([3600.0 + i for i in range(64)]), "rises from line to line: time stamps"),
        (table(range(64), [1.5 * i for i in range(64)], head="channel value\n"), "value rises from line to line"),
        (table(COUNTS, FALLING), "none of which is an energy or a channel"),
        (table([20.0 + 0.5 * i for i in range(64)], COUNTS), "has no name; name it"),
    ],
)
def test_a_table_of_something_else_is_refused_with_what_it_holds(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"spectrum\.txt: .*{fault}"):
        open_text(tmp_path, text)


def test_a_table_of_something_else_in_a_folder_is_left_out(tmp_path):
    (tmp_path / "positions.csv").write_text(table(COUNTS, FALLING, separator=","))
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    (tmp_path / "spectrum.csv").write_text(table(KEV, COUNTS, separator=","))
    found, notes = find_scans([tmp_path])
    assert [path.name for path in found] == ["spectrum.csv"]
    assert "positions.csv" in notes[0].text


def test_what_a_program_wrote_of_a_fit_is_left_out_of_a_folder_and_opens_by_name(tmp_path):
    path = tmp_path / "fit.csv"
    path.write_text(table(KEV, COUNTS, COUNTS, separator=",", head="Energy,Spectrum,Fitted\n"))
    (tmp_path / "spectrum.csv").write_text(table(KEV, COUNTS, separator=","))
    found, notes = find_scans([tmp_path])
    assert [path.name for path in found] == ["spectrum.csv"]
    assert "fit.csv: left out: the fit of a spectrum" in notes[0].text
    assert find_scans([path])[0] == [path]


def test_lines_below_the_table_are_named(tmp_path):
    text = table(KEV, COUNTS, separator=",", head="energy,counts\n") + "Elements found\nFe;0.5\nCu;0.1\n"
    scan = open_text(tmp_path, text)
    assert counts_of(scan).ravel().tolist() == COUNTS
    assert "3 lines below the table are not used; the first is 'Elements found'" in notes_of(scan)
