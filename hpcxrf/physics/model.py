"""The differentiable spectrum: design matrix and model counts, one kernel for every batch rank.

`counts(channel) = sum over components of amplitude * column(channel)`; the columns of fluorescence and pile-up come
from the line table, the last two are the elastic and the Compton peak. Formulas: the MAPS model (reference in
README) with the physics set right; with a MAPS constant set, as MAPS computes them.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics import scatter_names
from hpcxrf.physics.anode_scatter import ScatterCopies, adjust_shares, compton_of_copies
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES
from hpcxrf.physics.ratios import RatioModel, adjust_ratios
from hpcxrf.physics.scatter import ComptonShape, compton_shape, line_sigma_kev
from hpcxrf.physics.shapes import gaussian, low_energy_tail, maps_low_energy_tail, step

ELASTIC: Final = scatter_names.ELASTIC
COMPTON: Final = scatter_names.COMPTON
SCATTER: Final = scatter_names.SCATTER
"""Names of all columns of scattered photons."""

# An absorption edge is some eV wide, and the incident energy is a fitted parameter: a sharp switch would
# have no derivative.
EDGE_WIDTH_KEV: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumModel:
    """Everything that a design matrix depends on, apart from theta."""

    table: LineTable
    channel: Tensor
    """(channel,) float64: the channels of the fit range, counted from 0 of the full spectrum."""
    constants: ConstantSet
    elastic: bool = True
    """False for a tube: no monochromatic elastic line. The Compton column stays."""
    copies: ScatterCopies | None = None
    """Lines of a tube's anode, scattered: they take the place of the one elastic line and of the one Compton peak."""
    with_step: bool = True
    """False saves the shelf where its parameters are 0 and fixed."""
    tailed: Tensor | None = None
    """(tailed line,) int64, `find_tailed_lines(...)`: the lines whose tail is computed; None: every line's."""
    shape_dtype: torch.dtype = torch.float64
    """Precision of the peak shapes (channel, line), which are most of the work; their sums are in that of theta."""
    ratios: RatioModel | None = None
    """With it, the parameters of the line ratios follow theta in the same vector; None: ratios are the table's."""

    @property
    def component_names(self) -> tuple[str, ...]:
        """Columns of the design matrix, in order."""
        return self.table.component_names + self.scatter_names

    @property
    def scatter_names(self) -> tuple[str, ...]:
        """Columns of scattered photons, the Compton peak last."""
        return list_scatter(elastic=self.elastic, copies=self.copies)


def list_scatter(*, elastic: bool, copies: ScatterCopies | None) -> tuple[str, ...]:
    """Names of the columns of scattered photons, the Compton peak last.

    Args:
        elastic: whether there is one elastic line, at the incident energy.
        copies: lines of a tube's anode.
    """
    if copies is not None:
        return (ELASTIC, *copies.other_names, COMPTON)
    return (ELASTIC, COMPTON) if elastic else (COMPTON,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLines:
    """Where the lines of a model stand at one theta, how wide and how high they are: (*batch, line), elastic last."""

    column: Tensor
    """(line,) int64: the column that a line belongs to."""
    line_kev: Tensor
    sigma_kev: Tensor
    ratio: Tensor
    """Share of the component's counts, elastic lines included."""
    weight: Tensor
    """The same with edge switch and escape factor."""
    switch: Tensor
    tail: Tensor
    """Share of a line's tail, in units of its peak; so the step."""
    step: Tensor
    gamma: Tensor
    norm: Tensor
    """1 / (1 + tail + step)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A design matrix with the terms that its derivatives reuse."""

    phi: Tensor
    """(*batch, channel, component)."""
    bin_kev: Tensor
    """(*batch, channel): width of the channel."""
    lines: PlacedLines
    u: Tensor
    """(*batch, channel, line)."""
    gauss: Tensor
    tailed: Tensor | None
    """(tailed line,) lines that the next two have; None: all."""
    low_u: Tensor
    low: Tensor
    """(*batch, channel, tailed line)."""
    shelf: Tensor | None
    compton: ComptonShape
    """Of a tube, of every copy: (*batch, copy, channel)."""
    compton_share: Tensor | None
    """(*batch, copy of the main series) share of each copy in the Compton column; None: there is one peak."""


def energy_kev(theta: Tensor, channel: Tensor) -> Tensor:
    """Energy of the channels, `offset + slope n + quadratic n^2`.

    Args:
        theta: (*batch, parameter).
        channel: (channel,), counted from 0 of the full spectrum.

    Returns:
        (*batch, channel), keV.
    """
    offset, slope, quadratic = (theta[..., i, None] for i in range(3))
    return offset + channel * (slope + channel * quadratic)


def bin_width_kev(theta: Tensor, channel: Tensor, constants: ConstantSet) -> Tensor:
    """Width of the channels, dE/dn; MAPS takes the slope alone.

    Returns:
        (*batch, channel), keV.
    """
    slope, quadratic = theta[..., 1, None], theta[..., 2, None]
    if constants.maps_line_shape:
        return slope.expand(*theta.shape[:-1], channel.shape[0])
    return slope + 2.0 * quadratic * channel


def place_lines(theta: Tensor, model: SpectrumModel) -> PlacedLines:
    """Energies, widths and heights of the lines at theta.

    Args:
        theta: (*batch, parameter) float64, followed by the parameters of the line ratios where the model has them.
        model: lines and constants, on the device of theta.
    """
    par = {name: theta[..., i, None] for name, i in INDEX.items()}
    line_kev, column = _place_lines(par["coherent_sct_energy"], model)
    ratio = _ratios(theta, model)
    switch, weight = _weights(par, ratio, model)
    tail, shelf_share, gamma = _tail_and_step(par, line_kev, model)
    return PlacedLines(
        column=column,
        line_kev=line_kev,
        sigma_kev=line_sigma_kev(theta, line_kev, model.constants),
        ratio=ratio,
        weight=weight,
        switch=switch,
        tail=tail,
        step=shelf_share,
        gamma=gamma,
        norm=1.0 / (1.0 + tail + shelf_share),
    )


def evaluate(theta: Tensor, model: SpectrumModel) -> Evaluation:
    """Design matrix at theta, with its terms.

    Args:
        theta: (*batch, parameter) float64, inside the bounds of the parameter table.
        model: lines, channels and constants, on the device of theta.
    """
    constants = model.constants
    lines = place_lines(theta, model)
    sigma, tail, gamma = lines.sigma_kev, lines.tail, lines.gamma
    energies = energy_kev(theta, model.channel)
    bins = bin_width_kev(theta, model.channel, constants)
    u = (energies[..., :, None] - lines.line_kev[..., None, :]) / sigma[..., None, :]
    u = u.to(shape_dtype(theta, model))
    gauss = gaussian(u)
    tail_shape = maps_low_energy_tail if constants.maps_line_shape else low_energy_tail
    low_u = select_tailed(u, model.tailed)
    low = tail_shape(low_u, select_tailed(gamma, model.tailed)[..., None, :].to(u.dtype))
    shelf = step(u) if model.with_step else None
    heights = sigma, tail, lines.step / (2.0 * lines.line_kev)
    phi = _join_lines((gauss, low, shelf), lines.weight * lines.norm, heights, lines.column, model).to(theta.dtype)
    compton, compton_share = _scatter_compton(theta, energies, model)
    density = compton.density if compton_share is None else (compton_share[..., None] * compton.density).sum(dim=-2)
    phi = torch.cat([phi, density[..., :, None]], dim=-1) * bins[..., :, None]
    return Evaluation(
        phi=phi,
        bin_kev=bins,
        lines=lines,
        u=u,
        gauss=gauss,
        tailed=model.tailed,
        low_u=low_u,
        low=low,
        shelf=shelf,
        compton=compton,
        compton_share=compton_share,
    )


def _scatter_compton(theta: Tensor, energies: Tensor, model: SpectrumModel) -> tuple[ComptonShape, Tensor | None]:
    """The Compton peak; of a tube that of every copy of the main series, and the share of each."""
    copies = model.copies
    if copies is None:
        return compton_shape(theta, energies, model.constants), None
    share = adjust_shares(copies.compton, read_copy_logarithm(theta, model), copies)
    main = share[..., copies.is_main.to(theta.device)]
    return compton_of_copies(theta, energies, copies, model.constants), main / main.sum(dim=-1, keepdim=True)


def read_copy_logarithm(theta: Tensor, model: SpectrumModel) -> Tensor:
    """Logarithm (*batch, copy) of how much higher a copy of the anode's lines stands than calculated.

    Args:
        theta: (*batch, parameter), followed by the parameters of the line ratios where the model has them.
        model: with copies.
    """
    n = 0 if model.copies is None else len(model.copies.subshell)
    if model.ratios is None or model.ratios.copies is None:
        return theta.new_zeros((*theta.shape[:-1], n))
    return theta[..., len(PARAMETER_NAMES) :] @ model.ratios.copies.mT


def _join_lines(
    shapes: tuple[Tensor, Tensor, Tensor | None],
    share: Tensor,
    widths: tuple[Tensor, Tensor, Tensor],
    column: Tensor,
    model: SpectrumModel,
) -> Tensor:
    """Columns of lines and elastic peak, 1/keV (*batch, channel, component), from Gaussian, tail and shelf.

    Args:
        shapes: Gaussian (*batch, channel, line), tail (*batch, channel, tailed line), shelf.
        share: (*batch, line) of the component's counts.
        widths: sigma, height of the tail and of the shelf; (*batch, line).
        column: (line,) int64.
        model: lines.
    """
    (gauss, low, shelf), (sigma, tail, shelf_height) = shapes, widths
    n_columns = len(model.component_names) - 1
    spread = (column[:, None] == torch.arange(n_columns, device=column.device)).to(share.dtype)
    height = share / sigma
    phi = gauss @ (height[..., :, None] * spread).to(gauss.dtype)
    in_tail = select_tailed(height * tail, model.tailed)[..., :, None]
    phi = phi + low @ (in_tail * select_tailed(spread.mT, model.tailed).mT).to(low.dtype)
    if shelf is not None:
        phi = phi + shelf @ ((share * shelf_height)[..., :, None] * spread).to(shelf.dtype)
    return phi


def find_tailed_lines(
    table: LineTable, *, elastic: bool, constants: ConstantSet, copies: ScatterCopies | None = None
) -> Tensor:
    """Lines with a tail, for `SpectrumModel.tailed`; elastic lines, which are not in the table, come last.

    Returns:
        (tailed line,) int64.
    """
    n_elastic = int(elastic) if copies is None else len(copies.subshell)
    if constants.maps_line_shape:
        n_elastic = 0
    return torch.cat([table.has_tail, table.has_tail.new_ones(n_elastic)]).nonzero()[:, 0]


def select_tailed(values: Tensor, tailed: Tensor | None) -> Tensor:
    """(..., line) -> (..., tailed line)."""
    return values if tailed is None else values.index_select(-1, tailed)


def shape_dtype(theta: Tensor, model: SpectrumModel) -> torch.dtype:
    """Precision of the peak shapes: the model's, but never wider than that of theta."""
    return theta.dtype if theta.dtype == torch.float32 else model.shape_dtype


def design_matrix(
    theta: Tensor, table: LineTable, channel: Tensor, *, constants: ConstantSet, elastic: bool = True
) -> Tensor:
    """Columns of the linear model: recorded counts per channel of one count of each component.

    Differentiable by autograd and torch.func in theta, with finite gradients over the whole of the bounds.

    Args:
        theta: (*batch, parameter) float64 in the order of `PARAMETER_NAMES`.
        table: lines, on theta's device.
        channel: (channel,) float64, counted from 0 of the full spectrum.
        constants: `physics`, or a MAPS set for parity.
        elastic: whether there is an elastic column (not for a tube).

    Returns:
        (*batch, channel, component): the table's components, then elastic, then Compton.
    """
    model = SpectrumModel(table=table, channel=channel, constants=constants, elastic=elastic)
    return evaluate(theta, model).phi


def model_spectrum(
    theta: Tensor, amplitude: Tensor, table: LineTable, channel: Tensor, *, constants: ConstantSet, elastic: bool = True
) -> Tensor:
    """Expected counts without background, differentiable in theta and amplitude.

    Args:
        theta: (*batch, parameter) float64.
        amplitude: (*batch, component) recorded counts, components as in `design_matrix`.
        table: lines.
        channel: (channel,) float64.
        constants: `physics`, or a MAPS set for parity.
        elastic: whether there is an elastic column.

    Returns:
        (*batch, channel) counts.
    """
    phi = design_matrix(theta, table, channel, constants=constants, elastic=elastic)
    return (phi @ amplitude[..., :, None])[..., 0]


def _place_lines(incident_kev: Tensor, model: SpectrumModel) -> tuple[Tensor, Tensor]:
    """Line energies (*batch, line) and the column of each (line,), elastic lines last."""
    table, copies = model.table, model.copies
    fixed = table.energy_kev.expand(*incident_kev.shape[:-1], -1)
    first = len(table.component_names)
    if copies is not None:
        energy = copies.energy_kev.to(fixed).expand(*incident_kev.shape[:-1], -1)
        column = first + (~copies.is_main).to(torch.int64).to(incident_kev.device)
        return torch.cat([fixed, energy], dim=-1), torch.cat([table.component, column])
    if not model.elastic:
        return fixed, table.component
    elastic_column = torch.full((1,), first, dtype=torch.int64, device=incident_kev.device)
    return torch.cat([fixed, incident_kev], dim=-1), torch.cat([table.component, elastic_column])


def _append_elastic(values: Tensor, elastic: float, model: SpectrumModel) -> Tensor:
    """Append the value of every elastic line to a (..., line) tensor of the table."""
    n = int(model.elastic) if model.copies is None else len(model.copies.subshell)
    return torch.nn.functional.pad(values, (0, n), value=elastic) if n else values


def _ratios(theta: Tensor, model: SpectrumModel) -> Tensor:
    """Ratios of the lines, (*batch, line) or (line,), elastic lines included."""
    ratio = model.table.ratio
    if model.ratios is not None:
        ratio = adjust_ratios(theta[..., len(PARAMETER_NAMES) :], model.table, model.ratios)
    if model.copies is None:
        return _append_elastic(ratio, 1.0, model)
    share = adjust_shares(model.copies.elastic, read_copy_logarithm(theta, model), model.copies)
    return torch.cat([ratio.expand(*share.shape[:-1], -1), share], dim=-1)


def _weights(par: dict[str, Tensor], ratio: Tensor, model: SpectrumModel) -> tuple[Tensor, Tensor]:
    """Edge switch and weight of each line, (*batch, line)."""
    table = model.table
    edge = _append_elastic(table.edge_kev, 0.0, model)
    switch = torch.sigmoid((par["coherent_sct_energy"] - edge) / EDGE_WIDTH_KEV)
    is_escape = _append_elastic((table.escape_parent >= 0).to(switch.dtype), 0.0, model)
    escape = 1.0 + is_escape * (par["escape_factor"] - 1.0)
    return switch, ratio * switch * escape


def _tail_and_step(par: dict[str, Tensor], line_kev: Tensor, model: SpectrumModel) -> tuple[Tensor, Tensor, Tensor]:
    """Tail fraction, step fraction and decay length of each line, (*batch, line).

    Elastic lines have the tail of any other photon of their energy; MAPS draws them without.
    """
    table = model.table
    has_tail = _append_elastic(
        table.has_tail.to(line_kev.dtype), 0.0 if model.constants.maps_line_shape else 1.0, model
    )
    kbeta = _append_elastic(table.is_kbeta.to(line_kev.dtype), 0.0, model)
    mu = _append_elastic(table.mu_per_um, 0.0, model)
    alpha_tail = par["f_tail_offset"] + par["f_tail_linear"] * mu
    kbeta_tail = par["kb_f_tail_offset"] + par["kb_f_tail_linear"] * mu
    tail = has_tail * (alpha_tail + kbeta * (kbeta_tail - alpha_tail))
    shelf = mu * (par["step_offset"] + par["step_linear"] * line_kev)
    gamma = par["gamma_offset"] + par["gamma_linear"] * line_kev
    return tail, shelf, gamma
