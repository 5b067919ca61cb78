"""The report's tables as plain records and texts; no HTML here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.fitting.limits import decision_limit
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note, unpack_notes
from hpcxrf.results.names import name_detector, shown_name
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report.thumbnails import MapSummary

MISSING: Final = "–"
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplitudeRow:
    """One component of an integrated fit and of its maps; counts."""

    name: str
    amplitude: float
    sigma: float
    limit: float
    pixel_sigma: float
    """Median over pixels."""
    pixel_limit: float
    """Median over pixels."""
    above_share: float
    """Pixels above their decision limit, 0 to 1."""
    in_map: bool
    """False where so few pixels are above it that chance explains them."""
    photon_variance: float = 1.0
    """Variance that one recorded count adds to the amplitude, count."""

    @property
    def below(self) -> bool:
        """True below the decision limit: not found in the integrated spectrum."""
        return self.amplitude < decision_limit(self.limit, self.photon_variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRow:
    """One parameter of an integrated fit."""

    name: str
    unit: str
    value: float
    sigma: float
    initial: float
    lower: float
    upper: float
    free: bool
    at_bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioRow:
    """One parameter of the line ratios within families."""

    name: str
    value: float
    sigma: float
    """NaN where it ended at a bound."""
    prior_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionRow:
    """One component that is not listed but present in the residual; counts."""

    name: str
    z: float
    counts: float
    sigma: float
    limit: float
    energy_kev: float
    """Energy of the line with the strongest evidence; NaN where none is stored."""
    lines: str
    """The lines that show it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merit:
    """Figures of merit of one integrated fit."""

    status: FitStatus
    r2: float
    r2_expected: float
    reduced_chi2: float
    deviance: float
    cpu_s: float
    verdict: Verdict = Verdict.NOT_JUDGED


def pack_merit(merit: Merit) -> dict[str, Any]:
    """JSON values of a merit, without NaN."""
    values = asdict(merit) | {"status": int(merit.status), "verdict": int(merit.verdict)}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def unpack_merit(values: Mapping[str, Any]) -> Merit:
    """Read what `pack_merit` wrote."""
    codes = {"status", "verdict"}
    numbers = {name: math.nan if value is None else value for name, value in values.items() if name not in codes}
    verdict = Verdict(values.get("verdict", Verdict.NOT_JUDGED))
    return Merit(status=FitStatus(values["status"]), verdict=verdict, **numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorView:
    """Everything about one detector but its pictures."""

    name: str
    merit: Merit
    amplitudes: tuple[AmplitudeRow, ...]
    parameters: tuple[ParameterRow, ...]
    pixels: tuple[tuple[str, int], ...]
    """Pixels by outcome, only outcomes that occur."""
    notes: tuple[Note, ...]
    """Notes of the integrated fit."""
    reasons: tuple[str, ...]
    """Why the verdict on the fit is not good."""
    suggested: tuple[SuggestionRow, ...]
    ratios: tuple[RatioRow, ...]
    """What was fitted of the line ratios; none: they are those of the line table."""


def read_merits(spectrum: xr.Dataset) -> dict[str, Merit]:
    """Figures of merit by detector, from the group `spectrum`."""
    numbers = ("r2", "r2_expected", "reduced_chi2", "deviance", "cpu_s")
    columns = {name: spectrum[name].values.tolist() for name in numbers}
    status = spectrum["status"].values.tolist()
    verdict = spectrum["verdict"].values.tolist() if "verdict" in spectrum else [0] * len(status)
    return {
        str(detector): Merit(
            status=FitStatus(status[i]), verdict=Verdict(verdict[i]), **{name: columns[name][i] for name in numbers}
        )
        for i, detector in enumerate(spectrum["detector"].values)
    }


def read_fit_notes(spectrum: xr.Dataset, detector: str) -> tuple[Note, ...]:
    """Notes of the integrated fit of a detector, from the group `spectrum`."""
    names = {"notes": "messages", "warnings": "warnings"}
    written = {key: spectrum.attrs[name] for key, name in names.items() if name in spectrum.attrs}
    return unpack_notes({key: by_detector.get(detector, ()) for key, by_detector in written.items()})


def read_verdict_reasons(spectrum: xr.Dataset, detector: str) -> tuple[str, ...]:
    """Why the verdict on the fit of a detector is not good, from the group `spectrum`."""
    return tuple(map(str, spectrum.attrs.get("verdict_reasons", {}).get(detector, ())))


def build_detector_view(tree: xr.DataTree, summary: MapSummary) -> DetectorView:
    """The tables of one detector.

    Args:
        tree: An open results store.
        summary: Its maps; names the detector.
    """
    spectrum = tree["spectrum"].to_dataset()
    factor = float(tree.attrs.get("count_factor", {}).get(summary.detector, 1.0))
    return DetectorView(
        name=summary.detector,
        merit=read_merits(spectrum)[summary.detector],
        amplitudes=_build_amplitude_rows(spectrum, summary, read_photon_variance(spectrum, summary.detector, factor)),
        parameters=_build_parameter_rows(tree, summary.detector),
        pixels=tuple((format_status(status), number) for status, number in summary.status_counts.items() if number),
        notes=read_fit_notes(spectrum, summary.detector),
        reasons=read_verdict_reasons(spectrum, summary.detector),
        suggested=_build_suggestion_rows(tree, summary.detector),
        ratios=_build_ratio_rows(spectrum, summary.detector),
    )


def _build_ratio_rows(spectrum: xr.Dataset, detector: str) -> tuple[RatioRow, ...]:
    fitted = spectrum.attrs.get("line_ratios", {}).get(detector, {}).get("parameters", {})
    return tuple(
        RatioRow(
            name=str(name),
            value=float(one["value"]),
            sigma=math.nan if one["sigma"] is None else float(one["sigma"]),
            prior_sd=float(one["prior_sd"]),
        )
        for name, one in fitted.items()
    )


def list_flags(tree: xr.DataTree) -> tuple[str, ...]:
    """Warnings of this dataset: short texts, none when all is well."""
    found = []
    spectrum = tree["spectrum"].to_dataset()
    for name, merit in read_merits(spectrum).items():
        place = name_detector(name)
        found += [f"{place}: {merit.verdict.word}: {why}" for why in read_verdict_reasons(spectrum, name)]
        if merit.status != FitStatus.CONVERGED:
            found.append(f"{place}: {format_status(merit.status)}")
        elif merit.verdict is Verdict.NOT_JUDGED and merit.r2_expected - merit.r2 > 0.01:
            found.append(f"{place}: R² is {merit.r2_expected - merit.r2:.3f} below what noise allows")
        stuck = [row.name for row in _build_parameter_rows(tree, name) if row.at_bound]
        if stuck:
            found.append(f"{place}: parameters at a bound: {', '.join(stuck)}")
        missing = [row.name for row in _build_suggestion_rows(tree, name)]
        if missing:
            found.append(f"{place}: suggested, not in your list: {', '.join(missing)}")
        found += [
            f"{place}: indistinguishable in a pixel: {', '.join(one['members'])}"
            for one in tree.attrs.get("mixed", {}).get(name, [])
        ]
    return tuple(found)


def describe_misfits(suggested: Sequence[SuggestionRow]) -> str:
    """Name the peaks of the residual that suggested elements explain; empty without any."""
    peaks = [f"{row.name} at {format_fixed(row.energy_kev, 1)} keV" for row in suggested if row.energy_kev > 0.0]
    if not peaks:
        return ""
    return f"Peaks in the residual from elements that are not in your list: {', '.join(peaks)}; see the table below."


def format_status(status: FitStatus) -> str:
    """The outcome in words."""
    return status.name.lower().replace("_", " ")


def write_greek(label: str) -> str:
    """Write the line of `Fe Ka1` with its Greek letter; a label of one word stays.

    >>> write_greek("Fe Ka1"), write_greek("compton")
    ('Fe Kα1', 'compton')
    """
    name, _, line = label.partition(" ")
    return f"{name} {line.translate({ord('a'): 'α', ord('b'): 'β', ord('g'): 'γ'})}".rstrip()


def format_number(value: float, digits: int = 4) -> str:
    """A number for people: thin spaces between thousands, powers of ten, a dash for what is unknown.

    >>> format_number(123456.7), format_number(2.3e-4), format_number(float("nan")), format_number(0.0)
    ('123\u2009457', '2.3 × 10⁻⁴', '–', '0')
    """
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{short} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−", 1)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", "\u2009").replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def format_to_sigma(value: float, sigma: float) -> str:
    """A number with as many digits as its uncertainty warrants: to the second digit of `sigma`.

    >>> format_to_sigma(0.010012345, 2e-7), format_to_sigma(123456.7, 350.0), format_to_sigma(1.5, float("nan"))
    ('0.01001235', '123\u2009457', '1.5')
    """
    if value == 0 or not (math.isfinite(value) and math.isfinite(sigma) and sigma > 0):
        return format_number(value, 5)
    orders = math.floor(math.log10(abs(value))) - math.floor(math.log10(sigma))
    return format_number(value, min(max(orders + 2, 2), 10))


def format_fixed(value: float, decimals: int) -> str:
    """A number with this many decimals, a dash for what is unknown."""
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else MISSING


def format_percent(share: float) -> str:
    """A share of 1 as percent."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else MISSING


def format_duration(seconds: float) -> str:
    """Seconds in words.

    >>> format_duration(0.25), format_duration(75), format_duration(7260)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _build_amplitude_rows(
    spectrum: xr.Dataset, summary: MapSummary, photon_variance: NDArray[np.float64]
) -> tuple[AmplitudeRow, ...]:
    one = spectrum[["amplitude", "sigma", "detection_limit"]].sel(detector=summary.detector).load()
    return tuple(
        AmplitudeRow(
            name=shown_name(name),
            amplitude=float(one["amplitude"].values[i]),
            sigma=float(one["sigma"].values[i]),
            limit=float(one["detection_limit"].values[i]),
            pixel_sigma=float(summary.median_sigma[i]),
            pixel_limit=float(summary.median_limit[i]),
            above_share=float(summary.above_limit[i]),
            in_map=bool(summary.found[i]),
            photon_variance=float(photon_variance[i]),
        )
        for i, name in enumerate(summary.components)
    )


def _build_suggestion_rows(tree: xr.DataTree, detector: str) -> tuple[SuggestionRow, ...]:
    """Rows of the suggestions; none for a store that was written without."""
    stored = tree.attrs.get("suggested", {}).get(detector, [])
    return tuple(
        SuggestionRow(
            name=str(one["name"]),
            z=float(one["z"]),
            counts=float(one["counts"]),
            sigma=float(one["sigma"]),
            limit=float(one["detection_limit"]),
            energy_kev=float(one["lines"][0]["energy_kev"]) if one["lines"] else math.nan,
            lines="; ".join(_format_line(line) for line in one["lines"]),
        )
        for one in stored
    )


def _format_line(line: Mapping[str, Any]) -> str:
    beside = shown_name(line["overlaps"])
    overlap = f", overlaps {beside} ({format_percent(line['overlap'])})" if beside else ""
    place = f"{format_fixed(line['energy_kev'], 2)} keV ({format_percent(line['share'])})"
    return f"{place}: z {format_fixed(line['z'], 1)}{overlap}"


def _build_parameter_rows(tree: xr.DataTree, detector: str) -> tuple[ParameterRow, ...]:
    if "parameters" not in tree.children:
        return ()
    table = tree["parameters"].to_dataset().sel(detector=detector).load()
    numbers = ("value", "sigma", "initial", "lower", "upper")
    return tuple(
        ParameterRow(
            name=str(name),
            unit=str(table["unit"].values[i]),
            free=bool(table["free"].values[i]),
            at_bound=bool(table["at_bound"].values[i]),
            **{key: float(np.asarray(table[key].values[i])) for key in numbers},
        )
        for i, name in enumerate(table["name"].values)
    )
