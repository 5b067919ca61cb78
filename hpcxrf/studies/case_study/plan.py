"""What a case study fits: which spectra, with which method, from where, in what order."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.run import RunConfig, require_case_study
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.studies.arms import name_by_amplitudes

if TYPE_CHECKING:
    from hpcxrf.simulate import ScanSpec

StudyMethod = Literal[
    "product", "separable", "adam", "adam-guessed", "sbplx", "sbplx-guessed", "linear", "poisson", "full"
]
"""`linear`, `poisson` and `full` are the program's pixel methods, `product` its fit of summed spectra."""

SIMULATE: Final = "simulate"
STUDY_STAGES: Final = ("spectra", "first-pass", "trials", "areas", "draws", "single-pixels", "map")
"""Stages of the fits, each after the ones before it."""
SPECTRA: Final = "spectra"
PRODUCT: Final = "first-pass-product"
"""Where it ended is where regions and single pixels start, with every method."""
LINEAR: Final[Literal["linear"]] = "linear"
POISSON: Final[Literal["poisson"]] = "poisson"
"""Folders of the two runs of the product within that of the study."""
COMPARED: Final[tuple[StudyMethod, ...]] = ("product", "adam", "sbplx")
SINGLE: Final[tuple[StudyMethod, ...]] = ("linear", "poisson", "full", "adam", "sbplx")
MAPPED: Final[tuple[StudyMethod, ...]] = ("adam", "sbplx")
_PIXELS_A_TASK: Final = 16
_DRAWS_A_TASK: Final = 4
_TOGETHER: Final = ("linear", "poisson", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyUnit:
    """One task of a case study, in the order of the graph."""

    task: str
    stage: str
    needs: tuple[str, ...] = ()
    """Tasks that must be finished before."""
    method: StudyMethod | None = None
    """None: spectra are gathered or drawn."""
    source: str = SPECTRA
    """Task whose file has the spectra."""
    spectra: str = "whole"
    """Which of its arrays: `whole`, `region-0`, `pixels-0`, `draws-0`."""
    rows: tuple[int, ...] = (0,)
    """Which of the array's spectra, in order."""
    start: int | None = None
    """Number of the random start; None: where the product's first pass ended."""
    trial: int | None = None
    """Number of the trial whose spectrum is drawn."""
    region: int | None = None
    """Number of the region whose summed spectrum is drawn again."""


def check_case_study(config: RunConfig) -> None:
    """Refuse a run file that is none of a case study, before the scan is simulated.

    Raises:
        ConfigError: all faults at once.
    """
    regions, files = config.regions, config.input.files
    amplitudes = list(config.case_study.amplitudes) if config.case_study is not None else ["random"]
    faults = []
    if importlib.util.find_spec("nlopt") is None:
        faults.append("method sbplx needs the package nlopt: pip install hpcxrf[bench]")
    if len(files) != 1 or Path(files[0]).suffix != ".h50":
        faults.append(f"input.files: {list(files)}; name one file NAME.h50, which is simulated")
    if not set(regions.find) <= {"squares"} or len(regions.given) > len(regions.rectangles):
        faults.append("regions: only squares can be found and only rectangles given here")
    if not regions.wanted:
        faults.append("regions: none; give find: [squares] or rectangles")
    if not amplitudes or len(set(amplitudes)) < len(amplitudes):
        faults.append(f"case_study.amplitudes: {amplitudes} names one twice or none; name each once")
    if config.fit.calibration != "none":
        faults.append(f"fit.calibration: {config.fit.calibration}; give none: the first pass knows no calibration")
    if config.pixels.detectors == "sum":
        faults.append("pixels.detectors: sum; one detector is fitted, leave it out")
    if config.sample.incident_energy_kev is not None or config.sample.elements:
        faults.append("sample: elements and incident energy are those of the simulated scan; leave them out")
    if faults:
        raise ConfigError("\n".join(["the case study cannot be run:", *[f"  {f}" for f in faults]]))


def scan_file(config: RunConfig) -> Path:
    """File of the simulated scan, absolute."""
    return Path(config.input.files[0]).absolute()


def study_scan(config: RunConfig) -> "ScanSpec":
    """Specification of the scan that a run file describes."""
    from hpcxrf.simulate import plant_spec

    asked = require_case_study(config)
    return plant_spec(seed=asked.seed, size=asked.size, name=scan_file(config).stem)


def study_folder(job: DatasetJob) -> Path:
    """Folder of the fits."""
    return job.run_dir / "study"


def study_file(job: DatasetJob, task: str) -> Path:
    """File that a task writes."""
    return study_folder(job) / f"{task}.npz"


def plan_units(
    config: RunConfig, region_pixels: tuple[int, ...], mapped: int, chosen: tuple[int, ...]
) -> list[StudyUnit]:
    """All tasks, each after those that it needs.

    Args:
        config: a run file for which `check_case_study` holds.
        region_pixels: pixels of each region.
        mapped: region whose every pixel is fitted with the published methods.
        chosen: single pixels of a region that every method fits, counted along its rows; those beyond a region's
            last are left out.
    """
    asked = require_case_study(config)
    units = [StudyUnit(task=SPECTRA, stage="spectra"), *_first_pass(asked), *_trials(asked)]
    for region, n in enumerate(region_pixels):
        units += [
            StudyUnit(
                task=f"region-{region}-{method}",
                stage="areas",
                needs=(SPECTRA, PRODUCT),
                method=method,
                spectra=f"region-{region}",
            )
            for method in COMPARED
        ]
        units += _draws(region, asked.draws)
        mine = tuple(i for i in chosen if i < n)
        for method in SINGLE:
            units += _pixels("single-pixels", region, method, mine)
    for method in MAPPED:
        units += _pixels("map", mapped, method, tuple(range(region_pixels[mapped])))
    return sorted(units, key=lambda unit: STUDY_STAGES.index(unit.stage))


def list_started(asked: CaseStudyConfig) -> tuple[StudyMethod, ...]:
    """The published methods, each with every start of its amplitudes that is asked for."""
    published: tuple[Literal["adam", "sbplx"], ...] = ("adam", "sbplx")
    return tuple(name_by_amplitudes(m, guessed=start == "guessed") for m in published for start in asked.amplitudes)


def _first_pass(asked: CaseStudyConfig) -> Iterator[StudyUnit]:
    """The product needs no start, and so ends in the same place from all of them."""
    methods: tuple[StudyMethod, ...] = ("separable", *list_started(asked))
    yield StudyUnit(task=PRODUCT, stage="first-pass", needs=(SPECTRA,), method="product")
    for start in range(asked.starts):
        for method in methods:
            yield StudyUnit(
                task=f"first-pass-{method}-{start:03}", stage="first-pass", needs=(SPECTRA,), method=method, start=start
            )


def _trials(asked: CaseStudyConfig) -> Iterator[StudyUnit]:
    methods: tuple[StudyMethod, ...] = ("product", *list_started(asked))
    for trial in range(asked.trials):
        name = f"trial-{trial:03}"
        yield StudyUnit(task=name, stage="spectra", trial=trial)
        for method in methods:
            yield StudyUnit(
                task=f"{name}-{method}", stage="trials", needs=(name,), method=method, source=name, start=trial
            )


def _draws(region: int, draws: int) -> Iterator[StudyUnit]:
    """The summed spectrum of a region with other noise, some fits to a task."""
    name = f"draws-{region}"
    if draws:
        yield StudyUnit(task=name, stage="spectra", needs=(SPECTRA,), region=region)
    for method in COMPARED:
        for first in range(0, draws, _DRAWS_A_TASK):
            yield StudyUnit(
                task=f"{name}-{method}-{first:03}",
                stage="draws",
                needs=(name, SPECTRA, PRODUCT),
                method=method,
                source=name,
                spectra=name,
                rows=tuple(range(first, min(first + _DRAWS_A_TASK, draws))),
            )


def _pixels(stage: str, region: int, method: StudyMethod, pixels: tuple[int, ...]) -> Iterator[StudyUnit]:
    """The program's methods take all pixels together; the others one by one, some to a task."""
    size = len(pixels) if method in _TOGETHER else _PIXELS_A_TASK
    for first in range(0, len(pixels), max(size, 1)):
        yield StudyUnit(
            task=f"{stage}-{region}-{method}-{first:04}",
            stage=stage,
            needs=(SPECTRA, PRODUCT),
            method=method,
            spectra=f"pixels-{region}",
            rows=pixels[first : first + size],
        )
