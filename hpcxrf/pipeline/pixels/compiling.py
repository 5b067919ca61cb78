"""Compiling the kernels of fits and pixels beside the reading of the first scan: on a new machine it takes seconds."""

import functools
import threading

import torch

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.pixels.compiled import load_map_kernels
from hpcxrf.fitting.pixels.compiled_full import load_true_model_kernels
from hpcxrf.fitting.pixels.compiled_nonnegative import load_nonnegative_kernel
from hpcxrf.fitting.pixels.compiled_poisson import load_poisson_kernels
from hpcxrf.fitting.pixels.compiled_tangent import load_tangent_kernel
from hpcxrf.fitting.pixels.expected_deviance import load_deviance_kernel
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
    load_spectrum_kernels()
    if method is None:
        return
    if method != "full":
        load_map_kernels()
    if method == "nnls":
        load_nonnegative_kernel()
    if method == "poisson":
        load_poisson_kernels()
    if method == "nonlinear":
        load_tangent_kernel()
    if method == "full":
        load_true_model_kernels()
    load_deviance_kernel()
