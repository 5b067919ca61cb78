"""Shared fixtures: real data beside the project, and what CI may not skip."""

import os
import shutil
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
IN_CI = os.environ.get("HPCXRF_CI") == "1"


def skip_or_fail(reason: str) -> None:
    """Skip with the reason, or fail in CI, where everything must be installed."""
    if IN_CI:
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the measured scans."""
    if not SHARED_DATA.is_dir():
        skip_or_fail(
            f"measured data not found: {SHARED_DATA}; put the shared folder beside the project"
        )
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser that opens the reports."""
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None:
        skip_or_fail("Chromium not found; on Debian: apt-get install chromium")
    assert found is not None
    return found
