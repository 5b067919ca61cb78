"""The BRANCHING_* lines of an override file, as the line table takes them, and what of them was applied."""

from collections.abc import Mapping, Sequence
from itertools import chain

from hpcxrf.errors import ConfigError
from hpcxrf.formats.override import Override
from hpcxrf.physics.branching import Branching, maps_kbeta_ratio
from hpcxrf.physics.components import parse_component

_KBETA = 2


def branching_of(override: Override | None, components: Sequence[str]) -> tuple[Branching | None, list[str]]:
    """Adjustments for the families that are fitted, pile-up included, and sentences about them.

    K-beta lines get MAPS's ratio to K-alpha-1 times their multiplier, as recorded: MAPS has no detector efficiency
    in its ratios, so that a multiplier was chosen to describe recorded counts. K-alpha, K-beta-2 and L lines have no
    known ratio in MAPS; there the multiplier is taken on the library's. A multiplier of 1 asks for nothing.

    Returns:
        None where the file asks for nothing.

    Raises:
        ConfigError: a wrong number of multipliers, or a negative one.
    """
    if override is None:
        return None, []
    symbols, l_names = _families(components)
    k_asked = _asked(override.branching_k, symbols)
    ratios, families = (_asked(m, l_names) for m in (override.branching_l, override.branching_l_family))
    if not (k_asked or ratios or families):
        return None, []
    base = {s: maps_kbeta_ratio(s) for s, m in k_asked.items() if m[_KBETA : _KBETA + 1] != (1.0,)}
    known = {s: ratio for s, ratio in base.items() if ratio is not None}
    unknown = [s for s in base if s not in known]
    try:
        found = Branching(
            k_ratios={s: m for s, m in k_asked.items() if s not in unknown},
            l_ratios=ratios,
            l_families=families,
            kbeta_base=known,
        )
    except ConfigError as error:
        raise ConfigError(f"{override.path}: {error}") from error
    return found, _notes(override, found, unknown)


def _families(components: Sequence[str]) -> tuple[list[str], list[str]]:
    """Elements with K lines and names of L families ("Pt_L") among the components."""
    every = list(chain.from_iterable(parse_component(name).families for name in components))
    return [s for s, shell in every if shell == "K"], [f"{s}_L" for s, shell in every if shell == "L"]


def _asked(given: Mapping[str, tuple[float, ...]], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    return {name: given[name] for name in dict.fromkeys(names) if name in given and any(v != 1.0 for v in given[name])}


def _notes(override: Override, found: Branching, unknown: Sequence[str]) -> list[str]:
    file = override.path.name
    notes = []
    if found.kbeta_base:
        words = [f"{s} {ratio * found.k_ratios[s][_KBETA]:.3f}" for s, ratio in found.kbeta_base.items()]
        notes.append(
            f"K-beta to K-alpha-1 of {', '.join(words)}: the multipliers of {file} times the ratios of the MAPS line "
            "table, which they were made for"
        )
    direct = [s for s, m in found.k_ratios.items() if (m[0], m[1], m[3]) != (1.0, 1.0, 1.0)]
    direct = [*direct, *dict.fromkeys([*found.l_families, *found.l_ratios])]
    if direct:
        notes.append(
            f"line ratios of {', '.join(direct)}: multipliers of {file} on the library's ratios; if they were made to "
            "repair the MAPS line table, remove them"
        )
    if unknown:
        notes.append(
            f"not used of {file}: K multipliers of {', '.join(unknown)}, as the ratio of the MAPS line table that "
            "they belong to is not known; the library's is used"
        )
    return notes
