"""What a file says of the axes of its array of spectra: names, NeXus attributes, and the arrays that lie beside it."""

from typing import Final

from hpcxrf.formats.array_choice import ENERGY_AXES, says_spectrum
from hpcxrf.formats.array_containers import Container, Entry
from hpcxrf.formats.axis_rules import Hints
from hpcxrf.formats.hyperspy import SignalAxes

_MOST_VECTORS: Final = 2000


def collect_hints(container: Container, entry: Entry, signal: SignalAxes | None) -> Hints:
    """Collect what decides the meaning of the axes of an array."""
    beside = _find_beside(container, entry)
    energies = [e for name in ENERGY_AXES if (e := container.entries.get(entry.find_neighbour(name))) is not None]
    vectors: dict[int, list[str]] = {}
    for other in beside:
        if len(other.shape) == 1 and other.shape[0] > 1 and not other.name.lower().startswith("energy"):
            vectors.setdefault(other.shape[0], []).append(other.path)
    return Hints(
        names=entry.dims if signal is None else signal.names,
        spectra_last=says_spectrum(entry),
        n_energies=next((e.shape[0] for e in energies if len(e.shape) == 1), None),
        vectors=vectors,
        maps=frozenset(other.shape for other in beside if len(other.shape) == 2),
    )


def _find_beside(container: Container, entry: Entry) -> list[Entry]:
    """Arrays of numbers in the same branch of the file: in its root, or below the same first group."""
    top, deep, _ = entry.path.partition("/")
    every = (e for e in container.entries.values() if e is not entry and e.dtype.kind in "iuf")
    near = [e for e in every if "/" not in e.path or (deep and e.path.startswith(f"{top}/"))]
    return near[:_MOST_VECTORS]
