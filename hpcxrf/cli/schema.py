"""`hpcxrf schema`: the JSON schema of a run file or a site profile, by which an editor completes and checks it."""

from enum import StrEnum
from typing import Annotated, Final

import typer

EXAMPLE: Final = "Examples:  hpcxrf schema run > run.schema.json   |   hpcxrf schema site > site.schema.json"


class Which(StrEnum):
    """What there is a schema of."""

    RUN = "run"
    SITE = "site"


def schema(
    which: Annotated[Which, typer.Argument(help="run: a run file; site: a site profile.", show_default=False)],
) -> None:
    """Print the JSON schema of a run file or a site profile, for editors that complete and check YAML by it."""
    from hpcxrf.cli.terminal import print_json
    from hpcxrf.config.schema import make_run_schema, make_site_schema

    print_json(make_run_schema() if which is Which.RUN else make_site_schema())
