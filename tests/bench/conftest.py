"""Figures of `make bench`: collected, written to build/bench.json, and printed as a table."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

RESULT = Path(__file__).parents[2] / "build" / "bench.json"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number, beside that of a peer where there is one."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    threads: int = 1

    @property
    def ratio(self):
        return None if self.peer_value is None else self.value / self.peer_value


_FIGURES = pytest.StashKey[list[Figure]]()


@pytest.fixture
def figure(request):
    """Record one figure: `figure(name=..., value=..., unit=...)`."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda **values: figures.append(Figure(**values))


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash.get(_FIGURES, [])
    if not figures:
        return
    RESULT.parent.mkdir(exist_ok=True)
    rows = [asdict(f) | {"ratio": f.ratio} for f in figures]
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    terminalreporter.section(f"figures ({RESULT.relative_to(RESULT.parents[1])})")
    for f in figures:
        peer = "" if f.peer is None else f"   {f.peer}: {f.peer_value:,.4g} (ratio {f.ratio:.3g})"
        terminalreporter.write_line(f"{f.name:<62} {f.value:>12,.4g} {f.unit}{peer}")
