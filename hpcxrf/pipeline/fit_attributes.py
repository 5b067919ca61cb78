"""What a results store says in its attributes of an integrated fit: JSON values, in which there is no NaN."""

import math
from typing import Any

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED


def describe_theta(fit: SpectrumFit) -> dict[str, float] | None:
    """Fitted theta by name; None for a detector whose fit has no solution."""
    if fit.status not in SOLVED:
        return None
    return dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))


def describe_model_error(fit: SpectrumFit) -> float | None:
    """How wrong the model is, in units of its usual flaws; None where there is no solution."""
    return fit.model_error if fit.status in SOLVED and math.isfinite(fit.model_error) else None


def describe_merit(fit: SpectrumFit) -> dict[str, Any]:
    """Status, verdict and figures of merit by name."""
    numbers = {"r2": fit.r2, "r2_expected": fit.r2_expected, "reduced_chi2": fit.reduced_chi2, "deviance": fit.deviance}
    known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"status": int(fit.status), "verdict": int(fit.verdict), **known}
