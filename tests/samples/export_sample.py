"""A run directory with one small scan, to export: known maps with a bright corner, spectra, regions, derived layers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from results_sample import COMPONENTS as LINES
from results_sample import EXPOSURE, N_CHANNELS, PARAMETERS, line_markers, pixel_fit, spectrum_fit
from store_scans import made_scan, write_source

from hpcxrf.formats.scan import ScanScalars
from hpcxrf.results.store.maps import create_results, finalise, write_block, write_spectrum_fits
from hpcxrf.results.store.regions import RegionAxes, RegionRows, create_regions, write_region_fit
from hpcxrf.results.store.storage import ArrayPlan, create_array, create_group, create_labels
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.schema import table

COMPONENTS = (
    "Zn",
    "Si",
    "S",
    "Ca",
    "Pt_L",
    "Ti",
    "Fe",
    "Ti/Cr",
    "Au_M",
    "Si_Cl",
    "COHERENT_SCT_AMPLITUDE",
    "COMPTON_AMPLITUDE",
)
assert len(COMPONENTS) == len(LINES)
MAPS_ORDER = (
    "Si",
    "S",
    "Ca",
    "Ti",
    "Fe",
    "Zn",
    "Pt_L",
    "Au_M",
    "Ti/Cr",
    "Si_Cl",
    "COHERENT_SCT_AMPLITUDE",
    "COMPTON_AMPLITUDE",
)
"""As XRF-Maps orders them: K by atomic number, L, M, the rest."""
SHAPE = (5, 7)
CORNER = (0, 6)
"""The bright pixel of Fe: first row, last column."""
NAME = "scan-1a2b3c4d"
LAYERS = {
    "normalised": """
        rate             detector component y x  float32  s-1     recorded counts over live time and incident flux
        sigma            detector component y x  float32  s-1     standard uncertainty
        detection_limit  detector component y x  float32  s-1     detection limit
        """,
    "areal_density": """
        areal_density    detector component y x  float32  ug/cm2  areal density
        sigma            detector component y x  float32  ug/cm2  standard uncertainty
        detection_limit  detector component y x  float32  ug/cm2  detection limit
        """,
}


def made_maps(seed: int = 3) -> np.ndarray:
    """Noise (component, y, x), Fe with its bright corner."""
    maps = np.random.default_rng(seed).uniform(1.0, 300.0, (len(COMPONENTS), *SHAPE))
    maps[COMPONENTS.index("Fe")][CORNER] = 1e6 / 3
    return maps


def raster_um(shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Positions (x_um, y_um) of a raster with steps of 0.5 and 2 um, and the jitter of an encoder."""
    y, x = np.meshgrid(np.arange(shape[0]) * 2.0 + 100, np.arange(shape[1]) * 0.5 - 7, indexing="ij")
    jitter = np.random.default_rng(1).uniform(-0.05, 0.05, (2, *shape))
    return x + jitter[0], y + jitter[1]


def points_um() -> tuple[np.ndarray, np.ndarray]:
    """Positions (x_um, y_um) of points along a spiral."""
    angle = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 0.7
    return angle * np.cos(angle), angle * np.sin(angle)


def make_run(
    folder: Path,
    *,
    name: str = NAME,
    detectors: tuple[str, ...] = ("0", "1", "sum"),
    positions_um: tuple[np.ndarray, np.ndarray] | None = None,
    layers: bool = True,
    layer_detectors: tuple[str, ...] | None = None,
    spectra: bool = True,
    seed: int = 3,
    live_s: float = 0.25,
) -> Path:
    """Write `<folder>/results/<name>.zarr` and the spectra beside it; gives the store of results."""
    store = folder / "results" / f"{name}.zarr"
    create_results(
        store,
        detectors=detectors,
        components=COMPONENTS,
        shape_yx=SHAPE,
        n_channels=N_CHANNELS,
        attributes={
            "title": "leaf µ",
            "source": "leaf.mda",
            "hpcxrf_version": "0.1.0",
            "constants": "physics",
            "incident_energy_kev": 10.0,
            "run_file": "sample:\n  elements: [Fe]\n",
            "configuration": {"sample": {"elements": ["Fe"]}, "notes": [None, True]},
            "detectors_left_out": {},
        },
        positions_um=positions_um if positions_um is not None else raster_um(),
    )
    maps = made_maps(seed)
    for place in range(len(detectors)):
        write_block(store, place, slice(0, SHAPE[0]), slice(0, SHAPE[1]), pixel_fit(maps * (place + 1)))
    fits = {
        one: replace(spectrum_fit(maps.sum((1, 2)) / EXPOSURE, seed=seed), component_names=COMPONENTS)
        for seed, one in enumerate(detectors)
    }
    write_spectrum_fits(store, fits, N_CHANNELS, line_markers=line_markers())
    _write_regions(store, detectors, fits)
    if layers:
        _write_layers(store, layer_detectors or detectors, maps)
    finalise(store, {})
    if spectra:
        shape = (2, *SHAPE, N_CHANNELS)
        scan = replace(made_scan(write_source(folder), shape=shape), read_scalars=lambda: _scalars(shape, live_s))
        ingest_scan(scan, folder / "spectra" / f"{name}.zarr")
    return store


def _scalars(shape: tuple[int, ...], live_s: float) -> ScanScalars:
    detectors, rows, columns, _ = shape
    real = np.full((detectors, rows, columns), 0.5)
    return ScanScalars(
        live_time_s=real / 0.5 * live_s * np.linspace(0.8, 1.0, columns),
        real_time_s=real,
        icr_hz=np.full(real.shape, 1000.0),
        ocr_hz=np.full(real.shape, 1000.0) * live_s / 0.5 * np.linspace(0.8, 1.0, columns),
        scaler_names=("US_IC", "café current"),
        scaler_units=("cts/s", "mA"),
        scaler_values=np.arange(2.0 * rows * columns).reshape(2, rows, columns),
    )


def _write_regions(store: Path, detectors: tuple[str, ...], fits: dict) -> None:
    label = np.zeros((1, *SHAPE), dtype=np.uint16)
    label[0, :2, :3] = 1
    axes = RegionAxes(
        detectors=detectors,
        components=COMPONENTS,
        parameters=tuple(PARAMETERS),
        units=tuple(row[0] for row in PARAMETERS.values()),
    )
    rows = [RegionRows(name="=grain", kind="rectangle", reason="given", n_pixels=6, layer=0)]
    counts = np.ones((1, len(detectors), N_CHANNELS))
    create_regions(store, rows, axes, label, counts, np.full((1, len(detectors)), 1.5))
    write_region_fit(store, 0, fits, {name: [] for name in detectors})


def _write_layers(store: Path, detectors: tuple[str, ...], maps: np.ndarray) -> None:
    sizes = {"detector": len(detectors), "component": len(COMPONENTS), "y": SHAPE[0], "x": SHAPE[1]}
    for name, rows in LAYERS.items():
        group = create_group(store / name, {"reference": {"value": 2.5e4, "unit": "cts/s"}})
        create_labels(group, "detector", detectors)
        create_labels(group, "component", COMPONENTS)
        for number, (variable, spec) in enumerate(table(rows).items()):
            values = np.stack([maps * (place + 1) / (number + 7) for place in range(len(detectors))])
            create_array(group, variable, ArrayPlan(spec=spec, sizes=sizes), values.astype(np.float32))
