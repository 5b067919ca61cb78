"""The command line: parses, calls, prints, and turns errors into exit codes."""

import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

from hpcxrf.config.untrusted import show_lines, show_name
from hpcxrf.errors import EXIT_INTERRUPTED, EXIT_RESUMABLE, HpcxrfError, OutputError

_GO_ON: Final = "what is finished is kept; the same command again goes on where it stopped\n"
_COMPLETE: Final = "_HPCXRF_COMPLETE"
"""Variable by which the completion scripts of the shells ask."""


class _TerminatedError(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that workers, locks and secrets are put away."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _TerminatedError


def main() -> None:
    """Entry point of `hpcxrf`; exit codes as in `hpcxrf.errors`."""
    from hpcxrf.cli.app import app

    if _COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="hpcxrf")
    except HpcxrfError as error:
        sys.stderr.write(f"error: {show_lines(str(error))}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        # The system refuses a file or folder that was named (its name is too long, its disk is full): no fault of ours.
        if error.filename is None:
            raise
        sys.stderr.write(f"error: {show_name(str(error.filename))}: {error.strerror}; name another file or folder\n")
        sys.exit(OutputError.exit_code)
    except SystemExit as end:
        # The command line library turns Ctrl-C into this exit, without a word.
        if end.code == EXIT_INTERRUPTED:
            sys.stderr.write(f"interrupted: {_GO_ON}")
        raise
    except (KeyboardInterrupt, _TerminatedError, RuntimeError) as error:
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """End as a signal asks for; one that comes within a lock of the standard library leaves it as a RuntimeError."""
    cause: BaseException | None = error
    while isinstance(cause, RuntimeError):
        cause = cause.__context__
    if isinstance(cause, KeyboardInterrupt):
        sys.stderr.write(f"interrupted: {_GO_ON}")
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(cause, _TerminatedError):
        sys.stderr.write(f"terminated: {_GO_ON}")
        sys.exit(EXIT_RESUMABLE)
    raise error
