"""Texts of spectra as instruments write them, made by hand from the documentation of each format."""

from pathlib import Path

import numpy as np

from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan, ReadOptions

CHANNELS = 64


def make_counts(n: int = CHANNELS, seed: int = 1) -> list[int]:
    """Counts of a peak on a background, by channel."""
    channel = np.arange(n)
    shape = 5.0 + 400.0 * np.exp(-(((channel - 0.6 * n) / (0.05 * n)) ** 2))
    return np.random.default_rng(seed).poisson(shape).tolist()


def open_text(folder: Path, text: str | bytes, name: str = "spectrum.txt", **options: object) -> RawScan:
    """Write a file and open it as the program does, by its content."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return open_scan(path, ReadOptions(**options))


def counts_of(scan: RawScan) -> np.ndarray:
    """All counts, (detector, y, x, channel)."""
    return scan.read_counts(slice(0, scan.shape[1]))


def notes_of(scan: RawScan) -> str:
    """Sentences of a scan, one a line."""
    return "\n".join(note.text for note in scan.notes)


def axis_of(scan: RawScan, detector: int = 0) -> tuple[float, float]:
    """Offset and slope, keV."""
    assert scan.calibration is not None
    return scan.calibration[detector].offset_kev, scan.calibration[detector].slope_kev


def emsa(counts, *, kind="Y", columns=1, end="\n", data=None, **fields) -> str:
    """EMSA/MAS text; fields replace or add keywords, None leaves one out."""
    header = {
        "FORMAT": "EMSA/MAS Spectral Data File",
        "VERSION": "1.0",
        "TITLE": "made by hand",
        "NPOINTS": f"{len(counts)}.",
        "NCOLUMNS": f"{columns}.",
        "XUNITS": "eV",
        "YUNITS": "counts",
        "DATATYPE": kind,
        "XPERCHAN": "10.0",
        "OFFSET": "-200.0",
        "SIGNALTYPE": "EDS",
    }
    header |= fields
    lines = [f"#{key:<12}: {value}" for key, value in header.items() if value is not None]
    if data is None:
        rows = [counts[i : i + columns] for i in range(0, len(counts), columns)]
        data = [", ".join(f"{value}." for value in row) + "," for row in rows]
    return end.join([*lines, "#SPECTRUM    : Spectral Data Starts Here", *data, "#ENDOFDATA   : ", ""])


def spx(
    counts, header: str = "", *, prolog: str = '<?xml version="1.0" encoding="WINDOWS-1252"?>', more: str = ""
) -> str:
    """Bruker XML; `header` is inserted into the headers of the spectrum, `more` is another spectrum."""
    return (
        f'{prolog}\n<TRTSpectrum>\n<ClassInstance Type="TRTSpectrum" Name="Acquisition">\n<TRTHeaderedClass>\n'
        '<ClassInstance Type="TRTSpectrumHardwareHeader"><RealTime>12500</RealTime><LifeTime>10000</LifeTime>'
        f"<DeadTime>20</DeadTime></ClassInstance>\n{header}</TRTHeaderedClass>\n"
        '<ClassInstance Type="TRTSpectrumHeader"><Date>1.2.2026</Date><Time>12:00:00</Time>'
        f"<ChannelCount>{len(counts)}</ChannelCount><CalibAbs>-9.55E-1</CalibAbs><CalibLin>1.0E-2</CalibLin></ClassInstance>\n"
        f"<Channels>{','.join(map(str, counts))}</Channels>\n</ClassInstance>\n{more}</TRTSpectrum>\n"
    )


def spec_spectrum(counts, name: str = "A", per_line: int = 16) -> str:
    """A spectrum of a SPEC file, continued by backslashes."""
    rows = [" ".join(map(str, counts[i : i + per_line])) for i in range(0, len(counts), per_line)]
    return f"@{name} " + "\\\n ".join(rows)


def pmca(counts, points=("100 1.1", "300 3.1"), times="LIVE_TIME - 9.5\nREAL_TIME - 10.25") -> str:
    """Amptek PMCA text."""
    return "\r\n".join(
        [
            "<<PMCA SPECTRUM>>",
            "TAG - live_data",
            "GAIN - 3",
            *times.split("\n"),
            "<<CALIBRATION>>",
            "LABEL - Channel",
            *points,
            "<<DATA>>",
            *map(str, counts),
            "<<END>>",
            "<<DP5 CONFIGURATION>>",
            "RESC=Y;    Reset Configuration",
            "",
        ]
    )


def spe(counts, *, first=0, last=None, more: str = "") -> str:
    """Ortec and IAEA text, ten counts a line."""
    last = first + len(counts) - 1 if last is None else last
    rows = [" ".join(f"{value:8d}" for value in counts[i : i + 10]) for i in range(0, len(counts), 10)]
    return "\r\n".join(["$SPEC_ID:", "steel", "$MEAS_TIM:", "95 100", "$DATA:", f"{first} {last}", *rows, more, ""])


def handheld_csv(readings, *, slopes=None, separator=",") -> str:
    """Olympus-like CSV: names in the first column, one column a reading."""
    n = len(readings)
    slopes = [0.020052] * n if slopes is None else slopes
    rows = [
        ["TestID", *[f"#{i}" for i in range(n)]],
        ["ExposureNum", *range(1, n + 1)],
        ["Offset", *[-0.015974] * n],
        ["Slope", *slopes],
        ["Livetime", *[19.5 - i for i in range(n)]],
        ["NumData", *[len(readings[0])] * n],
        ["Realtime", *[20.0] * n],
        ["TubeVoltageSet", *[40.0 if i % 2 == 0 else 15.015 for i in range(n)]],
        ["TimeStamp", *["2021-05-01 11:06:43"] * n],
        *[["", *values] for values in zip(*readings, strict=True)],
    ]
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def pixl_csv(a, b) -> str:
    """PIXLISE's CSV of detectors A and B, (point, channel) each; 7.9 eV a channel."""
    names = "SCLK_A,SCLK_B,PMC,real_time_A,real_time_B,live_time_A,live_time_B,XPERCHAN_A,XPERCHAN_B,OFFSET_A,OFFSET_B"
    rows = [f"{i},{i},{i + 10},9.5,9.6,8.5,8.25,7.9,7.8,-20,-18.5" for i in range(len(a))]
    beam = ["PMC,x,y,z", *[f"{i + 10},{0.1 * i},{0.2 * i},0.3" for i in range(len(a))]]
    tables = [
        line
        for letter, table in (("A", a), ("B", b))
        for line in [
            ",".join(f"{letter}_{k + 1}" for k in range(len(table[0]))),
            *[",".join(map(str, row)) for row in table],
        ]
    ]
    return "\n".join([names, *rows, *beam, *tables, ""])
