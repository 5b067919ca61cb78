"""One scan that is looked at: its maps, the counts of any of its pixels, and what there is to know of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError, DamagedStoreError, HpcxrfError, OutputError
from hpcxrf.explore.changes import StoreChangedError, StoreGoneError
from hpcxrf.explore.kept import KeptArrays
from hpcxrf.explore.layers import COUNTS, Cube, Layer, read_layer
from hpcxrf.explore.selections import Mask, SelectionSources, select_pixels
from hpcxrf.explore.targets import Dataset, Target, stamp_store
from hpcxrf.explore.tiles import KeptCounts, sum_selection
from hpcxrf.explore.windows import Window, sum_windows
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.results.names import SUM
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report.thumbnails import MapSummary, block_mean, summarise_maps

_LAYER_BYTES: Final = 96 << 20
"""Largest layer of one detector that is read and kept with all its components; of a larger one, one map at a time."""
_SUMMARY_SIDE: Final = 128
"""Side of the thumbnails that come with the summary of a detector."""
_SUMMARY_VALUES: Final = 40_000_000
"""Pixels times components of all detectors up to which the shares of every detector are known from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapView:
    """A map as it is sent, or several of one shape."""

    values: NDArray[np.float32]
    """(y, x), or (component, y, x)."""
    factor: int
    """Pixels of the scan along each side of a point."""
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedCounts:
    """Counts of some pixels."""

    detector: str
    n_pixels: int
    live_time_s: float | None
    """None where one of the pixels has counts and no known time."""
    counts: NDArray[Any]
    """(channel,) uint64, or float64 where the stored counts are not whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open scan; made by `hpcxrf.explore.opening.open_session`. Threads may use it at once."""

    target: Target
    dataset: Dataset
    groups: Mapping[str, xr.Dataset]
    """Groups of the results store by name; none where the scan was not fitted."""
    attributes: Mapping[str, Any]
    """Root attributes of the results store."""
    layers: Mapping[str, Layer]
    counts: KeptCounts | None
    """None: the spectra are not there."""
    no_counts: str
    """Why they are not there, and the remedy; empty where they are."""
    shape_yx: tuple[int, int]
    detectors: tuple[str, ...]
    """Names on the detector axis of the maps, sum first."""
    calibration: tuple[EnergyCalibration, ...] | None
    """Energy axis of each detector as the file gives it; None: it gives none, or the spectra are not there."""
    windows: tuple[Window, ...]
    """Windows of energy of a scan that was not fitted."""
    _stamps: Mapping[Path, tuple[int, int, int] | None]
    _maps: KeptArrays = field(repr=False)
    _summaries: dict[str, MapSummary] = field(default_factory=dict, repr=False)

    def map(self, detector: str, layer: str, component: str | None, side: int | None = None) -> MapView:
        """Read a map, at full size or as means of squares of pixels.

        Args:
            detector: name on the layer's detector axis.
            layer: name of a layer.
            component: name of a component; None of a layer that has one map a detector.
            side: most rows and columns; None: all of the scan.

        Raises:
            ConfigError: no such detector, layer or component.
            OutputError: the store changed since it was opened, or is gone or damaged.
        """
        kind = self._layer(layer)
        if kind.each and component is None:
            raise ConfigError(f"layer {layer}: has a map a component; name one")
        names = (component,) if kind.each and component is not None else ()
        values = self._cube(kind, detector, names)[0]
        factor = self._factor(side)
        return MapView(values=_shrink(values, factor, kind), factor=factor, unit=kind.unit)

    def thumbnails(self, detector: str, layer: str, side: int) -> MapView:
        """Read the maps of all components of the scan, small; NaN of components that the layer has no map of.

        Raises:
            ConfigError: no such detector or layer.
            OutputError: the store changed since it was opened, or is gone or damaged.
        """
        kind, factor = self._layer(layer), self._factor(side)
        known = self._summaries.get(detector)
        if layer == "amplitude" and known is not None and known.factor == factor:
            return MapView(values=known.pictures.astype(np.float32), factor=factor, unit=kind.unit)
        if not kind.each:
            return MapView(values=_shrink(self._cube(kind, detector, ()), factor, kind), factor=factor, unit=kind.unit)
        small = [-(-size // factor) for size in self.shape_yx]
        values = np.full((len(self.components), *small), np.nan, dtype=np.float32)
        # One component of a large layer after the other would read it as often.
        for names in self._portions(kind):
            cube = _shrink(self._cube(kind, detector, names), factor, kind)
            values[[self.components.index(name) for name in names]] = cube
        return MapView(values=values, factor=factor, unit=kind.unit)

    @property
    def components(self) -> tuple[str, ...]:
        """Components of the maps, in the order of the store; of a scan that was not fitted, names of its windows."""
        first = next((layer for layer in self.layers.values() if layer.each), None)
        return () if first is None else first.components

    def select(self, selection: object) -> Mask:
        """Find the pixels (y, x) of a selection.

        Raises:
            ConfigError: it cannot be meant.
        """
        sources = SelectionSources(
            read_map=lambda detector, layer, component: self.map(detector, layer, component).values,
            read_region=self.region,
        )
        return select_pixels(selection, self.shape_yx, sources)

    def region(self, number: int) -> Mask:
        """Find the pixels (y, x) of a region, counted from 1.

        Raises:
            ConfigError: there is none of this number.
        """
        regions = self.groups.get("regions")
        number_of = 0 if regions is None else regions.sizes["region"]
        if regions is None or not 1 <= number <= number_of:
            raise ConfigError(f"region {number}: the scan has {number_of}, counted from 1")
        with self._reading():
            layer = int(regions["layer_of"].values[number - 1])
            inside: Mask = regions["label"].isel(layer=layer).values == number
        return inside

    def sum_counts(self, detector: str, mask: Mask, is_gone: Callable[[], bool] = lambda: False) -> SelectedCounts:
        """Add up the counts of some pixels: exactly those that are stored.

        Args:
            detector: number, or `sum`: all that the sum is made of.
            mask: (y, x).
            is_gone: says whether nobody waits for it any more.

        Raises:
            ConfigError: no such detector.
            NobodyWaitsError: nobody waits for it any more.
            OutputError: the spectra are not there, changed, or are damaged.
        """
        counts = self.require_counts()
        which = self.parts_of(detector)
        with self._reading():
            total = sum_selection(counts, which, mask, is_gone)
            live = _sum_live_times(self._live_times(), mask, which)
        return SelectedCounts(detector=detector, n_pixels=int(np.count_nonzero(mask)), live_time_s=live, counts=total)

    def require_counts(self) -> KeptCounts:
        """Give the counts of the scan.

        Raises:
            OutputError: they are not there; the message says why.
        """
        if self.counts is None:
            raise OutputError(self.no_counts)
        return self.counts

    def parts_of(self, detector: str) -> tuple[int, ...]:
        """Numbers of the detectors that an entry of the detector axis is made of.

        Raises:
            ConfigError: no such detector.
        """
        number = self.require_counts().store.shape[0]
        if detector == SUM:
            apart = {int(one) for one in self.attributes.get("detectors_left_out", {})}
            return tuple(one for one in range(number) if one not in apart)
        if not detector.isdecimal() or int(detector) >= number:
            raise ConfigError(f"detector {detector!r}: there are {', '.join(map(str, range(number)))} and {SUM}")
        return (int(detector),)

    def summary(self, detector: str) -> MapSummary:
        """What the maps of a detector show, as the report has it: shares above the limit, steps of the stage."""
        if detector not in self._summaries:
            maps, factors = self.groups["maps"], self.attributes.get("count_factor", {})
            photon = read_photon_variance(maps, detector, factors.get(detector, 1.0))
            with self._reading():
                self._summaries[detector] = summarise_maps(maps, detector, side=_SUMMARY_SIDE, photon_variance=photon)
        return self._summaries[detector]

    def summarised_detectors(self) -> tuple[str, ...]:
        """Detectors whose shares are known: all, or of a scan that takes seconds to read those that were asked for."""
        values = self.shape_yx[0] * self.shape_yx[1] * len(self.components) * len(self.detectors)
        return self.detectors if values <= _SUMMARY_VALUES else tuple({self.detectors[0]: None, **self._summaries})

    def require_unchanged(self) -> None:
        """Refuse stores that are not those that were opened.

        Raises:
            StoreChangedError: a store was written again, or removed from a run that is there.
            StoreGoneError: the run is gone, or the store that was given without one.
        """
        for path, stamp in self._stamps.items():
            now = stamp_store(path)
            if now == stamp:
                continue
            if now is not None:
                raise StoreChangedError(f"{path}: was written again since it was opened; load what is there now")
            run = self.target.run
            if run is not None and run.is_dir():
                raise StoreChangedError(
                    f"{path}: is gone since it was opened, and its run is still there; load what is there now"
                )
            raise StoreGoneError(
                f"{path if run is None else run}: is gone since it was opened: it was moved or removed, or its disk is "
                "not there; reload this page when it is back, or start `hpcxrf explore` where it is now"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let no array that is half of another run out, and nothing but our own errors."""
        self.require_unchanged()
        try:
            yield
        except DamagedStoreError as error:
            if self.target.run is None:
                raise
            # A resumed run trusts its journals: it has to be told of damage.
            raise DamagedStoreError(f"{error}, after `hpcxrf verify {self.target.run} --redo`") from error
        except HpcxrfError:
            raise
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            self.require_unchanged()
            where = self.dataset.results or self.dataset.spectra
            raise DamagedStoreError(
                f"{where}: cannot be read ({type(error).__name__}: {error}); `hpcxrf verify RUN` names what is "
                "damaged, and with --redo `hpcxrf resume RUN` makes it again"
            ) from error
        self.require_unchanged()

    def _layer(self, name: str) -> Layer:
        if name not in self.layers:
            raise ConfigError(f"layer {name!r}: not one of {', '.join(self.layers)}")
        return self.layers[name]

    def _factor(self, side: int | None) -> int:
        return 1 if side is None else max(1, -(-max(self.shape_yx) // max(1, side)))

    def _cube(self, layer: Layer, detector: str, names: Sequence[str]) -> Cube:
        """Maps of some components at full size, from the whole layer where it is small enough to be kept."""
        if layer.group == COUNTS:
            return self._windows(layer, detector, names)
        wanted = layer.components if self._is_kept_whole(layer) else tuple(names)
        if unknown := [name for name in names if name not in layer.components]:
            raise ConfigError(f"component {unknown[0]!r}: layer {layer.name} has no map of it")
        cube: Cube = self._maps.get((layer.name, detector, wanted), lambda: self._read(layer, detector, wanted))
        if wanted == tuple(names) or not layer.each:
            return cube
        return cube[[wanted.index(name) for name in names]] if len(names) > 1 else cube[wanted.index(names[0]), None]

    def _is_kept_whole(self, layer: Layer) -> bool:
        return 4 * self.shape_yx[0] * self.shape_yx[1] * max(1, len(layer.components)) <= _LAYER_BYTES

    def _read(self, layer: Layer, detector: str, names: Sequence[str]) -> Cube:
        factors = self.attributes.get("count_factor", {})
        with self._reading():
            return read_layer(self.groups, layer, detector, names, factors)

    def _windows(self, layer: Layer, detector: str, names: Sequence[str]) -> Cube:
        """Counts of the pixels of a scan that was not fitted, all or in windows of energy."""
        if unknown := [name for name in names if name not in layer.components]:
            raise ConfigError(f"component {unknown[0]!r}: layer {layer.name} has no map of it")
        which, store = self.parts_of(detector), self.require_counts().store

        def read() -> Cube:
            with self._reading():
                return sum_windows(store, which, self.windows, self.calibration or ())

        every: Cube = self._maps.get((COUNTS, detector), read)
        return every[[1 + layer.components.index(name) for name in names]] if layer.each else every[:1]

    def _portions(self, layer: Layer) -> Iterator[tuple[str, ...]]:
        """Components of a layer, as many at once as fit into what is kept."""
        step = max(1, _LAYER_BYTES // (4 * self.shape_yx[0] * self.shape_yx[1]))
        known = [name for name in layer.components if name in self.components]
        return (tuple(known[first : first + step]) for first in range(0, len(known), step))

    def _live_times(self) -> NDArray[Any]:
        """(detector, y, x) seconds: 0 where nothing was measured, NaN where there are counts and no known time."""

        def read() -> NDArray[np.float32]:
            store = self.require_counts().store
            measured, live = store.measured(), store.times().live_time_s
            for number, one in enumerate(live):
                known = measured & ~store.missing(number)
                one[known & ~(one > 0)] = np.nan
                one[~known] = 0.0
            return np.asarray(live)

        return self._maps.get("live_time_s", read)


def _sum_live_times(times_s: NDArray[Any], mask: Mask, which: Sequence[int]) -> float | None:
    """Live time of all chosen pixels and detectors together, seconds; None where one of them is not known."""
    total = sum(float(times_s[number][mask].sum(dtype=np.float64)) for number in which)
    return total if np.isfinite(total) else None


def _shrink(values: Cube, factor: int, layer: Layer) -> Cube:
    """Means of squares of pixels; of codes and labels every so many-th pixel, as they have no mean."""
    if factor == 1:
        return values
    if layer.meanings or layer.name == "regions":
        return np.ascontiguousarray(values[..., ::factor, ::factor])
    return block_mean(values, factor).astype(np.float32)
