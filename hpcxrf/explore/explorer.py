"""All that the handlers of the explorer share: the scans that are open with their fits, the runs, the threads."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.access import Access
from hpcxrf.explore.changes import StoreChangedError, StoreGoneError
from hpcxrf.explore.fit_service import Fits
from hpcxrf.explore.opening import open_session
from hpcxrf.explore.page_files import PageFiles
from hpcxrf.explore.run_plans import close_plans
from hpcxrf.explore.runs import Runs, choose_dataset
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import Target, find_target

_MOST_SESSIONS: Final = 2
"""Scans that are open at once: each keeps maps and counts in memory."""
_POOLS: Final = ("counts", "maps", "fits", "runs", "forms")
_NO_FITS: Final = "fits need a run directory with its spectra; start `hpcxrf explore RUN`"


@dataclass(slots=True, kw_only=True)
class Opened:
    """A scan that is open, and its fits once they were asked for."""

    session: Session
    fits: Fits | None = None


@dataclass(slots=True, kw_only=True)
class Explorer:
    """All that the handlers share; made by `make_explorer`, ended by `close_explorer`."""

    target: Target | None
    """None: nothing of what was given has results yet."""
    access: Access
    files: PageFiles
    make_fits: Callable[[Session], Fits] | None
    default: str
    """The dataset_id that is meant where a request names none."""
    opened: dict[str, Opened]
    runs: Runs | None = None
    """Runs of the folder that was given, or the run; None: it is neither."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    pools: Mapping[str, ThreadPoolExecutor] = field(
        default_factory=lambda: {name: ThreadPoolExecutor(1, f"explore-{name}") for name in _POOLS}
    )
    last_used: float = field(default_factory=time.monotonic)
    """When something was asked last, by the monotonic clock."""


def make_explorer(
    target: Target | None,
    dataset: str | None,
    access: Access,
    make_fits: Callable[[Session], Fits] | None = None,
    runs: Runs | None = None,
) -> Explorer:
    """Open a scan, so that what is wrong with it is said before a browser opens.

    Args:
        target: what was given; None: a folder of runs, or a run without results.
        dataset: dataset_id of one of its scans; None: the first that is finished.
        access: secret and cookie.
        make_fits: makes the fits of a scan; None: there are none.
        runs: the runs of what was given; None: it is neither a run nor a folder of such.

    Raises:
        ConfigError: no such dataset.
        OutputError: it is not finished, or cannot be read.
    """
    opened: dict[str, Opened] = {}
    if target is not None:
        chosen = target.dataset(dataset)
        opened[chosen.dataset_id] = Opened(session=open_session(target, chosen))
    return Explorer(
        target=target,
        access=access,
        files=PageFiles(),
        make_fits=make_fits,
        default=next(iter(opened), ""),
        opened=opened,
        runs=runs,
    )


def close_explorer(explorer: Explorer) -> None:
    """End the fits and the threads; what a thread is at is waited for."""
    for pool in explorer.pools.values():
        pool.shutdown(wait=False, cancel_futures=True)
    if explorer.runs is not None:
        close_plans(explorer.runs.plans)
    with explorer.lock:
        for one in explorer.opened.values():
            _close_fits(one)


def open_dataset(explorer: Explorer, name: str | None) -> Opened:
    """Give the open scan that a request means; another is opened, and the one used longest ago closed.

    Raises:
        ConfigError: there is none of that name.
        OutputError: it is not finished, or its stores cannot be read.
    """
    asked = explorer.default if name is None else name
    target, chosen, whole = choose_dataset(explorer.target, explorer.runs, asked)
    with explorer.lock:
        found = explorer.opened.pop(whole, None)
        if found is None:
            found = Opened(session=open_session(target, chosen))
            while len(explorer.opened) >= _MOST_SESSIONS:
                _close_fits(explorer.opened.pop(next(iter(explorer.opened))))
        explorer.opened[whole] = found
    return found


def find_session(explorer: Explorer, name: str | None) -> Session:
    """Give the open scan of a name, without its fits; what is kept of it in memory counts no longer once it changed.

    Raises:
        StoreChangedError: it was written again since it was opened.
        StoreGoneError: it is gone.
        ConfigError: as `open_dataset`.
        OutputError: as `open_dataset`.
    """
    session = open_dataset(explorer, name).session
    session.require_unchanged()
    return session


def find_fits(explorer: Explorer, name: str | None) -> Fits:
    """Give the fits of a scan, whose process starts with the first question.

    Raises:
        OutputError: there are no fits of it, or it changed since it was opened; or as `open_dataset`.
        ConfigError: as `open_dataset`.
    """
    opened = open_dataset(explorer, name)
    # The process that fits keeps the counts that it has read.
    opened.session.require_unchanged()
    with explorer.lock:
        if opened.fits is None:
            if explorer.make_fits is None or opened.session.target.run is None:
                raise OutputError(_NO_FITS)
            opened.fits = explorer.make_fits(opened.session)
        return opened.fits


def reopen(explorer: Explorer, name: str | None) -> str:
    """Open what is there now in the place of what has changed; a dataset that is gone gives way to the first finished.

    Returns:
        Name of the dataset that is open now.

    Raises:
        StoreGoneError: there is nothing any more.
        ConfigError: no such run.
        OutputError: no dataset is finished, or its stores cannot be read.
    """
    asked = explorer.default if name is None else name
    if explorer.target is not None:
        explorer.target = _look_again(explorer.target)
    if explorer.runs is not None:
        with explorer.runs.lock:
            explorer.runs.targets.clear()
    with explorer.lock:
        for one in [key for key, opened in explorer.opened.items() if _has_changed(opened.session)]:
            _close_fits(explorer.opened.pop(one))
    try:
        whole = choose_dataset(explorer.target, explorer.runs, asked)[2]
    except ConfigError:
        # Another run in its place has other datasets.
        whole = choose_dataset(explorer.target, explorer.runs, asked[: asked.rfind("/") + 1])[2]
    open_dataset(explorer, whole)
    if explorer.target is not None:
        explorer.default = whole
    return whole


def _look_again(target: Target) -> Target:
    path = Path(target.name)
    found = find_target(path)
    if found is None and not path.exists():
        raise StoreGoneError(f"{target.name}: is gone; start `hpcxrf explore` where it is now")
    # A scan that was read from a file stays as it was read.
    return found or target


def _has_changed(session: Session) -> bool:
    try:
        session.require_unchanged()
    except (StoreChangedError, StoreGoneError):
        return True
    return False


def _close_fits(opened: Opened) -> None:
    if opened.fits is not None:
        opened.fits.close()
