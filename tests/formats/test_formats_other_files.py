"""Files that are known and hold no spectra: the error says what they hold and what to do."""

import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.registry import list_file_formats, open_scan, scan_formats

XDI = b"# XDI/1.0 GSE/1.0\n# Element.symbol: Fe\n#-----\n# energy mutrans\n" + b"".join(
    b"%d 0.5\n" % (7000 + i) for i in range(100)
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"II*\0" + bytes(100), r"an image \(TIFF\), not spectra; give the file of the spectra"),
        ("a.dat", b"MM\0*" + bytes(100), r"an image \(TIFF\)"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), r"an image \(PNG\)"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(100), r"an image \(JPEG\)"),
        ("a.bmp", b"BM" + (120).to_bytes(4, "little") + bytes(114), r"an image \(BMP\)"),
        ("a.pdf", b"%PDF-1.7\n", "a PDF document"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "office program.*save the table.*csv"),
        ("a.xdi", XDI, "absorption spectrum"),
        ("a.pdz", bytes(100), r"Bruker \.pdz\); export it .* as \.csv, \.txt or \.spx"),
        ("A.PDZ", b"\x19\x00" + bytes(100), r"Bruker \.pdz"),
        ("a.dms", b"anything", r"\.dms\); export the spectra .* as \.csv"),
        ("a.ndt", b"anything", r"Niton \.ndt"),
    ],
)
def test_a_known_file_without_spectra_is_refused_with_what_it_is(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"{name}: is .*{message}"):
        open_scan(path)
    (tmp_path / "b.txt").write_text("Counts\n" + "5\n7\n6\n" * 20)
    found, notes = find_scans([tmp_path])
    assert [path.name for path in found] == ["b.txt"]
    assert any(name in note.text and "left out" in note.text for note in notes)


def test_bytes_that_begin_like_a_bitmap_are_no_bitmap(tmp_path):
    path = tmp_path / "bm.txt"
    path.write_text("BM\n" + "5\n7\n6\n" * 30)
    assert open_scan(path).format == "columns"


def test_every_reader_has_rows_in_the_table_of_formats_and_no_name_twice():
    assert all(reader.file_formats for reader in scan_formats())
    names = [row.name for row in list_file_formats()]
    assert len(names) == len(set(names)) >= 18


def test_the_list_of_formats_is_printed_as_a_table_and_as_json(hpcxrf):
    ran = hpcxrf("inspect", "--formats")
    rows = hpcxrf("inspect", "--formats", "--json").json["formats"]
    assert ran.code == 0
    for row in rows:
        assert row["name"] in ran.out
        assert set(row) == {"name", "files", "reads", "extra"}


def test_inspect_without_a_file_says_what_to_give(hpcxrf):
    ran = hpcxrf("inspect")
    assert (ran.code, "--formats" in ran.err) == (2, True)
