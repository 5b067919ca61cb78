"""Names, dimensions, types and units of the stores; the one place that fixes them.

Two stores per dataset, Zarr format 3, every group readable by `xarray.open_zarr`:

`spectra/<dataset_id>.zarr` (root group): counts (detector, y, x, channel), live_time_s, real_time_s,
icr_hz, ocr_hz (detector, y, x), scaler (name, y, x), x_um, y_um (y, x), measured (y, x), integrated and
max_channel_spectrum (detector, channel); string coordinates detector, name, and the unit of each name; energy
calibration and incident energy of the file, provenance and notes in the root attributes. A scan without
scalers has neither `scaler` nor `name`; times and positions that the file does not give are NaN.

`results/<dataset_id>.zarr`: groups `maps`, `spectrum`, `parameters`, where there are regions `regions` and
`regions/maps`, provenance in the root attributes. `complete: true` in the root attributes is written last and marks
a finished store.

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
        dims=("detector", "y", "x", "channel"), dtype="uint16", units="count", long_name="recorded counts"
    ),
    "live_time_s": VariableSpec(dims=("detector", "y", "x"), dtype="float32", units="s", long_name="live time"),
    "real_time_s": VariableSpec(dims=("detector", "y", "x"), dtype="float32", units="s", long_name="real time"),
    "icr_hz": VariableSpec(dims=("detector", "y", "x"), dtype="float32", units="s-1", long_name="input count rate"),
    "ocr_hz": VariableSpec(dims=("detector", "y", "x"), dtype="float32", units="s-1", long_name="output count rate"),
    "scaler": VariableSpec(dims=("name", "y", "x"), dtype="float64", units="1", long_name="scaler value"),
    "x_um": VariableSpec(dims=("y", "x"), dtype="float64", units="um", long_name="stage x"),
    "y_um": VariableSpec(dims=("y", "x"), dtype="float64", units="um", long_name="stage y"),
    "measured": VariableSpec(dims=("y", "x"), dtype="uint8", units="1", long_name="1 where a spectrum was recorded"),
    "integrated": VariableSpec(
        dims=("detector", "channel"), dtype="float64", units="count", long_name="sum of all pixels' spectra"
    ),
    "max_channel_spectrum": VariableSpec(
        dims=("detector", "channel"),
        dtype="float64",
        units="count",
        long_name="highest counts of any pixel in the channel",
    ),
}
"""`counts` is uint16, uint32 where a channel exceeds 65535, float32 only where counts are not integral."""

SPECTRA_COORDINATES: Final[dict[str, VariableSpec]] = {
    "detector": VariableSpec(dims=("detector",), dtype="string", units="1", long_name="detector, counted from 0"),
    "name": VariableSpec(dims=("name",), dtype="string", units="1", long_name="name of the scaler"),
    "unit": VariableSpec(dims=("name",), dtype="string", units="1", long_name="unit of the scaler"),
}

CHUNK_BYTES: Final = 8 << 20
"""Most bytes of a chunk of counts before compression, and what one is where the scan is large enough."""

BAND_BYTES_MIN: Final = 16 << 20
BAND_BYTES_MAX: Final = 128 << 20
BAND_PARTS: Final = 32
"""A band is one shard and one write: 1/32 of the scan within the two limits, so that a scan is tens of files
and its ingest takes little memory."""

CHUNK_ROWS_MAX: Final = 16
MAP_CHUNK_PIXELS: Final = 2048
"""Side of the square chunks of the maps in a spectra store: one chunk for nearly every scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectraLayout:
    """How the counts of a scan are cut."""

    chunks: tuple[int, int, int, int]
    """(1, y, x, all channels): what is read at once."""
    shards: tuple[int, int, int, int]
    """(all detectors, y, all of x, all channels): one file, one y-band; whole multiples of the chunks."""

    @property
    def band_rows(self) -> int:
        """Rows of a y-band, the unit of writing."""
        return self.shards[1]


def spectra_layout(shape: tuple[int, int, int, int], itemsize: int) -> SpectraLayout:
    """Cut a scan into chunks of about 8 MB with all channels, and into y-bands of one shard each.

    Rows of chunks and of bands are powers of two, so that map blocks fall on whole chunks, unless the scan is
    lower than one chunk.

    Args:
        shape: (detector, y, x, channel), each at least 1.
        itemsize: bytes of one stored count.
    """
    detectors, rows, columns, channels = shape
    row_bytes = detectors * columns * channels * itemsize
    wanted_bytes = min(max(row_bytes * rows // BAND_PARTS, BAND_BYTES_MIN), BAND_BYTES_MAX)
    band_rows = _floor_power_of_two(wanted_bytes // row_bytes)
    chunk_pixels = _floor_power_of_two(CHUNK_BYTES // (channels * itemsize))
    chunk_rows = min(band_rows, rows, CHUNK_ROWS_MAX, chunk_pixels)
    chunk_columns = min(_floor_power_of_two(chunk_pixels // chunk_rows), columns)
    return SpectraLayout(
        chunks=(1, chunk_rows, chunk_columns, channels),
        shards=(detectors, _ceil_to(min(band_rows, rows), chunk_rows), _ceil_to(columns, chunk_columns), channels),
    )


def _floor_power_of_two(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _ceil_to(value: int, step: int) -> int:
    return -(-value // step) * step


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
        long_name="standard uncertainty of the amplitude, counting noise at the fitted theta",
    ),
    "detection_limit": VariableSpec(
        dims=("detector", "component", "y", "x"),
        dtype="float32",
        units="count",
        long_name="detection limit of the amplitude (Currie, 95 %)",
    ),
    "deviance": VariableSpec(
        dims=("detector", "y", "x"), dtype="float32", units="1", long_name="Poisson deviance per degree of freedom"
    ),
    "status": VariableSpec(dims=("detector", "y", "x"), dtype="uint8", units="1", long_name="outcome of the fit"),
}
"""The coordinate `detector` is a string: "0".."n-1", or "sum"; `component` is a string."""

SHIFT_VARIABLES: Final[dict[str, VariableSpec]] = {
    "theta_shift": VariableSpec(
        dims=("detector", "parameter", "y", "x"),
        dtype="float32",
        units="1",
        long_name="theta of the pixel less that of the scan, unit in the coordinate `parameter_unit`",
    ),
    "theta_shift_sigma": VariableSpec(
        dims=("detector", "parameter", "y", "x"),
        dtype="float32",
        units="1",
        long_name="standard uncertainty of the shift, with its prior",
    ),
}
"""In the same group where the pixels have a theta of their own."""

SPECTRUM_VARIABLES: Final[dict[str, VariableSpec]] = {
    "counts": VariableSpec(
        dims=("detector", "channel"), dtype="float64", units="count", long_name="integrated spectrum"
    ),
    "model": VariableSpec(
        dims=("detector", "channel"),
        dtype="float64",
        units="count",
        long_name="fitted spectrum with background, NaN outside the fit range",
    ),
    "background": VariableSpec(dims=("detector", "channel"), dtype="float64", units="count", long_name="background"),
    "component_counts": VariableSpec(
        dims=("detector", "component", "channel"), dtype="float32", units="count", long_name="counts of one component"
    ),
    "amplitude": VariableSpec(
        dims=("detector", "component"), dtype="float64", units="count", long_name="recorded counts of the component"
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

BASIS_VARIABLES: Final[dict[str, VariableSpec]] = {
    "columns": VariableSpec(
        dims=("detector", "column", "channel"),
        dtype="float64",
        units="1",
        long_name="counts per channel of one count: components, then background columns",
    ),
    "coefficients": VariableSpec(
        dims=("detector", "column"), dtype="float64", units="count", long_name="mean coefficient of a pixel"
    ),
    "n_components": VariableSpec(
        dims=("detector",), dtype="int64", units="1", long_name="columns that are components; the others are background"
    ),
}
"""The linear model of the pixels; NaN outside the fit range, and in columns that a detector does not have."""

TANGENT_VARIABLES: Final[dict[str, VariableSpec]] = {
    "changes": VariableSpec(
        dims=("detector", "change", "component", "channel"),
        dtype="float64",
        units="1",
        long_name="derivatives of the components' columns by theta, per prior standard deviation",
    ),
    "motion": VariableSpec(
        dims=("detector", "place", "parameter"),
        dtype="float64",
        units="1",
        long_name="motion of peaks by one standard deviation, in units of what the changes can follow",
    ),
    "prior_sd": VariableSpec(
        dims=("detector", "parameter"),
        dtype="float64",
        units="1",
        long_name="prior standard deviation of a pixel's theta, unit of the parameter",
    ),
}
"""In the same group where the pixels have a theta of their own: changes by each parameter, then by the pairs of
parameters in the attribute `tangent_pairs`."""

MODEL_VARIABLES: Final[dict[str, VariableSpec]] = {
    "theta": VariableSpec(dims=("part", "name"), dtype="float64", units="1", long_name="theta of the detector"),
    "share": VariableSpec(
        dims=("part", "component"),
        dtype="float64",
        units="1",
        long_name="part of the component's counts that the detector has",
    ),
    "channel": VariableSpec(dims=("channel",), dtype="float64", units="1", long_name="channel of the fit range"),
    **{
        name: VariableSpec(dims=("part", "line"), dtype=dtype, units=units, long_name=text)
        for name, dtype, units, text in (
            ("component", "int64", "1", "family of the line, place in `family`"),
            ("energy_kev", "float64", "keV", "energy of the line"),
            ("ratio", "float64", "1", "share of the family's recorded counts"),
            ("edge_kev", "float64", "keV", "subshell edge; 0: none"),
            ("is_kbeta", "uint8", "1", "takes the K-beta tail"),
            ("has_tail", "uint8", "1", "has a tail"),
            ("escape_parent", "int64", "1", "parent of an escape line; -1: none"),
            ("mu_per_um", "float64", "um-1", "absorption of the detector material"),
        )
    },
}
"""Of every group `model/<detector>`, where pixels have a theta of their own: parts are the detectors that a spectrum is
the sum of; lines that a part does not have read NaN or 0 beyond its number, which the attribute `parts` gives."""

PHASE_VARIABLES: Final[dict[str, VariableSpec]] = {
    "phase_coefficients": VariableSpec(
        dims=("detector", "phase", "column"),
        dtype="float64",
        units="count",
        long_name="mean coefficient of a pixel of the phase",
    ),
    "phase_share": VariableSpec(
        dims=("detector", "phase"), dtype="float64", units="1", long_name="share of the pixels"
    ),
    "phase_gain": VariableSpec(
        dims=("detector", "phase"),
        dtype="float64",
        units="1",
        long_name="predicted gain in rms by weights of its own, of the component that gains most",
    ),
}
"""In the same group where pixels are weighed by phase; NaN for a phase that a detector does not have."""

REGION_VARIABLES: Final[dict[str, VariableSpec]] = {
    "label": VariableSpec(
        dims=("layer", "y", "x"),
        dtype="uint16",
        units="1",
        long_name="number of the region that a pixel belongs to, counted from 1; 0: none",
    ),
    "layer_of": VariableSpec(
        dims=("region",), dtype="int64", units="1", long_name="layer of `label` that shows the region"
    ),
    "n_pixels": VariableSpec(dims=("region",), dtype="int64", units="1", long_name="number of pixels"),
    "live_time_s": VariableSpec(
        dims=("region", "detector"),
        dtype="float64",
        units="s",
        long_name="live time of all pixels, NaN where the file gives none",
    ),
    "counts": VariableSpec(
        dims=("region", "detector", "channel"),
        dtype="float64",
        units="count",
        long_name="sum of the spectra of all pixels",
    ),
}
"""What is known of a region before it is refined. Regions may overlap; those of one layer do not. The string
coordinates `kind` and `reason` (region) say where it comes from."""

REGION_FIT_VARIABLES: Final[dict[str, VariableSpec]] = {
    key: VariableSpec(dims=("region", "detector", *dims), dtype=dtype, units=units, long_name=text)
    for key, dims, dtype, units, text in (
        ("amplitude", ("component",), "float64", "count", "recorded counts of the component"),
        ("sigma", ("component",), "float64", "count", "standard uncertainty of the amplitude"),
        ("detection_limit", ("component",), "float64", "count", "detection limit (Currie, 95 %)"),
        ("theta", ("name",), "float64", "1", "refined value, unit in the coordinate `unit`"),
        ("theta_sigma", ("name",), "float64", "1", "standard uncertainty, NaN where fixed"),
        ("r2", (), "float64", "1", "coefficient of determination in linear counts"),
        ("r2_expected", (), "float64", "1", "R2 that counting noise alone leaves"),
        ("reduced_chi2", (), "float64", "1", "chi2 per degree of freedom"),
        ("deviance", (), "float64", "1", "Poisson deviance per degree of freedom"),
        ("status", (), "uint8", "1", "outcome of the fit"),
    )
}
"""Beside them the strings `suggested` (region, detector): JSON, a list of components that are not listed but that the
residual speaks for; and `remark`: why the region's pixels were not fitted again."""

REGION_MAP_VARIABLES: Final[dict[str, VariableSpec]] = {
    name: VariableSpec(dims=("region", *spec.dims), dtype=spec.dtype, units=spec.units, long_name=spec.long_name)
    for name, spec in MAP_VARIABLES.items()
}
"""Pixels fitted again with the theta of their region, in `regions/maps`; outside of it NaN and status 0."""

REGION_SHIFT_VARIABLES: Final[dict[str, VariableSpec]] = {
    name: VariableSpec(dims=("region", *spec.dims), dtype=spec.dtype, units=spec.units, long_name=spec.long_name)
    for name, spec in SHIFT_VARIABLES.items()
}
"""Beside them where these pixels have a theta of their own: less that of the region."""
