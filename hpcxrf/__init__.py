"""hpcxrf: archives of X-ray fluorescence scans into element maps.

`import hpcxrf` and call the functions of `hpcxrf.api`: it is loaded, and torch with it, at the first use of one of
its names, so that the import itself takes no time.
"""

from importlib import import_module
from typing import Any, Final

__version__: Final = "0.2.0"

_LIBRARY: Final = (
    "Amplitude",
    "Detector",
    "Layer",
    "Outcome",
    "Tube",
    "Value",
    "amplitudes",
    "decision_limits",
    "default_theta",
    "fit_amplitudes",
    "fit_integrated",
    "fit_map",
    "fit_spectrum",
    "line_table",
    "model_spectrum",
    "open_archive",
    "open_results",
    "open_scan",
    "parameters",
    "plot_fit",
    "plot_maps",
    "posterior",
    "process",
    "refine",
    "register_accessor",
    "run",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (each name has its own type, in hpcxrf.api)
    if name in _LIBRARY:
        return getattr(import_module("hpcxrf.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LIBRARY})
