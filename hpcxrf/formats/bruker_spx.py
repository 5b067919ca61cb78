"""Bruker ESPRIT, M4 and ARTAX spectra (`.spx`): XML with `TRTSpectrum` instances; entities are never expanded."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import file_size
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import LARGEST_TEXT_BYTES, parse_number, parse_numbers
from hpcxrf.formats.text_spectra import TextSpectra, join_calibrations, make_scan, note_missing_axis
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="bruker-spx",
        files="Bruker .spx (ESPRIT, M4, ARTAX)",
        reads="one spectrum or several; axis, live and real time, stage position, tube",
    ),
)
_ROOTS: Final = (b"<TRTSpectrum", b'Type="TRTSpectrum"', b"<TRTResult")
_WANTED: Final = frozenset(
    {"Channels", "ChannelCount", "CalibAbs", "CalibLin", "RealTime", "LifeTime", "PrimaryEnergy", "Voltage", "Anode"}
)
_DEEPEST: Final = 200
_UM_PER_UNIT: Final = {"mm": 1e3, "um": 1.0, "µm": 1.0, "cm": 1e4}
_ELEMENTS: Final = {22: "Ti", 24: "Cr", 29: "Cu", 42: "Mo", 45: "Rh", 46: "Pd", 47: "Ag", 74: "W", 79: "Au"}


@dataclass(slots=True)
class _Spectrum:
    """Texts of one spectrum by the names of their elements, and the positions of its axes, micrometres."""

    texts: dict[str, str] = field(default_factory=dict)
    axes_um: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Collector:
    """Handlers of the parser: they keep the wanted texts and nothing else."""

    spectra: list[_Spectrum] = field(default_factory=list)
    depth: int = 0
    pieces: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _UnsafeXmlError(f"elements nested deeper than {_DEEPEST}")
        if name == "ClassInstance" and attributes.get("Type") == "TRTSpectrum":
            self.spectra.append(_Spectrum())
        self.pieces = [] if name in _WANTED and self.spectra else None
        if name.startswith("Axis") and "AxisPosition" in attributes and self.spectra:
            self._keep_axis(attributes)

    def _keep_axis(self, attributes: dict[str, str]) -> None:
        position = parse_number(attributes["AxisPosition"].replace(",", "."))
        factor = _UM_PER_UNIT.get(attributes.get("AxisUnit", "mm").lower(), math.nan)
        if math.isfinite(position * factor):
            self.spectra[-1].axes_um.setdefault(attributes.get("AxisName", "").lower(), position * factor)

    def add(self, text: str) -> None:
        if self.pieces is not None:
            self.pieces.append(text)

    def end(self, name: str) -> None:
        self.depth -= 1
        if self.pieces is not None:
            self.spectra[-1].texts.setdefault(name, "".join(self.pieces).strip())
        self.pieces = None

    def refuse_doctype(self, *_: object) -> None:
        raise _UnsafeXmlError("a document type, whose entities are never expanded")


class _UnsafeXmlError(Exception):
    """Something that no spectrum of an instrument holds."""


def sniff(path: Path, head: bytes) -> bool:
    """True where the first bytes are XML with an element of this format."""
    del path
    plain = head.replace(b"\0", b"")
    return b"<" in plain[:16] and any(root in plain for root in _ROOTS)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: its spectra are points of one detector.

    Raises:
        InputFileError: the file cannot be read, has a document type, or holds no spectrum.
    """
    found = [s for s in _parse(path) if "Channels" in s.texts]
    if not found:
        raise InputFileError(f"{path}: Bruker XML without a spectrum (no <Channels>); export the spectrum itself")
    counts = _stack_counts(path, found)
    points = (1, len(found), 1)
    calibration, notes = _read_calibration(path, found, counts.shape[-1])
    spectra = TextSpectra(
        counts=counts,
        calibration=calibration,
        live_time_s=_read_times(found, "LifeTime", points),
        real_time_s=_read_times(found, "RealTime", points),
        x_um=_read_positions(found, "x"),
        y_um=_read_positions(found, "y"),
        tube=_describe_tube(found[0]),
        notes=tuple(notes + _describe_source(found[0])),
    )
    return make_scan(path, "bruker-spx", spectra, options)


def _parse(path: Path) -> list[_Spectrum]:
    """Parse the XML in a stream."""
    size = file_size(path)
    if size > LARGEST_TEXT_BYTES:
        raise InputFileError(
            f"{path}: {size} bytes; a .spx is read up to {LARGEST_TEXT_BYTES}, export it as .bcf or HDF5"
        )
    collector = _Collector()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = collector.start
    parser.EndElementHandler = collector.end
    parser.CharacterDataHandler = collector.add
    parser.StartDoctypeDeclHandler = collector.refuse_doctype
    try:
        parser.Parse(path.read_bytes())
        parser.Parse(b"", True)  # noqa: FBT003 (the end; expat takes no keywords)
    except _UnsafeXmlError as error:
        raise InputFileError(f"{path}: XML with {error}; export the spectrum again") from error
    except (expat.ExpatError, OSError, LookupError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read as XML: {error}; copy it again from the instrument") from error
    return collector.spectra


def _stack_counts(path: Path, found: list[_Spectrum]) -> NDArray[np.float64]:
    """Stack the spectra, (1, point, 1, channel)."""
    rows = [parse_numbers(s.texts["Channels"].replace(",", " ").split()) for s in found]
    lengths = {len(row or ()) for row in rows}
    if None in rows or len(lengths) > 1 or 0 in lengths:
        raise InputFileError(
            f"{path}: <Channels> must be counts between commas, as many in each of the {len(found)} spectra "
            f"(found {sorted(lengths)}); export the spectra again"
        )
    wanted = parse_number(found[0].texts.get("ChannelCount", ""))
    if math.isfinite(wanted) and wanted not in lengths:
        raise InputFileError(
            f"{path}: {lengths.pop()} counts in <Channels>, ChannelCount says {wanted:g}; the file is damaged: copy it "
            "again"
        )
    return np.array(rows)[None, :, None, :]


def _read_calibration(
    path: Path, found: list[_Spectrum], n_channels: int
) -> tuple[tuple[EnergyCalibration] | None, list[Note]]:
    pairs = [(_read_number(s, "CalibAbs"), _read_number(s, "CalibLin")) for s in found]
    if not np.isfinite(pairs).all():
        return None, [note_missing_axis("CalibAbs, CalibLin")]
    every = [EnergyCalibration(offset_kev=a, slope_kev=b) for a, b in pairs]
    joined, notes = join_calibrations(path, every, n_channels)
    return (joined,), notes


def _read_number(spectrum: _Spectrum, name: str) -> float:
    """Read a number, with a comma where the instrument's language has one; NaN where it is missing."""
    return parse_number(spectrum.texts.get(name, "").replace(",", "."))


def _read_times(found: list[_Spectrum], name: str, points: tuple[int, int, int]) -> NDArray[np.float64] | None:
    """Read times, which the file has in milliseconds; None where one is missing."""
    seconds = np.array([_read_number(s, name) for s in found]) * 1e-3
    return seconds.reshape(points) if (seconds > 0.0).all() and np.isfinite(seconds).all() else None


def _read_positions(found: list[_Spectrum], axis: str) -> NDArray[np.float64] | None:
    """Read stage positions, (point, 1); None unless every spectrum has x and y."""
    if not all({"x", "y"} <= s.axes_um.keys() for s in found):
        return None
    return np.array([[s.axes_um[axis]] for s in found])


def _describe_tube(spectrum: _Spectrum) -> str | None:
    """Name the tube of an XRF instrument; None for an electron microscope, which has no anode."""
    voltage, anode = _read_number(spectrum, "Voltage"), _read_number(spectrum, "Anode")
    if not (voltage > 0.0 and math.isfinite(anode)):
        return None
    return f"{_ELEMENTS.get(int(anode), f'Z = {anode:g}')} anode, {voltage:g} kV"


def _describe_source(spectrum: _Spectrum) -> list[Note]:
    tube, energy = _describe_tube(spectrum), _read_number(spectrum, "PrimaryEnergy")
    if tube is not None:
        return [Note("fact", f"the file names a tube as source: {tube}")]
    if energy > 0.0:
        text = f"electrons of {energy:g} keV (PrimaryEnergy): no incident X-ray energy is taken from it"
        return [Note("fact", text)]
    return []
