"""The run file: what a user may ask for, checked at once and whole.

Plain frozen dataclasses, so that tasks can carry them; pydantic checks them where YAML comes in. Field docstrings
are the reference of the run file.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hpcxrf.config_case_study import CASE_STUDY_DEFAULTS, CaseStudyConfig
from hpcxrf.config_regions import REGION_DEFAULTS, PixelMethodName, RegionsConfig, region_faults
from hpcxrf.errors import ConfigError

_CHECKED: Final = ConfigDict(extra="forbid", allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

DEFAULT_ENERGY_MIN_KEV: Final = 1.0
FULL_PIXELS_MAX: Final = 10_000
"""Pixels times detectors that `full` fits: some tens of them a second and core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Which files, and what they do not say themselves."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    files: tuple[str, ...]
    """Files, folders or patterns (`scans/*.mda`), relative to the run file."""
    dataset_path: str | None = None
    """Array inside an HDF5, Zarr or npz file."""
    energy_axis: int | None = None
    """Axis of the channels in that array."""
    energy_offset_kev: float | None = None
    energy_slope_kev: Positive | None = None
    allow_external: bool = False
    """Follow external links and virtual datasets of HDF5 files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What was measured, and with what."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    elements: tuple[str, ...] = ()
    """Families to be fitted: `Fe` (K), `Pt_L`, `Au_M`, pile-up `Ca_Ca`; empty: those of the override file."""
    incident_energy_kev: Positive | None = None
    """Energy of the beam; None: from the file or the override file."""
    source: Literal["monochromatic", "tube"] = "monochromatic"
    """`tube` has no elastic line, and needs `incident_energy_kev` as an effective energy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """The detector's windows; None: of the override file, else the default (`hpcxrf.physics.detector`)."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    material: Literal["Si", "Ge"] | None = None
    """Default Si."""
    be_window_um: NotNegative | None = None
    """Default 8."""
    air_path_mm: NotNegative | None = None
    """Default 10."""
    dead_layer_um: NotNegative | None = None
    """Default 0.1."""
    chip_thickness_um: Positive | None = None
    """Default 450."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterConfig:
    """One row of the table of theta (`hpcxrf.physics.parameters`) as a site has it; None: as it is there."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    lower: float | None = None
    upper: float | None = None
    prior_sd: Positive | None = None
    """Standard deviation of the Gaussian prior around the start."""
    scale: Positive | None = None
    """Typical step, the unit in which the solver measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the integrated spectrum is fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelConfig:
    """How the pixels are fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    method: PixelMethodName = "linear"
    """`linear`: signed and unbiased; `nnls`: non-negative; `poisson`: maximum likelihood, non-negative;
    `nonlinear`: energy offset, gain and width of every pixel free near those of the scan; `full`: the same by the true
    model, for scans of at most 10 000 pixels times detectors."""
    detectors: Literal["each", "sum", "both"] = "each"
    """`sum`: the raw counts of all detectors, fitted with every detector's own calibration."""
    phases: Literal["auto", "one"] = "auto"
    """Of `linear`: `auto`, where a scan has phases so different that it gains precision, each is weighed by its own
    mean spectrum, and the notes say which; `one`: one set of weights always."""
    background: Literal["columns", "snip"] = "columns"
    """`columns`: the fitted background's, free in every pixel; `snip`: every pixel's spectrum is clipped by itself, as
    other programs do it. It is biased at low counts and exists for comparison, of `linear` and `nnls` only."""
    background_columns: Annotated[int, Field(ge=0, le=16)] = 4
    """Columns into which the fitted background is grouped, free in every pixel."""
    deviance: bool = True
    """Compute the deviance map, which costs some four times as much as the amplitudes and their sigma."""
    blocks_per_task: Annotated[int, Field(ge=1)] | None = None
    """Map blocks (64 x 256 pixels) of a task; None: chosen by size. Does not change any result."""


BenchmarkMethod = Literal["separable", "adam", "sbplx", "product", "mapstorch", "pymca"]
BenchmarkTask = Literal["initial", "refinement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What `hpcxrf benchmark` compares: the published protocol."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    methods: tuple[BenchmarkMethod, ...] = ("separable", "adam", "sbplx", "product")
    """`separable`, `adam` and `sbplx` share line table, background, objective and starting values; `product` is
    hpcxrf with its defaults and no calibration; `mapstorch` and `pymca` are those programs."""
    tasks: tuple[BenchmarkTask, ...] = ("initial", "refinement")
    start: Literal["narrow", "wide"] = "narrow"
    """How far the random starting values reach."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the starting values, and of the choice of datasets."""
    datasets: dict[BenchmarkMethod, Annotated[int, Field(ge=1)]] = field(default_factory=dict)
    """Number of datasets, drawn by the seed, for slow methods; the others run on all."""
    background: Literal["hats", "snip", "none"] = "snip"
    """Of the methods that are compared; `product` has its own."""
    adam_steps: Annotated[int, Field(ge=1)] = 500
    sbplx_evaluations: Annotated[int, Field(ge=1)] = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Where it runs; changes no result."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes; None: one per GPU, else one per core group."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Torch threads of a worker; None: cores / workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one, and the report says which; `cuda` without one is an error."""
    datasets_in_flight: Annotated[int, Field(ge=1)] = 8
    task_limit_s: Positive = 3600.0
    """In a Slurm job: a task that takes longer is ended with its worker, and tried twice more."""
    dashboard: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run file."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    input: InputConfig
    sample: SampleConfig = SampleConfig()
    detector: DetectorConfig = DetectorConfig()
    fit: FitConfig = FitConfig()
    pixels: PixelConfig = PixelConfig()
    regions: RegionsConfig = REGION_DEFAULTS
    benchmark: BenchmarkConfig = BenchmarkConfig()
    case_study: CaseStudyConfig = CASE_STUDY_DEFAULTS
    execution: ExecutionConfig = ExecutionConfig()


def check_config(raw: object, where: str) -> RunConfig:
    """Check a mapping (of YAML, or put together by the command line) against the run file's schema.

    Args:
        raw: what `yaml.safe_load` gave.
        where: name of the file or option, for the message.

    Raises:
        ConfigError: all faults at once, each with its place.
    """
    try:
        config = TypeAdapter(RunConfig).validate_python(raw)
    except ValidationError as error:
        faults = [f"  {_place(e['loc'])}: {e['msg']}{_given(e)}" for e in error.errors()]
        raise ConfigError("\n".join([f"{where} is no run file:", *faults])) from error
    config = _with_published_objective(config, raw)
    faults = _faults(config)
    if faults:
        raise ConfigError("\n".join([f"{where} is no run file:", *[f"  {f}" for f in faults]]))
    return config


def load_run_file(path: Path) -> tuple[RunConfig, str]:
    """Read and check a run file; relative input files are resolved against its folder.

    Returns:
        The configuration with absolute paths, and the text of the file as it was.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has faults: all of them at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a run file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    config = check_config(raw, str(path))
    return _from_folder(config, path.parent.absolute()), text


def _from_folder(config: RunConfig, folder: Path) -> RunConfig:
    """The same with paths made absolute: what they name must not depend on where the command is given."""
    files = tuple(str(folder / name) for name in config.input.files)
    override, previous = config.fit.override, config.fit.previous
    if override not in {"auto", "none"}:
        override = str(folder / override)
    if previous is not None:
        previous = str(folder / previous)
    labels = {name: str(folder / path) for name, path in config.regions.labels.items()}
    return dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, files=files),
        regions=dataclasses.replace(config.regions, labels=labels),
        fit=dataclasses.replace(config.fit, override=override, previous=previous),
    )


def effective(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON values, defaults included; execution is left out, it changes no result."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    for name in ("execution", "benchmark", "case_study"):
        del plain[name]
    return plain


def _with_published_objective(config: RunConfig, raw: object) -> RunConfig:
    """The published optimisers minimise the mean square: so be it where no objective is named."""
    asked = raw.get("fit") if isinstance(raw, dict) else None
    if config.fit.method == "separable" or not isinstance(asked, dict) or "objective" in asked:
        return config
    return dataclasses.replace(config, fit=dataclasses.replace(config.fit, objective="mse"))


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "the file"


def _given(error: ErrorDetails) -> str:
    given = error.get("input")
    return f" (given: {given!r})" if isinstance(given, (str, int, float, bool)) else ""


def _faults(config: RunConfig) -> list[str]:
    faults = []
    if not config.input.files:
        faults.append("input.files: is empty; name at least one file")
    span = config.fit.energy_range_kev
    if span is not None and not 0.0 <= span[0] < span[1]:
        faults.append(f"fit.energy_range_kev: {list(span)} must rise from 0 keV or more")
    if (config.fit.calibration == "previous") != (config.fit.previous is not None):
        faults.append("fit.calibration 'previous' and fit.previous (a results store) go together; give both")
    method, objective = config.fit.method, config.fit.objective
    if method != "separable" and objective != "mse":
        faults.append(
            f"fit.objective: {objective} cannot be had of fit.method {method}, which minimises the mean square as "
            "published; give mse or leave it out, or give fit.method: separable"
        )
    both = sorted(set(config.fit.fixed) & set(config.fit.free))
    if both:
        faults.append(f"fit.fixed and fit.free both name {', '.join(both)}")
    repeated = sorted({e for e in config.sample.elements if config.sample.elements.count(e) > 1})
    if repeated:
        faults.append(f"sample.elements: named more than once: {', '.join(repeated)}")
    if config.sample.source == "tube" and config.sample.incident_energy_kev is None:
        faults.append(
            "sample.source: a tube has no single energy; give sample.incident_energy_kev, the effective "
            "energy at which the line ratios are taken"
        )
    return [*faults, *_pixel_faults(config), *region_faults(config.regions)]


def _pixel_faults(config: RunConfig) -> list[str]:
    pixels, remap = config.pixels, config.regions.remap
    faults = []
    if pixels.background == "snip" and pixels.method not in {"linear", "nnls"}:
        faults.append(
            f"pixels.background: snip cannot be had of pixels.method {pixels.method}, whose background is in the fit; "
            "give linear or nnls, or background: columns"
        )
    if pixels.background == "snip" and isinstance(remap, str) and remap not in {"linear", "nnls"}:
        faults.append(f"regions.remap: {remap} has its background in the fit; give pixels.background: columns")
    if pixels.detectors != "each" and "full" in {pixels.method, remap}:
        faults.append(
            f"pixels.detectors: {pixels.detectors} cannot be had of the method full, which fits the theta of one "
            "detector, not of a sum; give each"
        )
    return faults
