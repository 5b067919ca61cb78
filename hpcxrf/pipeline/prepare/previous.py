"""Starting values from an earlier scan: the fitted theta that its results store keeps."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.physics.constants import CONSTANT_SETS, ConstantSet, convert_fanoprime
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE

Theta = Mapping[str, Mapping[str, float] | None]
"""Fitted theta by detector; None where the fit has no solution."""


def previous_theta(store: Path, detector: int, constants: ConstantSet) -> dict[str, float]:
    """Read the fitted theta of one detector by name, its width restated for these constants.

    Args:
        store: `results/<dataset_id>.zarr` of a finished run.
        detector: number of the detector, counted from 0.
        constants: constants of the fit to come; the store knows its own.

    Raises:
        ConfigError: no results store there, an unfinished or damaged one, one without this detector, or one in
            which its fit has no solution.
    """
    attributes = _read_finished(store)
    by_detector = _by_detector(store, attributes)
    if str(detector) not in by_detector:
        raise ConfigError(
            f"fit.previous: {store} has no detector {detector}, it has {', '.join(by_detector)}; name a store of a "
            "scan with the same detectors"
        )
    found = by_detector[str(detector)]
    if found is None:
        raise ConfigError(
            f"fit.previous: in {store} the fit of detector {detector} has no solution to start from; name the store of "
            "a scan in which it has one, or start from elsewhere (fit.calibration: auto)"
        )
    theta = dict(found)
    source = CONSTANT_SETS[attributes["constants"]]
    fanoprime = theta["fwhm_fanoprime"]
    return theta | {"fwhm_fanoprime": convert_fanoprime(fanoprime, source=source, target=constants)}


def require_previous(store: Path) -> None:
    """Refuse a path that is not a finished results store, before a scan is read for it.

    Raises:
        ConfigError: the store and what is wrong with it.
    """
    _by_detector(store, _read_finished(store))


def _read_finished(store: Path) -> dict[str, Any]:
    # Zarr, where a store is named only.
    from hpcxrf.results.store.storage import require_readable_schema

    try:
        attributes = require_readable_schema(store)
    except OutputError as error:
        raise ConfigError(f"fit.previous: {error} (name results/<dataset_id>.zarr of a finished run)") from error
    if not attributes.get(COMPLETE_ATTRIBUTE):
        raise ConfigError(
            f"fit.previous: {store} is not finished; rerun the command that began it, or name another store"
        )
    return attributes


def _by_detector(store: Path, attributes: Mapping[str, Any]) -> Theta:
    found = attributes.get("theta_by_detector")
    names = {p.name for p in PARAMETERS}
    constants = attributes.get("constants")
    sound = (
        isinstance(found, dict)
        and isinstance(constants, str)
        and constants in CONSTANT_SETS
        and all(t is None or _is_theta(t, names) for t in found.values())
    )
    if not sound:
        raise ConfigError(
            f"fit.previous: {store} keeps no fitted theta of each detector; name the results store of a run of this "
            "program"
        )
    return dict(found or {})


def _is_theta(value: object, names: set[str]) -> bool:
    return isinstance(value, dict) and names == set(value) and all(_is_number(v) for v in value.values())


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
