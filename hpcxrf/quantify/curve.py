"""The calibration: responses of elements by their own standard, and by a curve for all others, with every error apart.

    response(family) = rate / areal density          counts/s at the reference I0, per ug/cm2
    own point:  response of the standard itself
    curve:      factor(shell) * sensitivity(family)

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
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.sensitivity import compute_sensitivity, find_model_error, parse_family

FloatArray = npt.NDArray[np.floating]
Shell = Literal["K", "L", "M"]

PRIOR_SCATTER: Final = 0.14
"""Relative scatter of a curve that is expected before a standard has been looked at: the root mean square of what the
published curve of XRF-Maps leaves on its own standard (+18, -15, -9 %); no geometry of 144 left less than 11 %."""
PRIOR_FREEDOM: Final = 8
"""Degrees of freedom that the expected scatter counts for: as much as nine elements of a standard."""
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
    model: float = 0.0
    """Sensitivities of L or M lines against K lines, where the shell has no standard."""

    @property
    def combined(self) -> float:
        """Root of the sum of the squares."""
        return math.hypot(self.counting, self.theta, self.i0, self.standard, self.curve, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellFactor:
    """Factor between sensitivity and response for one shell."""

    shell: Shell
    factor: float
    """Response per sensitivity."""
    families: tuple[str, ...]
    """Families of the standards that it rests on, those of another shell where this one has none."""
    scatter: float
    """Relative scatter tau of elements about the curve."""
    freedom: int
    """Degrees of freedom of the scatter, those of the prior included."""
    errors: RelativeErrors
    """Errors of a response by the curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Recorded counts per second at the reference I0, per ug/cm2."""

    family: str
    rate_hz_per_ug_cm2: float
    origin: str
    """`own point`, `curve`, or `curve of K` where the shell has no standard."""
    errors: RelativeErrors


@dataclass(frozen=True, slots=True, kw_only=True)
class ArealDensity:
    """Maps of one family; float arrays of the shape of the rates."""

    areal_density_ug_cm2: FloatArray
    sigma_ug_cm2: FloatArray
    """Standard uncertainty, all terms combined."""
    counting_sigma_ug_cm2: FloatArray
    """The part of it that differs from pixel to pixel: the uncertainty of the rates."""
    detection_limit_ug_cm2: FloatArray | None
    errors: RelativeErrors
    """The part that all pixels have in common, relative."""
    response: Response
    layer_factor: float
    """Signal relative to that of a thin sample, by which the densities were divided; 1 without correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Responses of all families at one incident energy with one detector."""

    incident_energy_kev: float
    detector: Detector
    points: tuple[StandardPoint, ...]
    factors: Mapping[Shell, ShellFactor]

    def find_response(self, family: str) -> Response:
        """Find the response of a family: by its own point, else by the curve.

        Raises:
            FitError: not a family, or one that the incident energy does not excite.
        """
        own = tuple(p for p in self.points if p.family == family)
        if own:
            value, errors = _average_points(own)
            return Response(family=family, rate_hz_per_ug_cm2=value, origin="own point", errors=errors)
        _, shell = parse_family(family)
        factor = self.factors[_name_shell(shell)]
        sensitivity = compute_sensitivity(family, self.incident_energy_kev, self.detector)
        base = parse_family(factor.families[0])[1]
        errors = factor.errors
        if base != shell:
            errors = replace(errors, model=math.hypot(find_model_error(family), errors.model))
        return Response(
            family=family,
            rate_hz_per_ug_cm2=factor.factor * sensitivity,
            origin="curve" if base == shell else f"curve of {base}",
            errors=errors,
        )

    def convert(
        self,
        family: str,
        rate_hz: FloatArray,
        sigma_hz: FloatArray,
        detection_limit_hz: FloatArray | None = None,
        *,
        theta: float = 0.0,
        i0: float = 0.0,
        layer_factor: float = 1.0,
    ) -> ArealDensity:
        """Convert rates of a sample, normalised as the standards were, to areal densities.

        Args:
            family: name as in the fit.
            rate_hz: recorded counts per live time at the reference I0, any shape; NaN stays NaN.
            sigma_hz: standard uncertainty of each pixel, same shape.
            detection_limit_hz: same shape, or None.
            theta: relative error of the sample's rates by peak shape and axis, common to all pixels.
            i0: relative error of the sample's incident flux.
            layer_factor: signal of the sample relative to a thin one, of `hpcxrf.quantify.layer`.

        Raises:
            FitError: as `find_response`, shapes that differ, or a layer factor that is not above 0.
        """
        return convert_rates(
            self.find_response(family),
            rate_hz,
            sigma_hz,
            detection_limit_hz,
            theta=theta,
            i0=i0,
            layer_factor=layer_factor,
        )


def convert_rates(
    response: Response,
    rate_hz: FloatArray,
    sigma_hz: FloatArray,
    detection_limit_hz: FloatArray | None = None,
    *,
    theta: float = 0.0,
    i0: float = 0.0,
    layer_factor: float = 1.0,
) -> ArealDensity:
    """Convert rates of a sample by a response, as `Calibration.convert`.

    Raises:
        FitError: shapes that differ, or a layer factor that is not above 0.
    """
    shapes = {np.shape(a) for a in (rate_hz, sigma_hz, detection_limit_hz) if a is not None}
    if len(shapes) != 1:
        raise FitError(
            f"{response.family}: rates, sigma and detection limit have shapes {sorted(shapes)}; must be one shape"
        )
    if not 0.0 < layer_factor < math.inf:
        raise FitError(
            f"{response.family}: layer factor is {layer_factor:g}; must be above 0: check formula and angles"
        )
    scale = 1.0 / (response.rate_hz_per_ug_cm2 * layer_factor)
    own = response.errors
    errors = replace(own, theta=math.hypot(own.theta, theta), i0=math.hypot(own.i0, i0))
    density = rate_hz * scale
    counting = sigma_hz * scale
    return ArealDensity(
        areal_density_ug_cm2=density,
        sigma_ug_cm2=np.hypot(counting, density * errors.combined),
        counting_sigma_ug_cm2=counting,
        detection_limit_ug_cm2=None if detection_limit_hz is None else detection_limit_hz * scale,
        errors=errors,
        response=response,
        layer_factor=layer_factor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What the curve says of a family of the standards without its own points."""

    family: str
    certified_ug_cm2: float
    predicted_ug_cm2: float
    sigma: float
    """Relative standard uncertainty of the prediction, those of the left-out rate and certificate included."""
    origin: str

    @property
    def deviation(self) -> float:
        """Relative deviation of the prediction."""
        return self.predicted_ug_cm2 / self.certified_ug_cm2 - 1.0

    @property
    def pull(self) -> float:
        """Deviation over its uncertainty."""
        return (self.predicted_ug_cm2 - self.certified_ug_cm2) / (self.sigma * self.predicted_ug_cm2)


def calibrate(points: Sequence[StandardPoint], incident_energy_kev: float, detector: Detector) -> Calibration:
    """Fit the calibration to the points of all standards.

    Args:
        points: one or more families; a family may come several times.
        incident_energy_kev: that of standards and samples.
        detector: that of the fits.

    Raises:
        FitError: no point, numbers that a point cannot have, or families that the energy does not excite; all at once.
    """
    faults = [] if points else ["no family of a standard was measured; add its elements to the fit of the standard"]
    faults += [fault for point in points for fault in _check_point(point, incident_energy_kev, detector)]
    if faults:
        raise FitError("calibration: " + "; ".join(dict.fromkeys(faults)))
    by_shell = {shell: tuple(p for p in points if parse_family(p.family)[1] == shell) for shell in _SHELLS}
    first = next(own for own in by_shell.values() if own)
    factors = {
        shell: _fit_factor(shell, own or first, incident_energy_kev, detector) for shell, own in by_shell.items()
    }
    return Calibration(
        incident_energy_kev=incident_energy_kev,
        detector=detector,
        points=tuple(points),
        factors=MappingProxyType(factors),
    )


def leave_one_out(calibration: Calibration) -> tuple[LeftOut, ...]:
    """Predict every family of the standards by the curve of all others.

    Returns:
        One row a family in the order of the points; none where the standards have a single family.
    """
    families = tuple(dict.fromkeys(p.family for p in calibration.points))
    return tuple(_predict_left_out(calibration, family) for family in families) if len(families) > 1 else ()


def _predict_left_out(calibration: Calibration, family: str) -> LeftOut:
    rest = [p for p in calibration.points if p.family != family]
    without = calibrate(rest, calibration.incident_energy_kev, calibration.detector).find_response(family)
    own = calibration.find_response(family)
    certified = float(np.mean([p.areal_density_ug_cm2 for p in calibration.points if p.family == family]))
    # The flux is common to the left-out point and the others, and drops out.
    sigma = math.hypot(replace(without.errors, i0=0.0).combined, replace(own.errors, i0=0.0).combined)
    return LeftOut(
        family=family,
        certified_ug_cm2=certified,
        predicted_ug_cm2=certified * own.rate_hz_per_ug_cm2 / without.rate_hz_per_ug_cm2,
        sigma=sigma,
        origin=without.origin,
    )


def _check_point(point: StandardPoint, incident_energy_kev: float, detector: Detector) -> list[str]:
    where = f"{point.standard}, {point.family}"
    faults = [
        f"{where}: {name} is {value:g}, must be above 0"
        for name, value in (("areal density", point.areal_density_ug_cm2), ("rate", point.rate_hz))
        if not 0.0 < value < math.inf
    ]
    faults += [
        f"{where}: relative error {name} is {value:g}, must be 0 or more"
        for name in ("counting", "theta", "i0", "certificate")
        if not 0.0 <= (value := getattr(point, name)) < math.inf
    ]
    try:
        compute_sensitivity(point.family, incident_energy_kev, detector)
    except FitError as error:
        faults.append(f"{point.standard}: {error}")
    return faults


def _name_shell(shell: str) -> Shell:
    return next(s for s in _SHELLS if s == shell)


def _average_points(points: Sequence[StandardPoint]) -> tuple[float, RelativeErrors]:
    """Mean response of one family in the logarithm, weighted by the errors; exact for one point."""
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


def _fit_factor(
    shell: Shell, points: Sequence[StandardPoint], incident_energy_kev: float, detector: Detector
) -> ShellFactor:
    families = tuple(dict.fromkeys(p.family for p in points))
    averages = [_average_points([p for p in points if p.family == family]) for family in families]
    sensitivities = [compute_sensitivity(f, incident_energy_kev, detector) for f in families]
    y = np.array([math.log(value / s) for (value, _), s in zip(averages, sensitivities, strict=True)])
    variance = np.array([replace(errors, i0=0.0).combined ** 2 for _, errors in averages])
    scatter = _estimate_scatter(y, variance)
    weights = 1.0 / (variance + scatter**2)
    weights = weights / weights.sum()
    freedom = PRIOR_FREEDOM + len(families) - 1
    curve = one_sigma_quantile(freedom) * scatter * math.sqrt(1.0 + float(weights @ weights))
    base = parse_family(families[0])[1]
    every = [errors for _, errors in averages]
    return ShellFactor(
        shell=shell,
        factor=math.exp(float(weights @ y)),
        families=families,
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


def _estimate_scatter(y: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> float:
    n = len(y)
    known = (1.0 - 1.0 / n) * float(variance.sum())
    excess = max(float(((y - y.mean()) ** 2).sum()) - known, 0.0)
    return math.sqrt((PRIOR_FREEDOM * PRIOR_SCATTER**2 + excess) / (PRIOR_FREEDOM + n - 1))


def one_sigma_quantile(freedom: int) -> float:
    """Quantile of Student's distribution at one standard deviation of the normal one, .8413; within 5e-5 from 4 on.

    M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 26.7.5, at x = 1.

    Args:
        freedom: degrees of freedom, 4 or more.
    """
    n = float(freedom)
    return 1.0 + 1.0 / (2.0 * n) + 1.0 / (4.0 * n**2) + 1.0 / (16.0 * n**3) - 11.0 / (1920.0 * n**4)
