"""Which scalers of a scan are I0, its clock and its amplifier, and where the live times come from.

This module loads neither torch nor zarr: a plan refuses scans with it that cannot be normalised.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from hpcxrf.config.normalise import LiveTimeChoice, NormaliseConfig
from hpcxrf.config.scalers import ScalerConfig, ScalerKind
from hpcxrf.errors import ConfigError
from hpcxrf.formats.scan import ScanScalars
from hpcxrf.quantify.i0 import I0, FloatMap, compute_gate_s, compute_i0_rate, find_sensitivity_a_per_v

_SHOWN: Final = 12
LiveTimeSource = Literal["real_time * ocr / icr", "live time of the file", "real time", "given"]
ReadScaler = Callable[[str], FloatMap]


@dataclass(frozen=True, slots=True, kw_only=True)
class I0Choice:
    """Scalers of one scan that I0 is made of, by their names in the scan."""

    name: str
    """Name in the run file."""
    pv: str
    kind: ScalerKind
    clock: str | float | None
    """Name of the clock, or seconds; None: a rate without one."""
    clock_hz: float
    amplifier: tuple[str, str] | None
    """Names of number and unit of the sensitivity, where the scan has both."""

    @property
    def unit(self) -> str:
        """Unit of I0, where it is a count."""
        return "s-1" if self.kind == "count" else "1"


def choose_i0(config: NormaliseConfig, names: Sequence[str], where: object) -> I0Choice | None:
    """Find I0 among the scalers of a scan.

    Args:
        config: section of the run file, with its table of scalers.
        names: scalers of the scan.
        where: file, for the message.

    Returns:
        The scalers; None where rates are not divided by I0.

    Raises:
        ConfigError: no such scaler, or no clock of a count.
    """
    if config.i0 is None:
        return None
    known = _find_in_table(config)
    candidates = (config.i0,) if known is None or config.i0 in names else known.pvs
    pv = next((one for one in candidates if one in names), None)
    if pv is None:
        raise ConfigError(_describe_missing("normalise.i0", config.i0, candidates, config, names, where))
    kind: ScalerKind | None = None if config.i0_kind == "auto" else config.i0_kind
    kind = kind or (None if known is None else known.kind)
    if kind is None:
        raise ConfigError(
            f"{where}: {config.i0} is in no table of scalers, so that nobody knows what it is; set normalise.i0_kind: "
            "count and the clock of its gate, normalise.i0_clock, or normalise.i0_kind: rate"
        )
    clock, clock_hz = _choose_clock(config, known, kind, names, where)
    amplifier = None if known is None else known.amplifier
    return I0Choice(
        name=config.i0,
        pv=pv,
        kind=kind,
        clock=clock,
        clock_hz=clock_hz,
        amplifier=amplifier if amplifier is not None and set(amplifier) <= set(names) else None,
    )


def _find_in_table(config: NormaliseConfig) -> ScalerConfig | None:
    """Row of the table that I0 is named by, or that has its PV."""
    if config.i0 in config.scalers:
        return config.scalers[config.i0]
    return next((row for row in config.scalers.values() if config.i0 in row.pvs), None)


def _choose_clock(
    config: NormaliseConfig, known: ScalerConfig | None, kind: ScalerKind, names: Sequence[str], where: object
) -> tuple[str | float | None, float]:
    """Clock of I0 (name, seconds, or none that a rate needs), and its ticks in a second."""
    if isinstance(config.i0_clock, float):
        return config.i0_clock, 1.0
    hz = config.i0_clock_hz
    if config.i0_clock != "auto":
        if config.i0_clock not in names:
            raise ConfigError(
                _describe_missing("normalise.i0_clock", config.i0_clock, (config.i0_clock,), config, names, where)
            )
        table = [row.clock_hz for row in config.scalers.values() if config.i0_clock in row.clock]
        if hz is None and not table:
            raise ConfigError(
                f"{where}: nobody knows how fast the clock {config.i0_clock} ticks; set normalise.i0_clock_hz, 1 where "
                "it gives seconds"
            )
        return config.i0_clock, hz or table[0]
    clocks = () if known is None else known.clock
    found = next((one for one in clocks if one in names), None)
    if found is None and kind == "count":
        looked = f" (looked for {', '.join(clocks)})" if clocks else ""
        raise ConfigError(
            f"{where}: {config.i0} is a count, and the scan has no clock of its gate{looked}; set normalise.i0_clock "
            "to a scaler that counts with it, or to seconds, or normalise.i0_kind: rate"
        )
    return found, 1.0 if known is None else hz or known.clock_hz


def _describe_missing(
    place: str, wanted: str, candidates: Sequence[str], config: NormaliseConfig, names: Sequence[str], where: object
) -> str:
    if not names:
        return (
            f"{where}: the scan has no scalers, and {place} is {wanted}; leave it out, or read the file that has them"
        )
    looked = f" (looked for {', '.join(candidates)})" if list(candidates) != [wanted] else ""
    near = [one for c in candidates for one in difflib.get_close_matches(c, names, n=3, cutoff=0.7)]
    lower = {one.lower(): one for one in names}
    near = list(dict.fromkeys([*([lower[wanted.lower()]] if wanted.lower() in lower else []), *near]))
    rest = [one for one in names if one not in near][: _SHOWN - len(near)]
    more = len(names) - len(near) - len(rest)
    listed = ", ".join([*near, *rest]) + (f" and {more} more" if more > 0 else "")
    table = f"; the table of scalers has {', '.join(config.scalers)}" if config.scalers else ""
    return f"{where}: has no scaler {wanted}{looked}; set {place} to one of its scalers: {listed}{table}"


def read_i0(choice: I0Choice, read: ReadScaler, reference_gain: float | None) -> I0:
    """Read the incident flux of some pixels.

    Args:
        choice: of `choose_i0`.
        read: gives the values (y, x) of a scaler in these pixels.
        reference_gain: sensitivity of the amplifier that the reference was measured with, A/V; None: not known, or the
            reference is a number, which holds for the scan's own amplifier.
    """
    gate: FloatMap | float | None = choice.clock if not isinstance(choice.clock, str) else None
    if isinstance(choice.clock, str):
        gate = compute_gate_s(read(choice.clock), choice.clock_hz)
    gain: FloatMap | float = 1.0
    if reference_gain is not None and (own := read_gain(choice, read)) is not None:
        gain = own / reference_gain
    return compute_i0_rate(read(choice.pv), kind=choice.kind, gate_s=gate, gain=gain)


def read_gain(choice: I0Choice, read: ReadScaler) -> FloatMap | None:
    """Read the sensitivity of the amplifier (y, x), A/V; None where the scan does not say it."""
    if choice.amplifier is None:
        return None
    number, unit = (read(name) for name in choice.amplifier)
    return find_sensitivity_a_per_v(number, unit)


def choose_live_time(
    choice: LiveTimeChoice | float, *, has_rates: Sequence[bool], has_live: Sequence[bool], has_real: Sequence[bool]
) -> dict[int, LiveTimeSource]:
    """Where each detector's live time comes from; detectors without any are left out.

    Args:
        choice: of the run file.
        has_rates: by detector: real time, input and output rates are known.
        has_live: by detector: the file gives a live time.
        has_real: by detector: the file gives a real time.
    """
    found: dict[int, LiveTimeSource] = {}
    for detector, (rates, live, real) in enumerate(zip(has_rates, has_live, has_real, strict=True)):
        if isinstance(choice, float):
            found[detector] = "given"
        elif rates and choice in {"auto", "rates"}:
            found[detector] = "real_time * ocr / icr"
        elif live and choice == "auto":
            found[detector] = "live time of the file"
        elif real and choice == "real":
            found[detector] = "real time"
    return found


def require_live_time(choice: LiveTimeChoice | float, found: dict[int, LiveTimeSource], where: object) -> None:
    """Refuse a scan of which no detector has a live time.

    Raises:
        ConfigError: what is missing, and the remedy.
    """
    if found:
        return
    lacking = {
        "auto": "neither a live time nor real time, ICR and OCR",
        "rates": "no real time with ICR and OCR",
        "real": "no real time",
    }[str(choice)]
    raise ConfigError(
        f"{where}: has {lacking} of any detector; set normalise.live_time to seconds"
        + ("" if choice == "auto" else " or to another choice")
        + ", or leave the section normalise out"
    )


def calculate_live_time(
    source: LiveTimeSource | None,
    choice: LiveTimeChoice | float,
    *,
    live_time_s: FloatMap,
    real_time_s: FloatMap,
    icr_hz: FloatMap,
    ocr_hz: FloatMap,
) -> FloatMap:
    """Live time (y, x) of one detector's pixels, seconds; NaN where it is not known.

    Args:
        source: of `choose_live_time`; None: the detector has none.
        choice: of the run file.
        live_time_s: (y, x) live time of the file.
        real_time_s: (y, x).
        icr_hz: (y, x) input count rate.
        ocr_hz: (y, x) output count rate.
    """
    if isinstance(choice, float):
        return np.full(live_time_s.shape, choice)
    if source == "real time":
        return np.where(real_time_s > 0.0, real_time_s, np.nan).astype(np.float64)
    if source == "live time of the file":
        return np.where(live_time_s > 0.0, live_time_s, np.nan).astype(np.float64)
    if source is None:
        return np.full(live_time_s.shape, np.nan)
    counted = icr_hz > 0.0
    share = ocr_hz.astype(np.float64) / np.where(counted, icr_hz, 1.0)
    # Where nothing came in, nothing was lost.
    live = real_time_s * np.where(counted, share, np.where(icr_hz == 0.0, 1.0, np.nan))
    return np.where(live > 0.0, live, np.nan)


def require_normalisable(config: NormaliseConfig, scalars: ScanScalars, where: object) -> None:
    """Refuse a scan that lacks what its normalisation needs.

    Raises:
        ConfigError: all that is missing, each with its remedy.
    """
    faults = []
    try:
        choose_i0(config, scalars.scaler_names, where)
    except ConfigError as error:
        faults.append(str(error))
    real, icr, ocr, live = (
        None if one is None else (one > 0.0).any(axis=(1, 2))
        for one in (scalars.real_time_s, scalars.icr_hz, scalars.ocr_hz, scalars.live_time_s)
    )
    rates = False if real is None or icr is None or ocr is None else bool((real & icr & ocr).any())
    found = choose_live_time(
        config.live_time_choice,
        has_rates=[rates],
        has_live=[live is not None and bool(live.any())],
        has_real=[real is not None and bool(real.any())],
    )
    try:
        require_live_time(config.live_time_choice, found, where)
    except ConfigError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
