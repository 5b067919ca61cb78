"""Shared weights for each phase of a scan, where its phases are so different that one set would cost precision.

A pixel's phase must be judged from its own counts, and weights that know the noise bias the amplitudes. So every
pixel is judged twice, from its even and from its odd channels, fitted twice, each half with the weights that the other
half has chosen, and the two are averaged: no count is weighed by a judgement in which it took part, so that there is
no bias at any level of counts, and as both halves know equally much nothing is lost. The phases themselves are found
in the same way: pixels are grouped by their even channels, and the mean of a group is that of their odd ones, so that
noise alone makes no phase.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PhaseOperator, Phases, PixelBasis, PixelOperator, pixel_operator, shared_weights
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance, whole_vectors

__all__ = ["LEAST_GAIN", "PhaseOperator", "Phases", "find_phases", "fit_phases", "phase_operator"]

LEAST_GAIN: Final = 0.10
"""Predicted gain in the rms of an amplitude in some phase, from which phases get weights of their own."""
_MOST_PHASES: Final = 4
_LEAST_SHARE: Final = 0.02
_ROUNDS: Final = 25
# A further phase must gain this much more, averaged over all pixels.
_WORTH: Final = 0.01
_LIKELIHOOD_FLOOR: Final = 0.01
_LEAST_ROWS: Final = 16


def find_phases(counts: Tensor, measured: Tensor, basis: PixelBasis) -> Phases:
    """Group a scan's pixels by composition, and decide whether groups need weights of their own.

    Deterministic; to be called once a scan, with some thousand pixels spread over it, before the maps.

    Args:
        counts: (pixel, channel) raw counts of the fit range.
        measured: (pixel,) bool.
        basis: of the integrated fit.
    """
    y = counts.to(torch.float32)
    total = y.sum(dim=1)
    y = y[measured & torch.isfinite(total) & (total > 0)]
    one = basis.coefficients[None].clamp(min=0.0)
    none = _described(one, torch.ones(1, dtype=torch.float64, device=one.device), basis)
    if y.shape[0] < 2 * _MOST_PHASES / _LEAST_SHARE:
        return replace(none, report=f"one set of weights: {y.shape[0]} pixels are too few for phases")
    judged, independent = (_half_coefficients(y, basis, parity) for parity in (0, 1))
    shape = _shapes(judged)
    tried = [_grouped(shape, independent, n, basis) for n in range(2, _MOST_PHASES + 1)]
    useful = [p for p in tried if bool((p.gain > LEAST_GAIN).any())]
    if not useful:
        best = max(float(p.gain.max()) for p in tried)
        return replace(none, report=f"one set of weights: phases would gain {100 * best:.0f} % in rms at most")
    means = [float((p.gain * p.share).sum()) for p in useful]
    enough = [p for p, mean in zip(useful, means, strict=True) if mean > max(means) - _WORTH]
    return enough[0]


def phase_operator(phases: Phases, basis: PixelBasis) -> PhaseOperator:
    """Prepare the fits.

    Raises:
        FitError: columns that cannot be told apart.
    """
    spectra = phases.coefficients @ basis.columns.T
    weights = torch.stack([shared_weights(spectrum) for spectrum in spectra])
    odd = torch.arange(spectra.shape[1], device=spectra.device) % 2 == 1
    floored = spectra + _LIKELIHOOD_FLOOR * spectra.mean(dim=1, keepdim=True)
    halves = []
    for half in (~odd, odd):
        part = torch.where(half, floored, 0.0)
        halves.append(torch.where(half, (floored / part.sum(dim=1, keepdim=True)).log(), 0.0))
    whole = pixel_operator(basis)
    operators = tuple(
        _of_halves(basis, whole, (of_even[0::2], of_odd[1::2])) for of_even in weights for of_odd in weights
    )
    return PhaseOperator(
        judge=torch.cat(halves).T.contiguous().to(torch.float32),
        share=phases.share.clamp(min=1e-12).log().to(torch.float32),
        operators=operators,
    )


def _of_halves(basis: PixelBasis, whole: PixelOperator, weights: tuple[Tensor, Tensor]) -> PixelOperator:
    """The mean of the fits of even and of odd channels."""
    projector = torch.empty_like(whole.projector)
    for parity, own in enumerate(weights):
        half = pixel_operator(_half(basis, parity), weights=own).projector
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


def _half(basis: PixelBasis, parity: int) -> PixelBasis:
    return replace(basis, columns=basis.columns[parity::2], expected=basis.expected[parity::2])


def fit_phases(counts: Tensor, phases: PhaseOperator, *, errors: bool) -> Estimate:
    """Unconstrained least squares of a micro-batch, each half of a pixel's channels weighed by the other's phase.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        phases: of `phase_operator`.
        errors: whether the variance is wanted.
    """
    kind = _judge(counts, phases)
    first = phases.operators[0]
    coefficients = first.projector.new_zeros((counts.shape[0], first.projector.shape[1]))
    variance = first.projector.new_zeros((counts.shape[0], first.n_components))
    null = torch.zeros_like(variance)
    for i, operator in enumerate(phases.operators):
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


def _judge(counts: Tensor, phases: PhaseOperator) -> Tensor:
    """(pixel,): which operator."""
    n = phases.share.shape[0]
    likelihood = project(counts, whole_vectors(phases.judge))
    by_even, by_odd = ((likelihood[:, i * n : (i + 1) * n] + phases.share).argmax(dim=1) for i in range(2))
    return by_odd * n + by_even


def _project_some(counts: Tensor, members: Tensor, projector: Tensor) -> Tensor:
    """Products of some pixels; few rows are filled up, as another routine would round them otherwise."""
    n = members.numel()
    filled = torch.cat([members, members[:1].expand(max(_LEAST_ROWS - n, 0))])
    found = project(counts.index_select(0, filled), whole_vectors(projector))
    return found[:n, : projector.shape[1]]


def _half_coefficients(y: Tensor, basis: PixelBasis, parity: int) -> Tensor:
    """Coefficients (pixel, column) from every other channel."""
    half = _half(basis, parity)
    return (y[:, parity::2] @ pixel_operator(half).projector).to(torch.float64)


def _shapes(coefficients: Tensor) -> Tensor:
    """Square roots of the columns' shares (pixel, column): their noise is the same everywhere."""
    positive = coefficients.clamp(min=0.0)
    return (positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-300)).sqrt()


def _grouped(shape: Tensor, independent: Tensor, n: int, basis: PixelBasis) -> Phases:
    """The pixels in n groups, described by coefficients that did not group them."""
    label = _nearest_means(shape, n)
    members = torch.nn.functional.one_hot(label, n).to(torch.float64)
    size = members.sum(dim=0)
    kept = size >= _LEAST_SHARE * label.shape[0]
    means = (members.T @ independent / size.clamp(min=1.0)[:, None]).clamp(min=0.0)
    kept &= means.sum(dim=1) > 0
    return _described(means[kept], size[kept] / size[kept].sum(), basis)


def _nearest_means(shape: Tensor, n: int) -> Tensor:
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


def _described(means: Tensor, share: Tensor, basis: PixelBasis) -> Phases:
    spectra = means @ basis.columns.T
    common = pixel_operator(basis)
    gains = []
    for spectrum in spectra:
        own = pixel_operator(basis, weights=shared_weights(spectrum))
        ratio = _rms(own, spectrum) / _rms(common, spectrum)
        gains.append(1.0 - ratio[common.measured].min())
    gain = torch.stack(gains)
    parts = ", ".join(
        f"{100 * s:.0f} % of the pixels gain up to {100 * g:.0f} %"
        for s, g in zip(share.tolist(), gain.tolist(), strict=True)
    )
    return Phases(
        coefficients=means,
        share=share,
        gain=gain,
        report=f"{len(means)} phases with weights of their own; predicted in rms: {parts}",
    )


def _rms(operator: PixelOperator, spectrum: Tensor) -> Tensor:
    projector = operator.projector[:, : operator.n_components].to(torch.float64)
    return ((projector**2).T @ spectrum).sqrt()
