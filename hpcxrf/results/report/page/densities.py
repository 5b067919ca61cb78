"""Areal densities on a page: the calibration curve with its points, what it says of its own standards, means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
import xraylib

from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import CYCLE
from hpcxrf.store.schema import BLOCK_Y

_WIDTH: Final = 760.0
_HEIGHT: Final = 340.0
_LEFT: Final = 74.0
_RIGHT: Final = 16.0
_TOP: Final = 12.0
_BOTTOM: Final = 42.0
_SHELLS: Final = ("K", "L", "M")
_DECADES: Final = 4.0
"""Decades of the response that the plot shows at most, from the highest one down."""
_TERM_TITLES: Final = {"counting": "standard's counts", "theta": "θ", "i0": "I0", "standard": "certificate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveLine:
    """Curve of one shell in the plot's coordinates."""

    shell: str
    colour: str
    points: str
    """Points of an SVG polyline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Point of a standard in the plot's coordinates."""

    family: str
    title: str
    colour: str
    x: float
    y: float
    low: float
    high: float
    """Ends of the bar of one standard uncertainty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Mark on an axis: place and text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePlot:
    """Plot of the calibration curve, sizes in units of the picture."""

    width: float
    height: float
    frame: tuple[float, float, float, float]
    """Left, top, width and height of the axes."""
    lines: tuple[CurveLine, ...]
    points: tuple[CurvePoint, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityRow:
    """One element of the sample."""

    name: str
    mean_ug_cm2: float
    """Mean over the pixels that have a value."""
    sigma_ug_cm2: float
    """Standard uncertainty of the mean, all terms."""
    median_limit_ug_cm2: float
    """Median detection limit of a pixel."""
    origin: str
    errors: tuple[float, ...]
    """Relative errors by term."""
    layer_factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DensitiesPage:
    """Section of a page on areal densities."""

    entry: str
    """Detector that is shown: `combined`, `sum`, or a number."""
    plot: CurvePlot | None
    """None: no element of a standard was seen."""
    terms: tuple[str, ...]
    rows: tuple[DensityRow, ...]
    left_out: tuple[Mapping[str, Any], ...]
    standards: tuple[Mapping[str, Any], ...]
    curve_of: str
    layer: str
    """Sentence on the layer; empty for a thin sample."""
    is_corrected: bool


def build_densities(group: xr.Dataset) -> DensitiesPage:
    """Read what a page shows of the group `areal_density`.

    Args:
        group: the group, open.
    """
    about = group.attrs
    entry = str(about["primary"])
    one = group.isel(detector=[str(d) for d in group["detector"].values].index(entry))
    layer = about.get("layer")
    return DensitiesPage(
        entry=entry,
        plot=draw_curve_plot(about["curve"], about["calibration"][entry]["points"]),
        terms=tuple(_TERM_TITLES.get(str(t), str(t)) for t in one["term"].values),
        rows=_build_rows(one),
        left_out=tuple(about.get("leave_one_out", ())),
        standards=tuple(about["standards"]),
        curve_of=str(about["curve_of"]),
        layer="" if layer is None else str(layer["description"]),
        is_corrected=layer is not None,
    )


def _build_rows(one: xr.Dataset) -> tuple[DensityRow, ...]:
    n_y = one.sizes["y"]
    total, number, variance = (np.zeros(one.sizes["component"]) for _ in range(3))
    limits = []
    for y in range(0, n_y, BLOCK_Y):
        band = one["areal_density"].isel(y=slice(y, y + BLOCK_Y)).values
        total += np.nansum(band, axis=(1, 2), dtype=np.float64)
        number += np.isfinite(band).sum(axis=(1, 2))
        counting = one["counting_sigma"].isel(y=slice(y, y + BLOCK_Y)).values
        variance += np.nansum(counting**2, axis=(1, 2), dtype=np.float64)
        # A few rows tell a median.
        limits.append(one["detection_limit"].isel(y=slice(y, min(y + 4, n_y))).values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, noise = total / number, np.sqrt(variance) / number
    limit = np.concatenate(limits, axis=1).reshape(len(mean), -1)
    errors, factors, floor = (one[name].values for name in ("relative_error", "layer_factor", "theta_floor"))
    return tuple(
        DensityRow(
            name=shown_name(str(name)),
            mean_ug_cm2=float(mean[i]),
            sigma_ug_cm2=math.hypot(mean[i] * math.hypot(*errors[i]), floor[i], noise[i]),
            median_limit_ug_cm2=float(np.nanmedian(limit[i])) if np.isfinite(limit[i]).any() else math.nan,
            origin=str(one["origin"].values[i]),
            errors=tuple(errors[i].tolist()),
            layer_factor=float(factors[i]),
        )
        for i, name in enumerate(one["component"].values)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """Where atomic numbers and responses lie in the picture."""

    first: int
    last: int
    low: float
    """Decimal logarithm of the response at the lower edge."""
    top: float

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, width and height."""
        return _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place_x(self, z: int) -> float:
        left, _, width, _ = self.frame
        return left + width * (z - self.first) / (self.last - self.first)

    def place_y(self, response: float) -> float:
        """Height of a response; one below the lower edge lies on it."""
        _, top, _, height = self.frame
        inside = min(max(math.log10(response), self.low), self.top) if response > 0.0 else self.low
        return top + height * (self.top - inside) / (self.top - self.low)


def draw_curve_plot(
    curve: Mapping[str, Sequence[Sequence[float]]], points: Sequence[Mapping[str, Any]]
) -> CurvePlot | None:
    """Draw responses over atomic number, on a logarithmic scale.

    Args:
        curve: by shell, rows of atomic number, mean energy of the lines and response.
        points: points of the standards as a calibration keeps them.

    Returns:
        The plot; None where there is nothing to draw.
    """
    rows = {shell: [(int(z), float(r)) for z, _, r in curve.get(shell, ()) if r > 0.0] for shell in _SHELLS}
    number_of = {_name_family(z, shell): z for shell, inside in rows.items() for z, _ in inside}
    known = [p for p in points if p["family"] in number_of]
    measured = [(p, float(p["rate_hz"]) / float(p["areal_density_ug_cm2"])) for p in known]
    heights = [math.log10(r) for inside in rows.values() for _, r in inside] + [math.log10(r) for _, r in measured]
    if not heights:
        return None
    top = max(heights) + 0.1
    axes = _Axes(
        first=min(number_of.values()) - 1,
        last=max(number_of.values()) + 1,
        low=max(min(heights) - 0.1, top - _DECADES),
        top=top,
    )
    lines = [
        CurveLine(
            shell=shell,
            colour=CYCLE[index],
            points=" ".join(f"{axes.place_x(z):.1f},{axes.place_y(r):.1f}" for z, r in inside if r > 10**axes.low),
        )
        for index, (shell, inside) in enumerate(rows.items())
        if inside
    ]
    tens = range(10 * math.ceil(axes.first / 10), axes.last + 1, 10)
    powers = range(math.ceil(axes.low), math.floor(axes.top) + 1)
    return CurvePlot(
        width=_WIDTH,
        height=_HEIGHT,
        frame=axes.frame,
        lines=tuple(lines),
        points=tuple(_draw_point(p, value, number_of[p["family"]], axes) for p, value in measured),
        x_ticks=tuple(Tick(at=axes.place_x(z), text=str(z)) for z in tens),
        y_ticks=tuple(Tick(at=axes.place_y(10.0**p), text=_write_power(p)) for p in powers),
    )


def _draw_point(point: Mapping[str, Any], response: float, z: int, axes: _Axes) -> CurvePoint:
    family = str(point["family"])
    sigma = math.hypot(*(float(point[name]) for name in ("counting", "theta", "certificate")))
    return CurvePoint(
        family=shown_name(family),
        title=f"{point['standard']}: {family} {point['areal_density_ug_cm2']:.4g} ug/cm2",
        colour=CYCLE[_SHELLS.index(_shell_of(family))],
        x=axes.place_x(z),
        y=axes.place_y(response),
        low=axes.place_y(response * max(1.0 - sigma, 1e-3)),
        high=axes.place_y(response * (1.0 + sigma)),
    )


def _shell_of(family: str) -> str:
    return family.partition("_")[2] or "K"


def _name_family(z: int, shell: str) -> str:
    symbol = xraylib.AtomicNumberToSymbol(z)
    return symbol if shell == "K" else f"{symbol}_{shell}"


def _write_power(power: int) -> str:
    return f"{10.0**power:g}" if -2 <= power <= 4 else f"1e{power}"
