"""Which elements a spectrum shows, when nobody lists them.

A few energy axes race, each with the families that it makes of the peaks (`hpcxrf.fitting.axis.race`). The families of
the best one are fitted as a list would be. On that fit what its residual speaks for joins, and every family is weighed
once more (`hpcxrf.fitting.axis.review`): one that is not worth its price is withdrawn, one that another explains better
is exchanged, and one that another explains as well is said to be indistinguishable from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.binned import families_by_name
from hpcxrf.fitting.axis.candidates import Axes, find_axes
from hpcxrf.fitting.axis.doubts import ANCHOR_Z, describe_rivals, is_apart, judge_unlisted, leaves_much
from hpcxrf.fitting.axis.incident import SHIFTS_KEV
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.axis.plausibility import is_expected, is_possible
from hpcxrf.fitting.axis.race import Runner, finish, is_same_axis, list_finalists, run_first_stage
from hpcxrf.fitting.axis.review import EXCHANGE, Review, cost_of, price_at, review
from hpcxrf.fitting.axis.verdict import judge_found
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.candidates import build_candidate_lines
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit
from hpcxrf.fitting.spectrum.prepare import DEFAULT_ENERGY_MIN_KEV, FitOptions, build_problem, lines_at, lines_outside
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.theta import INCIDENT, WRITTEN, AxisTrust
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.parameters import INDEX, PARAMETERS, replace_values

Array = NDArray[np.float64]

Sureness = Literal["certain", "probable", "indistinguishable"]

_KEPT_AXES: Final = 14
# Where the best axis leaves this much, or where there are too few counts to leave anything, the incident energy may be
# another one: with an elastic peak that is looked for 1 keV off, all families shifted by one in Z explain the peaks
# nearly as well.
_LEFT_CHI2: Final = 1.3
_FEW_COUNTS: Final = 3e4
_ROUNDS: Final = 4
# Its axis is known by peaks to some tens of eV.
_BY_PEAKS: Final = AxisTrust(offset_sd_kev=0.03, slope_sd=0.003, sag_sd_kev=0.02)
# Another name is worth a word if it is hardly less common.
_RIVAL_COST: Final = 2.5
_SWAP_GAIN: Final = 1.0
# Lines nearer to the lower end of the fit range than this are cut by it.
_INSIDE_KEV: Final = 0.1
# Least z of M lines that the L lines of their element imply: 5 % of those that air or a window takes have more.
_IMPLIED_Z: Final = 1.645
# Half chi2 beyond its price that a family below its decision limit has to explain: the limit allows for flaws of its
# own lines too, which it would not have if it were absent. Of eight that had more, six were there.
_GAIN_BELOW_LIMIT: Final = 5.0
# Least z of a certain family that nothing imitates, and of one that the flaws of the model do.
_CERTAIN: Final = {"K": (5.0, 20.0), "L": (8.0, 30.0)}
_SOLVED: Final = frozenset({FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS})

_Solution = tuple[SpectrumFit, FitProblem, dict[str, Review]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundElements:
    """The families that a spectrum shows."""

    names: tuple[str, ...]
    """Families and pile-ups, as in a list of elements."""
    sureness: dict[str, Sureness]
    """By name: `certain` where a family stands out by itself, `indistinguishable` where another one would explain the
    spectrum as well, else `probable`."""
    z: dict[str, float]
    """By name: its excess in standard deviations of counting noise and flaws of the model, all else fitted."""
    rivals: dict[str, tuple[str, ...]]
    """By name of the families that are indistinguishable, the others, the likeliest first."""
    fit: SpectrumFit
    """The fit with these names; its flags say where the axis is doubtful."""


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
    spectrum = _Spectrum(
        full=counts.to(torch.float64).cpu(),
        peaks=find_peaks(counts.to(torch.float64).cpu().numpy()),
        nominal_kev=incident_energy_kev,
        calibration=calibration,
        detector=detector or Detector(),
        options=options or FitOptions(),
    )
    full, peaks = spectrum.full, spectrum.peaks
    runners, solution = _search(spectrum)
    if solution is None:
        raise FitError(
            "no energy axis puts the peaks of the spectrum on lines of elements; list the elements (--elements), or "
            "give a calibration"
        )
    fit, problem, reviews = solution
    unsure, shown = _list_unsure(reviews), _list_found(fit)
    fit = replace(fit, problem=problem)
    if calibration is None:
        # The flags compare the elastic peak with what was given.
        posed = replace(problem, parameters=replace_values(problem.parameters, {INCIDENT: incident_energy_kev}))
        fit = judge_found(fit, full, peaks, posed, [*describe_rivals(runners), *judge_unlisted(fit, peaks, reviews)])
    return FoundElements(
        names=problem.table.component_names,
        sureness={name: _judge(name, one, unsure, found=shown[name]) for name, one in reviews.items()},
        z={name: one.z for name, one in reviews.items()},
        rivals=unsure,
        fit=fit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spectrum:
    """A spectrum, and what is known of it."""

    full: Tensor
    """(channel,) float64 raw counts."""
    peaks: Peaks
    nominal_kev: float
    calibration: EnergyCalibration | None
    detector: Detector
    options: FitOptions

    @property
    def elastic(self) -> bool:
        """False for a tube."""
        return self.options.source == "monochromatic"


def _search(spectrum: _Spectrum) -> tuple[list[Runner], _Solution | None]:
    """Axes that race, best first, and the fit with the families of the best; in doubt about other energies too."""
    began = _race_first(spectrum, 0.0)
    runners = _finish(spectrum, began)
    scannable = spectrum.elastic and spectrum.calibration is None
    few = float(spectrum.full.sum()) < _FEW_COUNTS
    if scannable and (few or not runners or runners[0].found.chi2 > _LEFT_CHI2):
        runners, scannable = _scan(spectrum, began, runners), False
    solution = _solve(spectrum, runners)
    if scannable and (solution is None or leaves_much(solution[0])):
        known, runners = runners, _scan(spectrum, began, runners)
        if runners and (not known or runners[0] is not known[0]):
            solution = _solve(spectrum, runners) or solution
    return runners, solution


def _race_first(spectrum: _Spectrum, shift_kev: float) -> list[Runner]:
    """Axes about an incident energy beside the nominal one after the first stage of their race, best first."""
    low = spectrum.options.energy_range_kev[0] if spectrum.options.energy_range_kev else DEFAULT_ENERGY_MIN_KEV
    incident_kev, elastic = spectrum.nominal_kev + shift_kev, spectrum.elastic
    axes = _list_axes(spectrum.peaks, incident_kev, spectrum.calibration, elastic=elastic)
    return run_first_stage(
        spectrum.full, spectrum.peaks, axes, incident_kev, detector=spectrum.detector, elastic=elastic, low_kev=low
    )


def _finish(spectrum: _Spectrum, runners: Sequence[Runner]) -> list[Runner]:
    return finish(runners, spectrum.full.shape[0], spectrum.nominal_kev)


def _scan(spectrum: _Spectrum, began: Sequence[Runner], known: Sequence[Runner]) -> list[Runner]:
    """Known axes and the best of those about other incident energies, best first.

    Args:
        spectrum: counts and what is known of them.
        began: axes about the nominal energy, after the first stage.
        known: those of them that came to the end.
    """
    others = [one for shift_kev in SHIFTS_KEV for one in _race_first(spectrum, shift_kev)]
    n_channels = spectrum.full.shape[0]
    finalists = list_finalists(_drop_same(others, n_channels, spectrum.nominal_kev), began)
    return _drop_same([*known, *_finish(spectrum, finalists)], n_channels, spectrum.nominal_kev)


def _solve(spectrum: _Spectrum, runners: Sequence[Runner]) -> _Solution | None:
    """The fit with the families of the best axis; None where it has none, or has no end."""
    if not runners:
        return None
    problem = _pose(runners[0], spectrum.full, spectrum.calibration, spectrum.detector, spectrum.options)
    fit = fit_spectrum(spectrum.full, problem) if problem is not None else None
    if problem is None or fit is None or fit.status not in _SOLVED:
        return None
    return _revise(spectrum.full, fit, problem, spectrum.detector)


def _drop_same(runners: Sequence[Runner], n_channels: int, incident_kev: float) -> list[Runner]:
    """Best first; of those on one axis the best."""
    kept: list[Runner] = []
    for one in sorted(runners, key=lambda r: r.against):
        if not any(is_same_axis(one.found.at, other.found.at, n_channels, incident_kev) for other in kept):
            kept.append(one)
    return kept


def _list_axes(peaks: Peaks, incident_kev: float, calibration: EnergyCalibration | None, *, elastic: bool) -> Axes:
    if calibration is not None:
        offset, slope = _chord(calibration, incident_kev)
        return Axes(offset_kev=np.array([offset]), slope_kev=np.array([slope]), score=np.zeros(1))
    rows = {p.name: p for p in PARAMETERS}
    offset_row, slope_row = rows["energy_offset"], rows["energy_slope"]
    return find_axes(
        peaks,
        incident_kev,
        offsets_kev=(offset_row.lower, offset_row.upper),
        slopes_kev=(slope_row.lower, slope_row.upper),
        elastic=elastic,
        keep=_KEPT_AXES,
    )


def _chord(calibration: EnergyCalibration, incident_kev: float) -> tuple[float, float]:
    """The straight axis that meets a bent one at 1 keV and at the incident energy."""
    bend, slope = calibration.quadratic_kev, calibration.slope_kev
    first, last = ((e - calibration.offset_kev) / slope for e in (1.0, incident_kev))
    return calibration.offset_kev - bend * first * last, slope + bend * (first + last)


def _pose(
    best: Runner, full: Tensor, calibration: EnergyCalibration | None, detector: Detector, options: FitOptions
) -> FitProblem | None:
    """The problem with the families of the best axis; None where it has none."""
    names, at = best.found.names, best.found.at
    if not names:
        return None
    found = EnergyCalibration(offset_kev=at.offset_kev, slope_kev=at.slope_kev)
    problem = build_problem(
        names,
        at.incident_kev,
        n_channels=full.shape[0],
        calibration=calibration or found,
        trust=_BY_PEAKS if calibration is None else WRITTEN,
        detector=detector,
        options=options,
    )
    outside = lines_outside(problem)
    inside = [n for n in problem.table.component_names if n not in outside]
    if not inside:
        return None
    return replace(problem, table=lines_at(at.incident_kev, inside, detector, None)) if outside else problem


def _revise(full: Tensor, fit: SpectrumFit, problem: FitProblem, detector: Detector) -> _Solution:
    """Let families join, be exchanged and withdrawn until nothing changes.

    What the residual speaks for is looked for once, and so are M lines where the L lines of the element stand out: they
    are there before anything else is, in whose place another name may have explained them. What has left does not come
    back.
    """
    left: set[str] = set()
    for turn in range(_ROUNDS):
        names = problem.table.component_names
        reviews = _review(fit, problem, detector)
        joining = [*_list_expected(fit, problem, reviews), *_list_joining(fit, problem, detector)] if turn == 0 else []
        staying = [n for n in _keep(names, reviews, left, fit) if n not in left]
        wanted = [*dict.fromkeys([*staying, *joining])]
        left |= set(names) - set(wanted)
        if not wanted or set(wanted) == set(names):
            return fit, problem, reviews
        fit, problem = _refit(full, fit, problem, wanted, detector)
    return fit, problem, _review(fit, problem, detector)


def _review(fit: SpectrumFit, problem: FitProblem, detector: Detector) -> dict[str, Review]:
    fitted = replace(problem, table=fit.table)
    return review(evaluate_fit(fit, fitted), build_candidate_lines(fitted, detector), detector=detector)


def _list_joining(fit: SpectrumFit, problem: FitProblem, detector: Detector) -> list[str]:
    """What the residual of a fit speaks for, as far as it is worth its price."""
    families, incident = families_by_name(), float(fit.theta[INDEX[INCIDENT]])
    names = {*problem.table.component_names}
    joining = []
    for one in suggest(fit, replace(problem, table=fit.table), efficiency=detector):
        cost = cost_of(one.name, names)
        possible = one.name not in families or is_possible(one.name, names, incident)
        if possible and one.name not in names and 0.5 * one.z**2 > price_at(fit) + cost:
            joining.append(one.name)
    return joining


def _list_expected(fit: SpectrumFit, problem: FitProblem, reviews: Mapping[str, Review]) -> list[str]:
    """M families in the fit range, not listed, of elements whose L lines stand out."""
    families, names = families_by_name(), problem.table.component_names
    incident = float(fit.theta[INDEX[INCIDENT]])
    lone = [f"{n.removesuffix('_L')}_M" for n in names if n.endswith("_L") and reviews[n].z > ANCHOR_Z]
    return [
        n
        for n in lone
        if n in families
        and n not in names
        and is_possible(n, {*names}, incident)
        and families[n].alpha_kev > problem.energy_min_kev + _INSIDE_KEV
    ]


def _keep(names: Sequence[str], reviews: Mapping[str, Review], left: set[str], fit: SpectrumFit) -> list[str]:
    """The families that stay, or those that take their place; of several near to each other only one leaves.

    One leaves that is not worth its price, or below its decision limit and not worth much more. M lines of an element
    whose L lines stand out need no evidence of their own, as an atom that emits L lines is left with holes in the M
    shell: they stay where they are seen at all.
    """
    families, incident = families_by_name(), float(fit.theta[INDEX[INCIDENT]])
    leaving: dict[str, str | None] = {}
    found = _list_found(fit)
    shown = {n for n in names if reviews[n].gain > 0.0}
    for name in sorted(names, key=lambda n: reviews[n].gain):
        one = reviews[name]
        cost = cost_of(name, names)
        odds = {r: c + cost_of(r, names) - cost for r, c in one.rivals.items() if r not in left and r not in names}
        better = min(odds, key=lambda r: odds[r], default=None)
        swapped = better is not None and odds[better] < -_SWAP_GAIN and one.gain - odds[better] > 0.0
        swapped = swapped and not (name in families and is_expected(name, names))
        impossible = name in families and not is_possible(name, shown, incident)
        implied = name in families and is_expected(name, names) and reviews[_inner_of(name)].z > ANCHOR_Z
        worthless = one.z <= _IMPLIED_Z if implied else one.gain <= (0.0 if found[name] else _GAIN_BELOW_LIMIT)
        if (swapped or worthless or impossible) and all(is_apart(name, other) for other in leaving):
            leaving[name] = better if swapped and better not in leaving.values() else None
    kept = [leaving.get(name, name) for name in names]
    stay = {n for n in kept if n is not None}
    return [n for n in dict.fromkeys(kept) if n is not None and _has_parents(n, stay)]


def _list_found(fit: SpectrumFit) -> dict[str, bool]:
    """Whether a component is above its decision limit, by name."""
    return dict(zip(fit.component_names, fit.found.tolist(), strict=True))


def _inner_of(name: str) -> str:
    """The L lines of the element of M lines."""
    return f"{name.removesuffix('_M')}_L"


def _has_parents(name: str, others: set[str]) -> bool:
    """False for a pile-up of a family that is not there."""
    families = families_by_name()
    if name in families:
        return True
    return all(part in others for part in _list_parents(name))


def _list_parents(name: str) -> tuple[str, ...]:
    """The two families of a pile-up."""
    return tuple(s if shell == "K" else f"{s}_{shell}" for s, shell in parse_component(name).families)


def _refit(
    full: Tensor, fit: SpectrumFit, problem: FitProblem, names: Sequence[str], detector: Detector
) -> tuple[SpectrumFit, FitProblem]:
    table = lines_at(problem.table.incident_energy_kev, names, detector, problem.branching)
    moved = start_from(replace(problem, table=table), fit.theta)
    return fit_spectrum(full, moved, starts=fit.theta[None]), moved


def _list_unsure(reviews: Mapping[str, Review]) -> dict[str, tuple[str, ...]]:
    """Families that cannot be told from others as common as may be, with these."""
    unsure = {}
    for name, one in reviews.items():
        most = max(_RIVAL_COST, cost_of(name, [*reviews]))
        alike = [r for r, cost in one.rivals.items() if cost < EXCHANGE and cost_of(r, [*reviews]) <= most]
        if alike:
            unsure[name] = tuple(sorted(alike, key=lambda r: one.rivals[r] + cost_of(r, [*reviews])))
    return unsure


def _judge(name: str, one: Review, unsure: Mapping[str, tuple[str, ...]], *, found: bool) -> Sureness:
    if name in unsure:
        return "indistinguishable"
    least_z, most_z = _CERTAIN.get(name.partition("_")[2] or "K", _CERTAIN["L"])
    return "certain" if found and one.z > min(least_z / max(one.surviving, 1e-6), most_z) else "probable"
