"""The calibration: responses by own standards, of all other elements by the curve, and maps of areal densities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.curve import (
    RelativeErrors,
    Shell,
    ShellFactor,
    StandardPoint,
    average_points,
    estimate_geometry_error,
    fit_factor,
)
from hpcxrf.quantify.sensitivity import compute_sensitivity, find_model_error, parse_family

FloatArray = npt.NDArray[np.floating]

_SHELLS: Final[tuple[Shell, ...]] = ("K", "L", "M")


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

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the result: errors that no certificate states, shells without a standard."""
        assumed: dict[tuple[str, float], list[str]] = {}
        for point in self.points:
            if point.is_error_assumed:
                assumed.setdefault((point.standard, point.certificate), []).append(point.family)
        sentences = [
            f"{name}: no stated error of {', '.join(dict.fromkeys(families))}; {100.0 * error:g} % is assumed"
            for (name, error), families in assumed.items()
        ]
        sentences += [
            f"no standard has {shell} lines: their responses are scaled by {parse_family(factor.families[0])[1]} lines"
            for shell, factor in self.factors.items()
            if parse_family(factor.families[0])[1] != shell
        ]
        return tuple(sentences)

    def find_response(self, family: str) -> Response:
        """Find the response of a family: by its own point, else by the curve.

        Raises:
            FitError: not a family, or one that the incident energy does not excite.
        """
        own = tuple(p for p in self.points if p.family == family)
        if own:
            value, errors = average_points(own)
            return Response(family=family, rate_hz_per_ug_cm2=value, origin="own point", errors=errors)
        _, shell = parse_family(family)
        factor = self.factors[_name_shell(shell)]
        sensitivity = compute_sensitivity(family, self.incident_energy_kev, self.detector)
        base = parse_family(factor.families[0])[1]
        geometry = estimate_geometry_error(family, factor, self.incident_energy_kev, self.detector)
        errors = replace(factor.errors, geometry=geometry)
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
    factors = {shell: fit_factor(shell, own or first, incident_energy_kev, detector) for shell, own in by_shell.items()}
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
