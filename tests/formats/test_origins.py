import h5py
import numpy as np
import pytest
from beamline_files import make_counts, write_bliss, write_larch, write_oxford, write_pyxrf

from hpcxrf.formats.origin import Origin, parse_date
from hpcxrf.formats.origins import read_origin
from hpcxrf.formats.registry import open_scan


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("OCT 28, 2015 18:18:43.747055", "2015-10-28T18:18:43"),
        ("Jan 30, 2013 15:25:17.766", "2013-01-30T15:25:17"),
        ("Wed Oct 28 18:18:43 2015", "2015-10-28T18:18:43"),
        ("2021-03-04T05:06:07.123+01:00", "2021-03-04T04:06:07Z"),
        ("2021-03-04 05:06:07 -0500", "2021-03-04T10:06:07Z"),
        ("2021-03-04 05:06:07", "2021-03-04T05:06:07"),
        ("2021-03-04T05:06:07Z", "2021-03-04T05:06:07Z"),
        ("2021/03/04 05:06:07", "2021-03-04T05:06:07"),
        ("12-OCT-2020 07:08", "2020-10-12T07:08:00"),
        ("10/12/2020 07:08:09", "2020-10-12T07:08:09"),
        ("12.10.2020 07:08:09", "2020-10-12T07:08:09"),
        ("Jan 01, 1970 00:00:00", "1970-01-01T00:00:00"),
        ("Dec 31, 2100 23:59:59", "2100-12-31T23:59:59"),
        ("0", None),
        ("", None),
        ("2021-13-40 00:00:00", None),
        ("yesterday at noon", None),
        ("Jan 30, 2013 15:25:17 and more", None),
        ("9" * 1000, None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_dates_of_instruments_become_iso_8601(text, iso):
    assert parse_date(text) == iso


def origin_of(path) -> Origin:
    return read_origin(open_scan(path))


def test_nexus_files_give_start_sample_and_instrument(tmp_path):
    path = tmp_path / "scan.h5"
    write_bliss(path, make_counts())
    with h5py.File(path, "a") as file:
        name = next(name for name in file if "instrument" in file[name])
        file[f"{name}/start_time"] = "2022-05-06T07:08:09+02:00"
        file[f"{name}/sample/name"] = "leaf\n  of oak"
        file[f"{name}/instrument/name"] = b"ID21"
    assert origin_of(path) == Origin(date="2022-05-06T05:08:09Z", sample="leaf of oak", instrument="ID21")


def test_pyxrf_larch_and_oxford_give_what_their_headers_have(tmp_path):
    counts = make_counts()
    pyxrf, larch, oxford = (tmp_path / name for name in ("p.h5", "l.h5", "o.h5oina"))
    write_pyxrf(pyxrf, counts)
    write_larch(larch, counts)
    write_oxford(oxford, counts)
    with h5py.File(pyxrf, "a") as file:
        attributes = file["xrfmap/scan_metadata"].attrs
        attributes.update(
            {"scan_time_start_utc": "2020-01-02T03:04:05", "sample_name": "soil", "instrument_name": "SRX"}
        )
    with h5py.File(larch, "a") as file:
        file["xrmmap"].attrs.update({"Start_Time": "2019-08-09 10:11:12", "Beamline": "13-ID-E"})
    with h5py.File(oxford, "a") as file:
        file["1/EDS/Header/Acquisition Date"] = "2023-02-03T04:05:06"
        file["1/EDS/Header/Specimen Label"] = "steel"
    assert origin_of(pyxrf) == Origin(date="2020-01-02T03:04:05Z", sample="soil", instrument="SRX")
    assert origin_of(larch) == Origin(date="2019-08-09T10:11:12", instrument="13-ID-E")
    assert (origin_of(oxford).date, origin_of(oxford).sample) == ("2023-02-03T04:05:06", "steel")


@pytest.mark.parametrize("value", [b"x" * 100_000, np.arange(50.0), 3.5, np.array([b"a", b"b"]), b"\xff\x1b[31m"])
def test_what_is_not_a_short_text_is_left_out_or_made_plain(tmp_path, value):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/counts"] = np.ones((3, 4, 512), np.uint16)
        file["entry/start_time"] = value
        file["entry/sample/name"] = value
        file["entry/instrument"] = h5py.ExternalLink("/etc/passwd", "/x")
    found = origin_of(path)
    assert found.date is None
    assert found.sample is None or ("\x1b" not in found.sample and len(found.sample) <= 300)


def test_text_files_give_date_and_title(tmp_path):
    body = "\n".join(f"{n}," for n in range(20, 84))
    path = tmp_path / "s.msa"
    path.write_text(
        "#FORMAT : EMSA/MAS Spectral Data File\n#TITLE : gold foil\n#DATE : 12-OCT-2020\n#TIME : 07:08\n"
        f"#NPOINTS : 64\n#NCOLUMNS : 1\n#XUNITS : eV\n#XPERCHAN : 10\n#DATATYPE : Y\n#SPECTRUM :\n{body}\n#ENDOFDATA\n"
    )
    found = origin_of(path)
    assert (found.date, found.sample, found.counts) == ("2020-10-12T07:08:00", "gold foil", sum(range(20, 84)))
