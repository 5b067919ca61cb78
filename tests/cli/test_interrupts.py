"""Ctrl-C ends a command in its way wherever it comes, also within a lock of the standard library."""

import signal

import pytest

from hpcxrf import cli
from hpcxrf.errors import EXIT_INTERRUPTED, EXIT_RESUMABLE


@pytest.fixture(autouse=True)
def _handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Lock:
    """As `threading.Condition` does when a signal comes between its release and its end."""

    def __enter__(self):
        return self

    def __exit__(self, *_fault):
        raise RuntimeError("cannot release un-acquired lock")


@pytest.mark.parametrize(
    ("cause", "code", "said"),
    [(KeyboardInterrupt, EXIT_INTERRUPTED, "interrupted"), (cli._TerminatedError, EXIT_RESUMABLE, "terminated")],
)
@pytest.mark.parametrize("deep", [0, 1, 2])
def test_a_signal_within_locks_is_that_signal(monkeypatch, capsys, cause, code, said, deep):
    def run(**_named):
        def enter(depth):
            if depth == 0:
                raise cause
            with Lock():
                enter(depth - 1)

        enter(deep)

    monkeypatch.setattr("hpcxrf.cli.app.app", run)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    assert capsys.readouterr().err.startswith(f"{said}: what is finished is kept")


def test_another_fault_of_the_program_is_shown_as_it_is(monkeypatch):
    def run(**_named):
        raise RuntimeError("a fault")

    monkeypatch.setattr("hpcxrf.cli.app.app", run)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main()
