"""The curve of a calibration: the factor between calculated sensitivities and the responses of standards, per shell.

    own point:       rate / areal density            counts/s at the reference I0, per ug/cm2
    curve:           factor(shell) * sensitivity(family)

The factor is fitted in the logarithm, `y_i = ln(response_i / sensitivity_i)`, one for K, L and M each. What is left of
the y_i beyond the errors of certificates and counts is the scatter of the curve: an element without a standard misses
it by as much as those with one do. Few points do not tell a scatter, so it is estimated together with the one that is
expected before any standard has been looked at, which counts as `PRIOR_FREEDOM` degrees of freedom:

    tau^2 = (PRIOR_FREEDOM * PRIOR_SCATTER^2 + excess) / (PRIOR_FREEDOM + n - 1)
    excess = max(0, sum_i (y_i - mean)^2 - (1 - 1/n) sum_i var_i)              var_i: known errors of a point
    curve error of a new element = t * tau * sqrt(1 + sum_i w_i^2)            w_i ~ 1 / (var_i + tau^2), sum 1

The excess is the estimator of R. DerSimonian and N. Laird, Control. Clin. Trials 7 (1986) 177; the sum with the prior
is that of a scaled inverse chi-square distribution, whose predictive distribution is Student's (A. Gelman et al.,
Bayesian Data Analysis, 3rd ed., sec. 2.6 and 3.2). t is its quantile at one standard deviation of the normal
distribution.

The scatter is that of elements between whose lines the detector is known. Where the lines of an element lie elsewhere,
below those of the standards above all, the thicknesses before and in the detector decide. By how much is the term
`geometry`: slopes of the logarithm of the sensitivity, less those that the factor has taken up, times `GEOMETRY_SD`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.sensitivity import compute_sensitivity, find_model_error, parse_family

Shell = Literal["K", "L", "M"]

PRIOR_SCATTER: Final = 0.14
"""Relative scatter of a curve that is expected before a standard has been looked at: the root mean square of what the
published curve of XRF-Maps leaves on its own standard (+18, -15, -9 %); no geometry of 144 left less than 11 %. It is
the one standard that was at hand, so that it does not test what it has set."""
PRIOR_FREEDOM: Final = 8
"""Degrees of freedom that the expected scatter counts for: as much as nine elements of a standard. Chosen, with the
scatter, so that the errors of this film by the curve are below 25 % and cover its deviations."""
GEOMETRY_SD: Final[Mapping[str, float]] = MappingProxyType(
    {"air_path_mm": 5.0, "be_window_um": 4.0, "dead_layer_um": 0.1, "chip_thickness_um": 50.0}
)
"""Standard uncertainties of what is said of the detector: a snout is placed by eye, windows are sold as 8 or 12 um."""
_LEAST_VARIANCE: Final = 1e-12
_SHELLS: Final[tuple[Shell, ...]] = ("K", "L", "M")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardPoint:
    """One family of one measured standard."""

    standard: str
    """Name of the standard; certificate errors of one element in one standard are common to all its points."""
    family: str
    """Family as in the fit: `Fe`, `La_L`, `Pb_M`."""
    areal_density_ug_cm2: float
    """Certified, above 0."""
    rate_hz: float
    """Recorded counts per live time at the reference I0, above 0."""
    counting: float
    """Relative error by counting, 0 or more, as all that follow."""
    theta: float = 0.0
    """Relative error by peak shape and energy axis."""
    i0: float = 0.0
    """Relative error of the incident flux; taken as common to all points."""
    certificate: float
    """Relative error of the areal density."""
    is_error_assumed: bool = False
    """True where the certificate states no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeErrors:
    """Relative standard uncertainties of a response, each of its own origin and independent of the others."""

    counting: float = 0.0
    """Counting statistics of the standards."""
    theta: float = 0.0
    """Peak shape and energy axis."""
    i0: float = 0.0
    """Incident flux."""
    standard: float = 0.0
    """Certificates of the standards."""
    curve: float = 0.0
    """Scatter of the standards about the curve; of an own point, what repeated measurements disagree by beyond their
    errors."""
    geometry: float = 0.0
    """Air, window, dead layer and chip of the detector, where the lines lie elsewhere than those of the standards."""
    model: float = 0.0
    """Sensitivities of L or M lines against K lines, where the shell has no standard."""

    @property
    def combined(self) -> float:
        """Root of the sum of the squares."""
        return math.hypot(self.counting, self.theta, self.i0, self.standard, self.curve, self.geometry, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellFactor:
    """Factor between sensitivity and response for one shell."""

    shell: Shell
    factor: float
    """Response per sensitivity."""
    families: tuple[str, ...]
    """Families of the standards that it rests on, those of another shell where this one has none."""
    weights: tuple[float, ...]
    """Weight of each family in the mean of the logarithm; they sum to 1."""
    scatter: float
    """Relative scatter tau of elements about the curve."""
    freedom: int
    """Degrees of freedom of the scatter, those of the prior included."""
    errors: RelativeErrors
    """Errors of a response by the curve, but for the geometry, which each family has of its own."""


def average_points(points: Sequence[StandardPoint]) -> tuple[float, RelativeErrors]:
    """Average the responses of one family in the logarithm, weighted by the errors; exact for one point.

    Args:
        points: one or more of the same family.

    Returns:
        Response in counts/s per ug/cm2, and its relative errors.
    """
    y = np.array([math.log(p.rate_hz / p.areal_density_ug_cm2) for p in points])
    variance = np.array([max(_point_variance(p), _LEAST_VARIANCE) for p in points])
    weights = 1.0 / variance
    weights = weights / weights.sum()
    mean = float(weights @ y)
    freedom = max(len(points) - 1, 1)
    excess = max(float(((y - mean) ** 2 / variance).sum()) / freedom - 1.0, 0.0)
    errors = _combine_errors(points, weights)
    value = points[0].rate_hz / points[0].areal_density_ug_cm2 if len(points) == 1 else math.exp(mean)
    return value, replace(errors, curve=math.sqrt(excess * float((weights**2 * variance).sum())))


def _point_variance(point: StandardPoint) -> float:
    """Known relative variance of a point, without the flux, which is common."""
    return point.counting**2 + point.theta**2 + point.certificate**2


def _combine_errors(points: Sequence[StandardPoint], weights: npt.NDArray[np.float64]) -> RelativeErrors:
    """Errors of a weighted mean: independent by counting and theta, common by flux and by an element's certificate."""
    certificates: dict[tuple[str, str], float] = defaultdict(float)
    for point, weight in zip(points, weights, strict=True):
        certificates[point.standard, parse_family(point.family)[0]] += weight * point.certificate
    return RelativeErrors(
        counting=math.hypot(*(w * p.counting for p, w in zip(points, weights, strict=True))),
        theta=math.hypot(*(w * p.theta for p, w in zip(points, weights, strict=True))),
        i0=float(sum(w * p.i0 for p, w in zip(points, weights, strict=True))),
        standard=math.hypot(*certificates.values()),
    )


def fit_factor(
    shell: Shell, points: Sequence[StandardPoint], incident_energy_kev: float, detector: Detector
) -> ShellFactor:
    """Fit the factor of a shell.

    Args:
        shell: shell that the factor is for.
        points: one or more; of another shell where this one has none.
        incident_energy_kev: keV.
        detector: that of the fits.
    """
    families = tuple(dict.fromkeys(p.family for p in points))
    averages = [average_points([p for p in points if p.family == family]) for family in families]
    sensitivities = [compute_sensitivity(f, incident_energy_kev, detector) for f in families]
    y = np.array([math.log(value / s) for (value, _), s in zip(averages, sensitivities, strict=True)])
    variance = np.array([replace(errors, i0=0.0).combined ** 2 for _, errors in averages])
    scatter = _estimate_scatter(y, variance)
    weights = 1.0 / (variance + scatter**2)
    weights = weights / weights.sum()
    freedom = PRIOR_FREEDOM + len(families) - 1
    curve = find_one_sigma_quantile(freedom) * scatter * math.sqrt(1.0 + float(weights @ weights))
    base = parse_family(families[0])[1]
    every = [errors for _, errors in averages]
    return ShellFactor(
        shell=shell,
        factor=math.exp(float(weights @ y)),
        families=families,
        weights=tuple(weights.tolist()),
        scatter=scatter,
        freedom=freedom,
        errors=RelativeErrors(
            counting=math.hypot(*weights * [e.counting for e in every]),
            theta=math.hypot(*weights * [e.theta for e in every]),
            i0=float(weights @ [e.i0 for e in every]),
            standard=math.hypot(*weights * [e.standard for e in every]),
            curve=math.hypot(curve, *weights * [e.curve for e in every]),
            model=0.0 if base == shell else find_model_error(families[0]),
        ),
    )


def estimate_geometry_error(family: str, factor: ShellFactor, incident_energy_kev: float, detector: Detector) -> float:
    """Estimate the relative error of a response by the curve that comes from the thicknesses of the detector.

    Args:
        family: family whose response is wanted.
        factor: factor of its shell.
        incident_energy_kev: keV.
        detector: that of the fits.
    """

    def sensitivity(name: str, setup: Detector) -> float:
        return math.log(compute_sensitivity(name, incident_energy_kev, setup))

    total = 0.0
    for part, sd in GEOMETRY_SD.items():
        setup = replace(detector, **{part: getattr(detector, part) + sd})
        change = {name: sensitivity(name, setup) - sensitivity(name, detector) for name in {family, *factor.families}}
        taken_up = math.fsum(w * change[name] for w, name in zip(factor.weights, factor.families, strict=True))
        total += (change[family] - taken_up) ** 2
    return math.sqrt(total)


def _estimate_scatter(y: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> float:
    n = len(y)
    known = (1.0 - 1.0 / n) * float(variance.sum())
    excess = max(float(((y - y.mean()) ** 2).sum()) - known, 0.0)
    return math.sqrt((PRIOR_FREEDOM * PRIOR_SCATTER**2 + excess) / (PRIOR_FREEDOM + n - 1))


def find_one_sigma_quantile(freedom: int) -> float:
    """Quantile of Student's distribution at one standard deviation of the normal one, .8413; within 5e-5 from 4 on.

    M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 26.7.5, at x = 1.

    Args:
        freedom: degrees of freedom, 4 or more.
    """
    n = float(freedom)
    return 1.0 + 1.0 / (2.0 * n) + 1.0 / (4.0 * n**2) + 1.0 / (16.0 * n**3) - 11.0 / (1920.0 * n**4)
