"""Which elements a spectrum shows, when nobody lists them.

The strongest peaks are named on the most probable axes, K before L; each axis is fitted with its own names, and the
one that the positions of the peaks and the fit speak for is taken. What its residual speaks for joins by the matched
filter of `hpcxrf.fitting.spectrum.identify`, on the fitted model and against the usual flaws of it, until nothing is
left to find; what ends below its decision limit is withdrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.candidates import Axes, find_axes
from hpcxrf.fitting.axis.incident import find_elastic
from hpcxrf.fitting.axis.naming import name_peaks
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.axis.tables import list_families
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.prepare import FitOptions, lines_at, prepare_spectrum
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.theta import AXIS_LIMITS, AxisTrust
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.parameters import INDEX, PARAMETERS

Array = NDArray[np.float64]

Sureness = Literal["certain", "probable"]

_KEPT_AXES: Final = 14
_TRIED_AXES: Final = 4
_WINDOW: Final = 6.0
_ROUNDS: Final = 5
# Its axis is known by peaks to some tens of eV.
_BY_PEAKS: Final = AxisTrust(offset_sd_kev=0.1, slope_sd=0.01, sag_sd_kev=0.02)
# Decision limit, in standard deviations; a family under it is not claimed.
_WITHDRAWN_Z: Final = 3.0
# Cost of one more family, beside how uncommon it is.
_FAMILY_COST: Final = 4.0
_LEAST_WEIGHT: Final = 10.0
_SAME_LINE_KEV: Final = 0.03
# Another name is worth a word if it is hardly less common.
_RIVAL_COST: Final = 2.5
_CERTAIN: Final = {"K": (5.0, 0.15), "L": (8.0, 0.25), "M": (8.0, 0.25)}
_SOLVED: Final = frozenset({FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundElements:
    """The families that a spectrum shows."""

    names: tuple[str, ...]
    """Families and pile-ups, as in a list of elements."""
    sureness: dict[str, Sureness]
    """By name: `certain` where a family stands out by itself, `probable` where its shape is mostly that of others."""
    rivals: dict[str, tuple[str, ...]]
    """Other families that a probable one cannot be told from, by name: their main line is the same."""
    fit: SpectrumFit
    """The fit with these names."""


def find_elements(
    counts: Tensor,
    incident_energy_kev: float,
    *,
    calibration: EnergyCalibration | None = None,
    detector: Detector | None = None,
    options: FitOptions | None = None,
) -> FoundElements:
    """Find the families of a spectrum, and its energy axis where none is given.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        incident_energy_kev: nominal energy of the beam, to 1.6 keV.
        calibration: energy axis, where it is known.
        detector: windows and chip; None: the usual silicon drift detector.
        options: how it is fitted; None: the defaults.

    Raises:
        FitError: no axis puts the peaks of the spectrum on lines.
    """
    full, detector, options = counts.to(torch.float64), detector or Detector(), options or FitOptions()
    peaks = find_peaks(full.cpu().numpy())
    elastic = options.source == "monochromatic"
    fits = []
    for axis, score in _list_axes(peaks, incident_energy_kev, calibration, elastic=elastic):
        problem = _name_on_axis(peaks, axis, incident_energy_kev, detector, options, full.shape[0])
        if problem is not None:
            fit = fit_spectrum(full, problem)
            fits.append((_weigh(fit, full, score), fit, problem))
    sound = [one for one in fits if one[1].status in _SOLVED]
    if not sound:
        raise FitError(
            "no energy axis puts the peaks of the spectrum on lines of elements; list the elements (--elements), or "
            "give a calibration"
        )
    _, fit, problem = min(sound, key=lambda one: one[0])
    fit, problem = _add_found(full, fit, problem, detector)
    fit, problem = _withdraw(full, fit, problem, detector)
    names = problem.table.component_names
    sureness = _judge_families(fit, problem)
    possible = [f.name for f in list_families() if f.edge_kev < problem.table.incident_energy_kev]
    usual = [f.name for f in list_families() if f.cost <= _RIVAL_COST and f.name in possible]
    return FoundElements(
        names=names,
        sureness=sureness,
        rivals={n: list_rivals(n, usual) for n, sure in sureness.items() if sure == "probable"},
        fit=replace(fit, problem=problem),
    )


def _list_axes(
    peaks: Peaks, incident_kev: float, calibration: EnergyCalibration | None, *, elastic: bool
) -> list[tuple[EnergyCalibration, float]]:
    if calibration is not None:
        return [(calibration, 0.0)]
    rows = {p.name: p for p in PARAMETERS}
    offset, slope = rows["energy_offset"], rows["energy_slope"]
    found: Axes = find_axes(
        peaks,
        incident_kev,
        offsets_kev=(offset.lower, offset.upper),
        slopes_kev=(slope.lower, slope.upper),
        elastic=elastic,
        keep=_KEPT_AXES,
    )
    near = found.score >= found.score.max(initial=-np.inf) - _WINDOW
    axes = zip(found.offset_kev[near].tolist(), found.slope_kev[near].tolist(), found.score[near].tolist(), strict=True)
    listed = [(EnergyCalibration(offset_kev=o, slope_kev=s), score) for o, s, score in axes]
    return listed[:_TRIED_AXES]


def _name_on_axis(
    peaks: Peaks, axis: EnergyCalibration, nominal_kev: float, detector: Detector, options: FitOptions, n_channels: int
) -> FitProblem | None:
    """The problem with the families that name the peaks on this axis; None where they name nothing."""
    offset, slope = np.array([axis.offset_kev]), np.array([axis.slope_kev])
    incident = nominal_kev
    if options.source == "monochromatic":
        at = float(find_elastic(peaks, offset, slope, nominal_kev)[0])
        incident = at if np.isfinite(at) and at > AXIS_LIMITS["coherent_sct_energy"][0] else nominal_kev
    energy = axis.offset_kev + axis.slope_kev * peaks.channel
    names = name_peaks(energy, peaks, incident, elastic=options.source == "monochromatic")
    try:
        return (
            prepare_spectrum(
                names,
                incident,
                n_channels=n_channels,
                calibration=axis,
                trust=_BY_PEAKS,
                detector=detector,
                options=options,
            )
            if names
            else None
        )
    except FitError:
        # On this axis the fit range lies outside of the spectrum.
        return None


def _weigh(fit: SpectrumFit, full: Tensor, score: float) -> float:
    """What speaks against an axis: misfit, names, and the positions of the peaks."""
    if fit.status not in _SOLVED:
        return float("inf")
    n = fit.counts.shape[0]
    outside = full.sum() - fit.counts.sum()
    misfit = float(((fit.counts - fit.model).square() / fit.model.clamp(min=1.0)).sum() + 0.1 * outside)
    costs = {f.name: f.cost for f in list_families()}
    named = sum(_FAMILY_COST + costs.get(name, 2.0) for name in fit.table.component_names)
    weight = min(max(0.5 * n * n / max(misfit, 1.0), _LEAST_WEIGHT), 0.5 * n)
    return weight * float(np.log(max(misfit, 1.0))) + named - score


def _add_found(
    full: Tensor, fit: SpectrumFit, problem: FitProblem, detector: Detector
) -> tuple[SpectrumFit, FitProblem]:
    """Families of the residual, strongest first, until none is left."""
    for _ in range(_ROUNDS):
        found = [s.name for s in suggest(fit, replace(problem, table=fit.table), efficiency=detector)]
        listed = problem.table.component_names
        wanted = [n for n in found if n not in listed and _is_possible(n, fit, problem)]
        if not wanted:
            break
        fit, problem = _refit(full, fit, problem, (*listed, *wanted), detector)
    return fit, problem


def _is_possible(name: str, fit: SpectrumFit, problem: FitProblem) -> bool:
    """False for L lines without the K lines that the beam excites and the range holds, and for M lines likewise.

    Nor does a family join whose main line is that of one which is named already: the two cannot be told apart.
    """
    symbol, _, shell = name.partition("_")
    families = {f.name: f for f in list_families()}
    if list_rivals(name, problem.table.component_names):
        return False
    if shell not in {"L", "M"} or name not in families:
        return True
    incident = float(fit.theta[INDEX["coherent_sct_energy"]])
    outer = [symbol] if shell == "L" else [symbol, f"{symbol}_L"]
    seen = [families[o] for o in outer if o in families]
    wanted = [f for f in seen if f.edge_kev < incident - 0.3 and f.alpha_kev < problem.energy_max_kev - 0.1]
    return all(f.name in problem.table.component_names for f in wanted)


def list_rivals(name: str, others: Sequence[str]) -> tuple[str, ...]:
    """List the families among others whose main line lies within 30 eV of a family's own."""
    lines = {f.name: f.alpha_kev for f in list_families()}
    if name not in lines:
        return ()
    return tuple(o for o in others if o != name and o in lines and abs(lines[o] - lines[name]) < _SAME_LINE_KEV)


def _withdraw(
    full: Tensor, fit: SpectrumFit, problem: FitProblem, detector: Detector
) -> tuple[SpectrumFit, FitProblem]:
    """The fit without what ended below its decision limit; at most twice, as what is left changes a little."""
    for _ in range(2):
        names = problem.table.component_names
        z = (fit.amplitude / fit.amplitude_sigma.clamp(min=1e-300))[: len(names)]
        scale = max(fit.reduced_chi2, 1.0) ** 0.5
        kept = tuple(n for n, one in zip(names, z.tolist(), strict=True) if one > _WITHDRAWN_Z * scale)
        if len(kept) == len(names) or not kept:
            break
        fit, problem = _refit(full, fit, problem, kept, detector)
    return fit, problem


def _refit(
    full: Tensor, fit: SpectrumFit, problem: FitProblem, names: Sequence[str], detector: Detector
) -> tuple[SpectrumFit, FitProblem]:
    table = lines_at(problem.table.incident_energy_kev, names, detector, problem.branching)
    moved = start_from(replace(problem, table=table), fit.theta)
    return fit_spectrum(full, moved, starts=fit.theta[None]), moved


def _judge_families(fit: SpectrumFit, problem: FitProblem) -> dict[str, Sureness]:
    """Certain where a family is strong and its shape not that of others together, by the ratio of its two errors."""
    found: dict[str, Sureness] = {}
    for i, name in enumerate(problem.table.component_names):
        amplitude, sigma = float(fit.amplitude[i]), float(fit.amplitude_sigma[i])
        shape = fit.component_counts[i] / max(amplitude, 1e-300)
        alone = float((shape.square() / fit.model.clamp(min=0.1)).sum()) ** -0.5
        least_z, survival = _CERTAIN.get(name.partition("_")[2] or "K", _CERTAIN["L"])
        sure = amplitude > least_z * sigma and alone > survival * sigma
        found[name] = "certain" if sure else "probable"
    return found
