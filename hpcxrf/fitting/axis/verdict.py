"""How sure the energy axis of a fit is, judged by what was found in the spectrum and not by what was listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.axis.flags import AMBIGUOUS, AXIS_FLAGS, INCIDENT_DOUBTFUL, NOT_FOUND
from hpcxrf.fitting.axis.naming import name_peaks
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.axis.tables import list_families, list_outer_lines
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.theta import INCIDENT
from hpcxrf.notes import Note
from hpcxrf.physics.anode_scatter import ScatterCopies, list_strong_copies
from hpcxrf.physics.model import ELASTIC, energy_kev
from hpcxrf.physics.parameters import INDEX

Array = NDArray[np.float64]

# A family is found if its amplitude is this many standard deviations, and this share of the largest.
_FOUND_Z: Final = 10.0
_FOUND_SHARE: Final = 0.01
# Lines nearer to each other than this fix an axis no better than one of them.
_APART_KEV: Final = 0.35
# Peaks that fix an axis; two would leave offset and slope without a check.
_LEAST_ANCHORS: Final = 3
_NO_ANCHORS: Final = 1
# Names that are not the user's must be more, and common.
_LEAST_UNLISTED: Final = 4
_USUAL_COST: Final = 1.5
_ABSENT_Z: Final = 3.0
_MOST_ABSENT: Final = 0.6
_STRONG: Final = 0.03
_STRONG_Z: Final = 15.0
# Share of a peak that the fit leaves: a line ratio may be wrong by a third, a peak that nothing explains is whole.
_LEFT: Final = 0.6
_AT_LINE_KEV: Final = 0.035
# K-beta peaks often stand in a stronger neighbour.
_AT_BETA_KEV: Final = 0.08
_COMMON_COST: Final = 3.0
_ABOVE_KEV: Final = 0.45
_ABOVE_SHARE: Final = 0.02
_ZERO_KEV: Final = 0.06
# The elastic peak fixes an axis if it stands where it is said to be.
_SAME_INCIDENT_KEV: Final = 0.35
_SOLVED: Final = frozenset({FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS})
_MOVED: Final = "the elastic peak stands at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A flag with the sentence that says what speaks for it."""

    flag: str
    text: str

    def note(self) -> Note:
        """Warning with flag, reason and remedy."""
        return Note("warning", f"{self.flag}: {self.text}; {_REMEDIES[self.flag]}")


_REMEDIES: Final[Mapping[str, str]] = {
    AMBIGUOUS: "give the incident energy, more elements or a calibration",
    NOT_FOUND: "give a calibration, or check elements and incident energy",
    INCIDENT_DOUBTFUL: "check the incident energy",
}


def judge_found(
    fit: SpectrumFit, full: Tensor, peaks: Peaks, posed: FitProblem, rivals: Sequence[Finding] = ()
) -> SpectrumFit:
    """Set the flags of a fit whose energy axis was determined from the spectrum.

    Args:
        fit: with the problem that it was fitted with.
        full: (channel,) counts of the full spectrum.
        peaks: its peaks.
        posed: the problem as it was posed, with the nominal incident energy.
        rivals: findings on other axes.
    """
    if fit.problem is None or fit.status not in _SOLVED:
        return fit
    nominal = posed.parameters[INDEX[INCIDENT]].value
    flagged = _flag(fit, [*judge_axis(fit, fit.problem, full.cpu().numpy(), peaks, nominal), *rivals])
    if fit.problem.parameters[INDEX[INCIDENT]].value == nominal:
        return flagged
    text = f"{_MOVED} {float(fit.theta[INDEX[INCIDENT]]):.3f} keV, which is taken as incident energy, not {nominal:g}"
    return replace(flagged, notes=(*flagged.notes, Note("warning", text)))


def judge_given(fit: SpectrumFit, full: Tensor, problem: FitProblem) -> SpectrumFit:
    """Set the flags of a fit that began from a given calibration: only what contradicts it counts against it."""
    if fit.status not in _SOLVED:
        return fit
    counts = full.to(torch.float64).cpu().numpy()
    nominal = problem.parameters[INDEX[INCIDENT]].value
    return _flag(fit, judge_axis(fit, problem, counts, find_peaks(counts), nominal, given=True))


def keep_axis_notes(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The notes of a fit that speak of its energy axis, for a second fit on the same axis."""
    return tuple(n for n in notes if n.text.partition(":")[0] in AXIS_FLAGS or n.text.startswith(_MOVED))


def _flag(fit: SpectrumFit, findings: Sequence[Finding]) -> SpectrumFit:
    flags = dict.fromkeys([*fit.flags, *(one.flag for one in findings)])
    return replace(fit, flags=tuple(flags), notes=(*fit.notes, *(one.note() for one in findings)))


def judge_axis(
    fit: SpectrumFit, problem: FitProblem, full: Array, peaks: Peaks, nominal_kev: float, *, given: bool = False
) -> list[Finding]:
    """Find what speaks against the energy axis of a fit.

    Args:
        fit: a finished fit.
        problem: what it was fitted with.
        full: (channel,) counts of the full spectrum.
        peaks: its peaks.
        nominal_kev: incident energy as it was given.
        given: True: the axis began as a calibration, and needs no peaks that fix it.

    Returns:
        Findings, each flag at most once.
    """
    energy = energy_kev(fit.theta.cpu(), torch.from_numpy(peaks.channel)).numpy()
    anchors = _find_anchors(fit, problem, energy, peaks, nominal_kev)
    if len(anchors) < _LEAST_ANCHORS:
        # The list may lack what the spectrum is made of.
        unlisted = _name_anchors(fit, problem, energy, peaks)
        anchors = unlisted if len(unlisted) >= _LEAST_UNLISTED else anchors
    doubts = _judge_peaks(fit, problem, energy, peaks, full)
    if len(anchors) < _LEAST_ANCHORS and not given:
        seen = ", ".join(anchors) or "nothing"
        doubts.append(f"{len(anchors)} peaks fix it ({seen}), {_LEAST_ANCHORS} are needed")
    # Lists of a beamline hold what most of its samples lack: beside a calibration that holds, that means nothing.
    if len(anchors) <= (_NO_ANCHORS if given else _LEAST_ANCHORS):
        doubts += _judge_families(fit)
    found = [Finding(flag=NOT_FOUND, text="; ".join(doubts))] if doubts else []
    return found + _judge_incident(fit, problem, energy, peaks)


def _z(fit: SpectrumFit) -> Array:
    amplitude, sigma = fit.amplitude.cpu().numpy(), fit.amplitude_sigma.cpu().numpy()
    return np.where(sigma > 0.0, amplitude / np.where(sigma > 0.0, sigma, 1.0), 0.0)


def _find_anchors(fit: SpectrumFit, problem: FitProblem, energy: Array, peaks: Peaks, nominal_kev: float) -> list[str]:
    """Families with a peak at their main line, strongest first and apart, the elastic and the zero peak."""
    z, table, n = _z(fit), problem.table, len(problem.table.component_names)
    amplitude = fit.amplitude.cpu().numpy()
    largest = amplitude[:n].max(initial=0.0)
    named: list[tuple[str, float]] = []
    for i in np.argsort(-amplitude[:n], kind="stable"):
        if z[i] < _FOUND_Z or amplitude[i] < _FOUND_SHARE * largest:
            continue
        mine = (table.component == int(i)) & (table.escape_parent < 0)
        line = float(table.energy_kev[mine][table.ratio[mine].argmax()])
        at_peak = bool((np.abs(energy - line) < _tolerance(peaks, fit)).any())
        if at_peak and all(abs(line - other) > _APART_KEV for _, other in named):
            named.append((table.component_names[int(i)], line))
    incident = float(fit.theta[INDEX[INCIDENT]])
    if problem.elastic and ELASTIC in fit.component_names and abs(incident - nominal_kev) < _SAME_INCIDENT_KEV:
        seen = z[fit.component_names.index(ELASTIC)] > _FOUND_Z
        if seen and bool((np.abs(energy - incident) < _tolerance(peaks, fit)).any()):
            named.append(("elastic peak", incident))
    if problem.copies is not None:
        named += _find_anode_anchors(problem.copies, energy, _tolerance(peaks, fit))
    if bool((np.abs(energy) < _ZERO_KEV).any()):
        named.append(("zero peak", 0.0))
    return [name for name, _ in named]


def _find_anode_anchors(copies: ScatterCopies, energy: Array, tolerance_kev: float) -> list[tuple[str, float]]:
    """Strong lines of a tube's anode with a peak, those of a series as one unless they are apart."""
    found: list[tuple[str, float]] = []
    for line_kev, _ in list_strong_copies(copies):
        at_peak = bool((np.abs(energy - line_kev) < tolerance_kev).any())
        if at_peak and all(abs(line_kev - other) > _APART_KEV for _, other in found):
            found.append((f"{copies.anode} anode line at {line_kev:.2f} keV", line_kev))
    return found


def _name_anchors(fit: SpectrumFit, problem: FitProblem, energy: Array, peaks: Peaks) -> list[str]:
    """Common families that name strong peaks on the axis, listed or not, apart from each other."""
    strong = peaks.share > _FOUND_SHARE
    names = name_peaks(
        np.where(strong, energy, -1.0), peaks, float(fit.theta[INDEX[INCIDENT]]), elastic=problem.elastic
    )
    lines = {f.name: f.alpha_kev for f in list_families() if f.cost <= _USUAL_COST}
    named: list[str] = []
    for name in names:
        if name in lines and all(abs(lines[name] - lines[other]) > _APART_KEV for other in named):
            named.append(name)
    return named


def _tolerance(peaks: Peaks, fit: SpectrumFit) -> float:
    """Distance of a peak from its line that a neighbour may cause: half a width."""
    middle = fit.first_channel + fit.counts.shape[0] / 2.0
    return max(float(peaks.width.at(np.array([middle]))[0] * fit.theta[1]), 0.04)


def _judge_peaks(fit: SpectrumFit, problem: FitProblem, energy: Array, peaks: Peaks, full: Array) -> list[str]:
    """Strong peaks in the range that neither the fit nor any usual line explains."""
    left = _measure_left(fit, peaks, full)
    inside = (energy > problem.energy_min_kev + 0.1) & (energy < problem.energy_max_kev - 0.1)
    strong = inside & (peaks.share > _STRONG) & (peaks.z > _STRONG_Z) & (left > _LEFT)
    usual = [f for f in list_families() if f.cost <= _COMMON_COST]
    lines = [line for f in usual for line in (f.alpha_kev, *((f.beta_kev,) if f.shell == "L" else ()))]
    # Further lines of families that are strong and not listed.
    missing = [f for f in usual if (np.abs(energy[strong] - f.alpha_kev) < _AT_LINE_KEV).any()]
    betas = np.array([line for f in missing for line in (f.beta_kev, *list_outer_lines(f))])
    strange = [
        float(e)
        for e in energy[strong]
        if np.abs(np.array(lines) - e).min() > _AT_LINE_KEV and np.abs(betas - e).min(initial=np.inf) > _AT_BETA_KEV
    ]
    return [f"a strong peak at {e:.2f} keV is explained by nothing" for e in strange]


def _measure_left(fit: SpectrumFit, peaks: Peaks, full: Array) -> Array:
    """(peak,) share of each peak's area that the model leaves, over one width; 0 outside of the fit range."""
    residual = np.zeros_like(full)
    stop = fit.first_channel + fit.counts.shape[0]
    residual[fit.first_channel : stop] = (fit.counts - fit.model).cpu().numpy()
    summed = np.concatenate([[0.0], np.cumsum(residual)])
    half = peaks.width.at(peaks.channel)
    first = np.clip(np.rint(peaks.channel - half).astype(int), 0, full.size)
    last = np.clip(np.rint(peaks.channel + half).astype(int) + 1, 0, full.size)
    found: Array = (summed[last] - summed[first]) / (0.68 * peaks.area)
    return found


def _judge_families(fit: SpectrumFit) -> list[str]:
    n = len(fit.table.component_names)
    z = _z(fit)[:n]
    absent = int((z < _ABSENT_Z).sum())
    if n < _LEAST_ANCHORS or absent <= _MOST_ABSENT * n:
        return []
    return [f"{absent} of {n} listed families are not found on it"]


def _judge_incident(fit: SpectrumFit, problem: FitProblem, energy: Array, peaks: Peaks) -> list[Finding]:
    if not problem.elastic:
        return []
    row = INDEX[INCIDENT]
    incident = float(fit.theta[row])
    if bool(fit.at_bound[row]):
        text = f"the fitted incident energy {incident:.3f} keV stands at the end of its range"
        return [Finding(flag=INCIDENT_DOUBTFUL, text=text)]
    above = energy[(energy > incident + _ABOVE_KEV) & (peaks.share > _ABOVE_SHARE)]
    if above.size == 0:
        return []
    text = f"a peak at {float(above[0]):.2f} keV lies above the incident energy {incident:.3f} keV"
    return [Finding(flag=INCIDENT_DOUBTFUL, text=text)]
