"""Names, dimensions, types and units of the stores; the one place that fixes them.

Two stores per dataset, Zarr format 3, every group readable by `xarray.open_zarr`:

`spectra/<dataset_id>.zarr` (root group): counts (detector, y, x, channel), live_time_s, real_time_s,
icr_hz, ocr_hz (detector, y, x), scaler (name, y, x), x_um, y_um (y, x), measured (y, x); energy calibration
and incident energy of the file, provenance and notes in the root attributes.

`results/<dataset_id>.zarr`: groups `maps`, `spectrum`, `parameters` (and `regions`), provenance in the root
attributes. `complete: true` in the root attributes is written last and marks a finished store.

This module imports neither zarr nor torch.
"""

from dataclasses import dataclass
from typing import Final

SCHEMA_VERSION: Final = 1

BLOCK_Y: Final = 64
BLOCK_X: Final = 256
"""A map block is one chunk of the maps, all components: 64 x 256 pixels, clipped to the scan."""

COMPLETE_ATTRIBUTE: Final = "complete"
SCHEMA_ATTRIBUTE: Final = "hpcxrf_schema_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSpec:
    """One array of a store."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str


SPECTRA_VARIABLES: Final[dict[str, VariableSpec]] = {
    "counts": VariableSpec(
        dims=("detector", "y", "x", "channel"),
        dtype="uint16",
        units="count",
        long_name="recorded counts",
    ),
    "live_time_s": VariableSpec(
        dims=("detector", "y", "x"), dtype="float32", units="s", long_name="live time"
    ),
    "real_time_s": VariableSpec(
        dims=("detector", "y", "x"), dtype="float32", units="s", long_name="real time"
    ),
    "icr_hz": VariableSpec(
        dims=("detector", "y", "x"), dtype="float32", units="s-1", long_name="input count rate"
    ),
    "ocr_hz": VariableSpec(
        dims=("detector", "y", "x"), dtype="float32", units="s-1", long_name="output count rate"
    ),
    "scaler": VariableSpec(
        dims=("name", "y", "x"), dtype="float64", units="1", long_name="scaler value"
    ),
    "x_um": VariableSpec(dims=("y", "x"), dtype="float64", units="um", long_name="stage x"),
    "y_um": VariableSpec(dims=("y", "x"), dtype="float64", units="um", long_name="stage y"),
    "measured": VariableSpec(
        dims=("y", "x"), dtype="uint8", units="1", long_name="1 where a spectrum was recorded"
    ),
}

MAP_VARIABLES: Final[dict[str, VariableSpec]] = {
    "amplitude": VariableSpec(
        dims=("detector", "component", "y", "x"),
        dtype="float32",
        units="count",
        long_name="recorded counts of the component",
    ),
    "sigma": VariableSpec(
        dims=("detector", "component", "y", "x"),
        dtype="float32",
        units="count",
        long_name="standard uncertainty of the amplitude",
    ),
    "detection_limit": VariableSpec(
        dims=("detector", "component", "y", "x"),
        dtype="float32",
        units="count",
        long_name="detection limit of the amplitude (Currie, 95 %)",
    ),
    "deviance": VariableSpec(
        dims=("detector", "y", "x"),
        dtype="float32",
        units="1",
        long_name="Poisson deviance per degree of freedom",
    ),
    "status": VariableSpec(
        dims=("detector", "y", "x"), dtype="uint8", units="1", long_name="outcome of the fit"
    ),
}
"""The coordinate `detector` is a string: "0".."n-1", or "sum"; `component` is a string."""

SPECTRUM_VARIABLES: Final[dict[str, VariableSpec]] = {
    "counts": VariableSpec(
        dims=("detector", "channel"),
        dtype="float64",
        units="count",
        long_name="integrated spectrum",
    ),
    "model": VariableSpec(
        dims=("detector", "channel"),
        dtype="float64",
        units="count",
        long_name="fitted spectrum with background, NaN outside the fit range",
    ),
    "background": VariableSpec(
        dims=("detector", "channel"), dtype="float64", units="count", long_name="background"
    ),
    "component_counts": VariableSpec(
        dims=("detector", "component", "channel"),
        dtype="float32",
        units="count",
        long_name="counts of one component",
    ),
    "amplitude": VariableSpec(
        dims=("detector", "component"),
        dtype="float64",
        units="count",
        long_name="recorded counts of the component",
    ),
    "sigma": VariableSpec(
        dims=("detector", "component"),
        dtype="float64",
        units="count",
        long_name="standard uncertainty of the amplitude",
    ),
    "detection_limit": VariableSpec(
        dims=("detector", "component"),
        dtype="float64",
        units="count",
        long_name="detection limit of the amplitude (Currie, 95 %)",
    ),
    "energy_kev": VariableSpec(
        dims=("detector", "channel"),
        dtype="float64",
        units="keV",
        long_name="energy of the channel with the fitted calibration",
    ),
}
"""Figures of merit (`r2`, `r2_expected`, `reduced_chi2`, `deviance`, `cpu_s`) are float64 and `status` uint8,
all (detector,)."""

PARAMETER_VARIABLES: Final[dict[str, VariableSpec]] = {
    key: VariableSpec(dims=("detector", "name"), dtype=dtype, units="1", long_name=text)
    for key, dtype, text in (
        ("value", "float64", "fitted value"),
        ("sigma", "float64", "standard uncertainty, NaN where fixed"),
        ("initial", "float64", "starting value"),
        ("lower", "float64", "lower bound"),
        ("upper", "float64", "upper bound"),
        ("free", "uint8", "1 where fitted"),
        ("at_bound", "uint8", "1 where the fit ended at a bound"),
    )
}
"""`name` is the parameter (`energy_offset` ...); the coordinate `unit` (name) gives its unit."""
