"""The section `fit` of the run file: how the integrated spectrum is fitted."""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED, NotNegative, Positive

DEFAULT_ENERGY_MIN_KEV: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterConfig:
    """One row of the table of theta (`hpcxrf.physics.parameters`) as a site has it; None: as it is there."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    lower: float | None = None
    upper: float | None = None
    prior_sd: Positive | None = None
    """Standard deviation of the Gaussian prior around the start."""
    scale: Positive | None = None
    """Typical step, the unit in which the solver measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the integrated spectrum is fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    energy_range_kev: tuple[float, float] | None = None
    """Fit range; None: of the override file, else 1 keV to 1 keV above the incident energy."""
    calibration: Literal["auto", "file", "override", "previous", "none"] = "auto"
    """Where the energy axis starts from; `auto`: the override file if there is one, else the scan file;
    `previous`: the fitted theta in `previous`; `none`: it is found from the lines and the nominal incident
    energy."""
    previous: str | None = None
    """Finished results store (`results/<dataset_id>.zarr`) of an earlier scan with the same detectors."""
    incident_energy_sd_kev: Positive = 0.3
    """How well the incident energy is known: its prior; it may end 1.5 times as far away."""
    override: str = "auto"
    """`maps_fit_parameters_override.txt`: a path, `auto` (beside the scan or in the folder above) or `none`."""
    width_law: Literal["auto", "2.96", "3.58"] = "auto"
    """Of an override file that does not say: constant that its FWHM_FANOPRIME belongs to; `auto`: by its DATE."""
    background: Literal["hats", "snip", "none"] = "hats"
    method: Literal["separable", "adam", "sbplx"] = "separable"
    """`adam` and `sbplx` are the published ones, for comparison; `sbplx` needs the nlopt package."""
    objective: Literal["poisson", "mse", "l1"] = "poisson"
    """What theta and amplitudes minimise: the deviance of raw counts, the mean square, the mean modulus. R2 is
    always that of the mean-square optimum. `adam` and `sbplx` have `mse` only, which is their default."""
    kbeta_sd: NotNegative = 0.0
    """Above 0, the K-beta lines of every K family are free of its K-alpha lines under a prior of that relative
    width (0.1 to 0.2 for thick samples)."""
    suggest: bool = True
    """Look for elements that are not listed, and show them with their evidence."""
    auto_elements: bool = False
    """Add suggested elements above the threshold to the fit, and say so."""
    parameters: dict[str, ParameterConfig] = field(default_factory=dict)
    """Bounds, priors and scales of theta by name, where a site's detectors differ from the built-in table."""
    constants: Literal["physics", "maps-legacy-2.96", "maps-3.58"] = "physics"
    start: dict[str, float] = field(default_factory=dict)
    """Starting values of theta by name (`compton_angle: 90`), over those of the files."""
    fixed: tuple[str, ...] = ()
    """Parameters held at their starting value."""
    free: tuple[str, ...] = ()
    """Parameters fitted although they are fixed by default (`step_offset`)."""
