"""A spectrum's model and bounds as the arrays that the kernels read."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.spectrum.least_squares import Space
from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.model import EDGE_WIDTH_KEV, SpectrumModel
from hpcxrf.physics.ratios import SMALL_DEPTH, THINNEST

Floats = NDArray[np.float64]
Indices = NDArray[np.uint64]

WHOLE: Final = (8.0, 32.0)
"""Widths and decay lengths after which a Gaussian has fallen to 1e-14, and a tail to as much of what it is at the peak:
their derivatives, which grow with the square of the distance, to 1e-12."""
_PROFILES_OF_COMPTON: Final = (at.COMPTON_WIDE, at.COMPTON_LOW, at.COMPTON_HIGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """A model as the kernels read it."""

    sizes: Indices
    constants: Floats
    lines: Floats
    """(line, property): lines of the table, elastic ones, Compton peaks."""
    index: Indices
    """(line, number)."""
    linear: Floats
    """(line, parameter of the ratios): derivative of the logarithm of a ratio."""
    profiles: Indices
    """(profile, number), without runs."""


def pack_model(model: SpectrumModel, space: Space, n_hats: int, reach: tuple[float, float] = WHOLE) -> PackedModel:
    """Pack a model on the processor; the number of rows is that of the free parameters.

    Args:
        model: with the line shapes of physics.
        space: of theta, and of the line ratios where the model has them.
        n_hats: columns beside those of the model.
        reach: widths from its centre after which a Gaussian is not drawn, and decay lengths of a tail.
    """
    n_components, n_q = len(model.component_names), 0 if model.ratios is None else len(model.ratios.names)
    lines, index = _list_lines(model)
    profiles = _list_profiles(index, model, space)
    sizes = np.zeros(at.SIZES, np.uint64)
    sizes[at.N_LINES], sizes[at.N_COMPONENTS], sizes[at.N_RATIOS] = len(lines), n_components, n_q
    sizes[at.N_CHANNELS], sizes[at.N_COLUMNS] = len(model.channel), n_components + n_hats
    sizes[at.N_PROFILES], sizes[at.N_ROWS] = len(profiles), len(list_rows(space))
    return PackedModel(
        sizes=sizes,
        constants=_list_constants(model, reach),
        lines=lines,
        index=index,
        linear=_list_slopes(model, len(lines), n_q),
        profiles=profiles,
    )


def pack_space(space: Space) -> Floats:
    """Bounds and priors (row, parameter)."""
    packed = np.empty((at.SPACE, len(space.centre)))
    packed[at.CENTRE_OF_PRIOR], packed[at.PRIOR_SD] = space.centre.numpy(), space.prior_sd.numpy()
    packed[at.SCALE], packed[at.FREE] = space.scale.numpy(), space.free.numpy()
    packed[at.LOWER], packed[at.UPPER] = space.lower.numpy(), space.upper.numpy()
    return packed


def list_rows(space: Space) -> Indices:
    """Parameters (row,) that derivatives are wanted of: the free ones, and the first of the axis in any case."""
    wanted = space.free.numpy().copy()
    wanted[at.OFFSET] = True
    return np.flatnonzero(wanted).astype(np.uint64)


def find_spans(rows: NDArray[Any]) -> Indices:
    """First channel, and channel after the last, in which a row (row, channel) is not 0."""
    inside = rows != 0
    first, last = inside.argmax(axis=1), rows.shape[1] - inside[:, ::-1].argmax(axis=1)
    return np.where(inside.any(axis=1)[:, None], np.stack([first, last], axis=1), 0).astype(np.uint64)


def _list_constants(model: SpectrumModel, reach: tuple[float, float]) -> Floats:
    constants = np.zeros(at.CONSTANTS)
    constants[at.WIDTH_FACTOR] = model.constants.width_factor
    constants[at.FWHM_PER_SIGMA] = model.constants.fwhm_per_sigma
    constants[at.REST_KEV] = model.constants.electron_rest_energy_kev
    constants[at.EDGE_WIDTH_KEV] = EDGE_WIDTH_KEV
    constants[at.REACH], constants[at.DECAYS] = reach
    constants[at.SMALL_DEPTH], constants[at.THINNEST] = SMALL_DEPTH, THINNEST
    if model.ratios is not None:
        constants[at.HEAVY_INCIDENT] = model.ratios.sample.heavy_incident
        constants[at.LIGHT_INCIDENT] = model.ratios.sample.light_incident
    return constants


def _list_lines(model: SpectrumModel) -> tuple[Floats, Indices]:
    table, copies = model.table, model.copies
    n, n_elastic, n_compton = _count_lines(model)
    lines = np.zeros((n + n_elastic + n_compton, at.LINE_PROPERTIES))
    index = np.zeros((len(lines), at.LINE_NUMBERS), np.uint64)
    lines[:n, at.ENERGY_KEV], lines[:n, at.RATIO] = table.energy_kev.numpy(), table.ratio.numpy()
    lines[:n, at.EDGE_KEV], lines[:n, at.MU_PER_UM] = table.edge_kev.numpy(), table.mu_per_um.numpy()
    lines[:n, at.IS_ESCAPE] = (table.escape_parent >= 0).numpy()
    lines[:n, at.HAS_TAIL], lines[:n, at.IS_KBETA] = table.has_tail.numpy(), table.is_kbeta.numpy()
    if model.ratios is not None:
        lines[:n, at.ABSORBS] = model.ratios.absorbing.numpy()
        lines[:n, at.HEAVY], lines[:n, at.LIGHT] = model.ratios.sample.heavy.numpy(), model.ratios.sample.light.numpy()
    index[:n, at.COLUMN] = table.component.numpy()
    index[n + n_elastic :, at.COLUMN] = len(model.component_names) - 1
    index[n + n_elastic :, at.IS_COMPTON] = 1
    lines[n:, at.HAS_TAIL] = 1.0
    if copies is None:
        lines[n:, at.FOLLOWS_INCIDENT], lines[n:, at.RATIO] = 1.0, 1.0
        index[n : n + n_elastic, at.COLUMN] = len(table.component_names)
    else:
        _add_copies(lines[n:], index[n:], copies, len(table.component_names))
    tailed = np.ones(n + n_elastic, np.bool_) if model.tailed is None else np.zeros(n + n_elastic, np.bool_)
    if model.tailed is not None:
        tailed[model.tailed.numpy()] = True
    index[: n + n_elastic, at.HAS_DRAWN_TAIL] = tailed
    return lines, index


def _add_copies(lines: Floats, index: Indices, copies: ScatterCopies, first: int) -> None:
    """The scattered lines of a tube's anode; the shares of a series sum to 1."""
    main, n = copies.is_main.numpy(), len(copies.subshell)
    elastic, compton = copies.elastic.numpy(), copies.compton.numpy()
    totals = np.where(main, elastic[main].sum(), elastic[~main].sum())
    lines[:n, at.ENERGY_KEV], lines[:n, at.RATIO] = copies.energy_kev.numpy(), elastic / totals
    index[:n, at.COLUMN] = first + ~main
    lines[n:, at.ENERGY_KEV], lines[n:, at.RATIO] = copies.energy_kev.numpy()[main], compton[main] / compton[main].sum()


def _count_lines(model: SpectrumModel) -> tuple[int, int, int]:
    """Lines of the table, elastic lines, Compton peaks."""
    n, copies = len(model.table.ratio), model.copies
    if copies is None:
        return n, int(model.elastic), 1
    return n, len(copies.subshell), int(copies.is_main.sum())


def _list_profiles(index: Indices, model: SpectrumModel, space: Space) -> Indices:
    """Numbers (profile, number) of a profile a line, and of three a Compton peak, which come last."""
    n_peaks = int(index[:, at.IS_COMPTON].sum())
    n = len(index) - n_peaks
    profiles = np.zeros((n + len(_PROFILES_OF_COMPTON) * n_peaks, at.PROFILE_NUMBERS), np.uint64)
    profiles[:, at.DRAWS] = 1
    lines, peaks = profiles[:n], profiles[n:]
    lines[:, at.LINE], lines[:, at.KIND] = np.arange(n), at.A_LINE
    lines[:, at.DRAWS + 1], lines[:, at.DRAWS + 2] = index[:n, at.HAS_DRAWN_TAIL], model.with_step
    peaks[:, at.LINE] = np.repeat(np.arange(n, len(index)), len(_PROFILES_OF_COMPTON))
    peaks[:, at.KIND] = np.tile(_PROFILES_OF_COMPTON, n_peaks)
    peaks[:, at.DRAWS + 1] = peaks[:, at.KIND] != at.COMPTON_WIDE
    with_shelf = bool(space.free[at.COMPTON_STEP]) or float(space.centre[at.COMPTON_STEP]) != 0.0
    peaks[:, at.DRAWS + 2] = (peaks[:, at.KIND] == at.COMPTON_LOW) & with_shelf
    return profiles


def _list_slopes(model: SpectrumModel, n_lines: int, n_ratios: int) -> Floats:
    linear = np.zeros((n_lines, n_ratios))
    if model.ratios is None:
        return linear
    n, n_elastic, _ = _count_lines(model)
    linear[:n] = model.ratios.linear.numpy()
    if model.ratios.copies is not None and model.copies is not None:
        of_copies = model.ratios.copies.numpy()
        linear[n : n + n_elastic] = of_copies
        linear[n + n_elastic :] = of_copies[model.copies.is_main.numpy()]
    return linear
