"""Unconstrained least squares with shared weights: the default, unbiased at any number of counts, sums stay right.

    a = (Phi' W Phi)^-1 Phi' W y,   W = 1 / (mu + 1 %),   mu the integrated fit's model per pixel

One product a pixel. Amplitudes are signed. Weights from the pixel's own noisy counts would pull amplitudes down by up
to 30 %; those of the mean pixel do not, and are as precise as the pixel's own true weights where the composition is
similar. Where it is not, classes of pixels have weights of their own (`weight_classes`).
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator
from hpcxrf.fitting.pixels.compiled import compile_fit, load_map_kernels
from hpcxrf.fitting.pixels.compiled_classes import compile_classes
from hpcxrf.fitting.pixels.model import PixelModel
from hpcxrf.fitting.pixels.parts import Estimate, Solver, move_to, prepare_operator
from hpcxrf.fitting.pixels.weight_classes import class_operator, fit_weight_classes

LINEAR_BATCH: Final = 8192
"""Pixels that are fitted at a time: a product and little else, so that what surrounds it is shared by more pixels."""


KERNELS: Final = ("maps",)
"""Modules of kernels that a processor needs."""


def load_kernels() -> None:
    """Load what a processor needs; the first call on a machine compiles it."""
    load_map_kernels()


def prepare(basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """Prepare the method; on a processor its kernels, elsewhere tensor operations.

    Args:
        basis: columns and mean pixel, with weight classes where pixels are unlike.
        model: not needed.
        device: device of the counts.

    Raises:
        FitError: columns with indistinguishable spectra.
    """
    del model
    operator = prepare_operator(basis, device)
    if basis.weight_classes is None:
        solver = projection_solver(operator)
        if device.type != "cpu":
            return solver
        return replace(solver, compiled=compile_fit(basis, operator))
    classes = move_to(device, class_operator(basis.weight_classes, basis))
    compiled = compile_classes(classes) if device.type == "cpu" else None

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del signed, deviance
        return fit_weight_classes(counts, classes, errors=errors)

    return Solver(operator=operator, estimate=estimate, batch=LINEAR_BATCH, compiled=compiled)


def projection_solver(operator: PixelOperator) -> Solver:
    """Solver that takes the unconstrained coefficients as they are."""
    yes = torch.ones((), dtype=torch.bool, device=operator.columns.device)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del counts, deviance, errors
        return Estimate(coefficients=signed, solved=yes.expand(len(signed)), factors=signed, columns=operator.columns)

    return Solver(operator=operator, estimate=estimate, batch=LINEAR_BATCH, direct=True)
