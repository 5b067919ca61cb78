"""The table of pixel methods: what a run file may name, what each may be combined with, and what it costs.

Pure data, which a login node reads without torch. All the rest of a method is one file, named after it:
`fitting/pixels/<method>.py`, whose function `prepare` makes the solver. A new method is a row here, its name in the
type above the table, and that file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

PixelMethodName = Literal["linear", "nnls", "poisson", "nonlinear", "full"]
"""Names of the table's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelMethod:
    """One method: its description, what it may be combined with, and its cost.

    Rates are channels of spectra that are brought from the store to maps in a second, with sigma and deviance;
    measured on spectra of 1024 to 4096 channels, within a factor of 1.5.
    """

    summary: str
    """Description in a few words, as help texts show it."""
    cpu_rate: float
    """Channels a second of one core."""
    cpu_batch: int
    """Pixels whose spectra one thread holds at a time, as arrays of float32."""
    gpu_rate: float = 3e8
    """Channels a second of a GPU, which is fed as fast as one process reads."""
    gpu_copies: int
    """Float32 arrays of the size of the spectra that a GPU holds at a time."""
    free: bool = False
    """Whether every pixel has a theta of its own, whose shift is written as maps."""
    tangents: bool = False
    """Whether the basis keeps how the columns change with theta, and a worker keeps further points of expansion."""
    sums: bool = True
    """Whether the raw sum of several detectors can be fitted."""
    snip: bool = False
    """Whether the background may be clipped from every pixel (`pixels.background: snip`)."""
    non_negative: bool = False
    """Whether amplitudes below 0 are cut off, so that sums over pixels come out high."""
    weight_classes: bool = False
    """Whether pixels of unlike composition may be fitted with weights of their own (`pixels.weights: auto`)."""
    most_pixels: int | None = None
    """Largest number of pixels times detectors; None: any number."""


METHODS: Final[Mapping[PixelMethodName, PixelMethod]] = {
    "linear": PixelMethod(
        summary="signed, unbiased", cpu_rate=2e8, cpu_batch=512, gpu_copies=4, snip=True, weight_classes=True
    ),
    "nnls": PixelMethod(
        summary="non-negative least squares", cpu_rate=2e8, cpu_batch=512, gpu_copies=4, snip=True, non_negative=True
    ),
    "poisson": PixelMethod(
        summary="non-negative maximum likelihood", cpu_rate=1.2e8, cpu_batch=2048, gpu_copies=8, non_negative=True
    ),
    "nonlinear": PixelMethod(
        summary="energy offset, gain and width free in every pixel",
        cpu_rate=9e7,
        cpu_batch=2048,
        gpu_copies=5,
        free=True,
        tangents=True,
    ),
    "full": PixelMethod(
        summary="the same by the true model, for small scans",
        cpu_rate=2e6,
        cpu_batch=512,
        gpu_rate=2e5,
        gpu_copies=60,
        free=True,
        non_negative=True,
        sums=False,
        most_pixels=10_000,
    ),
}


def methods_that(may: str) -> str:
    """Names of the methods whose row has a property, for messages: `linear or nnls`.

    Args:
        may: name of a boolean field of `PixelMethod`.
    """
    return " or ".join(name for name, method in METHODS.items() if getattr(method, may))


def methods_text() -> str:
    """All methods with their descriptions, for help texts: `linear (signed, unbiased), nnls (...), ...`."""
    return ", ".join(f"{name} ({method.summary})" for name, method in METHODS.items())
