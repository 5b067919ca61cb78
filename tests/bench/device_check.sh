#!/usr/bin/env bash
# Checks and measures all that runs on a GPU, in at most eight minutes on a machine with one.
#
#   tests/bench/device_check.sh [--dry-run] [PYTHON]
#
# 1. the GPU tests: the same numbers as on the processor; 2. spectra per second of every pixel method, written into
# tests/bench/README.md; 3. a scan of 300 000 x 2048 channels from its store to its maps by one worker.
# --dry-run does the same without a GPU: the tests on the pretend device, the benchmark collected, a small scan on the
# processor. PYTHON: an interpreter with hpcxrf's test packages and a CUDA build of torch; default .venv/bin/python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dry=no
if [[ "${1:-}" == "--dry-run" ]]; then
  dry=yes
  shift
fi
python=${1:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if [[ $dry == yes ]]; then
  "$python" -m pytest -q -p no:cacheprovider tests/fitting/test_devices.py
  "$python" -m pytest -q -p no:cacheprovider tests/bench/bench_gpu.py -m bench -o addopts=--strict-markers --collect-only
  "$python" tests/bench/device_scan.py --device cpu --shape 64 256 512
else
  "$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no CUDA device; install its CUDA build"'
  timeout 120 "$python" -m pytest -q -p no:cacheprovider -m gpu tests
  timeout 180 "$python" -m pytest -q -p no:cacheprovider tests/bench/bench_gpu.py -m bench --benchmark-enable -o addopts=--strict-markers
  timeout 180 "$python" tests/bench/device_scan.py --device cuda --shape 500 600 2048
fi
