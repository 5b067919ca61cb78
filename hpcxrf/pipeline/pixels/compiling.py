"""Compiling the kernels of fits and pixels beside the reading of the first scan: on a new machine it takes seconds."""

import functools
import threading

import torch

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.pixels.fit import load_method, name_kernels
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.methods import PixelMethodName


def begin_compiling(config: RunConfig) -> None:
    """Begin to compile in a thread, once in a process: what integrated fits need, and what a processor's pixels need.

    Integrated fits are made on the processor, whatever fits the pixels. What goes wrong there goes wrong again, and is
    reported, where the kernels are used.

    Args:
        config: configuration of the run.
    """
    on_processor = config.execution.device == "cpu" or (
        config.execution.device == "auto" and torch.cuda.device_count() == 0
    )
    _begin(config.pixels.method if on_processor else None)


@functools.cache
def _begin(method: PixelMethodName | None) -> None:
    threading.Thread(target=_compile, args=(method,), name="compiling", daemon=True).start()


def _compile(method: PixelMethodName | None) -> None:
    # It loads numba: here, beside the reading of the first scan.
    from hpcxrf.fitting.kernels.machine_code import compile_kernels

    compile_kernels(("spectrum", *(() if method is None else name_kernels(method))))
    load_spectrum_kernels()
    if method is not None:
        load_method(method)
