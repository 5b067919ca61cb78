"""Shared fixtures: real data beside the project, and what CI may not skip."""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# One thread: the matrices are small, and two threads that wait for each other cost more than they bring.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# One for all tests, also those of another home: kernels take ten seconds to compile.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"hpcxrf-test-kernels-{os.getuid()}"))

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, Page, sync_playwright

from slurm.testcluster import INSTALL, PrivateSlurm, missing_programs, running

# The first call into torch takes longer than hypothesis's deadline allows an example.
settings.register_profile("hpcxrf", deadline=None, print_blob=True)
settings.load_profile("hpcxrf")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_CASES = SHARED_DATA.with_name("cases")
IN_CI = os.environ.get("HPCXRF_CI") == "1"


def skip_or_fail(reason: str) -> None:
    """Skip with the reason, or fail in CI, where everything must be installed."""
    if IN_CI:
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


def pytest_configure() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and so would be the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the measured scans."""
    if not SHARED_DATA.is_dir():
        skip_or_fail(f"measured data not found: {SHARED_DATA}; put the shared folder beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Folder of the small inputs that failed once, with the right answers in its README."""
    if not SHARED_CASES.is_dir():
        skip_or_fail(f"collected cases not found: {SHARED_CASES}; put the shared folder beside the project")
    return SHARED_CASES


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser that opens the reports."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        skip_or_fail("Chromium not found; on Debian: apt-get install chromium")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """The browser, steered; of a module, since its event loop runs as long as it does."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address in a page of its own: `open_page(address, width=1280, color_scheme="dark")`; errors fail."""
    contexts, faults = [], []

    def open_one(address: str, *, width: int = 1280, height: int = 900, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not faults


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def hpcxrf(monkeypatch, capfd):
    """Run the command line inside this process: `hpcxrf("fit", path, "--json")`."""
    from hpcxrf.cli import main

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["hpcxrf", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            code = 0
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = capfd.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def slurm_programs() -> None:
    """Slurm and munge are installed."""
    missing = missing_programs()
    if missing:
        skip_or_fail(f"no Slurm programs ({', '.join(missing)}); on Debian: {INSTALL}")


@pytest.fixture(scope="session")
def private_slurm(slurm_programs: None) -> Iterator[PrivateSlurm]:
    """A real Slurm: three pretend nodes of 8 cores and 4 pretend GPUs."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def slurm_cluster(private_slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateSlurm]:
    """The session's Slurm, empty before and after the test, and the one that this process's commands meet."""
    for name in private_slurm.foreign_variables():
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(private_slurm.conf))
    private_slurm.cancel_all()
    yield private_slurm
    private_slurm.cancel_all()
