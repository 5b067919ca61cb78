"""The command line: parses, calls, prints, and turns errors into exit codes."""

import sys

from hpcxrf.errors import EXIT_INTERRUPTED, HpcxrfError


def main() -> None:
    """Entry point of `hpcxrf`; exit codes as in `hpcxrf.errors`."""
    from hpcxrf.cli.app import app

    try:
        app()
    except HpcxrfError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted: what is finished is kept; the same command again goes on where it stopped\n"
        )
        sys.exit(EXIT_INTERRUPTED)
