"""Fits of pixels by classes with weights of their own on a processor: by compiled kernels, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.compiled import CompiledFit, FittedPixels, compile_whole, fit_compiled, project_compiled
from hpcxrf.fitting.pixels.strips import StripArrays, by_tile, cut_into_runs, strips_of

if TYPE_CHECKING:
    from hpcxrf.fitting.pixels.weight_classes import ClassOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledClasses:
    """Matrices of the kernels."""

    judge: StripArrays
    """(channel, 2 * class): counts times it are the log-likelihoods of every class, even channels, then odd."""
    share: Tensor
    """(class,) float32: logarithm of the classes' shares."""
    fits: tuple[CompiledFit, ...]
    """By class of the odd channels' judgement, then of the even channels'."""


def compile_classes(classes: "ClassOperator") -> CompiledClasses:
    """Prepare the kernels' matrices, and compile them where that was not done.

    Args:
        classes: products of `class_operator`, on the processor.
    """
    runs = cut_into_runs(by_tile(classes.judge).abs().amax(dim=1) > 0.0)
    return CompiledClasses(
        judge=strips_of(classes.judge, runs),
        share=classes.share,
        fits=tuple(compile_whole(operator) for operator in classes.operators),
    )


def fit_classes(counts: Tensor, classes: CompiledClasses, *, deviance: bool, errors: bool) -> FittedPixels:
    """Fit a micro-batch, each half of a pixel's channels weighed by the other's class.

    Args:
        counts: (pixel, channel), any real dtype.
        classes: of `compile_classes`.
        deviance: whether the misfit is wanted.
        errors: whether the variances are wanted.
    """
    n = len(classes.share)
    likelihood, total = project_compiled(counts, classes.judge, 2 * n)
    judged = likelihood.T.numpy().reshape(2, n, -1) + classes.share.numpy()[:, None]
    by_even, by_odd = torch.from_numpy(judged.argmax(axis=1))
    kind = by_odd * n + by_even
    members = [torch.nonzero(kind == i)[:, 0] for i in range(len(classes.fits))]
    # Of no pixels the first class has nothing, in the right shapes.
    # numpy copies whole rows, torch number by number.
    given = counts.numpy()
    found = [
        fit_compiled(torch.from_numpy(given[rows.numpy()]), fit, deviance=deviance, errors=errors)
        for i, (rows, fit) in enumerate(zip(members, classes.fits, strict=True))
        if rows.numel() > 0 or (i == 0 and len(counts) == 0)
    ]
    return replace(_put_back(found, torch.cat(members)), total=total)


def _put_back(found: Sequence[FittedPixels], order: Tensor) -> FittedPixels:
    """What was found of the pixels (pixel,) of all classes in turn, in the pixels' own order."""
    named: dict[str, Any] = {}
    for name in (f.name for f in fields(FittedPixels)):
        parts = [getattr(one, name) for one in found]
        if parts[0] is not None:
            whole = torch.cat(parts)
            parts[0] = torch.empty_like(whole).index_copy_(0, order, whole)
        named[name] = parts[0]
    return FittedPixels(**named)
