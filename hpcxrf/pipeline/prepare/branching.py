"""The BRANCHING_* lines of an override file, as the line table takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from hpcxrf.errors import ConfigError
from hpcxrf.formats.override import Override
from hpcxrf.physics.branching import Branching, maps_kbeta_ratio
from hpcxrf.physics.components import parse_component

KBETA: Final = 2
"""Place of K-beta among the four K multipliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBranching:
    """Adjustments of an override file for the families that are fitted."""

    applied: Branching
    unknown: tuple[str, ...]
    """Elements whose K multipliers belong to a ratio of the MAPS line table that is not known."""


def read_branching(override: Override, components: Sequence[str]) -> FileBranching | None:
    """Collect the adjustments for the families that are fitted, pile-up included.

    K-beta lines get MAPS's ratio to K-alpha-1 times their multiplier, as recorded: MAPS has no detector efficiency
    in its ratios, so that a multiplier was chosen to describe recorded counts. K-alpha, K-beta-2 and L lines have no
    known ratio in MAPS; there the multiplier is taken on the library's. A multiplier of 1 asks for nothing.

    Returns:
        None where the file asks for nothing.

    Raises:
        ConfigError: a wrong number of multipliers, or a negative one.
    """
    symbols, l_names = _families(components)
    k_multipliers = _other_than_one(override.branching_k, symbols)
    ratios, families = (_other_than_one(m, l_names) for m in (override.branching_l, override.branching_l_family))
    if not (k_multipliers or ratios or families):
        return None
    base = {s: maps_kbeta_ratio(s) for s, m in k_multipliers.items() if m[KBETA : KBETA + 1] != (1.0,)}
    known = {s: ratio for s, ratio in base.items() if ratio is not None}
    unknown = tuple(s for s in base if s not in known)
    try:
        applied = Branching(
            k_ratios={s: m for s, m in k_multipliers.items() if s not in unknown},
            l_ratios=ratios,
            l_families=families,
            kbeta_base=known,
        )
    except ConfigError as error:
        raise ConfigError(f"{override.path}: {error}") from error
    return FileBranching(applied=applied, unknown=unknown)


def _families(components: Sequence[str]) -> tuple[list[str], list[str]]:
    """Elements with K lines and names of L families ("Pt_L") among the components."""
    every = list(chain.from_iterable(parse_component(name).families for name in components))
    return [s for s, shell in every if shell == "K"], [f"{s}_L" for s, shell in every if shell == "L"]


def _other_than_one(multipliers: Mapping[str, tuple[float, ...]], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    present = [name for name in dict.fromkeys(names) if name in multipliers]
    return {name: multipliers[name] for name in present if any(m != 1.0 for m in multipliers[name])}
