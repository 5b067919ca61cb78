"""What a fit says of its line ratios: values for the result, and sentences where they are unusual."""

from typing import Final

from torch import Tensor

from hpcxrf.fitting.result import FittedRatios
from hpcxrf.fitting.spectrum.least_squares import LeastSquares
from hpcxrf.fitting.spectrum.line_ratios import DEPTH_GAIN, N_THETA
from hpcxrf.notes import Note
from hpcxrf.physics.ratios import AIR, AIR_PER_MM, KBETA

_UNUSUAL_SDS: Final = 3.0
# Air beyond the description that is certain and would change line ratios at 2 keV by a third or more.
_CERTAIN: Final = 4.0
_MUCH_AIR: Final = 0.5
# From here on, more depth changes no ratio: exp(-x) is 5 %.
_THICK: Final = 3.0


def read_ratios(theta: Tensor, sigma: Tensor, least_squares: LeastSquares, depth_gain: float) -> FittedRatios | None:
    """Parameters of the line ratios of a solution; None where they were not fitted.

    Args:
        theta: (parameter,) theta, followed by the parameters of the ratios.
        sigma: (parameter,).
        least_squares: with the model of the ratios.
        depth_gain: of `measure_depth_gain`.
    """
    ratios = least_squares.model.ratios
    if ratios is None:
        return None
    return FittedRatios(
        names=ratios.names,
        value=theta[N_THETA:],
        sigma=sigma[N_THETA:],
        prior_sd=least_squares.space.prior_sd[N_THETA:],
        depth_gain=depth_gain,
    )


def describe_ratios(ratios: FittedRatios | None) -> tuple[Note, ...]:
    """Notes on a sample that absorbs its own lines, on air that was not described, on unusual K-beta ratios."""
    if ratios is None:
        return ()
    return (*_describe_sample(ratios), *_describe_air(ratios), *_describe_kbeta(ratios))


def _describe_sample(ratios: FittedRatios) -> tuple[Note, ...]:
    if not ratios.depth_gain > DEPTH_GAIN:
        return ()
    depth = ratios.sample_depth
    size = f"optical depth {depth:.2g} at the incident energy" if depth < _THICK else "thick at the incident energy"
    text = (
        f"the sample absorbs its own lines ({size}, in and out together; gain {ratios.depth_gain:.0f}); line ratios "
        "follow it, and counts are those recorded, not those emitted"
    )
    return (Note("warning", text),)


def _describe_air(ratios: FittedRatios) -> tuple[Note, ...]:
    depth, sigma, prior_sd = _find(ratios, AIR)
    if not (abs(depth) > _UNUSUAL_SDS * prior_sd or (abs(depth) > _MUCH_AIR and abs(depth) > _CERTAIN * sigma)):
        return ()
    absorption = "extra absorption equal to" if depth > 0.0 else "less absorption than described, by"
    air_mm = abs(depth) / AIR_PER_MM
    text = f"line ratios imply {absorption} {air_mm:.0f} mm of air; check detector.be_window_um and air_path_mm"
    return (Note("warning", text),)


def _describe_kbeta(ratios: FittedRatios) -> tuple[Note, ...]:
    change, _, prior_sd = _find(ratios, KBETA)
    if not abs(change) > _UNUSUAL_SDS * prior_sd:
        return ()
    more = "more" if change > 0.0 else "less"
    percent = 100.0 * abs(float(ratios.value[ratios.names.index(KBETA)].expm1()))
    text = (
        f"the K-beta lines of all families have {percent:.0f} % {more} counts than the line table gives them; check "
        "detector.chip_thickness_um and the filters before the detector"
    )
    return (Note("warning", text),)


def _find(ratios: FittedRatios, name: str) -> tuple[float, float, float]:
    i = ratios.names.index(name)
    return float(ratios.value[i]), float(ratios.sigma[i]), float(ratios.prior_sd[i])
