"""One scan that is looked at: its maps, the counts of any of its pixels, and what there is to know of it."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError, DamagedStoreError, HpcxrfError, OutputError
from hpcxrf.explore.kept import KeptArrays
from hpcxrf.explore.layers import COUNTS, Cube, Layer, list_layers, list_window_layers, read_layer
from hpcxrf.explore.selections import Mask, SelectionSources, select_pixels
from hpcxrf.explore.targets import Dataset, Target, stamp_store
from hpcxrf.explore.tiles import KeptCounts, sum_selection
from hpcxrf.explore.windows import Window, choose_windows, sum_windows
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.results.names import SUM
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report.thumbnails import MapSummary, block_mean, summarise_maps
from hpcxrf.results.store.opening import is_complete, open_results

_GROUPS: Final = ("maps", "spectrum", "parameters", "regions", "normalised", "areal_density")
_MAP_BYTES: Final = 192 << 20
_LAYER_BYTES: Final = 96 << 20
"""Largest layer of one detector that is read and kept with all its components; of a larger one, one map at a time."""
_BLOCK_BYTES: Final = 64 << 20
_TILE_BYTES: Final = 48 << 20
_SUMMARY_SIDE: Final = 256
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
    """An open scan; made by `open_session`. Threads may use it at once."""

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

    def sum_counts(self, detector: str, mask: Mask) -> SelectedCounts:
        """Add up the counts of some pixels: exactly those that are stored.

        Args:
            detector: number, or `sum`: all that the sum is made of.
            mask: (y, x).

        Raises:
            ConfigError: no such detector.
            OutputError: the spectra are not there, changed, or are damaged.
        """
        counts = self.require_counts()
        which = self.parts_of(detector)
        with self._reading():
            parts = [sum_selection(counts, number, mask) for number in which]
            live = _sum_live_times(self._live_times(), mask, which)
        return SelectedCounts(
            detector=detector,
            n_pixels=int(np.count_nonzero(mask)),
            live_time_s=live,
            counts=functools.reduce(np.add, parts),
        )

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
            OutputError: a store is gone or was written again.
        """
        for path, stamp in self._stamps.items():
            now = stamp_store(path)
            if now is None:
                raise OutputError(f"{path}: is gone since it was opened; start `hpcxrf explore` again on what is there")
            if now != stamp:
                raise OutputError(f"{path}: was written again since it was opened; start `hpcxrf explore` again")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let no array that is half of another run out, and nothing but our own errors."""
        self.require_unchanged()
        try:
            yield
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
        whole = 4 * self.shape_yx[0] * self.shape_yx[1] * max(1, len(layer.components)) <= _LAYER_BYTES
        wanted = layer.components if whole else tuple(names)
        if unknown := [name for name in names if name not in layer.components]:
            raise ConfigError(f"component {unknown[0]!r}: layer {layer.name} has no map of it")
        cube: Cube = self._maps.get((layer.name, detector, wanted), lambda: self._read(layer, detector, wanted))
        if wanted == tuple(names) or not layer.each:
            return cube
        return cube[[wanted.index(name) for name in names]] if len(names) > 1 else cube[wanted.index(names[0]), None]

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
            # What store has them is fixed by `open_session`.
            store: Any = self.require_counts().store
            measured, live = store.measured(), store.times().live_time_s
            for number, one in enumerate(live):
                known = measured & ~store.missing(number)
                one[known & ~(one > 0)] = np.nan
                one[~known] = 0.0
            return np.asarray(live)

        return self._maps.get("live_time_s", read)


def open_session(target: Target, dataset: Dataset) -> Session:
    """Open a scan; arrays are read when they are asked for.

    Args:
        target: what the explorer was given.
        dataset: one of its scans.

    Raises:
        OutputError: its results are not finished, or its stores cannot be read.
    """
    groups: dict[str, xr.Dataset] = {}
    attributes: dict[Any, Any] = {}
    stamps = {path: stamp_store(path) for path in (dataset.results,) if path is not None}
    if dataset.results is not None:
        if not is_complete(dataset.results):
            raise OutputError(f"{dataset.results}: is not finished; `hpcxrf status` tells how far the run is")
        tree = open_results(dataset.results)
        groups = {name: tree[name].to_dataset() for name in _GROUPS if name in tree.children}
        attributes = dict(tree.attrs)
    counts, no_counts = _open_counts(target, dataset)
    if counts is not None and dataset.spectra is not None:
        stamps[dataset.spectra] = stamp_store(dataset.spectra)
    facts: Any = None if counts is None else counts.store
    calibration = None if facts is None else facts.calibration
    windows: tuple[Window, ...] = ()
    if groups:
        maps, layers = groups["maps"], list_layers(groups)
        shape_yx = (maps.sizes["y"], maps.sizes["x"])
        names = [str(name) for name in maps["detector"].values]
    elif counts is None:
        raise OutputError(no_counts)
    else:
        shape_yx = facts.shape[1:3]
        names = [*map(str, range(facts.shape[0])), *([SUM] if facts.shape[0] > 1 else [])]
        if calibration is not None:
            integrated = np.stack([facts.integrated(number) for number in range(facts.shape[0])])
            windows = choose_windows(integrated, calibration, facts.incident_energy_kev)
        layers = list_window_layers(tuple(names), tuple(window.name for window in windows))
    return Session(
        target=target,
        dataset=dataset,
        groups=groups,
        attributes=attributes,
        layers=layers,
        counts=counts,
        no_counts=no_counts,
        shape_yx=shape_yx,
        detectors=tuple(sorted(names, key=lambda name: name != SUM)),
        calibration=calibration,
        windows=windows,
        _stamps=stamps,
        _maps=KeptArrays(most_bytes=_MAP_BYTES),
    )


def _open_counts(target: Target, dataset: Dataset) -> tuple[KeptCounts | None, str]:
    """Counts of a scan, or why they are not there."""
    from hpcxrf.store.packed import is_store
    from hpcxrf.store.spectra import open_spectra

    if dataset.spectra is None:
        return None, f"{target.name}: holds maps alone; for its spectra explore the run directory"
    if not is_store(dataset.spectra):
        return None, (
            f"{dataset.spectra}: the spectra are not there any more; `hpcxrf verify {target.run} --redo && "
            f"hpcxrf resume {target.run}` reads them again from the files of the scan"
        )
    store: Any = open_spectra(dataset.spectra)
    return KeptCounts(
        store=store,
        has_tiles=bool(getattr(store, "has_tiles", False)),
        blocks=KeptArrays(most_bytes=_BLOCK_BYTES),
        tiles=KeptArrays(most_bytes=_TILE_BYTES),
    ), ""


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
