"""Models that have everything at once, and thetas at which no term is nothing: what two ways of drawing are held to."""

from dataclasses import replace

import torch
from fit_samples import channels, setup, table, theta_of

from hpcxrf.fitting.spectrum.least_squares import LeastSquares, build_space
from hpcxrf.fitting.spectrum.line_ratios import _extend_space
from hpcxrf.fitting.spectrum.ratio_groups import list_anode_groups, list_family_groups
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.parameters import PARAMETER_NAMES
from hpcxrf.physics.ratios import build_ratio_model, find_parents
from hpcxrf.physics.sample import find_sample_elements, light_sample, own_sample
from hpcxrf.physics.tube import Tube
from hpcxrf.physics.tube_table import build_tube_table, find_scatter_copies

CHANNEL = channels(60, 1330)
# No term is 0.
EVERYWHERE = {
    "energy_offset": 0.013,
    "energy_quadratic": 2e-8,
    "coherent_sct_energy": 12.03,
    "compton_f_step": 0.02,
    "compton_hi_f_tail": 0.03,
    "step_offset": 0.01,
    "step_linear": 0.002,
    "f_tail_linear": 0.01,
    "kb_f_tail_linear": 0.02,
    "gamma_linear": 0.02,
    "escape_factor": 1.2,
}
Q = (0.4, 0.3, 0.8, 0.06)


def pose(theta, model, groups=(), *, hats=3):
    """Least squares in which everything is free, in units of the parameters, of a spectrum that has every component."""
    generator = torch.Generator().manual_seed(5)
    n = len(model.channel)
    space = build_space(setup().parameters)
    space = replace(space, free=torch.ones_like(space.free), free_names=frozenset(PARAMETER_NAMES))
    if model.ratios is not None:
        space = _extend_space(space, groups, setup())
    space = replace(space, scale=torch.ones_like(space.scale))
    knots = torch.linspace(0.0, n - 1.0, hats, dtype=torch.float64)
    apart = (torch.arange(n, dtype=torch.float64)[:, None] - knots).abs() / (n / (hats - 1))
    phi = evaluate(theta, model).phi
    noise = torch.rand(n, generator=generator, dtype=torch.float64)
    return LeastSquares(
        counts=phi @ torch.linspace(1e4, 3e4, phi.shape[1], dtype=torch.float64) + noise,
        weights=0.1 + torch.rand(n, generator=generator, dtype=torch.float64),
        model=model,
        hats=(1.0 - apart).clamp(min=0.0),
        space=space,
    )


def in_a_beam(*, with_step=True, tailed=None, depth=True, own=True):
    """Families with escape lines, an M series, pile-up; ratios behind a sample of iron and light matter."""
    lines = table()
    ratios, groups = None, ()
    if depth:
        parent = lines.energy_kev[find_parents(lines)]
        elements = find_sample_elements(lines, Detector())
        shares = torch.ones(len(elements.z), dtype=torch.float64) / len(elements.z)
        sample = own_sample(elements, shares, parent, lines.incident_energy_kev) if own else light_sample(parent, 12.0)
        groups = list_family_groups(lines, 0.05)
        ratios = build_ratio_model(lines, groups, sample)
    model = SpectrumModel(
        table=lines, channel=CHANNEL, constants=PHYSICS, with_step=with_step, tailed=tailed, ratios=ratios
    )
    theta = theta_of(**EVERYWHERE)
    if depth:
        theta = torch.cat([theta, torch.tensor([*Q, *(0.03,) * len(groups)], dtype=torch.float64)])
    return theta, pose(theta, model, groups)


def behind_a_tube(*, elastic_only=False):
    """Scattered lines of rhodium, whose subshells are free; or a tube of which nothing is known."""
    if elastic_only:
        model = SpectrumModel(table=table(), channel=CHANNEL, constants=PHYSICS, elastic=False)
        theta = theta_of(**EVERYWHERE)
        return theta, pose(theta, model)
    tube, detector = Tube(anode="Rh", kv=40.0), Detector()
    lines = build_tube_table(("Si", "Ca", "Fe", "Zn"), tube, detector=detector)
    copies = find_scatter_copies(tube, detector, lowest_kev=1.0, highest_kev=24.0)
    groups = (*list_family_groups(lines, 0.05), *list_anode_groups(lines, copies))
    parent = lines.energy_kev[find_parents(lines)]
    ratios = build_ratio_model(lines, groups, light_sample(parent, lines.incident_energy_kev))
    assert ratios.copies is not None
    channel = channels(60, 2400)
    model = SpectrumModel(
        table=lines, channel=channel, constants=PHYSICS, elastic=False, copies=copies, ratios=ratios, with_step=False
    )
    theta = theta_of(**EVERYWHERE | {"step_offset": 0.0, "step_linear": 0.0, "coherent_sct_energy": 40.0})
    # At 40 keV anything thicker absorbs all lines alike.
    theta = torch.cat([theta, torch.tensor([0.9995, *Q[1:], *(0.03,) * len(groups)], dtype=torch.float64)])
    return theta, pose(theta, model, groups)


def tailed_lines():
    return find_tailed_lines(table(), elastic=True, constants=PHYSICS)


CASES = {
    "everything at once": in_a_beam,
    "light matter": lambda: in_a_beam(own=False),
    "ratios of the table": lambda: in_a_beam(depth=False),
    "no shelf": lambda: in_a_beam(with_step=False, tailed=tailed_lines()),
    "no tail drawn": lambda: in_a_beam(tailed=torch.zeros(0, dtype=torch.int64), with_step=False),
    "a tube": behind_a_tube,
    "an unknown tube": lambda: behind_a_tube(elastic_only=True),
}
