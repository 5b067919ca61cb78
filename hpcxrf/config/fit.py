"""The section `fit` of the run file: how the integrated spectrum is fitted."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterConfig:
    """One row of the table of theta (`hpcxrf.physics.parameters`) as a site has it; None: as it is there."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    lower: float | None = None
    """Lower bound."""
    upper: float | None = None
    """Upper bound."""
    prior_sd: Positive | None = None
    """Standard deviation of the Gaussian prior around the start."""
    scale: Positive | None = None
    """Typical step, the unit in which the solver measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Model, starting values and method of the fit of the integrated spectrum."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    energy_range_kev: tuple[float, float] | None = None
    """Fit range, keV; None: that of the override file, else 1 keV to 1 keV above the incident energy."""
    calibration: Literal["auto", "file", "override", "previous", "none"] = "auto"
    """Initial energy calibration. `auto`: that of the override file if there is one, else of the scan file;
    `previous`: the fitted theta in `previous`; `none`: it is determined from the lines and the nominal incident
    energy."""
    previous: str | None = None
    """Finished results store (`results/<dataset_id>.zarr`) of an earlier scan with the same detectors."""
    warm_start: Literal["auto", "none", "donor"] = "auto"
    """Where the search for theta begins, of scans of a catalogue: where the files say (`none`), or at the fit of
    another scan of the same detectors (`donor`), which the plan chooses; priors are the same. A fit that does not end
    as good as that one is made again without, and the better of the two is kept. `auto`: `donor` where the energy axis
    is to be found (`calibration: none`), `none` elsewhere, where it saves little."""
    incident_energy_sd_kev: Positive = 0.3
    """Standard deviation of the prior of the incident energy, keV; the fit may end 1.5 times as far away."""
    override: str = "auto"
    """Path of a MAPS override file; `auto` looks beside the scan and one folder up, `none` ignores it."""
    width_law: Literal["auto", "2.96", "3.58"] = "auto"
    """Constant that FWHM_FANOPRIME of an override file belongs to, where the file does not say; `auto`: by its DATE."""
    background: Literal["hats", "snip", "none"] = "hats"
    """Background: smooth columns that are fitted with the lines, a clipped spectrum, or none."""
    method: Literal["separable", "adam", "sbplx"] = "separable"
    """Fit method; `adam` and `sbplx` are the published ones, for comparison. `sbplx` needs the nlopt package."""
    objective: Literal["poisson", "mse", "l1"] = "poisson"
    """Objective of theta and amplitudes: the deviance of raw counts, the mean square, or the mean modulus. R2 is
    always that of the mean-square optimum. `adam` and `sbplx` have `mse` only, which is their default."""
    kbeta_sd: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Relative width of the prior that ties the K-beta lines of one K family to its K-alpha lines, beyond what all
    families have in common; 0: 5 %, as far as tables differ."""
    posterior: Literal["laplace", "hmc"] = "laplace"
    """Posterior of theta and amplitudes: the normal law that sigma stands for, which every fit has, or also draws by
    Hamiltonian Monte Carlo in the group `inference` of the results store, which take some minutes a spectrum."""
    suggest: bool = True
    """Look for elements that are not listed, and show them with their evidence."""
    auto_elements: bool = False
    """Add suggested elements above the threshold to the fit, and say so."""
    parameters: dict[str, ParameterConfig] = field(default_factory=dict)
    """Bounds, priors and scales of theta by name, where a site's detectors differ from the built-in table."""
    constants: Literal["physics", "maps-legacy-2.96", "maps-3.58"] = "physics"
    """Physical constants of the model: those of the literature, or those of a version of MAPS."""
    start: dict[str, float] = field(default_factory=dict)
    """Starting values of theta by name (`compton_angle: 90`), over those of the files."""
    fixed: tuple[str, ...] = ()
    """Parameters held at their starting value."""
    free: tuple[str, ...] = ()
    """Parameters fitted although they are fixed by default (`step_offset`)."""
