"""The process that fits for the explorer: one dataset of a run, one fit at a time, JSON lines in and out.

The first line out says that it is ready; then every line in is a request, and every line out the answer to the last
one, with its id. Arrays are base64 of whole numbers. A signal ends the fit that is running, and nothing else: what is
computed has no state but the fits that are kept here. It reads the stores of the run and writes nothing.

    python -m hpcxrf.explore.fitting_process RUN DATASET
"""

import base64
import json
import math
import os
import signal
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, TextIO

import numpy as np
import torch
from torch import Tensor

from hpcxrf import api
from hpcxrf.errors import FitError, HpcxrfError
from hpcxrf.explore.fit_records import Json, pack_suggested
from hpcxrf.explore.held_fits import extend_fit
from hpcxrf.explore.solved_fits import pack_fit
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.overlaps import find_overlaps
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.stored_fits import (
    StoredScan,
    arrange_elements,
    carry_factor,
    fit_as_extended,
    fit_whole,
    open_stored_scan,
    prepare_process,
    read_scan_counts,
    suggest_again,
    sum_fits,
)

INTERRUPT: Final = signal.SIGUSR1
"""Signal that ends the fit that is running."""
_MOST_BASES: Final = 24
_MOST_FITS: Final = 16
_ROUNDED: Final = 1e-5


class _Interrupted(BaseException):
    """The fit that is running is not wanted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A fit of one detector that was answered, for one that holds it."""

    counts: Tensor
    fit: SpectrumFit


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What is kept between requests: the scan, its fits by detector and elements, and the latest answers."""

    scan: StoredScan
    bases: OrderedDict[tuple[int, tuple[str, ...]], SpectrumFit] = field(default_factory=OrderedDict)
    whole: dict[int, Tensor] = field(default_factory=dict)
    """Counts of the whole scan by detector."""
    made: OrderedDict[str, _Made] = field(default_factory=OrderedDict)
    """Answers by id."""


def answer(request: Mapping[str, Any], desk: Desk) -> Json:
    """Fit what a request asks for, and give the fit as JSON.

    Args:
        request: of `hpcxrf.explore.fits.pack_request`.
        desk: what is kept; the fit joins it.

    Raises:
        HpcxrfError: the fit is impossible as asked, or has no solution.
    """
    began = time.process_time()
    detector, elements = str(request["detector"]), arrange_elements(desk.scan, request["elements"])
    is_sum = detector == SUM
    if is_sum:
        # Every detector keeps its own theta.
        request = {**request, "values": {}, "bounds": {}}
    numbers = desk.scan.members if is_sum else (int(detector),)
    counts = {d: _counts_of(request, d, desk) for d in numbers}
    fits = {d: _fit_detector(request, d, elements, counts[d], desk) for d in numbers if float(counts[d].sum()) > 0.0}
    if not fits:
        raise FitError("these pixels have no counts; choose others")
    found = sum_fits(desk.scan, fits, counts) if is_sum else next(iter(fits.values()))
    if found.status not in SOLVED:
        reason = found.status.name.lower().replace("_", " ")
        raise FitError(f"the fit has no solution ({reason}); choose more pixels, or start from another theta")
    # What the residual speaks for belongs to a fit of everything.
    full = request["kind"] == "full" and not request["focus"]
    suggested = suggest_again(desk.scan, list(fits.values())) if full else []
    engine_s = time.process_time() - began
    if not is_sum:
        _keep(desk.made, request["id"], _Made(counts=counts[numbers[0]], fit=found), _MOST_FITS)
    strongest = max(fits.values(), key=lambda fit: float(fit.counts.sum()))
    packed = pack_fit(found, detector, overlaps=find_overlaps(strongest) if full else None)
    if not full:
        base = find_base(numbers[0], elements, desk)
        packed["parameters"] = _show_request(packed["parameters"], request, base)
    return {
        **packed,
        "elements": list(elements),
        "suggested": pack_suggested(suggested),
        "engine_s": engine_s,
        "cpu_s": time.process_time() - began,
    }


def find_base(detector: int, elements: tuple[str, ...], desk: Desk) -> SpectrumFit:
    """Fit of the whole scan with a list of elements, as a run gives it; made once."""
    key = (detector, elements)
    if key in desk.bases:
        desk.bases.move_to_end(key)
        return desk.bases[key]
    if elements == desk.scan.elements and not desk.bases:
        # Once, before any other.
        for d, one in fit_as_extended(desk.scan).items():
            desk.bases[d, elements] = one
        if key in desk.bases:
            return desk.bases[key]
    fit = fit_whole(desk.scan, detector, elements)
    _keep(desk.bases, key, fit, _MOST_BASES)
    return fit


def _counts_of(request: Mapping[str, Any], detector: int, desk: Desk) -> Tensor:
    """Counts (channel,) that came with the request; without them those of the whole scan."""
    sent = request["counts"]
    if sent is not None:
        values = np.frombuffer(base64.b64decode(sent[str(detector)]), dtype="<i8")
        return torch.from_numpy(values.astype(np.float64))
    if detector not in desk.whole:
        desk.whole[detector] = read_scan_counts(desk.scan, detector)
    return desk.whole[detector]


def _fit_detector(
    request: Mapping[str, Any], detector: int, elements: tuple[str, ...], counts: Tensor, desk: Desk
) -> SpectrumFit:
    base = find_base(detector, elements, desk)
    if base.status not in SOLVED:
        raise FitError(
            f"the spectrum of the whole scan has no solution with these elements ({base.status.name.lower()}); change "
            "the list"
        )
    if request["focus"]:
        fit = api.fit_amplitudes(counts, _find_held(request, base, counts, desk), only=request["focus"])
    elif request["kind"] == "amplitudes":
        fit = api.fit_amplitudes(counts, base, theta=request["values"])
    elif request["counts"] is None and _changes_nothing(request, base):
        return base
    else:
        fit = api.refine(
            counts,
            base,
            theta=request["values"],
            fixed=request["fixed"],
            free=request["free"],
            bounds={name: (ends[0], ends[1]) for name, ends in request["bounds"].items()},
            same_counts=request["counts"] is None,
        )
    return carry_factor(desk.scan, fit, str(detector))


def _changes_nothing(request: Mapping[str, Any], base: SpectrumFit) -> bool:
    """Whether a request says no more than the run did: its fit begins where that of the run did."""
    own = dict(zip(base.parameter_names, base.theta.tolist(), strict=True))
    free = dict(zip(base.parameter_names, base.free.tolist(), strict=True))
    moved = any(value != own[name] for name, value in request["values"].items())
    freed = any(not free[name] for name in request["free"])
    return not moved and not freed and not any(free[name] for name in request["fixed"]) and not request["bounds"]


def _find_held(request: Mapping[str, Any], base: SpectrumFit, counts: Tensor, desk: Desk) -> SpectrumFit:
    """The fit of these counts that a focus holds: that of the parent, else the amplitudes at this theta."""
    parent = desk.made.get(request["parent"] or "")
    if parent is None or not torch.equal(parent.counts, counts) or parent.fit.parameter_names != base.parameter_names:
        return api.fit_amplitudes(counts, base, theta=request["values"])
    held = parent.fit
    theta = dict(zip(held.parameter_names, held.theta.tolist(), strict=True))
    # Numbers of a page may be rounded.
    if moved := [n for n, value in request["values"].items() if not math.isclose(value, theta[n], rel_tol=_ROUNDED)]:
        raise FitError(f"a focus holds theta, but {', '.join(moved)} changed since the last fit; leave the focus first")
    return held if held.component_names == base.component_names else extend_fit(held, base)


def _show_request(parameters: list[Json], request: Mapping[str, Any], base: SpectrumFit) -> list[Json]:
    """Rows of theta as a full fit has them: at a fixed theta nothing is free, but the table stays what it was."""
    held, freed = set(request["fixed"]), set(request["free"])
    rows = []
    for row, free, low, high in zip(
        parameters, base.free.tolist(), base.theta_lower.tolist(), base.theta_upper.tolist(), strict=True
    ):
        lower, upper = request["bounds"].get(row["name"], (None, None))
        rows.append(
            {
                **row,
                "free": (free or row["name"] in freed) and row["name"] not in held,
                "lower": low if lower is None else lower,
                "upper": high if upper is None else upper,
            }
        )
    return rows


def _keep(store: OrderedDict[Any, Any], key: object, value: object, most: int) -> None:
    store[key] = value
    while len(store) > most:
        store.popitem(last=False)


@dataclass(slots=True, kw_only=True)
class _Switch:
    """Whether a fit is running, which a signal may end."""

    is_fitting: bool = False

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Leave the fit that is running; between two fits nothing happens."""
        if self.is_fitting:
            self.is_fitting = False
            raise _Interrupted


def reply(request: Mapping[str, Any], desk: Desk, switch: _Switch) -> Json:
    """The line out for a line in: whatever goes wrong in a fit is an answer, too."""
    try:
        switch.is_fitting = True
        fit = answer(request, desk)
        switch.is_fitting = False
    except _Interrupted:
        return {"id": request["id"], "state": "cancelled"}
    except HpcxrfError as error:
        switch.is_fitting = False
        return {"id": request["id"], "state": "failed", "reason": _strip(str(error))}
    except Exception as error:  # noqa: BLE001  the process lives on, and the page says what happened
        switch.is_fitting = False
        traceback.print_exc()
        reason = f"a fault of the program ({type(error).__name__}: {error}); report it with what was clicked before"
        return {"id": request["id"], "state": "failed", "reason": reason}
    return {"id": request["id"], "state": "done", "fit": fit}


def _strip(text: str) -> str:
    """A message without the name of the library's function, which nobody called by name."""
    for function in ("refine: ", "fit_amplitudes: "):
        text = text.removeprefix(function)
    return text


def serve(lines: TextIO, write: Callable[[Json], None], desk: Desk, switch: _Switch) -> None:
    """Answer requests until there are no more."""
    for line in lines:
        write(reply(json.loads(line), desk, switch))


def main(arguments: Sequence[str]) -> None:
    """Open a dataset and serve; what is printed anywhere goes to the error output."""
    began = time.perf_counter()
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    switch = _Switch()
    signal.signal(INTERRUPT, switch.interrupt)

    def write(record: Json) -> None:
        output.write(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
        output.flush()

    try:
        prepare_process()
        scan = open_stored_scan(Path(arguments[0]), arguments[1])
        desk = Desk(scan=scan)
        find_base(scan.members[0] if scan.members else 0, scan.elements, desk)
    except HpcxrfError as error:
        write({"state": "failed", "reason": str(error)})
        return
    write({"state": "ready", "seconds": time.perf_counter() - began})
    serve(sys.stdin, write, desk, switch)


if __name__ == "__main__":
    main(sys.argv[1:])
