"""Weights of their own for classes of pixels, where pixels are so unlike that one set would cost precision.

A pixel's class must be judged from its own counts, and weights that know the noise bias the amplitudes. So every pixel
is judged twice, from its even and from its odd channels, fitted twice, each half with the weights that the other half
has chosen, and the two are averaged: no count is weighed by a judgement in which it took part, so that there is no bias
at any level of counts, and as both halves know equally much nothing is lost. The classes themselves are found in the
same way: pixels are grouped by their even channels, and the mean of a group is that of their odd ones, so that noise
alone makes no class.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, pixel_operator, shared_weights
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance, whole_vectors

LEAST_GAIN: Final = 0.10
"""Predicted gain in the rms of an amplitude in some class, from which classes get weights of their own."""
_MOST_CLASSES: Final = 4
_LEAST_SHARE: Final = 0.02
_ROUNDS: Final = 25
# A further class must gain this much more, averaged over all pixels.
_WORTH: Final = 0.01
_LIKELIHOOD_FLOOR: Final = 0.01
_LEAST_ROWS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightClasses:
    """Classes of a scan's pixels by composition, each with the mean spectrum that sets its weights."""

    coefficients: Tensor
    """(class, column) float64: mean coefficients of a pixel; of a single class: the basis' own."""
    share: Tensor
    """(class,) float64: share of the pixels."""
    gain: Tensor
    """(class,) float64: 1 - rms with own weights / rms with those of the mean spectrum, of the component that gains
    most: a trace in a class without the peaks that are strong elsewhere."""
    report: str
    """Sentence on what was chosen, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOperator:
    """Products by which a pixel's class is judged, and those of every pair of classes."""

    judge: Tensor
    """(channel, 2 * class) float32: counts @ judge = log-likelihood of every class, even channels, then odd."""
    share: Tensor
    """(class,) float32: logarithm of the classes' shares."""
    operators: tuple[PixelOperator, ...]
    """Operators by class of the odd channels' judgement (which weighs the even ones), then of the even channels'."""


def find_weight_classes(counts: Tensor, measured: Tensor, basis: PixelBasis) -> WeightClasses:
    """Group a scan's pixels by composition, and decide whether groups need weights of their own.

    Deterministic; to be called once a scan, with some thousand pixels spread over it, before the maps.

    Args:
        counts: (pixel, channel) raw counts of the fit range.
        measured: (pixel,) bool.
        basis: basis of the integrated fit.
    """
    y = counts.to(torch.float32)
    total = y.sum(dim=1)
    y = y[measured & torch.isfinite(total) & (total > 0)]
    one = basis.coefficients[None].clamp(min=0.0)
    none = _describe(one, torch.ones(1, dtype=torch.float64, device=one.device), basis)
    if y.shape[0] < 2 * _MOST_CLASSES / _LEAST_SHARE:
        return replace(none, report=f"one set of weights: {y.shape[0]} pixels are too few for classes")
    judged, independent = (_half_coefficients(y, basis, parity) for parity in (0, 1))
    shape = composition_roots(judged)
    tried = [_group_pixels(shape, independent, n, basis) for n in range(2, _MOST_CLASSES + 1)]
    useful = [p for p in tried if bool((p.gain > LEAST_GAIN).any())]
    if not useful:
        best = max(float(p.gain.max()) for p in tried)
        report = f"one set of weights: classes would reduce the noise by {100 * best:.0f} % at most"
        return replace(none, report=report)
    means = [float((p.gain * p.share).sum()) for p in useful]
    enough = [p for p, mean in zip(useful, means, strict=True) if mean > max(means) - _WORTH]
    return enough[0]


def class_operator(classes: WeightClasses, basis: PixelBasis) -> ClassOperator:
    """Prepare the fits.

    Raises:
        FitError: columns with indistinguishable spectra.
    """
    spectra = classes.coefficients @ basis.columns.T
    weights = torch.stack([shared_weights(spectrum) for spectrum in spectra])
    odd = torch.arange(spectra.shape[1], device=spectra.device) % 2 == 1
    floored = spectra + _LIKELIHOOD_FLOOR * spectra.mean(dim=1, keepdim=True)
    halves = []
    for half in (~odd, odd):
        part = torch.where(half, floored, 0.0)
        halves.append(torch.where(half, (floored / part.sum(dim=1, keepdim=True)).log(), 0.0))
    whole = pixel_operator(basis)
    operators = tuple(
        _average_halves(basis, whole, (of_even[0::2], of_odd[1::2])) for of_even in weights for of_odd in weights
    )
    return ClassOperator(
        judge=torch.cat(halves).T.contiguous().to(torch.float32),
        share=classes.share.clamp(min=1e-12).log().to(torch.float32),
        operators=operators,
    )


def _average_halves(basis: PixelBasis, whole: PixelOperator, weights: tuple[Tensor, Tensor]) -> PixelOperator:
    """The mean of the fits of even and of odd channels."""
    projector = torch.empty_like(whole.projector)
    for parity, own in enumerate(weights):
        half = pixel_operator(half_basis(basis, parity), weights=own).projector
        projector[parity::2] = 0.5 * half
    squares = projector[:, : whole.n_components].to(torch.float64) ** 2
    variance = basis.columns.T @ squares
    total = basis.coefficients.clamp(min=0.0)
    return replace(
        whole,
        projector=projector,
        variance=variance.to(torch.float32),
        variance_floor=((total / total.sum()) @ variance).to(torch.float32),
    )


def half_basis(basis: PixelBasis, parity: int) -> PixelBasis:
    """The basis on every other channel, from channel 0 or 1 of the fit range on."""
    return replace(basis, columns=basis.columns[parity::2], expected=basis.expected[parity::2])


def fit_weight_classes(counts: Tensor, classes: ClassOperator, *, errors: bool) -> Estimate:
    """Unconstrained least squares of a micro-batch, each half of a pixel's channels weighed by the other's class.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        classes: operators of `class_operator`.
        errors: whether the variance is wanted.
    """
    kind = _judge(counts, classes)
    first = classes.operators[0]
    coefficients = first.projector.new_zeros((counts.shape[0], first.projector.shape[1]))
    variance = first.projector.new_zeros((counts.shape[0], first.n_components))
    null = torch.zeros_like(variance)
    for i, operator in enumerate(classes.operators):
        members = torch.nonzero(kind == i)[:, 0]
        if members.numel() == 0:
            continue
        found = _project_some(counts, members, operator.projector)
        coefficients[members] = found
        if errors:
            variance[members], null[members] = shared_variance(found, operator)
    return Estimate(
        coefficients=coefficients,
        solved=torch.ones_like(kind, dtype=torch.bool),
        factors=coefficients,
        columns=first.columns,
        variance=variance if errors else None,
        null_variance=null if errors else None,
    )


def _judge(counts: Tensor, classes: ClassOperator) -> Tensor:
    """(pixel,): number of the operator."""
    n = classes.share.shape[0]
    likelihood = project(counts, whole_vectors(classes.judge))
    by_even, by_odd = ((likelihood[:, i * n : (i + 1) * n] + classes.share).argmax(dim=1) for i in range(2))
    return by_odd * n + by_even


def _project_some(counts: Tensor, members: Tensor, projector: Tensor) -> Tensor:
    """Products of some pixels; few rows are filled up, as another routine would round them otherwise."""
    n = members.numel()
    filled = torch.cat([members, members[:1].expand(max(_LEAST_ROWS - n, 0))])
    found = project(counts.index_select(0, filled), whole_vectors(projector))
    return found[:n, : projector.shape[1]]


def _half_coefficients(y: Tensor, basis: PixelBasis, parity: int) -> Tensor:
    """Coefficients (pixel, column) from every other channel."""
    half = half_basis(basis, parity)
    return (y[:, parity::2] @ pixel_operator(half).projector).to(torch.float64)


def composition_roots(coefficients: Tensor) -> Tensor:
    """Square roots of the columns' shares (pixel, column): their noise is the same everywhere."""
    positive = coefficients.clamp(min=0.0)
    return (positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-300)).sqrt()


def _group_pixels(shape: Tensor, independent: Tensor, n: int, basis: PixelBasis) -> WeightClasses:
    """The pixels in n groups, described by coefficients that did not group them."""
    label = group_by_nearest_mean(shape, n)
    members = torch.nn.functional.one_hot(label, n).to(torch.float64)
    size = members.sum(dim=0)
    kept = size >= _LEAST_SHARE * label.shape[0]
    means = (members.T @ independent / size.clamp(min=1.0)[:, None]).clamp(min=0.0)
    kept &= means.sum(dim=1) > 0
    return _describe(means[kept], size[kept] / size[kept].sum(), basis)


def group_by_nearest_mean(shape: Tensor, n: int) -> Tensor:
    """Lloyd's algorithm from groups split along their principal axes: labels (pixel,)."""
    label = torch.zeros(shape.shape[0], dtype=torch.int64, device=shape.device)
    for new in range(1, n):
        label = _split(shape, label, new)
    means = torch.stack([shape[label == i].mean(dim=0) for i in range(n)])
    for _ in range(_ROUNDS):
        members = torch.nn.functional.one_hot(label, n).to(shape.dtype)
        size = members.sum(dim=0)[:, None]
        means = torch.where(size > 0, members.T @ shape / size.clamp(min=1.0), means)
        label = torch.cdist(shape, means).argmin(dim=1)
    return label


def _split(shape: Tensor, label: Tensor, new: int) -> Tensor:
    """Divide the group that scatters most, at its mean, across its principal axis."""
    scatter = [float(shape[label == i].var(dim=0).nan_to_num().sum()) for i in range(new)]
    worst = max(range(new), key=lambda i: scatter[i] * int((label == i).sum()))
    members = label == worst
    centred = shape - shape[members].mean(dim=0)
    _, axes = torch.linalg.eigh(centred[members].T @ centred[members])
    return torch.where(members & (centred @ axes[:, -1] > 0), new, label)


def _describe(means: Tensor, share: Tensor, basis: PixelBasis) -> WeightClasses:
    """Classes with these mean coefficients, and what their own weights are expected to gain."""
    common = pixel_operator(basis)
    gains = []
    for spectrum in means @ basis.columns.T:
        own = pixel_operator(basis, weights=shared_weights(spectrum))
        ratio = _rms(own, spectrum) / _rms(common, spectrum)
        gains.append(1.0 - ratio[common.measured].min())
    gain = torch.stack(gains)
    return WeightClasses(coefficients=means, share=share, gain=gain, report=_report(share.tolist(), gain.tolist()))


def _report(share: list[float], gain: list[float]) -> str:
    parts = [
        f"up to {100 * g:.0f} % in {100 * s:.0f} % of the pixels"
        for s, g in sorted(zip(share, gain, strict=True), reverse=True)
        if round(100 * g) > 0
    ]
    expected = f"; expected noise reduction {', '.join(parts)}" if parts else ""
    return f"fit weights chosen separately for {len(share)} pixel classes{expected}"


def _rms(operator: PixelOperator, spectrum: Tensor) -> Tensor:
    projector = operator.projector[:, : operator.n_components].to(torch.float64)
    return ((projector**2).T @ spectrum).sqrt()
