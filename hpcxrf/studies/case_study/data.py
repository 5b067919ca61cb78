"""All results of a case study, read from its files, with the truth beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.regions import read_region_mask, read_region_names
from hpcxrf.runner.records import TaskRecord
from hpcxrf.simulate import PLANT_TRACES, ScanSpec, ScanTruth, read_truth
from hpcxrf.simulate.spec import SCATTER_COMPONENTS
from hpcxrf.store.rundir import RunDir
from hpcxrf.studies.case_study.fits import StudyFits, join_fits, read_fits
from hpcxrf.studies.case_study.plan import LINEAR, POISSON, SPECTRA, StudyUnit, study_file
from hpcxrf.studies.case_study.tables import UNKNOWN_TRIAL, StudyData, TrialFacts
from hpcxrf.studies.case_study.tasks import DETECTOR, bounding_box


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """How the tasks ended."""

    records: dict[str, TaskRecord]
    """By task, of those that are finished."""
    failures: dict[str, str]
    """Reason by task, of the others."""


def gather_study(
    job: DatasetJob, units: Sequence[StudyUnit], outcome: StudyOutcome, spec: ScanSpec, mapped: int
) -> StudyData:
    """Read the fits, the maps of the product and the truth.

    Args:
        job: the scan.
        units: of the study.
        outcome: which of them are finished.
        spec: of the simulated scan.
        mapped: of `find_richest_region`.
    """
    truth = read_truth(job.source.parent / f"{spec.name}.truth.json")
    boxes = _find_boxes(job)
    axis = spec.detectors[DETECTOR].calibration
    channel = np.arange(spec.shape[3])
    energy = axis.offset_kev + axis.slope_kev * channel + axis.quadratic_kev * channel**2
    maps, cpu_s = _read_product_maps(job)
    return StudyData(
        traces=PLANT_TRACES,
        energy_kev=energy,
        boxes=boxes,
        chosen=tuple(_list_pixels(units, region) for region in range(len(boxes))),
        spectra=_read_spectra(job, outcome),
        fits=dict(_read_all_fits(job, units, outcome)),
        truth={t: truth.amplitude[DETECTOR, truth.components.index(t)] for t in PLANT_TRACES},
        region_truth=tuple(_sum_truth(truth, box) for box in boxes),
        mapped=mapped,
        maps=maps,
        map_cpu_s=cpu_s,
        markers=_read_markers(job),
        trials=tuple(
            _read_trial(job, unit) if unit.task in outcome.records else UNKNOWN_TRIAL
            for unit in units
            if unit.trial is not None
        ),
    )


def find_richest_region(job: DatasetJob) -> int:
    """The region whose linear maps of the traces, each over its mean in the scan, are highest together."""
    maps, _ = _read_product_maps(job, (LINEAR,))
    scores = [sum(float(one[box].mean() / max(one.mean(), 1e-12)) for one in maps.values()) for box in _find_boxes(job)]
    return int(np.argmax(scores))


def _find_boxes(job: DatasetJob) -> tuple[tuple[slice, slice], ...]:
    results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
    count = len(read_region_names(results))
    return tuple(bounding_box(read_region_mask(results, index)) for index in range(count))


def _list_pixels(units: Sequence[StudyUnit], region: int) -> NDArray[np.intp]:
    mine = [u.rows for u in units if (u.stage, u.spectra, u.method) == ("single-pixels", f"pixels-{region}", "linear")]
    return np.array([i for rows in mine for i in rows], dtype=np.intp)


def _read_spectra(job: DatasetJob, outcome: StudyOutcome) -> dict[str, NDArray[np.float64]]:
    if SPECTRA not in outcome.records:
        return {}
    with np.load(study_file(job, SPECTRA)) as stored:
        return {name: stored[name].astype(np.float64) for name in stored.files}


def _read_all_fits(
    job: DatasetJob, units: Sequence[StudyUnit], outcome: StudyOutcome
) -> Iterator[tuple[tuple[str, str], StudyFits]]:
    """Fits by group and method; those that did not run are there, with NaN."""
    groups: dict[tuple[str, str], list[StudyUnit]] = {}
    for unit in units:
        if unit.method is not None:
            groups.setdefault((_name_group(unit), unit.method), []).append(unit)
    found = {
        u.task: read_fits(study_file(job, u.task))
        for mine in groups.values()
        for u in mine
        if u.task in outcome.records
    }
    for key, mine in groups.items():
        # A method of which every fit failed is a row of failures, not a row that is missing.
        like = next((found[u.task] for u in mine if u.task in found), None)
        like = like or next(iter(found.values()), None)
        if like is not None:
            parts = [found.get(u.task) or make_blank(like, len(u.rows)) for u in mine]
            yield key, join_fits(parts)


def _name_group(unit: StudyUnit) -> str:
    if unit.stage in {"single-pixels", "map"}:
        return f"{unit.stage}-{unit.spectra.removeprefix('pixels-')}"
    return unit.spectra if unit.stage in {"areas", "draws"} else unit.stage


def make_blank(like: StudyFits, n: int) -> StudyFits:
    """Fits of spectra whose task failed."""
    none = np.full(n, np.nan)
    return replace(
        like,
        amplitude=np.full((n, like.amplitude.shape[1]), np.nan),
        theta=np.full((n, like.theta.shape[1]), np.nan),
        r2=none,
        r2_expected=none,
        deviance=none,
        cpu_s=none,
        evaluations=np.zeros(n, np.int64),
        status=np.zeros(n, np.int64),
        model=np.full((n, like.model.shape[1]), np.nan, np.float32),
    )


def _read_product_maps(
    job: DatasetJob, methods: Sequence[str] = (LINEAR, POISSON)
) -> tuple[dict[tuple[str, str], NDArray[np.float64]], dict[str, float]]:
    """Maps (y, x) by method and trace, and the CPU seconds of all pixel tasks."""
    maps: dict[tuple[str, str], NDArray[np.float64]] = {}
    seconds: dict[str, float] = {}
    for method in methods:
        run = RunDir(path=job.run_dir / method)
        amplitude = open_results(run.results_store(job.dataset_id))["maps"]["amplitude"]
        for trace in PLANT_TRACES:
            one = amplitude.sel(component=trace).sel(detector=str(DETECTOR))
            maps[method, trace] = np.asarray(one.values, dtype=np.float64)
        seconds[method] = _sum_pixel_seconds(run.read_journal(job.dataset_id))
    return maps, seconds


def _read_markers(job: DatasetJob) -> tuple[tuple[float, str], ...]:
    results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
    found = open_results(results)["spectrum"].attrs["line_markers"]
    return tuple((float(energy), str(label)) for energy, label in found)


def _sum_pixel_seconds(journal: Sequence[Mapping[str, object]]) -> float:
    """CPU seconds of the finished pixel tasks, the last of each."""
    by_task = {str(j["task"]): j["cpu_s"] for j in journal if j.get("stage") == "pixels"}
    return float(sum(float(str(value)) for value in by_task.values()))


def _sum_truth(truth: ScanTruth, box: tuple[slice, slice]) -> dict[str, float]:
    """Families alone: the scatter peaks and the continuum have other shapes in the simulation."""
    sums = truth.amplitude[DETECTOR][:, *box].sum(axis=(1, 2)).tolist()
    pairs = zip(truth.components, sums, strict=True)
    return {name: value for name, value in pairs if name not in SCATTER_COMPONENTS}


def _read_trial(job: DatasetJob, unit: StudyUnit) -> TrialFacts:
    with np.load(study_file(job, unit.task)) as stored:
        offset, slope, energy = stored["true"].tolist()
        return TrialFacts(
            energy_kev=energy,
            nominal_kev=float(stored["claimed"][3]),
            offset_kev=offset,
            slope_kev=slope,
            counts=float(stored["whole"].sum()),
        )
