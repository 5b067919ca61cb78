"""Expected spectra and drawn counts of a simulated scan, any rows at a time."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.scan import EnergyCalibration, RawScan, ScanScalars
from hpcxrf.notes import Note
from hpcxrf.simulate.spec import DetectorSpec, ScanSpec, check_spec
from hpcxrf.simulate.spectra import (
    ELECTRON_REST_KEV,
    MAPS_FANO_CONSTANT,
    PAIR_ENERGY_KEV,
    component_names,
    component_spectrum,
    compton_energy_kev,
    compton_sigma_kev,
    pileup_spectrum,
    sigma_kev,
)
from hpcxrf.simulate.structures import Layout, density_row, draw_layout

FloatArray = NDArray[np.float64]

SCALER_NAMES = ("SR_Current", "US_IC", "DS_IC")
SCALER_UNITS = ("mA", "cts", "cts")
TOP_UPS = 5
"""Fills of the storage ring during a scan."""
ROWS_PER_READ = 16
_STRUCTURES, _COUNTS = 0, 1
"""First word of the spawn keys, so that structures and counting noise never share random numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedScan:
    """A specification with everything worked out that does not depend on the pixel."""

    spec: ScanSpec
    components: tuple[str, ...]
    """Families by atomic number, then elastic, compton, continuum."""
    spectra: FloatArray
    """(detector, component, channel), each summing to 1."""
    pileup_spectra: FloatArray
    """(detector, phase, channel), each summing to 1."""
    phase_counts: FloatArray
    """(phase, component): events of a pixel full of one phase."""
    layouts: tuple[Layout, ...]
    """One per phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTruth:
    """Truth of one row of pixels."""

    density: FloatArray
    """(phase, x)."""
    i0: FloatArray
    """(x,) incident intensity relative to a freshly filled ring."""
    icr_hz: FloatArray
    """(detector, x) input count rate."""
    ocr_hz: FloatArray
    """(detector, x) recorded events a second."""
    amplitude: FloatArray
    """(detector, component, x) expected recorded counts, those in pile-up left out."""
    pileup: FloatArray
    """(detector, phase, x) expected recorded counts of pile-up."""


def simulate_scan(spec: ScanSpec) -> SimulatedScan:
    """Work out spectra and layouts; no counts are drawn yet.

    Raises:
        ConfigError: every fault of the specification, an unknown or unexcited element, or a component
            that lies outside the spectrum.
    """
    check_spec(spec)
    names = component_names(spec)
    spectra = np.array([[component_spectrum(n, spec, d) for n in names] for d in spec.detectors])
    counts = spec.counts_scale * np.array([[float(p.counts.get(n, 0.0)) for n in names] for p in spec.phases])
    return SimulatedScan(
        spec=spec,
        components=names,
        spectra=spectra,
        pileup_spectra=_convolve_pileup(spec, spectra, counts),
        phase_counts=counts,
        layouts=_draw_layouts(spec),
    )


def _convolve_pileup(spec: ScanSpec, spectra: FloatArray, counts: FloatArray) -> FloatArray:
    """Self-convolution of the spectrum of each phase on each detector."""
    return np.array(
        [
            [pileup_spectrum(detector, phase @ shapes) for phase in counts]
            for detector, shapes in zip(spec.detectors, spectra, strict=True)
        ]
    )


def _draw_layouts(spec: ScanSpec) -> tuple[Layout, ...]:
    _, height, width, _ = spec.shape
    shorter = min(height, width)
    extent = (width / shorter, height / shorter)
    return tuple(
        draw_layout(phase.structure, _make_generator(spec, _STRUCTURES, i), extent)
        for i, phase in enumerate(spec.phases)
    )


def _make_generator(spec: ScanSpec, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=key))


def beam_current(spec: ScanSpec, row: int) -> FloatArray:
    """Stored current relative to a full ring along one row, shape (x,): decay and top-ups."""
    _, height, width, _ = spec.shape
    elapsed = (row * width + np.arange(width)) / (height * width)
    relative: FloatArray = 1.0 - spec.i0_drift * ((elapsed * TOP_UPS) % 1.0)
    return relative


def row_truth(scan: SimulatedScan, row: int) -> RowTruth:
    """Expectation of one row, 0 <= row < y.

    A non-extending dead time t gives OCR = ICR / (1 + ICR t); of the recorded events the share
    1 - exp(-ICR t_pileup) is pile-up.
    """
    spec = scan.spec
    density = _row_density(spec, scan.layouts, row)
    i0 = beam_current(spec, row)
    gains = np.array([d.gain for d in spec.detectors])
    events = gains[:, None, None] * i0 * (scan.phase_counts.T @ density)
    icr = events.sum(axis=1) / spec.real_time_s
    live = live_share(icr, _column(spec, "dead_time_s"))
    piled = -np.expm1(-icr * _column(spec, "pileup_time_s"))
    share = _phase_share(scan.phase_counts.sum(axis=1)[:, None] * density)
    recorded = icr * live * spec.real_time_s
    return RowTruth(
        density=density,
        i0=i0,
        icr_hz=icr,
        ocr_hz=icr * live,
        amplitude=events * (live * (1.0 - piled))[:, None, :],
        pileup=(recorded * piled)[:, None, :] * share,
    )


def live_share(icr_hz: FloatArray, dead_time_s: FloatArray | float) -> FloatArray:
    """Share of the events that a detector of non-extending dead time records."""
    share: FloatArray = 1.0 / (1.0 + icr_hz * dead_time_s)
    return share


def phase_density(spec: ScanSpec) -> FloatArray:
    """Density of the phases of a specification, shape (phase, y, x), whatever their counts."""
    layouts = _draw_layouts(spec)
    rows = [_row_density(spec, layouts, row) for row in range(spec.shape[1])]
    return np.stack(rows, axis=1)


def _row_density(spec: ScanSpec, layouts: tuple[Layout, ...], row: int) -> FloatArray:
    """Density of each phase along one row, shape (phase, x)."""
    _, height, width, _ = spec.shape
    shorter = min(height, width)
    x = (np.arange(width) + 0.5) / shorter
    return np.array([density_row(layout, x, (row + 0.5) / shorter) for layout in layouts])


def _column(spec: ScanSpec, name: str) -> FloatArray:
    """A number of each detector, shape (detector, 1)."""
    return np.array([[float(getattr(d, name))] for d in spec.detectors])


def _phase_share(events: FloatArray) -> FloatArray:
    """Share of each phase (phase, x) in the events of a pixel; equal shares where there are none."""
    total = events.sum(axis=0)
    equal = np.full_like(events, 1.0 / len(events))
    np.divide(events, total, out=equal, where=total > 0)
    return equal


def expected_row(scan: SimulatedScan, truth: RowTruth) -> FloatArray:
    """Expected counts of one row, shape (detector, x, channel)."""
    single = truth.amplitude.transpose(0, 2, 1) @ scan.spectra
    piled: FloatArray = truth.pileup.transpose(0, 2, 1) @ scan.pileup_spectra
    return single + piled


def expected_counts(scan: SimulatedScan, rows: slice) -> FloatArray:
    """Expected counts of some rows, shape (detector, row, x, channel)."""
    found = [expected_row(scan, row_truth(scan, r)) for r in _indices(scan, rows)]
    return np.stack(found, axis=1)


def draw_counts(scan: SimulatedScan, rows: slice) -> NDArray[np.uint32]:
    """Counts with Poisson noise, shape (detector, row, x, channel); the same whatever the slices.

    Each row of each detector has random numbers of its own.
    """
    indices = _indices(scan, rows)
    detectors, _, width, channels = scan.spec.shape
    counts = np.empty((detectors, len(indices), width, channels), dtype=np.uint32)
    for i, row in enumerate(indices):
        for d, expected in enumerate(expected_row(scan, row_truth(scan, row))):
            counts[d, i] = _make_generator(scan.spec, _COUNTS, d, row).poisson(expected)
    return counts


def expected_amplitudes(scan: SimulatedScan, rows: slice) -> FloatArray:
    """True amplitudes, shape (detector, component, row, x)."""
    found = [row_truth(scan, row).amplitude for row in _indices(scan, rows)]
    return np.stack(found, axis=2)


def _indices(scan: SimulatedScan, rows: slice) -> range:
    return range(*rows.indices(scan.spec.shape[1]))


def scan_scalars(scan: SimulatedScan) -> ScanScalars:
    """Times, rates, beam monitors and positions as the instrument would store them."""
    spec = scan.spec
    _, height, width, _ = spec.shape
    truths = [row_truth(scan, row) for row in range(height)]
    icr = np.stack([t.icr_hz for t in truths], axis=1)
    ocr = np.stack([t.ocr_hz for t in truths], axis=1)
    real = np.full_like(icr, spec.real_time_s)
    x_um, y_um = np.meshgrid(np.arange(width) * spec.step_um, np.arange(height) * spec.step_um)
    return ScanScalars(
        live_time_s=real * np.divide(ocr, icr, out=np.ones_like(icr), where=icr > 0),
        real_time_s=real,
        icr_hz=icr,
        ocr_hz=ocr,
        scaler_names=SCALER_NAMES,
        scaler_units=SCALER_UNITS,
        scaler_values=np.stack([_monitors(spec, t) for t in truths], axis=1),
        x_um=x_um,
        y_um=y_um,
    )


def _monitors(spec: ScanSpec, truth: RowTruth) -> FloatArray:
    """Ring current and the ionisation chambers before and behind the sample, shape (scaler, x)."""
    upstream = 4e6 * spec.real_time_s * truth.i0
    absorbed = np.exp(-0.03 * truth.density.sum(axis=0))
    return np.stack([102.0 * truth.i0, upstream, 0.8 * upstream * absorbed])


def file_calibration(spec: ScanSpec) -> tuple[EnergyCalibration, ...]:
    """Calibration that the file claims, one per detector."""
    return spec.file_calibration or tuple(d.calibration for d in spec.detectors)


def raw_scan(scan: SimulatedScan) -> RawScan:
    """The scan as a reader would give it, without a file."""
    spec = scan.spec
    return RawScan(
        name=spec.name,
        format="simulated",
        files=(),
        shape=spec.shape,
        dtype=np.dtype(np.uint32),
        rows_per_read=ROWS_PER_READ,
        read_counts=lambda rows: draw_counts(scan, rows),
        read_scalars=lambda: scan_scalars(scan),
        calibration=file_calibration(spec),
        incident_energy_kev=spec.file_energy_kev or spec.incident_energy_kev,
        notes=(Note("fact", f"simulated with seed {spec.seed}"),),
    )


def true_theta(spec: ScanSpec, detector: DetectorSpec) -> dict[str, float]:
    """True parameters under the names of the MAPS model, as far as that model has them.

    `fwhm_fanoprime` is for the width law with the constant 3.58. Tails and the Compton profile have other
    shapes in the simulation, so their parameters are not a truth for a fit and are left out.
    """
    energy = spec.incident_energy_kev
    center = compton_energy_kev(energy, spec.scatter.angle_deg)
    width = compton_sigma_kev(spec.scatter, detector, energy) / sigma_kev(detector, center)
    recoil = (energy / center - 1.0) * ELECTRON_REST_KEV / energy
    return {
        "energy_offset": detector.calibration.offset_kev,
        "energy_slope": detector.calibration.slope_kev,
        "energy_quadratic": detector.calibration.quadratic_kev,
        "fwhm_offset": detector.noise_fwhm_kev,
        "fwhm_fanoprime": detector.fano_factor * PAIR_ENERGY_KEV / MAPS_FANO_CONSTANT,
        "coherent_sct_energy": energy,
        "compton_angle": math.degrees(math.acos(1.0 - recoil)),
        "compton_fwhm_corr": width,
    }
