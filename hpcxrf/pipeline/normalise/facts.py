"""What is said of a normalisation: attributes of its group, notes, and the refusal where no pixel has a value."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf import __version__
from hpcxrf.errors import InputFileError
from hpcxrf.notes import Note
from hpcxrf.pipeline.normalise.choice import I0Choice
from hpcxrf.pipeline.normalise.times import ScanTimes
from hpcxrf.pipeline.records import I0Reference
from hpcxrf.quantify.normalise import PixelFlag
from hpcxrf.results.store.normalised import COMBINED

DESCRIPTION: Final = "normalisation"
"""Attribute of the group: how its maps were normalised, one sentence."""


def describe_group(
    root: Mapping[str, Any], times: ScanTimes, reference: I0Reference | None, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Attributes of the group `normalised`, so that a copy of it says what it is.

    Args:
        root: attributes of the results store.
        times: where live times and I0 come from.
        reference: I0 that the rates are brought to.
        left_out: reasons by name of the detectors that `combined` is made without.
    """
    known = {key: root[key] for key in ("title", "source", "incident_energy_kev") if root.get(key) is not None}
    found: dict[str, Any] = {
        **known,
        "hpcxrf_version": __version__,
        DESCRIPTION: describe_normalisation(times, reference),
        "live_time_source": {str(d): source for d, source in times.live.items()},
        "detectors_left_out": dict(left_out),
    }
    if times.i0 is None or reference is None:
        return found
    return found | {
        "i0": times.i0.name,
        "i0_scaler": times.i0.pv,
        "i0_kind": times.i0.kind,
        "i0_unit": _find_unit(times),
        "i0_clock": times.i0.clock,
        "i0_clock_hz": times.i0.clock_hz,
        "i0_amplifier": None if times.i0.amplifier is None else list(times.i0.amplifier),
        "reference": reference.value,
        "reference_origin": reference.origin,
        "reference_amplifier_a_per_v": reference.gain_a_per_v,
    }


def describe_normalisation(times: ScanTimes, reference: I0Reference | None) -> str:
    """Say in a sentence how maps were normalised."""
    sources = " or ".join(dict.fromkeys(times.live.values()))
    given = times.config.live_time
    sources = f"{given:g} s" if isinstance(given, float) else sources
    if times.i0 is None or reference is None:
        return f"counts per second of live time ({sources})"
    return (
        f"counts per second of live time ({sources}) at {times.i0.name} = {reference.value:.6g} {_find_unit(times)} "
        f"({reference.origin}); {times.i0.name} is {_describe_i0(times.i0)}"
    )


def _describe_i0(i0: I0Choice) -> str:
    if i0.kind == "rate":
        return f"{i0.pv}, a rate"
    if isinstance(i0.clock, float):
        return f"{i0.pv} / {i0.clock:g} s"
    return f"{i0.pv} / {i0.clock}" + (f" * {i0.clock_hz:g} s-1" if i0.clock_hz != 1.0 else "")


def _find_unit(times: ScanTimes) -> str:
    """Unit of I0: that of the file where it is not a count."""
    if times.i0 is None or times.i0.kind == "count":
        return "s-1"
    units = dict(zip(times.store.scaler_names, times.store.scaler_units, strict=False))
    return units.get(times.i0.pv, "") or "1"


def note_judged(judged: Mapping[str, str], used: Sequence[str]) -> list[Note]:
    """Name the detectors that disagree with the others, and say whether they are a part of `combined`."""
    left = f"left out of the map {COMBINED}; normalise.detectors: all takes it"
    kept = f"a part of the map {COMBINED} all the same; normalise.detectors: auto leaves it out"
    return [
        Note(
            "warning",
            f"normalised maps: detector {name} disagrees with the others ({why}): {kept if name in used else left}",
        )
        for name, why in judged.items()
    ]


def note_amplifier(times: ScanTimes, reference: I0Reference | None) -> list[Note]:
    """Warn where only the reference scan says how sensitive its amplifier was."""
    if times.i0 is None or reference is None or reference.gain_a_per_v is None or times.i0.amplifier is not None:
        return []
    text = (
        f"normalised maps: the sensitivity of the amplifier of {times.i0.name} is known of the reference scan only "
        f"({reference.gain_a_per_v:g} A/V); if it was another one here, all rates are wrong by a factor"
    )
    return [Note("warning", text)]


def note_flags(flags: NDArray[np.int64], entries: Sequence[str], times: ScanTimes) -> list[Note]:
    """Warn of pixels that have amplitudes and no normalised value.

    Args:
        flags: (entry, flag) numbers of pixels.
        entries: names on the detector axis.
        times: where live times and I0 come from.
    """
    notes = []
    dark = int(flags[:, PixelFlag.NO_I0].max())
    if dark and times.i0 is not None:
        text = f"normalised maps: {times.i0.pv} is not positive, or not known, in {dark} pixels, which have no value"
        notes.append(Note("warning", text))
    for name, row in zip(entries, flags, strict=True):
        untimed = int(row[PixelFlag.NO_LIVE_TIME])
        if untimed and name != COMBINED:
            text = f"normalised maps: detector {name} has no live time in {untimed} pixels, which have no value"
            notes.append(Note("warning", text))
    return notes


def refuse_all_flagged(flags: NDArray[np.int64], times: ScanTimes, where: object) -> None:
    """Refuse a scan that has fitted pixels and not one normalised value.

    Raises:
        InputFileError: why pixels have no value, and the remedy.
    """
    untimed, dark = (int(flags[:, why].max()) for why in (PixelFlag.NO_LIVE_TIME, PixelFlag.NO_I0))
    if flags[:, PixelFlag.NORMALISED].any() or not (untimed or dark):
        return
    reasons = [f"{untimed} have no live time"] if untimed else []
    if dark and times.i0 is not None:
        reasons.append(f"in {dark} {times.i0.pv} or its clock is not positive")
    raise InputFileError(
        f"{where}: no pixel can be normalised: {', '.join(reasons)}; set normalise.i0 to another scaler, "
        "normalise.live_time to seconds, or leave the section normalise out"
    )
