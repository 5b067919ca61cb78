"""The run file: what a user may ask for, checked at once and whole.

Plain frozen dataclasses, so that tasks can carry them; pydantic checks them where YAML comes in. Field docstrings
are the reference of the run file.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.detector import DetectorConfig
from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.config.fields import CHECKED
from hpcxrf.config.fit import FitConfig
from hpcxrf.config.input import InputConfig
from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.regions import RegionsConfig, region_faults
from hpcxrf.config.sample import SampleConfig
from hpcxrf.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run file."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    input: InputConfig
    sample: SampleConfig = field(default_factory=SampleConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    pixels: PixelConfig = field(default_factory=PixelConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    case_study: CaseStudyConfig = field(default_factory=CaseStudyConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


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
