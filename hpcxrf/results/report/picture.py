"""A picture of one fit that is in memory and in no store."""

from collections.abc import Sequence

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.results.report.fit_dataset import build_fit_dataset
from hpcxrf.results.report.plots import draw_spectrum_figure, encode


def draw_fit(fit: SpectrumFit, detector: str, line_markers: Sequence[tuple[float, str]]) -> bytes:
    """PNG of a fitted spectrum with components and residual, log scale.

    Args:
        fit: a solved fit.
        detector: its name, for the title.
        line_markers: (energy_kev, label).
    """
    data = build_fit_dataset(fit, detector, line_markers)
    return encode(draw_spectrum_figure(data, detector, "log"), kind="png")
