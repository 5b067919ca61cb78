"""The results of a run over an archive as one table, read from its index; maps stay in their stores until asked for."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hpcxrf.catalogue.rows import decode_text
from hpcxrf.config.untrusted import refuse_irregular
from hpcxrf.errors import OutputError
from hpcxrf.pipeline.index import APPLICATION_ID, FIT_COLUMNS, INDEX, RESULT_COLUMNS, VERSION
from hpcxrf.runner.datasets import ENDINGS

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

_LONG_NAMES: Final = {
    "verdict": "verdict on the detector that fits worst",
    "r2": "R2 of the detector that fits worst",
    "deviance": "Poisson deviance of the detector that fits worst",
    "cpu_s": "processor time of all tasks",
}
_UNITS: Final = {"wall_s": "s", "cpu_s": "s"}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Archive(Mapping[str, "xr.DataTree"]):
    """The datasets of a run by name, those that are done: each is opened when it is asked for."""

    path: Path
    """The run directory."""
    stores: Mapping[str, Path]
    """Results stores by name of the dataset."""
    is_current: bool
    """False: the run has gone on since the index was made; `hpcxrf index` makes it anew."""

    def __getitem__(self, dataset_id: str) -> "xr.DataTree":
        from hpcxrf.results.store.opening import open_results

        return open_results(self.stores[dataset_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stores)

    def __len__(self) -> int:
        return len(self.stores)

    def maps(self, dataset_id: str) -> "xr.Dataset":
        """Open the maps of one dataset: amplitude, sigma, detection_limit (detector, component, y, x), status ...

        Raises:
            KeyError: no dataset of that name is done.
        """
        return self[dataset_id]["maps"].to_dataset()

    def table(self, where: str | None = None) -> "xr.Dataset":
        """Read what became of every dataset, and what was fitted of its integrated spectra.

        Args:
            where: condition on the columns of the table `result` as SQL writes it, `verdict = 'good' and r2 > 0.9`;
                None: all datasets.

        Returns:
            By `dataset`: state, fault, verdict, r2, deviance, path, date, sample ...; by `dataset` and `detector`
            (numbers and `sum`): fit_verdict, fit_r2, fit_r2_expected, fit_reduced_chi2, fit_deviance; by `dataset`,
            `detector` and `parameter`: theta, NaN where there is none.

        Raises:
            OutputError: the index cannot be read, or the condition is not one.
        """
        from hpcxrf.results.accessor import register_accessor

        register_accessor()
        with open_index(self.path) as base:
            return _read_table(base, where)

    def __repr__(self) -> str:
        return f"<Archive {self.path}: {len(self.stores)} datasets{'' if self.is_current else ', index not current'}>"


def open_archive(path: str | Path) -> Archive:
    """Open the results of a run over an archive: a table of all datasets, and the maps of each when asked for.

    Args:
        path: a run directory that has an index, as every run over a catalogue has at its end; `hpcxrf index RUN` makes
            that of any run.

    Raises:
        OutputError: no index there, or one that cannot be read.

    Example:
        >>> archive = hpcxrf.open_archive("out")  # doctest: +SKIP
        >>> table = archive.table("verdict = 'good'")  # doctest: +SKIP
        >>> table["theta"].sel(parameter="energy_slope", detector="0")  # doctest: +SKIP
        >>> archive.maps(str(table["dataset"][0].item()))  # doctest: +SKIP
    """
    run = Path(path)
    records = run / ENDINGS
    with open_index(run) as base:
        stores = base.execute("SELECT dataset_id, results FROM result WHERE results IS NOT NULL ORDER BY rowid")
        found = {str(name): run / str(store) for name, store in stores}
        (size,) = base.execute("SELECT records_bytes FROM about").fetchone()
    current = size == (records.stat().st_size if records.is_file() else 0)
    return Archive(path=run, stores=found, is_current=current)


@contextmanager
def open_index(run: Path) -> Iterator[sqlite3.Connection]:
    """Connect to the index of a run, which can only be read.

    Raises:
        OutputError: no index there, one that cannot be read, or one of a newer version.
    """
    index = run / INDEX
    if not index.is_file():
        raise OutputError(f"{run}: has no {INDEX}; make it with `hpcxrf index {run}`")
    refuse_irregular(index, OutputError)
    remedy = f"make it again with `hpcxrf index {run}`"
    try:
        with closing(sqlite3.connect(f"file:{quote(bytes(index.absolute()))}?mode=ro&immutable=1", uri=True)) as base:
            base.execute("PRAGMA trusted_schema = OFF")
            known = (
                base.execute("PRAGMA application_id").fetchone()[0],
                base.execute("PRAGMA user_version").fetchone()[0],
            )
            if known != (APPLICATION_ID, VERSION):
                raise OutputError(f"{index}: is not an index of this version of hpcxrf; {remedy}")
            yield base
    except sqlite3.Error as error:
        raise OutputError(f"{index}: cannot be read: {error}; {remedy}") from error


def _read_table(base: sqlite3.Connection, where: str | None) -> "xr.Dataset":
    import numpy as np
    import xarray as xr

    rows = _select_results(base, where)
    place = {str(row[0]): number for number, row in enumerate(rows)}
    columns = dict(zip(RESULT_COLUMNS, zip(*rows, strict=True) if rows else [()] * len(RESULT_COLUMNS), strict=True))
    numbers = [name for name, kind in RESULT_COLUMNS.items() if kind.startswith(("REAL", "INTEGER"))]
    data: dict[str, Any] = {
        name: ("dataset", _as_floats(values) if name in numbers else _as_texts(values), _attributes(name))
        for name, values in columns.items()
        if name != "dataset_id"
    }
    detectors = [str(one) for (one,) in base.execute("SELECT DISTINCT detector FROM fit ORDER BY detector")]
    names = [str(one) for (one,) in base.execute("SELECT DISTINCT name FROM theta ORDER BY name")]
    at = {detector: number for number, detector in enumerate(detectors)}
    for name, kind in list(FIT_COLUMNS.items())[2:]:
        grid = np.full(
            (len(place), len(at)), "" if kind == "TEXT" else np.nan, dtype=object if kind == "TEXT" else float
        )
        for dataset_id, detector, value in base.execute(f"SELECT dataset_id, detector, {name} FROM fit"):  # noqa: S608
            if dataset_id in place and value is not None:
                grid[place[dataset_id], at[detector]] = value
        data[f"fit_{name}"] = ("dataset", "detector"), grid
    theta = np.full((len(place), len(at), len(names)), np.nan)
    index = {name: number for number, name in enumerate(names)}
    for dataset_id, detector, name, value in base.execute("SELECT dataset_id, detector, name, value FROM theta"):
        if dataset_id in place and detector in at:
            theta[place[dataset_id], at[detector], index[name]] = value
    data["theta"] = ("dataset", "detector", "parameter"), theta, {"long_name": "fitted nonlinear parameter"}
    coordinates = {"dataset": _as_texts(list(place)), "detector": _as_texts(detectors), "parameter": _as_texts(names)}
    return xr.Dataset(data, coordinates)


def _select_results(base: sqlite3.Connection, where: str | None) -> list[tuple[Any, ...]]:
    condition = "" if where is None else f" WHERE ({where})"
    base.set_authorizer(_allow_reading)
    try:
        return base.execute(f"SELECT {', '.join(RESULT_COLUMNS)} FROM result{condition} ORDER BY rowid").fetchall()  # noqa: S608
    except sqlite3.Error as error:
        if where is None:
            raise
        names = ", ".join(RESULT_COLUMNS)
        raise OutputError(f"where {where!r}: {error}; write comparisons of columns: {names}") from error
    finally:
        base.set_authorizer(None)


def _allow_reading(action: int, _first: str | None, second: str | None, *_of: str | None) -> int:
    reads = action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
    compares = action == sqlite3.SQLITE_FUNCTION and second == "like"
    return sqlite3.SQLITE_OK if reads or compares else sqlite3.SQLITE_DENY


def _attributes(name: str) -> dict[str, str]:
    found = {"long_name": _LONG_NAMES.get(name), "units": _UNITS.get(name)}
    return {key: value for key, value in found.items() if value is not None}


def _as_floats(values: Any) -> "NDArray[np.float64]":  # noqa: ANN401 (values of a column)
    import numpy as np

    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _as_texts(values: Any) -> "NDArray[np.object_]":  # noqa: ANN401 (values of a column)
    import numpy as np

    texts = np.empty(len(values), dtype=object)
    texts[:] = ["" if value is None else decode_text(value) for value in values]
    return texts
