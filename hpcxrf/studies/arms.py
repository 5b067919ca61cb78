"""The arms of the published comparison: a method with where it starts, how far it searches, on which background."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from hpcxrf.config.benchmark import BenchmarkConfig, BenchmarkMethod

StartedArm = Literal["adam", "adam-guessed", "sbplx", "sbplx-guessed"]
Search = Literal["start", "near", "pairs", "screen"]
SEARCHES: Final[tuple[Search, ...]] = ("start", "near", "pairs", "screen")
"""How far `separable` searches, each with what the ones before it have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One row of the comparison."""

    method: BenchmarkMethod
    words: str
    """What it is, for a reader of the page."""
    guessed: bool = False
    """True: its amplitudes start from the counts, not at random."""
    search: Search = "screen"
    shared: bool = True
    """True where fit range and background are those of all; another program keeps its own lines."""

    @property
    def is_ablation(self) -> bool:
        """True for a shorter search of `separable`."""
        return self.search != SEARCHES[-1]


ARMS: Final[Mapping[str, Arm]] = MappingProxyType(
    {
        "separable-start": Arm(method="separable", words="from the start alone", search="start"),
        "separable-near": Arm(method="separable", words="+ coarse channels, rival scatter peaks", search="near"),
        "separable-pairs": Arm(method="separable", words="+ all pairs of scatter peaks", search="pairs"),
        "separable": Arm(method="separable", words="the whole search: + screen of energy axes"),
        "adam": Arm(method="adam", words="random amplitudes, as published"),
        "adam-guessed": Arm(method="adam", words="amplitudes guessed from the counts", guessed=True),
        "sbplx": Arm(method="sbplx", words="random amplitudes, as published"),
        "sbplx-guessed": Arm(method="sbplx", words="amplitudes guessed from the counts", guessed=True),
        "mapstorch": Arm(method="mapstorch", words="its own lines, background and guess", shared=False),
        "mapstorch-shared": Arm(method="mapstorch", words="its own lines and guess"),
        "pymca": Arm(method="pymca", words="its own lines, background and guess", shared=False),
        "pymca-shared": Arm(method="pymca", words="its own lines and guess"),
        "product": Arm(method="product", words="hpcxrf as a user gets it: its own range and background", shared=False),
    }
)
"""By name, which is the label of the axis `method` of all statistics."""


def list_arms(asked: BenchmarkConfig) -> tuple[str, ...]:
    """Names of the arms of a benchmark: its methods in order, each with the variants that are asked for."""
    return tuple(name for method in asked.methods for name in _list_variants(method, asked))


def _list_variants(method: BenchmarkMethod, asked: BenchmarkConfig) -> list[str]:
    if method == "separable":
        return [*(f"separable-{search}" for search in asked.ablation), method]
    if method == "adam" or method == "sbplx":  # noqa: PLR1714 (narrows the type)
        return [name_by_amplitudes(method, guessed=start == "guessed") for start in asked.amplitudes]
    if method in {"mapstorch", "pymca"}:
        return [method if background == "own" else f"{method}-shared" for background in asked.peer_backgrounds]
    return [method]


def name_by_amplitudes(method: Literal["adam", "sbplx"], *, guessed: bool) -> StartedArm:
    """Name of the arm of a published optimiser by where its amplitudes start."""
    if method == "adam":
        return "adam-guessed" if guessed else "adam"
    return "sbplx-guessed" if guessed else "sbplx"
