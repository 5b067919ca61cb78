"""Fits by eye of one dataset of a run, as the server calls them: JSON in, JSON out, and nothing that waits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.elements import build_elements
from hpcxrf.explore.fits import Counts, FitProcess, Job
from hpcxrf.explore.history import History, describe_changes, tell_time
from hpcxrf.explore.requests import FitRequest, read_request
from hpcxrf.explore.run_facts import RUN_FIT, OpenedRun, open_run_facts, read_run_fit
from hpcxrf.explore.session import Session
from hpcxrf.explore.writing import describe_command, write_fit
from hpcxrf.results.names import SUM

Json = dict[str, Any]


class FitSession:
    """The fits of one dataset: on their way, kept, and written out; one for all pages of a server."""

    def __init__(self, run_dir: Path, dataset_id: str) -> None:
        """Open the dataset; `start` or the first request starts the process that fits.

        Raises:
            OutputError: no run there, or its results cannot be read.
            ConfigError: the run was made by another version, whose options are none any more.
        """
        self.opened: OpenedRun = open_run_facts(run_dir, dataset_id)
        self._history = History(run_dir=run_dir, dataset_id=dataset_id)
        self._process = FitProcess(run_dir, dataset_id, complete=self._complete)
        self._latest: dict[str, Json] = {}
        """Latest fit of everything by detector, for the evidence of the elements."""
        self._run_fits: dict[str, Json] = {}

    def start(self) -> None:
        """Start the process that fits, so that the first fit need not wait for it."""
        self._process.start()

    def detectors_of(self, name: str) -> tuple[int, ...]:
        """Numbers of the detectors whose counts `submit` needs for a detector or the sum.

        Raises:
            ConfigError: no such detector.
        """
        if name not in self.opened.facts.detectors:
            raise ConfigError(
                f"{name[:40]!r} is not a fitted detector; choose {' or '.join(self.opened.facts.detectors)}"
            )
        return self.opened.facts.members if name == SUM else (int(name),)

    def submit(
        self,
        request: Mapping[str, Any],
        counts: Counts | None = None,
        *,
        n_pixels: int | None = None,
        session: str = "",
    ) -> Json:
        """Ask for a fit (POST /api/fit); one of the same page that has not ended gives way to it.

        Args:
            request: detector, selection, elements, kind, theta, focus, parent, keep.
            counts: counts (channel,) of the selection, whole numbers, by number of the detector (`detectors_of`); None
                where the selection is `all`: what the run fitted.
            n_pixels: pixels of the selection; None where it is `all`.
            session: name of the page that asks.

        Returns:
            The id of the request, and the command that does the same.

        Raises:
            ConfigError: every fault of the request.
        """
        read = read_request(request, self.opened.facts)
        if read.is_whole:
            counts, n_pixels = None, self.opened.n_pixels
        elif counts is None or set(counts) != set(self.detectors_of(read.detector)):
            raise ConfigError("the counts of the selection are missing; select the pixels again")
        job_id = self._process.submit(read, counts, n_pixels=n_pixels, session=session)
        return {"id": job_id, "command": describe_command(self.opened, read)}

    def poll(self, job_id: str) -> Json:
        """State of a request (GET /api/fit): id, state, elapsed_s, reason, and the fit when it is done.

        Raises:
            ConfigError: no such request.
        """
        return _require(self._process.poll(job_id), job_id)

    def cancel(self, job_id: str) -> Json:
        """End a request (POST /api/fit/cancel) and give its state.

        Raises:
            ConfigError: no such request.
        """
        return _require(self._process.cancel(job_id), job_id)

    def history(self) -> list[Json]:
        """Kept fits without their spectra, oldest first (GET /api/history)."""
        return self._history.summaries()

    def one(self, fit_id: str) -> Json:
        """One fit whole (GET /api/history/one): kept, or `run-<detector>`, that of the run.

        Raises:
            ConfigError: no such fit.
        """
        if fit_id.startswith(RUN_FIT):
            return self.run_fit(fit_id.removeprefix(RUN_FIT))
        found = self._find(fit_id)
        if found is None:
            raise ConfigError(f"no fit has the id {fit_id[:40]!r}; choose one of the history")
        return found

    def run_fit(self, detector: str) -> Json:
        """The integrated fit of the run, which the first fit by eye begins from.

        Raises:
            ConfigError: no such detector.
        """
        if detector not in self._run_fits:
            self._run_fits[detector] = read_run_fit(self.opened, detector)
        return self._run_fits[detector]

    def take_back(self) -> Json | None:
        """Mark the last kept fit as taken back (POST /api/history/take_back), and give the one before; None: none.

        Raises:
            ConfigError: no kept fit is left.
        """
        before = self._history.take_back()
        self._latest = {} if before is None else {before["detector"]: before}
        return before

    def elements(self, detector: str) -> list[Json]:
        """The periodic table (GET /api/elements) with the evidence of the latest fit of a detector.

        Raises:
            ConfigError: no such detector.
        """
        self.detectors_of(detector)
        return build_elements(self._latest.get(detector) or self.run_fit(detector), self.opened.facts)

    def write(self, request: Mapping[str, Any]) -> Json:
        """Text of a file (POST /api/write) with its name and the command that uses it; nothing is written.

        Args:
            request: kind, fit, regions.

        Raises:
            ConfigError: every fault of the request.
        """
        fit_id = request.get("fit")
        fit = None if fit_id is None else self.one(str(fit_id))
        return write_fit(request, fit, self.opened)

    def close(self) -> None:
        """End the process that fits."""
        self._process.close()

    def _find(self, fit_id: str) -> Json | None:
        """A fit by its id: kept, or still in memory."""
        described = self._process.poll(fit_id)
        fit: Json | None = None if described is None else described["fit"]
        return self._history.one(fit_id) or fit

    def _complete(self, job: Job, fit: Json) -> Json:
        """The process's answer with what the request says, compared with its parent and kept where wanted."""
        request = job.request
        parent = None if request.parent is None else self._find_parent(request.parent)
        whole = {
            "id": job.id,
            "parent": request.parent,
            "at": tell_time(),
            "kind": request.kind,
            "selection": dict(request.selection),
            "n_pixels": job.n_pixels,
            "focus": None if request.focus is None else list(request.focus),
            "start": self._list_moved(request),
            **fit,
            "taken_back": False,
            "command": describe_command(self.opened, request),
        }
        whole["changed"] = describe_changes(whole, parent or self.run_fit(request.detector))
        if request.keep:
            self._history.append(whole)
        if request.kind == "full" and not request.focus:
            self._latest[request.detector] = whole
        return whole

    def _list_moved(self, request: FitRequest) -> dict[str, float]:
        """Values of theta that were set by hand: those that the run does not have."""
        stored = {row["name"]: row["value"] for row in self.opened.facts.parameters[request.detector]}
        return {name: value for name, value in request.values.items() if value != stored[name]}

    def _find_parent(self, fit_id: str) -> Json | None:
        return self.run_fit(fit_id.removeprefix(RUN_FIT)) if fit_id.startswith(RUN_FIT) else self._find(fit_id)


def make_fits(session: Session) -> FitSession:
    """Make the fits of an open scan, and start their process.

    Raises:
        OutputError: it is not of a run, or its results cannot be read.
        ConfigError: the run was made by another version, whose options are none any more.
    """
    if session.target.run is None:
        raise OutputError("fits need the run directory with its spectra; start `hpcxrf explore RUN`")
    fits = FitSession(session.target.run, session.dataset.dataset_id)
    fits.start()
    return fits


def _require(found: Json | None, job_id: str) -> Json:
    if found is None:
        raise ConfigError(f"no fit was asked for with the id {job_id[:40]!r}; ask for it again")
    return found
