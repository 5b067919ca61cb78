"""The I0 that all maps of a run are brought to: a number of the run file, or the mean of a named scan."""

from pathlib import Path

import numpy as np

from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.normalise.choice import choose_i0, read_gain, read_i0
from hpcxrf.pipeline.prepare.inputs import checksum_stamp, read_options
from hpcxrf.pipeline.records import I0Reference
from hpcxrf.quantify.i0 import average_i0


def read_reference(config: RunConfig) -> I0Reference | None:
    """Find the reference of a run.

    Returns:
        The reference; None where rates are not divided by I0.

    Raises:
        ConfigError: the reference scan is not there, lacks the scaler, or has no pixel with an I0.
        InputFileError: the reference scan cannot be read.
    """
    wanted = config.normalise.reference
    if config.normalise.i0 is None or wanted is None:
        return None
    if isinstance(wanted, float):
        return I0Reference(value=wanted, origin="number of the run file")
    return _measure_reference(config.normalise, Path(wanted), config)


def _measure_reference(normalise: NormaliseConfig, path: Path, config: RunConfig) -> I0Reference:
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:8] if path.parent.is_dir() else []
        there = f"; in that folder are {', '.join(beside)}" if beside else ""
        raise ConfigError(
            f"normalise.reference: {path} is not there{there}; name a scan file, relative to the run file, or give a "
            "number"
        )
    try:
        scan = open_scan(path, read_options(config))
    except InputFileError as error:
        raise InputFileError(f"normalise.reference: {error}") from error
    scalars = scan.read_scalars()
    choice = choose_i0(normalise, scalars.scaler_names, f"normalise.reference: {path}")
    if choice is None or scalars.scaler_values is None:
        raise ConfigError(f"normalise.reference: {path}: has no scalers; name another scan, or give a number")
    values = dict(zip(scalars.scaler_names, scalars.scaler_values, strict=True))
    i0 = read_i0(choice, values.__getitem__, None)
    good = np.isfinite(i0.rate) & (True if scalars.measured is None else scalars.measured)
    mean, _ = average_i0(i0, good.astype(np.float64))
    if not mean > 0.0:
        raise ConfigError(
            f"normalise.reference: {path}: {choice.pv} is not positive in any pixel; name another scan, or give a "
            "number"
        )
    gain = read_gain(choice, values.__getitem__)
    known = None if gain is None or not np.isfinite(gain).any() else float(np.nanmedian(gain))
    origin = f"mean of {choice.pv} over {int(good.sum())} pixels of {path.name}"
    return I0Reference(value=mean, origin=origin, gain_a_per_v=known)


def reference_stamps(config: NormaliseConfig) -> tuple[tuple[str, str], ...]:
    """Stamp the scan that the reference is made from; nothing where it is a number."""
    if config.i0 is None or not isinstance(config.reference, str):
        return ()
    path = Path(config.reference)
    return (checksum_stamp(path),) if path.is_file() else ()
