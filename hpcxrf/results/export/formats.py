"""The table of formats that results are exported to: pure data, without h5py, xarray or torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format."""

    module: str
    """Module of this package with the function `write`."""
    summary: str
    """What is written, for help texts."""
    programs: str
    """Programs that open it."""
    suffix: str
    """End of the name of what is written, or of each file where there are several."""
    names: Literal["one", "numbered", "parts", "folder"] = "one"
    """Files of a result: one, one a detector (`X.h50`), `X_<part>` with the suffix, a folder `X`."""
    groups: tuple[str, ...] = ("maps",)
    """Groups of a results store that it cannot do without."""
    spectra: bool = False
    """Whether counts and times of the spectra store are written where the run has them."""


EXPORT_FORMATS: Final[Mapping[str, ExportFormat]] = MappingProxyType(
    {
        "maps": ExportFormat(
            module="maps_v10",
            summary="MAPS HDF5 version 10 with the links of version 9, a file per detector",
            programs="uProbeX, XRF-Maps, MAPS",
            suffix=".h5",
            names="numbered",
            groups=("maps", "spectrum", "parameters"),
            spectra=True,
        ),
        "nexus": ExportFormat(
            module="nexus",
            summary="NeXus HDF5 with everything: maps, spectra, fits, parameters, regions, provenance",
            programs="silx, h5web, nexusformat, DAWN",
            suffix=".nxs",
        ),
        "pyxrf": ExportFormat(
            module="pyxrf",
            summary="HDF5 of PyXRF: counts, fitted maps and their errors, scalers, positions",
            programs="PyXRF",
            suffix=".h5",
            spectra=True,
        ),
        "pymca": ExportFormat(
            module="pymca",
            summary="HDF5 as PyMca's batch fit writes it",
            programs="PyMca: RGB correlator",
            suffix=".h5",
        ),
        "tiff": ExportFormat(
            module="tiff",
            summary="float32 stacks with labels and pixel sizes, one per detector and quantity",
            programs="ImageJ, Fiji",
            suffix=".tif",
            names="parts",
        ),
        "csv": ExportFormat(
            module="csv_tables",
            summary="tables of amplitudes, parameters and regions",
            programs="spreadsheets, pandas",
            suffix=".csv",
            names="parts",
            groups=("spectrum", "parameters"),
        ),
        "override": ExportFormat(
            module="override",
            summary="maps_fit_parameters_override.txt of each detector, in full precision",
            programs="XRF-Maps, MAPS, uProbeX, hpcxrf",
            suffix="",
            names="folder",
            groups=("parameters",),
        ),
        "png": ExportFormat(
            module="png", summary="a picture of every map", programs="slides, browsers", suffix="", names="folder"
        ),
        "ome-zarr": ExportFormat(
            module="ome_zarr",
            summary="OME-Zarr images (NGFF 0.5), one per detector and quantity",
            programs="napari, ome-zarr, Fiji",
            suffix=".ome.zarr",
            names="parts",
        ),
    }
)


def formats_text() -> str:
    """All formats with what they are, for help texts: `maps (...), nexus (...), ...`."""
    return ", ".join(f"{name} ({one.programs})" for name, one in EXPORT_FORMATS.items())
