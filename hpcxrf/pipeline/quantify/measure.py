"""The fit of a standard: its integrated spectra fitted as those of the samples, and normalised as their maps."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.config.quantify import QuantifyConfig
from hpcxrf.config.regions import RegionsConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.config.sample import AUTO
from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import FitError, OutputError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.formats.registry import open_scan
from hpcxrf.physics.components import unexcited_reason
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.element_list import read_element_list
from hpcxrf.pipeline.blocks import blocks_of
from hpcxrf.pipeline.integrated import fit_clean
from hpcxrf.pipeline.normalise.choice import choose_i0
from hpcxrf.pipeline.normalise.times import ScanTimes, find_live_times, sum_exposure
from hpcxrf.pipeline.pixels.flags import saturated_pixels
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.prepare.elements import ask_for_elements, list_found
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.prepare.resolve import resolve_detector, resolve_incident
from hpcxrf.pipeline.prepare.sources import read_sources
from hpcxrf.pipeline.quantify.certificates import find_certificate
from hpcxrf.pipeline.quantify.scans import DetectorScan, FamilyRate, StandardScan, pack_scan, unpack_scan
from hpcxrf.pipeline.records import I0Reference
from hpcxrf.quantify.normalise import normalise_spectrum
from hpcxrf.quantify.standards import CertifiedStandard
from hpcxrf.runner.worker import one_thread
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import SpectraStore, open_spectra

FOLDER: Final = "standards"
"""Folder of a run directory with the standards as they were measured, `<number>.json`; each says what was asked."""
_SHELLS: Final = ("K", "L", "M")
_OF_ALL_PEAKS: Final = ("energy_offset", "energy_slope", "energy_quadratic", "fwhm_offset", "fwhm_fanoprime")
"""Parameters that bend every amplitude when a bound holds them; a tail of the Compton peak at 0 bends none."""


def read_or_measure_standards(
    run_dir: Path, config: RunConfig, reference: I0Reference | None, made_from: Mapping[str, str]
) -> tuple[StandardScan, ...]:
    """Read the standards of a run, or measure them and keep what was found.

    Several workers may do it at once: they find the same, and the last one's file stays.

    Args:
        run_dir: the run directory.
        config: run file.
        reference: I0 that the rates are brought to.
        made_from: stamps of all files that the standards are made from; what was kept of others is measured again.

    Raises:
        ConfigError: no certificate, or no I0, clock or live time.
        FitError: the standard cannot be fitted.
        InputFileError: its scan cannot be read.
        OutputError: the run directory cannot be written.
    """
    return tuple(
        _read_or_measure(run_dir / FOLDER / f"{number}.json", Path(name), config, reference, made_from)
        for number, name in enumerate(config.quantify.standards)
    )


def _read_or_measure(
    kept: Path, scan: Path, config: RunConfig, reference: I0Reference | None, made_from: Mapping[str, str]
) -> StandardScan:
    asked = json.loads(json.dumps({"made_from": made_from, **_list_choices(config, reference)}))
    if kept.is_file():
        content = read_json_object(kept, OutputError, remedy="remove it, and resume the run")
        if content.get("asked") == asked:
            return unpack_scan(content, kept)
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    found = measure_standard(scan, config, reference, kept.parent)
    content = {"asked": asked, **pack_scan(found)}
    atomic_write_text(kept, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return found


def _list_choices(config: RunConfig, reference: I0Reference | None) -> dict[str, object]:
    """Sections of the run file that the rates of a standard hang on, and the reference."""
    names = ("input", "sample", "detector", "detectors", "fit", "normalise", "quantify")
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in names}
    return {**sections, "reference": None if reference is None else dataclasses.asdict(reference)}


def measure_standard(scan: Path, config: RunConfig, reference: I0Reference | None, folder: Path) -> StandardScan:
    """Fit the integrated spectra of a standard, and normalise them.

    Args:
        scan: its scan.
        config: of the samples, by which it is fitted.
        reference: I0 that the rates are brought to; None: they are not divided by I0.
        folder: where its spectra are copied to for the time of the fit.

    Raises:
        ConfigError: no certificate, or no I0, clock or live time.
        FitError: the standard cannot be fitted.
        InputFileError: its scan cannot be read.
    """
    certified = find_certificate(scan, config.quantify)
    work = Path(tempfile.mkdtemp(prefix=".fit-", dir=folder))
    try:
        with one_thread():
            ingest_scan(open_scan(scan, read_options(config)), work / "spectra.zarr")
            return _measure(open_spectra(work / "spectra.zarr"), scan, certified, config, reference, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure(
    store: SpectraStore,
    scan: Path,
    certified: CertifiedStandard,
    config: RunConfig,
    reference: I0Reference | None,
    work: Path,
) -> StandardScan:
    plain = _configure(config, scan)
    elements, notes = choose_elements(plain, config.quantify, certified, store, scan)
    plain = dataclasses.replace(plain, sample=dataclasses.replace(plain.sample, elements=elements))
    plan = make_plan(plain, work)
    if not plan.jobs:
        raise FitError("; ".join(refusal.reason for refusal in plan.refusals))
    job = plan.jobs[0]
    _, fitted = fit_clean(store, job)
    times = ScanTimes(
        store=store,
        config=config.normalise,
        reference=reference,
        live=find_live_times(store, config.normalise, scan),
        i0=choose_i0(config.normalise, store.scaler_names, scan),
        parts=list(range(store.shape[0])),
    )
    exposure = sum_exposure(times, blocks_of(store.shape[1:3]), fitted.findings.outliers)
    facts = scan_facts(store, scan)
    detectors, errors = {}, []
    for name, fit in fitted.fits.items():
        if fit.status not in SOLVED:
            continue
        live = float(exposure.live_time_s[int(name)])
        i0 = None if exposure.i0 is None else exposure.i0[int(name)]
        described = Detector(**resolve_detector(plain.detector, read_sources(plain.fit, facts, int(name))))
        if not live > 0.0 or (i0 is not None and not i0[0] > 0.0):
            continue
        rates, error = _normalise(fit, live, i0, reference)
        errors.append(error)
        held = [p for p, b in zip(fit.parameter_names, fit.at_bound.tolist(), strict=True) if b]
        bounds = [p for p in held if p in _OF_ALL_PEAKS]
        detectors[name] = DetectorScan(
            rates=rates, detector=described, at_bound=tuple(bounds), saturated_pixels=_count_saturated(store, name, fit)
        )
    if not detectors:
        raise FitError(
            f"{scan}: no detector of the standard has a fit, a live time and an I0; check its scan with hpcxrf fit"
        )
    return StandardScan(
        certified=certified,
        source=scan.name,
        incident_energy_kev=float(fitted.found.problems[0].table.incident_energy_kev),
        detectors=detectors,
        i0_relative=max(errors),
        i0_name=None if times.i0 is None else times.i0.name,
        i0_reference=None if reference is None else reference.value,
        notes=tuple(notes),
    )


def _configure(config: RunConfig, scan: Path) -> RunConfig:
    """The run file of the samples, for the standard's scan alone and its integrated spectra.

    What its film has beside the certified elements is found in the residual: without it a model that does not describe
    the spectrum is taken for an error of every peak (the film of 2-ID-E: 5 % instead of 3 with La, Pb and Al).
    """
    found = config.quantify.elements is None
    return dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, files=(str(scan),), catalogue=None, where=None),
        pixels=dataclasses.replace(config.pixels, detectors="each"),
        fit=dataclasses.replace(config.fit, suggest=found, auto_elements=found),
        regions=RegionsConfig(find=()),
        normalise=NormaliseConfig(),
        quantify=QuantifyConfig(),
    )


def choose_elements(
    config: RunConfig, quantify: QuantifyConfig, certified: CertifiedStandard, store: SpectraStore, scan: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Choose the families that a standard is fitted with, and say why.

    Those of the run and of the certificate: what else is in the film, its substrate and the air would bend the fit of
    the certified elements if it were left out.
    """
    facts = scan_facts(store, scan)
    asked = ask_for_elements(config, facts, 0)
    if quantify.elements is not None:
        listed: Sequence[str] = quantify.elements
    elif asked.sample.elements == AUTO:
        counts = torch.from_numpy(np.stack([store.integrated(d) for d in range(store.shape[0])]))
        found, _ = list_found(asked, facts, range(store.shape[0]), counts)
        listed = found.sample.elements
    else:
        override = read_sources(asked.fit, facts, 0).override
        listed = asked.sample.elements or (() if override is None else override.elements)
    names = list(read_element_list(listed).names)
    energy_kev = resolve_incident(config.sample, read_sources(config.fit, facts, 0))
    notes = []
    for symbol in certified.densities:
        if any(name.partition("_")[0] == symbol for name in names):
            continue
        shell = next((s for s in _SHELLS if unexcited_reason(symbol, s, energy_kev) is None), None)
        if shell is None:
            notes.append(f"{certified.name}: {symbol} has no line that {energy_kev:g} keV excite, it is not used")
            continue
        names.append(symbol if shell == "K" else f"{symbol}_{shell}")
    return tuple(names), notes


def _normalise(
    fit: SpectrumFit, live_time_s: float, i0: tuple[float, float] | None, reference: I0Reference | None
) -> tuple[Mapping[str, FamilyRate], float]:
    """Rates by component with their errors, and the relative error of I0."""
    total = fit.amplitude_sigma.numpy()
    noise = total**2 if fit.errors is None else fit.count_factor * fit.errors.variances.amplitude.numpy()
    counting = np.sqrt(np.minimum(noise, total**2))
    found = normalise_spectrum(
        fit.amplitude.numpy(),
        counting,
        np.sqrt(np.maximum(total**2 - counting**2, 0.0)),
        live_time_s=live_time_s,
        i0=i0,
        reference=1.0 if reference is None else reference.value,
    )
    rows = zip(
        fit.component_names, found.rate.tolist(), found.counting_sigma.tolist(), found.theta_sigma.tolist(), strict=True
    )
    rates = {
        name: FamilyRate(rate_hz=rate, counting_hz=noise, theta_hz=theta)
        for name, rate, noise, theta in rows
        if np.isfinite([rate, noise, theta]).all()
    }
    return rates, 0.0 if i0 is None else i0[1] / i0[0]


def _count_saturated(store: SpectraStore, name: str, fit: SpectrumFit) -> int:
    channels = slice(fit.first_channel, fit.first_channel + len(fit.counts))
    found = [saturated_pixels(store, block, name, channels) for block in blocks_of(store.shape[1:3])]
    return sum(int(one.sum()) for one in found if one is not None)
