"""A case study as files for people: the page, its pictures, its tables."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from hpcxrf.results.export.cells import Cell
from hpcxrf.results.export.csv_tables import write_csv
from hpcxrf.results.report.page.look import load_page_look, load_templates
from hpcxrf.results.report.plots import encode
from hpcxrf.results.store.storage import replace_file
from hpcxrf.studies.case_study import plots
from hpcxrf.studies.case_study.tables import (
    LEAST_TRUE,
    AreaRow,
    DrawRow,
    FitRow,
    StudyData,
    TraceRow,
    TrialFacts,
    list_area_rows,
    list_draw_rows,
    list_fit_rows,
    list_map_rows,
    list_pixel_rows,
    mask_solved,
)
from hpcxrf.studies.pictures import encode_picture

PUBLISHED: Final = {"adam": 0.872, "sbplx": -0.050}
"""R2 of the published case study, on its own scan, which is another one: reference in README."""
PUBLISHED_LIMITS: Final = (500, 20_000)
"""Steps of Adam and evaluations of SBPLX there."""
_PICTURE_BYTES: Final = 900_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """Facts of the whole study. Texts may come from anywhere: the page escapes them."""

    title: str
    size: tuple[int, int]
    seed: int
    start: str
    background: str
    limits: tuple[int, int]
    """Steps of Adam and evaluations of SBPLX in the fits of summed spectra."""
    pixel_limits: tuple[int, int]
    """The same of the single pixels that every method fits."""
    map_limits: tuple[int, int]
    """The same of the pixels of the mapped region."""
    device: str
    started: str
    """ISO 8601 with time zone."""
    finished: str
    seconds: float
    """Wall time of the last start."""
    cpu_s: float
    """CPU seconds of all fits."""
    n_tasks: int
    command: str
    versions: Mapping[str, str]
    configuration: str
    failures: Mapping[str, str]
    """Reason by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial."""

    number: int
    facts: TrialFacts
    expected: float
    """R2 that counting noise alone allows."""
    r2: tuple[float, ...]
    """R2 by method, NaN where there is none."""


def write_study(summary: StudySummary, data: StudyData, folder: Path) -> None:
    """Write `case_study.html`, `pictures/*.png`, and a CSV file for each table.

    The tables are `fits`, `areas`, `draws`, `pixels`, `maps` and `trials`.

    Args:
        summary: of the study.
        data: all results.
        folder: is there.

    Raises:
        OutputError: the folder cannot be written.
    """
    areas = [g for g, _ in data.fits if g.startswith("region-")]
    groups = ["first-pass", "trials", *dict.fromkeys(areas)]
    fits, traces, maps = list_fit_rows(data, groups), list_pixel_rows(data), list_map_rows(data)
    drawn = draw_figures(data)
    for name, figure in drawn.items():
        _write_picture(figure, folder / "pictures" / f"{name}.png")
    write_table(folder / "fits.csv", fits, FitRow)
    write_table(folder / "areas.csv", list_area_rows(data), AreaRow)
    write_table(folder / "draws.csv", list_draw_rows(data), DrawRow)
    write_table(folder / "pixels.csv", traces, TraceRow)
    write_table(folder / "maps.csv", maps, TraceRow)
    _write_trials(folder / "trials.csv", data)
    page = (
        load_templates(Path(__file__).parent)
        .get_template("case_study.html.j2")
        .render(
            run=summary,
            published=PUBLISHED,
            published_limits=PUBLISHED_LIMITS,
            least_true=LEAST_TRUE,
            shown=plots.SHOWN,
            fits=fits,
            pixels=traces,
            maps=maps,
            areas=[row for row in list_area_rows(data) if row.component in data.traces],
            draws=[row for row in list_draw_rows(data) if row.component in data.traces],
            trials=list_trial_rows(data),
            trial_methods=list_trial_methods(data),
            n_regions=len(data.boxes),
            mapped=data.mapped,
            region_names=[plots.region_name(data, i) for i in range(len(data.boxes))],
            n_starts=max((r.n for r in fits if r.group == "first-pass"), default=0),
            n_pixels=max((len(c) for c in data.chosen), default=0),
            counts=float(data.spectra["whole"].sum()) if "whole" in data.spectra else np.nan,
            pictures={n: encode_picture(figure, n.replace("-", " "), _PICTURE_BYTES) for n, figure in drawn.items()},
            **load_page_look(),
        )
    )
    with replace_file(folder / "case_study.html") as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def draw_figures(data: StudyData) -> dict[str, Figure]:
    """All figures by name; those whose spectra could not be gathered are not there."""
    if "whole" not in data.spectra:
        return {"maps": plots.draw_maps(data)}
    return {
        "first-pass": plots.draw_first_pass(data),
        "misfits": plots.draw_misfits(data),
        "regions": plots.draw_regions(data),
        "single-pixels": plots.draw_pixels(data),
        "region-maps": plots.draw_compared_maps(data, data.mapped),
        "maps": plots.draw_maps(data),
    }


def _write_picture(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with replace_file(path) as partial:
        partial.write_bytes(encode(figure, dpi=120, kind="png"))


def write_table(path: Path, rows: list[FitRow] | list[AreaRow] | list[DrawRow] | list[TraceRow], kind: type) -> None:
    """Write rows of one kind under the names of their fields.

    Raises:
        OutputError: `path` cannot be written.
    """
    header = tuple(f.name for f in dataclasses.fields(kind))
    write_csv(path, header, [dataclasses.astuple(row) for row in rows])


def list_trial_methods(data: StudyData) -> tuple[str, ...]:
    """Methods of the trials, in order."""
    return tuple(m for g, m in data.fits if g == "trials")


def list_trial_rows(data: StudyData) -> list[TrialRow]:
    """A row for each trial whose spectrum could be drawn."""
    fits = [data.fits["trials", m] for m in list_trial_methods(data)]
    if not fits:
        return []
    return [
        TrialRow(
            number=i + 1,
            facts=facts,
            expected=float(fits[0].r2_expected[i]),
            r2=tuple(float(f.r2[i]) if mask_solved(f)[i] else np.nan for f in fits),
        )
        for i, facts in enumerate(data.trials)
    ]


def _write_trials(path: Path, data: StudyData) -> None:
    facts = tuple(f.name for f in dataclasses.fields(TrialFacts))
    header = ("trial", *facts, "r2_expected", *(f"r2_{m}" for m in list_trial_methods(data)))
    rows: list[tuple[Cell, ...]] = [
        (row.number, *dataclasses.astuple(row.facts), row.expected, *row.r2) for row in list_trial_rows(data)
    ]
    write_csv(path, header, rows)
