"""Scans processed by one call that other programs' workflows can make: plain values in, plain values out."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from hpcxrf import errors
from hpcxrf.errors import ConfigError, HpcxrfError

_CHILD: Final = (sys.executable, "-P", "-m", "hpcxrf.cluster.local.process_child")
_PATIENCE_S: Final = 30.0
_TAIL: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the scans of one call of `process`; plain values, which pickle and JSON keep."""

    state: Literal["done", "partly done", "failed"]
    """`partly done`: some scans failed; `failed`: all of them."""
    output: str
    """The run directory."""
    datasets: tuple[str, ...]
    """Names of all scans in results, journals and reports; empty where no file could be read."""
    results: Mapping[str, str]
    """Path of the results store by name of the scan, of those that are done."""
    verdicts: Mapping[str, str]
    """Verdict on the fit by name of the scan: `good`, `doubtful`, `wrong`, `not judged`."""
    reasons: Mapping[str, str]
    """Why a scan failed, by its name, or by its file where no file could be read."""
    report: str | None
    """Path of the report; None: there is none."""
    tasks: int
    """Tasks that this call ran; 0: everything was done before."""
    seconds: float
    """Wall time of this call."""
    versions: Mapping[str, str]
    """Versions of this program and of the libraries that results depend on."""


def process(files: str | Path | Sequence[str | Path], runfile: str | Path | None, output: str | Path) -> Outcome:
    """Process scans as `hpcxrf run RUNFILE FILES -o OUTPUT` does, in a process of its own.

    It changes nothing in the calling process, which may be a thread or a worker of any pool. What it starts ends with
    it. A second call with the same arguments does nothing over; after one that was killed it does what is missing;
    scans that failed are tried again.

    Args:
        files: scans: files, folders or patterns; they replace those of the run file.
        runfile: run file (YAML); None: defaults, with the elements and the energy that the files and the override files
            beside them give.
        output: the run directory, one for each set of files.

    Returns:
        What became of the scans. A scan that cannot be read or fitted is a part of it, and no error.

    Raises:
        ConfigError: the run file is not valid.
        OutputError: the output cannot be written, holds other files or another configuration, or another call works on
            it now.
        FitError: the fit as asked is impossible for every scan.
        HpcxrfError: the process ended before it answered; the same call goes on where it was.

    Example:
        >>> outcome = hpcxrf.process(["leaf.h5"], "run.yaml", "out")  # doctest: +SKIP
        >>> outcome.state, outcome.verdicts  # doctest: +SKIP
        ('done', {'leaf-1a2b3c4d': 'good'})
    """
    names = [files] if isinstance(files, str | Path) else list(files)
    if not names:
        raise ConfigError("process: files is empty; name at least one file")
    question = {
        "files": [str(Path(name).absolute()) for name in names],
        "runfile": None if runfile is None else str(Path(runfile).absolute()),
        "output": str(Path(output).absolute()),
    }
    with tempfile.TemporaryFile() as told:
        answer = _ask(question, told)
        if answer is None:
            told.seek(0)
            tail = told.read().decode("utf-8", "replace")[-_TAIL:].strip()
            raise HpcxrfError(
                f"{question['output']}: the process that works on it ended before it answered; call process again, it "
                f"goes on where it was{f': {tail}' if tail else ''}"
            )
    if "error" in answer:
        kind = getattr(errors, answer["error"], HpcxrfError)
        raise kind(answer["text"])
    outcome = answer["outcome"]
    return Outcome(**outcome | {"datasets": tuple(outcome["datasets"])})


def _ask(question: Mapping[str, Any], told: IO[bytes]) -> dict[str, Any] | None:
    """Start the process and wait for its answer; None: there is none. It ends when its standard input does."""
    # Of this very package, wherever its folder is.
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        _CHILD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=told,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for the caller, whose end the process notices
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise ValueError("the process has no pipes")
        try:
            child.stdin.write(json.dumps(question).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            child.stdin.close()
            try:
                child.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
    return dict(json.loads(line)) if line.endswith(b"\n") else None
