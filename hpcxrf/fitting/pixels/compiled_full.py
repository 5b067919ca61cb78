"""The true model in every pixel on a processor, by a compiled kernel: the same steps as of the tensor operations.

Peaks are drawn over the channels where they are not nothing, in double precision. Pixels are fitted one by one, so that
a pixel's numbers depend on its own counts alone.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.pixels.compiled import COUNT_TYPES, as_bytes
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.least_squares import Space
from hpcxrf.fitting.spectrum.pack import Floats, Indices, PackedModel, find_spans, list_rows, pack_model, pack_space
from hpcxrf.physics.model import SpectrumModel

FOUND: Final = 1
STUCK: Final = 2
"""Status of a pixel whose search found its end, and of one whose amplitudes pivoting did not find."""
# A Gaussian has fallen to 1e-9 there, and a tail to 2e-8 of what it is at the peak: of a component's counts less than
# one in a hundred million is left out.
_REACH: Final = (6.5, 18.0)
_SETS: Final = 3
_SHAPES: Final = 3
_WAYS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """What all pixels share: the model, and its columns at the start."""

    model: PackedModel
    space: Floats
    wanted: Indices
    """(row,) parameters that derivatives are made by."""
    channel: Floats
    drawn: tuple[Floats, Indices, Floats, Floats, Floats, Indices]
    """Terms, profiles, slopes of the ratios, shapes, columns and their spans at the start."""
    gram: Floats
    """(1, column, column) of the columns at the start, unit weights."""
    passes: Floats
    """(pass, 2): steps and tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueModelFit:
    """Results of the kernel, float64."""

    theta: Floats
    """(pixel, parameter)."""
    coefficients: Floats
    """(pixel, column)."""
    variance: Floats
    """(pixel, component)."""
    null_variance: Floats
    """(pixel, component), in the absence of the component."""
    theta_sigma: Floats
    """(pixel, free parameter)."""
    misfit: Floats
    """(pixel,) Poisson deviance."""
    status: NDArray[np.uint8]
    """(pixel,) `FOUND`, 0, or `STUCK`, of which nothing else is known."""


def compile_model(
    model: SpectrumModel, space: Space, background: Tensor, passes: Sequence[tuple[int, float]]
) -> CompiledModel:
    """Draw the columns at the start, and compile the kernels where that was not done.

    Args:
        model: of the pixels, with the line shapes of physics, on the processor.
        space: bounds and priors; every pixel starts at their centre.
        background: (channel, column) float64.
        passes: most steps and tolerance of each pass.
    """
    hats = background.T.contiguous().numpy()
    packed, bounds = pack_model(model, space, len(hats), _REACH), pack_space(space)
    n = int(packed.sizes[at.N_COLUMNS])
    channel = np.array(model.channel.numpy())
    shared = CompiledModel(
        model=packed,
        space=bounds,
        wanted=list_rows(space),
        channel=channel,
        drawn=_make_set(packed, hats),
        gram=np.empty((1, n, n)),
        passes=np.array(passes, np.float64).reshape(-1, 2),
    )
    _draw_start(shared)
    return shared


def _make_set(packed: PackedModel, hats: Floats) -> tuple[Floats, Indices, Floats, Floats, Floats, Indices]:
    n_lines, n_q = packed.linear.shape
    n_profiles, n_channels = len(packed.profiles), int(packed.sizes[at.N_CHANNELS])
    n, n_components = int(packed.sizes[at.N_COLUMNS]), int(packed.sizes[at.N_COMPONENTS])
    columns, spans = np.empty((n, n_channels)), np.empty((n, 2), np.uint64)
    columns[n_components:], spans[n_components:] = hats, find_spans(hats)
    return (
        np.empty((n_profiles, at.TERMS)),
        packed.profiles.copy(),
        np.empty((n_lines, n_q)),
        np.empty(int(packed.profiles[:, at.DRAWS : at.DRAWS + _SHAPES].sum()) * n_channels),
        columns,
        spans,
    )


def _draw_start(shared: CompiledModel) -> None:
    kernels, m, theta = load_spectrum_kernels(), shared.model, np.array(shared.space[at.CENTRE_OF_PRIOR])
    terms, profiles, slopes, shapes, columns, spans = shared.drawn
    n_components, n_q = int(m.sizes[at.N_COMPONENTS]), int(m.sizes[at.N_RATIOS])
    sums, ratio = np.empty((n_components, 2 + n_q)), np.empty(len(m.lines))
    data = np.zeros((at.DATA, len(shared.channel)))
    data[at.CHANNEL], data[at.WEIGHTS] = shared.channel, 1.0
    kernels.place_lines(theta, m.sizes, m.constants, m.lines, m.index, m.linear, sums, ratio, slopes, terms)
    kernels.draw_columns(theta, m.sizes, m.constants, terms, profiles, m.index, data, shapes, columns, spans)
    kernels.multiply_columns(
        m.sizes, data, columns, spans, np.empty_like(columns), shared.gram[0], np.empty(len(columns))
    )


def fit_true_model(counts: Tensor, shared: CompiledModel) -> TrueModelFit:
    """Fit a micro-batch.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        shared: of `compile_model`.
    """
    if counts.dtype not in COUNT_TYPES:
        counts = counts.to(torch.float32)
    data, stride = as_bytes(counts)
    m, n_pixels = shared.model, len(counts)
    n_p, n, k = shared.space.shape[1], len(shared.gram[0]), int(shared.space[at.FREE].sum())
    n_components = int(m.sizes[at.N_COMPONENTS])
    found = TrueModelFit(
        theta=np.full((n_pixels, n_p), np.nan),
        coefficients=np.full((n_pixels, n), np.nan),
        variance=np.full((n_pixels, n_components), np.nan),
        null_variance=np.full((n_pixels, n_components), np.nan),
        theta_sigma=np.full((n_pixels, k), np.nan),
        misfit=np.full(n_pixels, np.nan),
        status=np.zeros(n_pixels, np.uint8),
    )
    load_true_model_kernels().fit_true_model(
        data,
        COUNT_TYPES[counts.dtype],
        stride,
        counts.shape[1],
        (
            *(m.sizes, m.constants, m.lines, m.index, m.linear, shared.space, shared.wanted),
            *(getattr(load_spectrum_kernels(), name) for name in load_true_model_kernels().KERNELS),
        ),
        shared.gram,
        shared.passes,
        tuple(_make_sets(x) for x in shared.drawn),
        _make_room(shared),
        (
            np.empty(n_p),
            np.empty(n_p),
            np.empty((1, n)),
            np.empty((1, n)),
            np.empty(n, np.uint64),
            np.empty((1, n), np.uint64),
            np.empty((n_p, n_p)),
            np.empty(n_p),
        ),
        (np.zeros((2, n + k, n + k)), np.empty((5, n + k)), np.empty((3, n + k), np.uint64)),
        (
            found.theta,
            found.coefficients,
            found.variance,
            found.null_variance,
            found.theta_sigma,
            found.misfit,
            found.status,
        ),
    )
    return found


def _make_sets(at_start: NDArray[Any]) -> NDArray[Any]:
    """Room for the sets, of which the first is that of the start, and the others have what does not change."""
    sets = np.empty((_SETS, *at_start.shape), at_start.dtype)
    # Shapes are read where they were written, and may have room for much more.
    sets[: 1 if at_start.ndim == 1 else _SETS] = at_start
    return sets


def _make_room(shared: CompiledModel) -> tuple[Any, ...]:
    m, n_channels, rows = shared.model, len(shared.channel), len(shared.wanted)
    n, n_p = len(shared.gram[0]), shared.space.shape[1]
    n_components, n_q = int(m.sizes[at.N_COMPONENTS]), int(m.sizes[at.N_RATIOS])
    data = np.zeros((at.DATA, n_channels))
    data[at.CHANNEL] = shared.channel
    return (
        data,
        (np.empty((n_components, 2 + n_q)), np.empty(len(m.lines))),
        (
            np.empty((n, n_channels)),
            np.empty((1, n, n)),
            np.empty((1, n)),
            np.empty((2, n, n)),
            np.empty((2, n)),
            np.empty((3, n), np.uint64),
            np.empty(1, np.uint64),
        ),
        (
            np.empty((_WAYS, 6)),
            np.empty((at.N_THETA, _WAYS - 1)),
            np.empty((rows, n_channels)),
            np.empty((rows, 2), np.uint64),
            np.empty((rows, n)),
            np.empty((rows, rows)),
        ),
        (np.empty((3, n_p, n_p)), np.empty((5, n_p)), np.empty((2, n_p), np.uint64)),
    )


@functools.cache
def load_true_model_kernels() -> ModuleType:
    """The kernels; the first call on a machine compiles them."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("true_model")
