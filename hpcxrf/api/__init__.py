"""The library: spectra and maps that are arrays, files and runs, and the model to train through.

Every name here is also a name of `hpcxrf` itself, loaded when it is first used:

    import hpcxrf
    scan = hpcxrf.open_scan("scan.mda")
    fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), ["Si", "Ca", "Fe"], 12.0)
    maps = hpcxrf.fit_map(cube, fit, method="linear")
    hpcxrf.plot_maps(maps)

Functions that give maps register the accessor `.xrf` of xarray Datasets: `maps.xrf.map("Fe")`, `maps.xrf.plot()`,
`maps.xrf.rgb("Fe", "Ca", "Si")`. The examples of the functions go on with the `cube`, `fit` and `maps` of these lines.
For Datasets that were opened by other means call `register_accessor()` once.
"""

from hpcxrf.api.maps import fit_map, open_scan, plot_maps, register_accessor
from hpcxrf.api.model import default_theta, line_table, model_spectrum
from hpcxrf.api.processing import Outcome, process
from hpcxrf.api.runs import open_results, run
from hpcxrf.api.spectra import (
    Amplitude,
    Value,
    amplitudes,
    decision_limits,
    fit_amplitudes,
    fit_integrated,
    fit_spectrum,
    parameters,
    plot_fit,
    posterior,
    refine,
)
from hpcxrf.archive.index import open_archive
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.tube import Layer, Tube

__all__ = [
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
]
