"""What tests of the command line are made of."""

import json
import os
import subprocess
import sys

SHAPE = (2, 8, 12, 2048)
ELEMENTS = "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,As,Pb_L"
APS = "aps-2ide/mda"


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )


def loaded_modules(*arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Top-level modules that a command imported."""
    code = (
        "import sys, json\n"
        f"sys.argv = ['hpcxrf', *{list(arguments)!r}]\n"
        "from hpcxrf.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    sys.stderr.write('LOADED' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = child("-c", code)
    return set(json.loads(done.stderr.split("LOADED")[1])), done
