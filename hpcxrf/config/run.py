"""The run file: what a user may ask for, checked at once and whole.

Plain frozen dataclasses, so that tasks can carry them; pydantic checks them where YAML comes in. Field docstrings
are the reference of the run file.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.detector import DetectorConfig
from hpcxrf.config.detectors import DetectorsConfig
from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.config.fields import CHECKED
from hpcxrf.config.fit import FitConfig
from hpcxrf.config.groups import GroupConfig, group_faults, override_sections
from hpcxrf.config.input import InputConfig, input_faults
from hpcxrf.config.names import nearest_name, option_names
from hpcxrf.config.normalise import NormaliseConfig, normalise_faults, with_site_scalers
from hpcxrf.config.pixels import PixelConfig, old_name_faults, pixel_faults
from hpcxrf.config.quantify import QuantifyConfig, quantify_faults
from hpcxrf.config.regions import RegionsConfig, region_faults
from hpcxrf.config.report import ReportConfig
from hpcxrf.config.sample import SampleConfig
from hpcxrf.config.settings import Setting, apply_settings, resolve_paths
from hpcxrf.config.store import StoreConfig
from hpcxrf.config.untrusted import read_yaml, report_faults
from hpcxrf.errors import ConfigError

_SMALLEST: Final = 1e-60
_LARGEST: Final = 1e12
"""Magnitudes of numbers in a run file."""

WorkloadName = str
"""Name of a row of `hpcxrf/workloads.py`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """A workload that a section of the run file chooses."""

    workload: WorkloadName
    unused: tuple[str, ...] = ()
    """Sections that it does not act on, beside those that choose other workloads: refused where they are given."""


_CHOICES: Final[Mapping[str, _Choice]] = {
    "case_study": _Choice(workload="case-study", unused=("groups", "normalise", "quantify", "report", "store")),
    "benchmark": _Choice(
        workload="benchmark", unused=("pixels", "regions", "normalise", "quantify", "report", "detectors", "store")
    ),
}
"""By section; a run file without any of them describes a scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run file."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    input: InputConfig
    sample: SampleConfig = field(default_factory=SampleConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    detectors: DetectorsConfig = field(default_factory=DetectorsConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    pixels: PixelConfig = field(default_factory=PixelConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    normalise: NormaliseConfig = field(default_factory=NormaliseConfig)
    quantify: QuantifyConfig = field(default_factory=QuantifyConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    groups: tuple[GroupConfig, ...] = ()
    """Scans of a catalogue that are treated otherwise than the sections say; of several groups the later one wins."""
    benchmark: BenchmarkConfig | None = None
    """Section that makes the run a benchmark; None: the run file has no such section."""
    case_study: CaseStudyConfig | None = None
    """Section that makes the run a case study; None: the run file has no such section."""
    store: StoreConfig = field(default_factory=StoreConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


def name_workload(sections: Collection[str]) -> WorkloadName:
    """Name the workload that the sections of a run file, or of a run directory, choose."""
    return next((choice.workload for section, choice in _CHOICES.items() if section in sections), "scan")


def drop_unused(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections without those that their workload does not act on."""
    unused = _unused_sections(name_workload(raw))
    return {section: values for section, values in raw.items() if section not in unused}


def _unused_sections(workload: WorkloadName) -> tuple[str, ...]:
    own = next((choice.unused for choice in _CHOICES.values() if choice.workload == workload), ())
    return (*own, *(section for section, choice in _CHOICES.items() if choice.workload != workload))


def workload_name(config: RunConfig) -> WorkloadName:
    """Name the workload that a run file asks for, by the section that it has."""
    return name_workload([section for section in _CHOICES if getattr(config, section) is not None])


def require_benchmark(config: RunConfig) -> BenchmarkConfig:
    """Return the section `benchmark`.

    Raises:
        ConfigError: the run file has none.
    """
    if config.benchmark is None:
        raise ConfigError("the run file has no section benchmark; add one, 'benchmark: {}' for its defaults")
    return config.benchmark


def require_case_study(config: RunConfig) -> CaseStudyConfig:
    """Return the section `case_study`.

    Raises:
        ConfigError: the run file has none.
    """
    if config.case_study is None:
        raise ConfigError("the run file has no section case_study; add one, 'case_study: {}' for its defaults")
    return config.case_study


def require_protocol(config: RunConfig) -> BenchmarkConfig | CaseStudyConfig:
    """Return the section that says how the published methods start and when they stop.

    Raises:
        ConfigError: the run file has neither `benchmark` nor `case_study`.
    """
    return config.case_study or require_benchmark(config)


def check_config(raw: object, where: str) -> RunConfig:
    """Check a mapping (of YAML, or put together by the command line) against the run file's schema.

    Args:
        raw: the mapping, as `yaml.safe_load` returns it. An empty section (`benchmark:`) has its defaults.
        where: name of the file or option, for the message.

    Raises:
        ConfigError: all faults at once, each with its place. An unknown key comes with the nearest known one.
    """
    with report_faults(where, ConfigError, "correct the run file"):
        return _check_sections(raw, where)


def _check_sections(raw: object, where: str) -> RunConfig:
    if isinstance(raw, Mapping):
        raw = {name: {} if section is None else section for name, section in raw.items()}
    if doubled := old_name_faults(raw):
        raise ConfigError("\n".join([f"{where}: not a valid run file:", *[f"  {f}" for f in doubled]]))
    try:
        config = TypeAdapter(RunConfig).validate_python(raw)
    except ValidationError as error:
        faults = [f"  {_place(e['loc'])}: {_fault(e)}" for e in error.errors()]
        raise ConfigError("\n".join([f"{where}: not a valid run file:", *faults])) from error
    if immense := [
        f"  {place}: {_shorten(value)} is not a quantity that any detector has" for place, value in _find_immense(raw)
    ]:
        raise ConfigError("\n".join([f"{where}: not a valid run file:", *immense]))
    config = _with_published_objective(config, raw)
    faults = [*_section_faults(raw), *_faults(config)]
    if faults:
        raise ConfigError("\n".join([f"{where}: not a valid run file:", *[f"  {f}" for f in faults]]))
    config = dataclasses.replace(config, normalise=with_site_scalers(config.normalise))
    return _check_groups(config, where) if config.groups else config


def _check_groups(config: RunConfig, where: str) -> RunConfig:
    """Check every group with the sections that it changes; each keeps the table of its site, as a run does."""
    faults: list[str] = []
    groups: list[GroupConfig] = []
    for number, group in enumerate(config.groups):
        faults += [f"  groups[{number}]: {fault}" for fault in group_faults(group)]
        try:
            normalise = of_groups(config, (number,)).normalise
        except ConfigError as error:
            faults += [f"  groups[{number}]: {line.strip()}" for line in str(error).splitlines()[1:]]
            continue
        scalers = dataclasses.asdict(normalise)["scalers"]
        given = {**group.normalise, "scalers": scalers} if "site" in group.normalise and scalers else group.normalise
        groups.append(dataclasses.replace(group, normalise=given))
    if faults:
        raise ConfigError("\n".join([f"{where}: not a valid run file:", *faults]))
    return dataclasses.replace(config, groups=tuple(groups))


def of_groups(config: RunConfig, numbers: Sequence[int]) -> RunConfig:
    """The configuration of the scans that some of the groups hold, which has no groups of its own.

    Args:
        config: a checked run file.
        numbers: places of the groups in `config.groups`, in their order.

    Raises:
        ConfigError: together they are not valid; all faults at once.
    """
    if not numbers:
        return dataclasses.replace(config, groups=())
    sections = list_sections(config)
    for number in numbers:
        sections = override_sections(sections, config.groups[number])
    return check_config(sections, f"groups[{', '.join(map(str, numbers))}]")


def list_sections(config: RunConfig) -> dict[str, Any]:
    """The sections of a configuration as plain values, those that its workload acts on, without its groups."""
    plain = dataclasses.asdict(dataclasses.replace(config, groups=()))
    return drop_unused({name: value for name, value in plain.items() if value is not None and name != "groups"})


def load_run_file(
    path: Path, settings: Sequence[Setting] = (), *, workload: WorkloadName | None = None
) -> tuple[RunConfig, str]:
    """Read and check a run file; relative input files are resolved against its folder.

    Args:
        path: the run file.
        settings: values of the command line, which replace those of the file; their paths are relative to the
            working directory.
        workload: workload whose section has its defaults where the file lacks it; None: a run file without such a
            section describes a scan.

    Returns:
        The configuration with absolute paths, and the text of the file as it was.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has faults: all of them at once.
    """
    raw, text = read_yaml(path, ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: not a valid run file: it must be a mapping of sections, as workflows/scan.yaml")
    with report_faults(path, ConfigError, "correct the run file"):
        raw = apply_settings(resolve_paths(raw, path.parent.absolute()), settings)
    if workload is not None:
        raw = _with_workload(raw, workload, path)
    where = " with ".join([str(path), *([", ".join(s.origin for s in settings)] if settings else [])])
    return check_config(raw, where), text


def effective(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON values, defaults included.

    `execution` and `store` are left out, since they change no result, and so are sections that the workload does not
    act on.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    for name in ("execution", "store", *_unused_sections(workload_name(config))):
        plain.pop(name, None)
    return plain


def _with_workload(raw: Mapping[str, Any], workload: WorkloadName, path: Path) -> dict[str, Any]:
    """Return the sections with that of the workload, its defaults where the run file lacks it."""
    other = [choice.workload for section, choice in _CHOICES.items() if section in raw and choice.workload != workload]
    if other:
        raise ConfigError(f"{path}: describes a {other[0]}, not a {workload}; use `hpcxrf run {path}`")
    added: dict[str, Any] = {section: {} for section, one in _CHOICES.items() if one.workload == workload}
    return {**added, **raw}


def _with_published_objective(config: RunConfig, raw: object) -> RunConfig:
    """Give the published optimisers, which minimise the mean square, their objective where none is named."""
    given = raw.get("fit") if isinstance(raw, dict) else None
    if config.fit.method == "separable" or not isinstance(given, dict) or "objective" in given:
        return config
    return dataclasses.replace(config, fit=dataclasses.replace(config.fit, objective="mse"))


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "the file"


def _fault(error: ErrorDetails) -> str:
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown{nearest_name(error['loc'], option_names(RunConfig))}"
    value = error.get("input")
    text = f" (value: {_shorten(value)})" if isinstance(value, (str, int, float, bool)) else ""
    remedy = "; write a list, as [Si, Fe]" if error["type"] == "tuple_type" and isinstance(value, str) else ""
    return f"{error['msg']}{text}{remedy}"


def _find_immense(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Find numbers whose squares would overflow or vanish, with their places."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _find_immense(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _find_immense(inner, place)
    elif isinstance(value, int | float) and value != 0 and not _SMALLEST <= abs(value) <= _LARGEST:
        yield place, value


def _shorten(value: object) -> str:
    """Show a value that a user wrote; a number of thousands of digits has no text in Python."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value)[:500]


def _section_faults(raw: object) -> list[str]:
    """Say which sections the workload does not act on, of those that the run file has."""
    given = raw if isinstance(raw, Mapping) else {}
    chosen = [section for section in _CHOICES if section in given]
    if len(chosen) > 1:
        return [f"{' and '.join(chosen)}: a run file has one of them; the options of each belong into its own section"]
    workload = name_workload(given)
    return [
        f"{section}: a {workload} does not use this section; remove it"
        for section in _unused_sections(workload)
        if section in given
    ]


def _faults(config: RunConfig) -> list[str]:
    faults = input_faults(config.input)
    faults += [
        f"{name}: needs a catalogue; give input.catalogue"
        for name, given in (("groups", config.groups), ("sample.elements_table", config.sample.elements_table))
        if given and config.input.catalogue is None
    ]
    span = config.fit.energy_range_kev
    if span is not None and not 0.0 <= span[0] < span[1]:
        faults.append(f"fit.energy_range_kev: {list(span)} must rise from 0 keV or more")
    if (config.fit.calibration == "previous") != (config.fit.previous is not None):
        faults.append("fit.calibration 'previous' and fit.previous (a results store) go together; give both")
    method, objective = config.fit.method, config.fit.objective
    if method != "separable" and objective != "mse":
        faults.append(
            f"fit.objective '{objective}' is not available with fit.method '{method}' (mean square only); use 'mse' or "
            "method 'separable'"
        )
    both = sorted(set(config.fit.fixed) & set(config.fit.free))
    if both:
        faults.append(f"fit.fixed and fit.free both name {', '.join(both)}")
    repeated = sorted({e for e in config.sample.elements if config.sample.elements.count(e) > 1})
    if repeated:
        faults.append(f"sample.elements: named more than once: {', '.join(repeated)}")
    twice = sorted({d for d in config.detectors.exclude if config.detectors.exclude.count(d) > 1})
    if twice:
        faults.append(f"detectors.exclude: named more than once: {', '.join(map(str, twice))}")
    faults += _tube_faults(config.sample)
    faults += normalise_faults(config.normalise)
    faults += quantify_faults(config.quantify, config.normalise)
    return [*faults, *pixel_faults(config.pixels, config.regions.remap), *region_faults(config.regions)]


def _tube_faults(sample: SampleConfig) -> list[str]:
    described = {
        "sample.anode": sample.anode,
        "sample.tube_kv": sample.tube_kv,
        "sample.tube_filters_um": sample.tube_filters_um,
    }
    given = [name for name, value in described.items() if value is not None]
    if sample.source != "tube":
        return [f"{', '.join(given)} describe a tube; give sample.source: tube as well"] if given else []
    if given and not sample.describes_tube:
        return [f"{', '.join(given)} given, but a tube needs both sample.anode and sample.tube_kv"]
    if sample.describes_tube and sample.incident_energy_kev is not None:
        return [
            "sample.incident_energy_kev is given beside sample.anode and sample.tube_kv; a tube that is described has "
            "no effective energy, leave it out"
        ]
    return []
