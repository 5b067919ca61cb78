"""Damaged files, read case by case in a process with an alarm and a cap on memory.

`python -m tests.fuzz --cases 1000 --seed 1`. A case fails if the product raises an exception that is not its own, uses
more than 10 s of the processor, or more than 500 MB of memory. It is repeated by its number: `--only 123`.
"""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ALARM_S = 10.0
CLOCK_S = 120.0
MOST_BYTES = 500 * 2**20
"""Growth of the resident memory over one case."""


@dataclass(frozen=True)
class Outcome:
    number: int
    seed: str
    fault: str
    """Empty where the case is as it must be."""


Ended = Callable[[Outcome], None]
"""Takes every case when it ends."""


def run_cases(numbers: range, seed: int, ended: Ended = lambda _: None) -> list[Outcome]:
    """Run the cases of these numbers; the failed ones."""
    left, failed = list(numbers), []

    def keep(one: Outcome) -> None:
        if one.fault:
            failed.append(one)
        ended(one)

    while left:
        left = left[_run_some(left, seed, keep) :]
    return failed


def _run_some(numbers: list[int], seed: int, ended: Ended) -> int:
    """As many cases as one child comes through; how many."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_child, args=(there, numbers, seed))
    child.start()
    there.close()
    done = 0
    try:
        while done < len(numbers):
            if not here.poll(CLOCK_S):
                child.kill()
                ended(Outcome(numbers[done], "", f"no answer for {CLOCK_S:g} s"))
                return done + 1
            ended(Outcome(numbers[done], *here.recv()))
            done += 1
    except EOFError:
        child.join()
        if child.exitcode == 1:
            raise RuntimeError("a sound file could not be read, or the harness failed; see above") from None
        slow = child.exitcode == -signal.SIGPROF
        fault = "more than 10 s of the processor" if slow else f"ended by {child.exitcode}"
        ended(Outcome(numbers[done], "", fault))
        return done + 1
    finally:
        child.join(5.0)
        if child.is_alive():
            child.kill()
        here.close()
    return done


def _child(pipe, numbers: list[int], seed: int) -> None:
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tests.fuzz.seeds import list_seeds

    place = Path(tempfile.mkdtemp(prefix="hpcxrf-fuzz-"))
    try:
        sound = {}
        for one in list_seeds():
            folder = place / "sound" / one.name
            folder.mkdir(parents=True)
            named = one.write(folder)
            one.read(named)  # what is not read when it is sound proves nothing when it is not
            sound[one.name] = (folder, named)
        for number in numbers:
            pipe.send(run_case(number, seed, place / "case", sound))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run_case(number: int, seed: int, place: Path, sound: dict[str, tuple[Path, Path]]) -> tuple[str, str]:
    """Damage one file and read it; name of the seed, and the fault or nothing."""
    from tests.fuzz.mutators import mutate
    from tests.fuzz.seeds import list_seeds

    draw = random.Random(f"{seed}-{number}")  # noqa: S311
    seeds = list_seeds()
    one, other = draw.choice(seeds), draw.choice(seeds)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound[one.name][0], place, symlinks=True)
    named = place / sound[one.name][1].relative_to(sound[one.name][0])
    victim = draw.choice(one.damaged(named))
    material = draw.choice(other.damaged(sound[other.name][1])).read_bytes()
    victim.write_bytes(mutate(victim.read_bytes(), draw, material))
    return one.name, read_within(one.read, named)


def read_within(read, named: Path) -> str:
    """Read a damaged file within the bounds; the fault, or nothing."""
    from hpcxrf.errors import HpcxrfError

    _forget_peak()
    before = _status_bytes("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, ALARM_S)  # at its end the kernel ends this process, wherever it is
    began = time.process_time()
    try:
        read(named)
    except HpcxrfError as error:
        if not error.args or not isinstance(error.args[0], str):
            return f"an error without a text: {error!r}"
    except Exception:  # noqa: BLE001 - what the harness looks for
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    grown = _status_bytes("VmHWM") - before
    if grown > MOST_BYTES:
        return f"{grown / 2**20:.0f} MB of memory ({time.process_time() - began:.1f} s)"
    return ""


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
