"""Whatever the text readers are given: a scan, or the project's own error."""

import contextlib
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcxrf.errors import InputFileError
from hpcxrf.formats import (
    amptek_pmca,
    bruker_spx,
    columns,
    emsa,
    instrument_csv,
    ortec_spe,
    pixl_csv,
    spec_scans,
    text_files,
)
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.formats.text_files import parse_leading_numbers, parse_number, read_text
from tests.samples import text_scans

COUNTS = text_scans.make_counts()
READERS = {
    emsa: text_scans.emsa(COUNTS, LIVETIME="9", BEAMKV="30", CHOFFSET="20"),
    bruker_spx: text_scans.spx(COUNTS),
    amptek_pmca: text_scans.pmca(COUNTS),
    ortec_spe: text_scans.spe(COUNTS, more="$MCA_CAL:\n3\n0.1 0.01 0 keV"),
    spec_scans: "#F a\n#S 1 mesh x 0 1 0 y 0 1 0 1\n#@CHANN 64 0 63 1\n#@CALIB 0 0.01 0\n#@CTIME 1 1 1\n#L x  y\n1 2\n"
    + text_scans.spec_spectrum(COUNTS),
    instrument_csv: text_scans.handheld_csv([COUNTS, COUNTS]),
    pixl_csv: text_scans.pixl_csv([COUNTS], [COUNTS]),
    columns: "energy,counts\n" + "".join(f"{0.01 * i:.2f},{n}\n" for i, n in enumerate(COUNTS)),
}
WORDS = [
    "-1",
    "0",
    "1e999",
    "nan",
    "inf",
    "1_0",
    "9" * 5000,
    "",
    "\0",
    "\\",
    "\n",
    "@A",
    "<",
    ">",
    "#",
    ",",
    ";",
    "$DATA:",
    "é",
]
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_whole(reader, path: Path) -> None:
    """Do what inspect does; any exception but the project's own is a failure."""
    head = path.read_bytes()[:4096]
    assert reader.sniff(path, head) in {True, False}
    with contextlib.suppress(InputFileError):
        scan = reader.open_file(path, ReadOptions())
        scan.read_scalars()
        counts = scan.read_counts(slice(0, scan.shape[1]))
        assert counts.shape == scan.shape
        assert (counts >= 0).all()
        assert np.isfinite(counts).all()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__.rpartition(".")[2])
def test_the_sample_of_each_reader_opens(tmp_path, reader):
    path = tmp_path / "a.txt"
    path.write_text(READERS[reader], newline="")
    assert reader.sniff(path, path.read_bytes()[:4096])
    scan = reader.open_file(path, ReadOptions())
    assert scan.read_counts(slice(0, 1))[0, 0, 0].tolist() == COUNTS
    assert next(other for other in READERS if other.sniff(path, path.read_bytes()[:4096])) is reader


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__.rpartition(".")[2])
@FEW
@given(data=st.data())
def test_a_file_with_words_replaced_gives_a_scan_or_the_projects_error(tmp_path, reader, data):
    text = READERS[reader]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 1, 2, 5, 40, 400]))
        text = text[:start] + data.draw(st.sampled_from(WORDS)) + text[start + length :]
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-8"))
    read_whole(reader, path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__.rpartition(".")[2])
@FEW
@given(content=st.one_of(st.binary(max_size=300), st.text(string.printable, max_size=300).map(str.encode)))
def test_garbage_gives_a_scan_or_the_projects_error(tmp_path, reader, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    read_whole(reader, path)


@given(st.text(max_size=40))
def test_a_number_is_finite_or_not_a_number(word):
    value = parse_number(word)
    assert np.isnan(value) or float(word) == value
    assert all(np.isfinite(parse_leading_numbers(word)))


@pytest.mark.parametrize("word", ["1_000", "nan", "", "x", "0x10"])
def test_what_python_reads_and_no_instrument_writes_is_no_number(word):
    assert np.isnan(parse_number(word))


LONG = 1 << 18
HOSTILE = {
    "digits": "#FORMAT: EMSA\n#XPERCHAN: " + "9" * LONG + "x\n#SPECTRUM\n1\n2\n",
    "blanks in EMSA": "#FORMAT: EMSA\n#XPOSITION" + " " * LONG + "x\n#SPECTRUM\n1\n2\n",
    "blanks in SPE": "$DATA:\n0 2\n1\n2\n3\n$MCA_CAL" + " " * LONG + "x\n",
    "blanks in SPEC": "#F a\n#S 1 mesh" + " " * LONG + "x\n#L" + " " * LONG + "\n@A 1 2 3\n",
    "commas": "energy,counts\n" + "," * LONG + "\n",
    "columns": "\n".join(["1," * 2000] * 40),
    "names": "\n".join(["live time " * 200] * 500) + "\n" + "\n".join(f"{i} {i % 7}" for i in range(100)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_long_word_or_line_takes_no_time_that_grows_with_its_square(tmp_path, name):
    path = tmp_path / "a.txt"
    path.write_text(HOSTILE[name])
    for reader in READERS:
        read_whole(reader, path)


def test_a_text_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(text_files.LARGEST_TEXT_BYTES + 1)
    monkeypatch.setattr(Path, "open", None)
    with pytest.raises(InputFileError, match=r"a\.txt: 16777217 bytes; a table is read up to 16777216"):
        read_text(path, "a table")


def test_a_text_with_more_lines_than_any_spectrum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_MOST_LINES", 10)
    path = tmp_path / "a.txt"
    path.write_text("1\n" * 30)
    with pytest.raises(InputFileError, match="more than 10 lines"):
        read_text(path, "a table")
