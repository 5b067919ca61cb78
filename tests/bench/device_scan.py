"""A made scan from its file to its maps by one worker, on a device: seconds and spectra a second of every stage.

PYTHONPATH=. python tests/bench/device_scan.py --device cuda --shape 500 600 2048
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

from pixel_scans import ingest_made, made_job, run_stage


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("Y", "X", "CHANNELS"), required=True)
    options = parser.parse_args()
    n_pixels = options.shape[0] * options.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        job = made_job(Path(folder), (1, *options.shape), ingest=False, execution={"device": options.device})
        stages = {"ingest": lambda: ingest_made(job)}
        stages |= {name: lambda name=name: run_stage(job, name) for name in ("integrated", "pixels")}
        say(f"{n_pixels} spectra of {options.shape[2]} channels on {options.device}")
        for name, run in stages.items():
            began, cpu = time.perf_counter(), time.process_time()
            run()
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            say(f"{name:<12}{wall:8.2f} s {spent:8.2f} CPU s {n_pixels / wall:12.4g} spectra/s")


if __name__ == "__main__":
    main()
