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
    includes: str = ""
    """What the value is of: what went in, what came out."""

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
    rows = [{**asdict(f), "ratio": f.ratio} for f in figures]
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    terminalreporter.section(f"figures ({RESULT.relative_to(RESULT.parents[1])})")
    for line in _table(figures):
        terminalreporter.write_line(line)


def _table(figures):
    """Lines of equal columns: name, value, unit, peer, its value, ratio, threads; below them what is included."""
    cells = [("figure", "value", "unit", "peer", "its value", "ratio", "threads")]
    cells += [
        (
            f.name,
            f"{f.value:,.4g}",
            f.unit,
            f.peer or "",
            "" if f.peer_value is None else f"{f.peer_value:,.4g}",
            "" if f.ratio is None else f"{f.ratio:.3g}",
            str(f.threads),
        )
        for f in figures
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    right = {1, 4, 5, 6}
    for row in cells:
        padded = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()
    yield from dict.fromkeys(f"{f.name}: {f.includes}" for f in figures if f.includes)
