"""A small run to explore, made once."""

import pytest
from explore_samples import MadeRun, make_run

from hpcxrf.explore.opening import open_session
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import find_target


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> MadeRun:
    """Nothing may change it: tests that do take a copy."""
    return make_run(tmp_path_factory.mktemp("explored") / "out")


@pytest.fixture(scope="session")
def session(made) -> Session:
    target = find_target(made.folder)
    assert target is not None
    return open_session(target, target.dataset(None))
