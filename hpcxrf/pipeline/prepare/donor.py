"""The fit of another scan at which that of a dataset begins, read from its results store in the same run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hpcxrf.errors import OutputError
from hpcxrf.fitting.spectrum.warm import WarmStart, measure_unexplained
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note
from hpcxrf.pipeline.records import DatasetJob, Donor
from hpcxrf.store.packed import read_root
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE

_NO_THETA: Final = "the donor has no fit that can be believed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DonorFit:
    """What a donor gives."""

    detectors: Mapping[int, WarmStart] = field(default_factory=dict)
    """Fits by number of the detector, those that can be believed."""
    reason: str = ""
    """Why there are none; empty: there are, or the dataset has no donor."""
    notes: tuple[Note, ...] = ()


def read_donor(job: DatasetJob) -> DonorFit:
    """Read the fits of a dataset's donor, which has ended; one that failed gives none, and stops no other."""
    if job.donor is None:
        return DonorFit()
    try:
        attributes = read_root(RunDir(path=job.run_dir).results_store(job.donor.dataset_id)).get("attributes", {})
        found = dict(_read_starts(attributes)) if attributes.get(COMPLETE_ATTRIBUTE) else {}
    except (OutputError, KeyError, TypeError, ValueError) as error:
        return _begin_cold(job.donor, f"the donor has no results: {str(error).splitlines()[0]}")
    return DonorFit(detectors=found) if found else _begin_cold(job.donor, _NO_THETA)


def describe_start(donor: Donor, fit: DonorFit, began: Sequence[str]) -> dict[str, Any]:
    """Where the searches of a dataset began, as JSON values of its results store.

    Args:
        donor: donor of the dataset.
        fit: what it gave.
        began: of `fit_detectors`.
    """
    cold = f"cold: {fit.reason or _NO_THETA}"
    return {
        "donor": donor.dataset_id,
        "donor_stamp": donor.stamp,
        "detectors": {str(d): how or cold for d, how in enumerate(began)},
    }


def _begin_cold(donor: Donor, reason: str) -> DonorFit:
    text = f"the fit does not begin at that of {donor.dataset_id}: {reason}"
    return DonorFit(reason=reason, notes=(Note("fact", text),))


def _read_starts(attributes: Mapping[str, Any]) -> list[tuple[int, WarmStart]]:
    merits = attributes["merit_by_detector"]
    starts = []
    for name, theta in attributes["theta_by_detector"].items():
        merit = merits[name]
        verdict = Verdict(merit["verdict"])
        if theta is None or verdict not in {Verdict.GOOD, Verdict.DOUBTFUL} or None in merit.values():
            continue
        values = {str(parameter): float(value) for parameter, value in theta.items()}
        if all(map(math.isfinite, values.values())):
            left = measure_unexplained(float(merit["r2"]), float(merit["r2_expected"]))
            starts.append((int(name), WarmStart(theta=values, verdict=verdict, unexplained=left)))
    return starts
