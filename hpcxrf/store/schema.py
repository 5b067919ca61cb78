"""Names, dimensions, types and units of the stores; the one place that fixes them.

Two stores per dataset, Zarr format 3, every group readable by `xarray.open_zarr`:

`spectra/<dataset_id>.zarr` (root group): counts (detector, y, x, channel), live_time_s, real_time_s,
icr_hz, ocr_hz (detector, y, x), scaler (name, y, x), x_um, y_um (y, x), measured (y, x), integrated and
max_channel_spectrum (detector, channel); string coordinates detector, name, and the unit of each name; energy
calibration and incident energy of the file, provenance and notes in the root attributes. Large scans have tile_sums
(detector, tile_y, tile_x, channel), too. A scan without scalers has neither `scaler` nor `name`; times and positions
that the file does not give are NaN.

`results/<dataset_id>.zarr`: groups `maps`, `spectrum`, `parameters`, where there are regions `regions` and
`regions/maps`, where maps are normalised `normalised`, provenance in the root attributes. `complete: true` in the root
attributes is written last and marks a finished store.

This module imports neither zarr nor torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 2
READABLE_SCHEMAS: Final = (1, 2)
"""Version 2 has fewer files (keys of chunks with dots, one chunk or shard an array), counts of one byte, and may be a
zip; what the arrays hold is as in version 1."""

BLOCK_Y: Final = 64
BLOCK_X: Final = 256
"""A map block is one chunk of the maps, all components, clipped to the scan: 64 x 256 pixels, or fewer where slow
methods are to keep many cores busy; the attribute `map_block` of results says which."""
BLOCK_ATTRIBUTE: Final = "map_block"
MAP_LEVEL: Final = -1
"""Level of Zstandard of maps. Fitted numbers have noise in all their digits: level 3 makes them 6 to 14 %
smaller, and takes four times as long to write and twice as long to read."""

COMPLETE_ATTRIBUTE: Final = "complete"
FILES_ATTRIBUTE: Final = "file_sha256"
"""Attribute of a finished store of spectra: SHA-256 of every file but the root's metadata, by its path."""
SCHEMA_ATTRIBUTE: Final = "hpcxrf_schema_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSpec:
    """One array of a store."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str


def table(rows: str) -> dict[str, VariableSpec]:
    """Arrays by name, one a line: name, dimensions, type, unit and meaning, set apart by two blanks or more.

    Args:
        rows: the lines; those of blanks alone are left out.
    """
    specs = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        name, dims, dtype, units, long_name = re.split(r"\s{2,}", row, maxsplit=4)
        specs[name] = VariableSpec(dims=tuple(dims.split()), dtype=dtype, units=units, long_name=long_name)
    return specs


def by_region(variables: Mapping[str, VariableSpec]) -> dict[str, VariableSpec]:
    """The same arrays with a first dimension `region`."""
    return {name: replace(spec, dims=("region", *spec.dims)) for name, spec in variables.items()}


SPECTRA_VARIABLES: Final = table(
    """
    counts                detector y x channel  uint8    count  recorded counts
    live_time_s           detector y x          float32  s      live time
    real_time_s           detector y x          float32  s      real time
    icr_hz                detector y x          float32  s-1    input count rate
    ocr_hz                detector y x          float32  s-1    output count rate
    scaler                name y x              float64  1      scaler value
    x_um                  y x                   float64  um     stage x
    y_um                  y x                   float64  um     stage y
    measured              y x                   uint8    1      1 where a spectrum was recorded
    integrated            detector channel      float64  count  sum of all pixels' spectra
    max_channel_spectrum  detector channel      float64  count  highest counts of any pixel in the channel
    """
)
"""`counts` is uint8, uint16 where a channel exceeds 255, uint32 where one exceeds 65535, float32 only where counts are
not integral. What reads them here takes uint8 as uint16; other programs beware of sums in one byte."""

FAULT_VARIABLES: Final = table(
    """
    missing  detector y x  uint8  1  1 where the detector's spectrum was not measured
    spike    place part    int64  1  detector, y, x, channel of a suspicious channel
    """
)
"""Arrays beside those of a spectra store: `missing` only where a file gives spectra of NaN, `spike` only where a pixel
has channels that by their neighbours no detector can have counted."""

TILE_SIDE: Final = 16
TILED_PIXELS: Final = 64 * 64
"""Scans of so many pixels or fewer have no sums of tiles: their counts are read at once."""
TILE_SUMS: Final = "tile_sums"
TILE_VARIABLES: Final = table(
    """
    tile_sums  detector tile_y tile_x channel  uint32  count  counts of all pixels of a tile of 16 x 16 pixels
    """
)
"""Beside the counts of scans of more than 4096 pixels, where these are whole numbers; uint64 beside uint32 counts."""

SPECTRA_COORDINATES: Final = table(
    """
    detector  detector  string  1  detector, counted from 0
    name      name      string  1  name of the scaler
    unit      name      string  1  unit of the scaler
    """
)

CHUNK_BYTES: Final = 1 << 20
"""Largest size of a chunk of counts before compression, which large scans reach: of 2048 channels 16 x 16 pixels. What
lies at the edge of a region is read with its chunks; larger ones are read no faster, and these stay in the cache."""

BAND_BYTES_MIN: Final = 16 << 20
BAND_BYTES_MAX: Final = 128 << 20
BAND_PARTS: Final = 32
"""A band is one shard and one write: 1/32 of the scan within the two limits, so that a scan is tens of files
and its ingest takes little memory."""

BAND_BUFFERS: Final = 3
"""Bands in memory during an ingest: one is read while two are encoded, which takes twice as long."""

CHUNK_ROWS_MAX: Final = 16
MAP_CHUNK_PIXELS: Final = 2048
"""Side of the square chunks of the maps in a spectra store: one chunk for nearly every scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectraLayout:
    """Chunks and shards of the counts of a scan."""

    chunks: tuple[int, int, int, int]
    """(1, y, x, all channels): unit of reading."""
    shards: tuple[int, int, int, int]
    """(all detectors, y, all of x, all channels): one file, one y-band; whole multiples of the chunks."""

    @property
    def band_rows(self) -> int:
        """Rows of a y-band, the unit of writing."""
        return self.shards[1]


def spectra_layout(shape: tuple[int, int, int, int], itemsize: int) -> SpectraLayout:
    """Cut a scan into chunks of about 1 MB with all channels, and into y-bands of one shard each.

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


def tile_grid(shape: tuple[int, int, int, int]) -> tuple[int, int]:
    """Tiles of a scan along y and x; the last may be smaller than the others."""
    return -(-shape[1] // TILE_SIDE), -(-shape[2] // TILE_SIDE)


def band_count(rows: int, band_rows: int) -> int:
    """Bands of a scan; the last may be lower than the others."""
    return -(-rows // band_rows)


def _floor_power_of_two(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _ceil_to(value: int, step: int) -> int:
    return -(-value // step) * step


MAP_VARIABLES: Final = table(
    """
    amplitude        detector component y x  float32  count  recorded counts of the component
    sigma            detector component y x  float32  count  standard uncertainty, counting noise at the fitted theta
    detection_limit  detector component y x  float32  count  detection limit of the amplitude (Currie, 95 %)
    deviance         detector y x            float32  1      Poisson deviance per degree of freedom
    deviance_z       detector y x            float32  1      deviance less what noise alone gives, in its sigma
    status           detector y x            uint8    1      outcome of the fit
    """
)
"""The coordinate `detector` is a string: "sum", or "0".."n-1"; `component` is a string."""
LATER_VARIABLES: Final = frozenset({"deviance_z"})
"""Maps that stores of earlier versions lack: a run that one of these began goes on without them."""

SHIFT_VARIABLES: Final = table(
    """
    theta_shift        detector parameter y x  float32  1  theta less that of the scan, unit in `parameter_unit`
    theta_shift_sigma  detector parameter y x  float32  1  standard uncertainty of the shift, with its prior
    """
)
"""Arrays beside those of `maps`, where the pixels have a theta of their own."""

POSITION_VARIABLES: Final = table(
    """
    y_um  y x  float64  um  stage y
    x_um  y x  float64  um  stage x
    """
)
"""Coordinates of the groups of maps, where the stage's positions are known."""

NORMALISED_VARIABLES: Final = table(
    """
    rate             detector component y x  float32  count s-1  counts per second of live time, at the reference I0
    sigma            detector component y x  float32  count s-1  standard uncertainty, counting noise and that of I0
    detection_limit  detector component y x  float32  count s-1  detection limit of the rate (Currie, 95 %)
    flag             detector y x            uint8    1          whether and why not the pixel is normalised
    live_time_s      detector y x            float32  s          live time that the counts were divided by
    """
)
"""Arrays of the group `normalised`; its detectors are those of `maps` and, where there are several, `combined`. The
store holds the maps (detector, component, y, x) of the detectors that the attribute `stored_detectors` names;
`open_results` computes those of the others. So it is with `areal_density`."""

I0_VARIABLES: Final = table(
    """
    i0        y x  float32  1  incident flux, unit in the attribute i0_unit of the group
    i0_sigma  y x  float32  1  standard uncertainty of the incident flux by counting
    """
)
"""Arrays beside them where rates are divided by I0."""

COMBINATION_VARIABLES: Final = table(
    """
    share   detector component  float64  1  part that the detector has of the rate of all that are combined
    weight  detector component  float64  1  weight of the detector in `combined`
    """
)
"""Arrays beside them where detectors are combined; NaN of `sum`, `combined` and detectors that are left out."""

AREAL_DENSITY_VARIABLES: Final = table(
    """
    areal_density    detector component y x  float32  ug cm-2  areal density of the element
    sigma            detector component y x  float32  ug cm-2  standard uncertainty, all terms combined
    counting_sigma   detector component y x  float32  ug cm-2  its part that differs from pixel to pixel
    detection_limit  detector component y x  float32  ug cm-2  detection limit of the areal density (Currie, 95 %)
    """
)
"""Arrays of the group `areal_density`; its components are the families of single elements, its detectors those of
`normalised`."""

RESPONSE_VARIABLES: Final = table(
    """
    response        detector component       float64  count s-1 (ug cm-2)-1  rate of 1 ug/cm2 at the reference I0
    relative_error  detector component term  float64  1                      common relative uncertainty by its origin
    theta_floor     detector component       float64  ug cm-2                uncertainty by theta of what is not certain
    layer_factor    detector component       float64  1                      signal relative to that of a thin sample
    """
)
"""Arrays beside them; NaN where a detector has no response. `term` names the origins of the uncertainty, `origin`
(detector, component) says whether a response is the element's own point or that of the curve. A component that is
certain in the integrated spectrum is uncertain by theta in proportion to itself (`relative_error`), any other one by as
much in every pixel (`theta_floor`)."""

SPECTRUM_VARIABLES: Final = table(
    """
    counts            detector channel            float64  count  integrated spectrum
    model             detector channel            float64  count  fit with background, NaN outside the fit range
    background        detector channel            float64  count  background
    component_counts  detector component channel  float32  count  counts of one component
    amplitude         detector component          float64  count  recorded counts of the component
    sigma             detector component          float64  count  standard uncertainty of the amplitude
    detection_limit   detector component          float64  count  detection limit of the amplitude (Currie, 95 %)
    energy_kev        detector channel            float64  keV    energy of the channel with the fitted calibration
    """
)
"""Figures of merit (`r2`, `r2_expected`, `reduced_chi2`, `deviance`, `cpu_s`) are float64 and `status` uint8,
all (detector,)."""

PARAMETER_VARIABLES: Final = table(
    """
    value     detector name  float64  1  fitted value
    sigma     detector name  float64  1  standard uncertainty, NaN where fixed
    initial   detector name  float64  1  starting value
    lower     detector name  float64  1  lower bound
    upper     detector name  float64  1  upper bound
    free      detector name  uint8    1  1 where fitted
    at_bound  detector name  uint8    1  1 where the fit ended at a bound
    """
)
"""`name` is the parameter (`energy_offset` ...); the coordinate `unit` (name) gives its unit."""

BASIS_VARIABLES: Final = table(
    """
    columns       detector column channel  float64  1      counts per channel of one count: components, then background
    coefficients  detector column          float64  count  mean coefficient of a pixel
    """
)
"""The linear model of the pixels; NaN outside the fit range, and in columns that a detector does not have.
The attribute `n_components` (detector) says how many columns are components; the others are background."""

TANGENT_VARIABLES: Final = table(
    """
    changes   detector change component channel  float64  1  change of the columns per prior standard deviation of theta
    motion    detector place parameter           float64  1  motion of peaks by one prior deviation, in units of reach
    prior_sd  detector parameter                 float64  1  prior standard deviation of theta, unit of the parameter
    """
)
"""Arrays beside those of `basis`, where the pixels have a theta of their own: changes by each parameter, then by the
pairs of parameters in the attribute `tangent_pairs`."""

MODEL_VARIABLES: Final = table(
    """
    theta          part name       float64  1     theta of the detector
    share          part component  float64  1     part of the component's counts that the detector has
    channel        channel         float64  1     channel of the fit range
    component      part line       int64    1     family of the line, place in `family`
    energy_kev     part line       float64  keV   energy of the line
    ratio          part line       float64  1     share of the family's recorded counts
    edge_kev       part line       float64  keV   subshell edge; 0: none
    is_kbeta       part line       uint8    1     takes the K-beta tail
    has_tail       part line       uint8    1     has a tail
    escape_parent  part line       int64    1     parent of an escape line; -1: none
    mu_per_um      part line       float64  um-1  absorption of the detector material
    """
)
"""Arrays of every group `model/<detector>`, where pixels have a theta of their own: parts are the detectors that a
spectrum is the sum of; lines that a part does not have read NaN or 0 beyond its number, which the attribute `parts`
gives."""

WEIGHT_CLASS_VARIABLES: Final = table(
    """
    phase_coefficients  detector phase column  float64  count  mean coefficient of a pixel of the weight class
    phase_share         detector phase         float64  1      share of the pixels
    phase_gain          detector phase         float64  1      predicted gain in rms of the component that gains most
    """
)
"""Arrays beside those of `basis`, where pixels are weighed by class; NaN for a class that a detector does not have.
Their names are those of version 0.1.0, which called the classes phases."""

REGION_VARIABLES: Final = table(
    """
    label        layer y x                uint16   1      number of the pixel's region, counted from 1; 0: none
    layer_of     region                   int64    1      layer of `label` that shows the region
    n_pixels     region                   int64    1      number of pixels
    live_time_s  region detector          float64  s      live time of all pixels, NaN where the file gives none
    counts       region detector channel  float64  count  sum of the spectra of all pixels
    """
)
"""Facts of a region before it is refined. Regions may overlap; those of one layer do not. The string
coordinates `kind` and `reason` (region) say where it comes from."""

REGION_FIT_VARIABLES: Final = table(
    """
    amplitude        region detector component  float64  count  recorded counts of the component
    sigma            region detector component  float64  count  standard uncertainty of the amplitude
    detection_limit  region detector component  float64  count  detection limit (Currie, 95 %)
    theta            region detector name       float64  1      refined value, unit in the coordinate `unit`
    theta_sigma      region detector name       float64  1      standard uncertainty, NaN where fixed
    r2               region detector            float64  1      coefficient of determination in linear counts
    r2_expected      region detector            float64  1      R2 that counting noise alone leaves
    reduced_chi2     region detector            float64  1      chi2 per degree of freedom
    deviance         region detector            float64  1      Poisson deviance per degree of freedom
    status           region detector            uint8    1      outcome of the fit
    verdict          region detector            uint8    1      verdict on the fit
    """
)
"""Beside them the strings `suggested` (region, detector): JSON, a list of components that are not in the run's list but
present in the residual; and `remark`: reason why the region's pixels were not fitted again."""

REGION_MAP_VARIABLES: Final = by_region(MAP_VARIABLES)
"""Pixels fitted again with the theta of their region, in `regions/maps`; outside of it NaN and status 0."""

REGION_SHIFT_VARIABLES: Final = by_region(SHIFT_VARIABLES)
"""Beside them where these pixels have a theta of their own: less that of the region."""


def shard_name(band: int) -> str:
    """Path of the one file of a y-band within a store of spectra that this version writes."""
    return f"counts/c.0.{band}.0.0"


def shard_file(path: Path, band: int) -> Path:
    """The one file of a y-band in a store that is being filled."""
    return path / shard_name(band)
