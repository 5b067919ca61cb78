"""`hpcxrf dashboard`: how to reach the Dask dashboard of a run that goes on."""

import sys
from typing import Final

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf dashboard out"


def dashboard(run: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Say how to reach the Dask dashboard of a run that goes on, and whether it answers.

    Whoever knows the address can look at it: it is a secret, of this run alone.
    """
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.tunnel import way_to_dashboard

    way = way_to_dashboard(run)
    if as_json:
        print_json(
            {"ssh": way.ssh, "url": way.url, "answers": way.answers, "said": way.outcome, "outcome": way.outcome}
        )
        return
    out = console()
    if way.ssh is not None:
        out.print("on your own machine, and leave it open:", markup=False)
        sys.stdout.write(f"{way.ssh}\n")
        out.print("then open in a browser:", markup=False)
    sys.stdout.write(f"{way.url}\n")
    out.print(way.outcome, markup=False, soft_wrap=True)
