"""A fit in memory as the page has it: JSON without NaN; for the process that fits alone, since it needs torch."""

from collections.abc import Mapping, Sequence

from hpcxrf.explore.fit_records import Json, finite, pack_amplitudes, pack_notes, pack_parameter
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.pipeline.arguments import find_markers
from hpcxrf.results.report.fit_dataset import build_fit_dataset
from hpcxrf.results.report.page.spectrum import build_spectrum


def pack_fit(fit: SpectrumFit, detector: str, *, overlaps: Mapping[str, Sequence[str]] | None = None) -> Json:
    """Numbers of a solved fit.

    Args:
        fit: the fit.
        detector: name of its detector.
        overlaps: names by name of the component that its amplitude is correlated with; None: not known.
    """
    rows = zip(
        fit.parameter_names,
        fit.parameter_units,
        fit.theta.tolist(),
        fit.theta_sigma.tolist(),
        fit.theta_initial.tolist(),
        fit.theta_lower.tolist(),
        fit.theta_upper.tolist(),
        fit.free.tolist(),
        fit.at_bound.tolist(),
        strict=True,
    )
    return {
        "detector": detector,
        "status": fit.status.name.lower(),
        "verdict": fit.verdict.word,
        "verdict_reasons": list(fit.verdict_reasons),
        "r2": finite(fit.r2),
        "r2_expected": finite(fit.r2_expected),
        "reduced_chi2": finite(fit.reduced_chi2),
        "deviance": finite(fit.deviance),
        "cpu_s": fit.cpu_s,
        "parameters": [pack_parameter(*row) for row in rows],
        "amplitudes": pack_amplitudes(
            fit.component_names, fit.amplitude.tolist(), fit.amplitude_sigma.tolist(), fit.decision_limit.tolist()
        ),
        "notes": pack_notes(fit.notes),
        "overlaps": {} if overlaps is None else {name: list(others) for name, others in overlaps.items()},
        "spectrum": build_spectrum(build_fit_dataset(fit, detector, find_markers(fit)), detector),
    }
