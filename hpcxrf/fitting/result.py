"""The results of a fit. Failure is a value: a status, never an exception, for a bad spectrum or pixel."""

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from hpcxrf.fitting import status
from hpcxrf.fitting.limits import decision_limit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.uncertainty import Uncertainty
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note
from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.lines import LineTable

FitStatus = status.FitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRatios:
    """How the line ratios within families differ from the table's, by mechanism (`hpcxrf.physics.ratios`)."""

    names: tuple[str, ...]
    """`sample_transmission`, `sample_light_share`, `air_depth`, `kbeta_all`, then `Fe K-beta`, `Pb_L L1` and so on."""
    value: Tensor
    """(parameter,)."""
    sigma: Tensor
    """(parameter,), NaN at a bound: a thin sample transmits all."""
    prior_sd: Tensor
    """(parameter,)."""
    depth_gain: float
    """Misfit that the absorption in the sample explains, in units of the reduced misfit; above 20 it is certain."""

    @property
    def sample_depth(self) -> float:
        """Optical depth of the sample at the incident energy, in and out together."""
        return max(-float(self.value[0].log()), 0.0)

    def describe(self) -> dict[str, Any]:
        """Values as JSON has them: a sigma that was not determined is None."""
        rows = zip(self.names, self.value.tolist(), self.sigma.tolist(), self.prior_sd.tolist(), strict=True)
        return {
            "sample_depth": self.sample_depth,
            "depth_gain": self.depth_gain,
            "parameters": {
                name: {"value": value, "sigma": None if math.isnan(sigma) else sigma, "prior_sd": prior_sd}
                for name, value, sigma, prior_sd in rows
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SpectrumFit:
    """A fitted integrated spectrum. Tensors are float64 on the CPU."""

    component_names: tuple[str, ...]
    table: LineTable
    """Line table with the fitted ratios."""
    parameter_names: tuple[str, ...]
    parameter_units: tuple[str, ...]
    theta: Tensor
    """(parameter,)."""
    theta_sigma: Tensor
    """(parameter,), NaN where fixed."""
    theta_initial: Tensor
    theta_lower: Tensor
    theta_upper: Tensor
    free: Tensor
    """(parameter,) bool."""
    at_bound: Tensor
    """(parameter,) bool: a free parameter that ended at a bound."""
    amplitude: Tensor
    """(component,) recorded counts of each component over the full spectrum."""
    amplitude_sigma: Tensor
    detection_limit: Tensor
    """(component,) Currie, 95 %: what the spectrum could show. What it shows is what exceeds `decision_limit`."""
    first_channel: int
    """Channel of the first entry of the arrays below."""
    counts: Tensor
    """(channel,) the fit range."""
    model: Tensor
    """(channel,) with background."""
    background: Tensor
    """(channel,)."""
    background_parts: Tensor
    """(part, channel): the fitted hats, or the SNIP background; they add up to `background`."""
    component_counts: Tensor
    """(component, channel)."""
    r2: float
    """1 - SS_res / SS_tot in linear counts over the fit range, unit-weight pass."""
    r2_expected: float
    """1 - sum(counts) / SS_tot: R2 that counting noise alone allows, an expectation and not a bound."""
    reduced_chi2: float
    """Reduced chi2 of the Poisson-weight pass."""
    deviance: float
    """Poisson deviance per degree of freedom."""
    status: FitStatus
    iterations: int
    cpu_s: float
    """CPU seconds of the fit, imports and reading excluded."""
    flags: tuple[str, ...] = ()
    """Reasons to distrust the energy axis, explained in `notes`: `few_elements`, `no_scatter`, and those with which
    amplitudes are no results: `ambiguous_calibration`, `energy_axis_not_found`, `incident_energy_doubtful`."""
    notes: tuple[Note, ...] = ()
    """Findings of the fit on itself, such as parameters at a bound."""
    ratios: FittedRatios | None = None
    """What was fitted of the line ratios; None: they are those of the problem's table."""
    copies: ScatterCopies | None = None
    """Scattered lines of a tube's anode at their fitted heights; None: no tube, or its anode is not known."""
    errors: Uncertainty | None = None
    """Counting noise and flaws of the model apart, of raw counts; None: the fit was made by another program."""
    count_factor: float = 1.0
    """Variance over mean of the counts; 1: raw ones."""
    verdict: Verdict = Verdict.NOT_JUDGED
    """Whether the amplitudes can be taken for results."""
    verdict_reasons: tuple[str, ...] = ()
    """Why the verdict is not good, gravest first; empty where it is."""
    problem: FitProblem | None = None
    """The problem as it was posed, from which pixels and regions can be fitted; None: the fit is that of a sum of
    detectors, or was made by another program."""

    @property
    def photon_variance(self) -> Tensor:
        """(component,) variance that one recorded count of a component adds to its amplitude, count."""
        if self.errors is None:
            return torch.full_like(self.detection_limit, self.count_factor)
        return self.errors.photon_variance

    @property
    def decision_limit(self) -> Tensor:
        """(component,) Currie's decision limit, counts: what exceeds it was found, at 5 % of false alarms."""
        return decision_limit(self.detection_limit, self.photon_variance)

    @property
    def found(self) -> Tensor:
        """(component,) bool: above the decision limit."""
        return self.amplitude > self.decision_limit

    @property
    def model_error(self) -> float:
        """Size of the model's flaws in units of usual ones, k; NaN where it is not known."""
        return float("nan") if self.errors is None else self.errors.model_error

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences of the notes."""
        return tuple(note.text for note in self.notes)

    def __repr__(self) -> str:
        return f"<SpectrumFit {self._headline()}>"

    def _repr_html_(self) -> str:
        """Table of the components for a notebook; every name is escaped."""
        cells = zip(
            self.component_names,
            self.amplitude.tolist(),
            self.amplitude_sigma.tolist(),
            self.detection_limit.tolist(),
            strict=True,
        )
        rows = "".join(
            f"<tr><td>{escape(name)}</td>"
            + "".join(f"<td>{number:.6g}</td>" for number in numbers)
            + f"<td>{'' if found else 'not found'}</td></tr>"
            for (name, *numbers), found in zip(cells, self.found.tolist(), strict=True)
        )
        head = "<tr><th>component</th><th>counts</th><th>sigma</th><th>detection limit</th><th></th></tr>"
        messages = "".join(f"<div>{escape(message)}</div>" for message in self.messages)
        return f"<div>{escape(self._headline())}</div><table>{head}{rows}</table>{messages}"

    def _headline(self) -> str:
        stop = self.first_channel + self.counts.shape[0] - 1
        return (
            f"{self.verdict.word}, {self.status.name.lower()}: {len(self.component_names)} components, "
            f"R2 {self.r2:.5f}, deviance {self.deviance:.3g}, channels {self.first_channel} to {stop}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFit:
    """Fitted pixels of one tile, one detector."""

    amplitude: Tensor
    """(pixel, component) float32."""
    sigma: Tensor
    """(pixel, component) float32, NaN where the pixel has no solution."""
    detection_limit: Tensor
    """(pixel, component) float32."""
    deviance: Tensor
    """(pixel,) float32 Poisson deviance per degree of freedom."""
    status: Tensor
    """(pixel,) uint8, FitStatus."""
    deviance_z: Tensor | None = None
    """(pixel,) float32: the deviance less its expectation under the pixel's own fit, over its standard deviation: about
    0 +- 1 where the model is right; None: not known."""
    theta_shift: Tensor | None = None
    """(pixel, parameter) float32: theta of the pixel less that of the basis, where theta was free."""
    theta_shift_sigma: Tensor | None = None
    """(pixel, parameter) float32: with the prior."""
    photon_variance: Tensor | None = None
    """(pixel, component) float32, the same in every pixel: variance that one recorded count of a component adds to its
    amplitude, count; None: 1."""
