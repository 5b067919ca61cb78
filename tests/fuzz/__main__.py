"""`python -m tests.fuzz --cases N`: damaged files without an end, on as many processes as there are cores."""

import argparse
import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.harness import Outcome, run_cases

_SAID = 1000
"""Cases from one line of progress to the next."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of one case that failed")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    numbers = range(options.cases) if options.only is None else range(options.only, options.only + 1)
    parts = [numbers[i :: options.processes] for i in range(min(options.processes, len(numbers)))]
    done = itertools.count(1)

    def say(one: Outcome) -> None:
        if one.fault:
            sys.stdout.write(f"--- case {one.number} ({one.seed})\n{one.fault}\n")
        if (number := next(done)) % _SAID == 0:
            sys.stderr.write(f"{number} of {len(numbers)} cases, {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(len(parts)) as pool:
        failed = [one for found in pool.map(lambda part: run_cases(part, options.seed, say), parts) for one in found]
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(numbers)} cases, seed {options.seed}: {len(failed)} failed, {seconds:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
