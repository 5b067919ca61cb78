"""Maps of a run beside those of XRF-Maps, PyXRF or PyMca of the same scan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.formats.element_maps import ElementMaps, read_element_maps
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.results.compare.agreement import compare_component
from hpcxrf.results.compare.page import Comparison, write_comparison_page
from hpcxrf.results.opened import find_results

SUM: Final = "sum"
FloatArray = NDArray[np.float64]


def compare_with(
    results: Path,
    other: Path,
    *,
    dataset: str | None = None,
    detector: str | None = None,
    method: str | None = None,
    page: Path | None = None,
) -> tuple[Comparison, ...]:
    """Compare the maps of a dataset with those of another program.

    Args:
        results: a run directory, or a results store.
        other: the file of the other program.
        dataset: name of the dataset; None: the only one.
        detector: of ours; None: the one that the file is of, else the sum, else the only one.
        method: of theirs (`nnls`, `xrf_fit` ..); None: all.
        page: where the page goes, of the first comparison, or with the method in its name; None: no page.

    Returns:
        A comparison of each method and detector of the file that ours has.

    Raises:
        ConfigError: several datasets and no name; no such detector or method; maps of another shape.
        InputFileError: the other file cannot be read.
        OutputError: no results there, or the page cannot be written.
    """
    found = find_results(results)
    name = dataset or _choose_only(list(found))
    if name not in found:
        raise ConfigError(f"{results}: {name!r} is not a finished dataset; there are {', '.join(found)}")
    theirs = _choose_methods(other, read_element_maps(other), method)
    tree = found[name]
    maps = tree["maps"].to_dataset()
    detectors = [str(d) for d in maps["detector"].values]
    pairs = [(one, chosen) for one in theirs if (chosen := _choose_detector(one, detectors, detector)) is not None]
    if not pairs:
        of = ", ".join(sorted({str(one.detector) for one in theirs}))
        raise ConfigError(
            f"{other}: has maps of detector {of}, and the results of {', '.join(detectors)}; give --detector, or run "
            "with pixels.detectors: both"
        )
    about = {str(key): value for key, value in tree.attrs.items()}
    done = []
    for one, chosen in pairs:
        place = page if page is None or len(pairs) == 1 else _name_page(page, one, chosen)
        done.append(_compare_one(name, about, maps.sel(detector=chosen), chosen, one, other, place))
    return tuple(done)


def share_strongest_lines(
    components: Sequence[str], incident_energy_kev: float, detector: Detector
) -> dict[str, float]:
    """Share of the strongest line in each K, L and M family, as the detector records them.

    Args:
        components: names; scatter, pile-up and lines of the user have no strongest line and are left out.
        incident_energy_kev: keV.
        detector: windows and path.
    """
    families = [name for name in components if _is_family(name)]
    if not families:
        return {}
    table = build_line_table(families, incident_energy_kev, efficiency=detector, escape=False)
    by_name = {name: table.ratio[table.component == index] for index, name in enumerate(table.component_names)}
    return {name: float(ratio.max() / ratio.sum()) for name, ratio in by_name.items()}


def _compare_one(
    name: str,
    attributes: Mapping[str, Any],
    maps: xr.Dataset,
    detector: str,
    theirs: ElementMaps,
    other: Path,
    page: Path | None,
) -> Comparison:
    shape = (maps.sizes["y"], maps.sizes["x"])
    if theirs.counts.shape[1:] != shape:
        raise ConfigError(
            f"{other}: its maps have {theirs.counts.shape[1]} rows and {theirs.counts.shape[2]} columns, those of "
            f"{name} {shape[0]} and {shape[1]}: they are not of the same scan, or one program left columns out; "
            "compare maps of one shape"
        )
    ours = [str(c) for c in maps["component"].values]
    common = [c for c in ours if c in theirs.names]
    if not common:
        raise ConfigError(
            f"{other}: none of its components ({', '.join(theirs.names)}) is in the results ({', '.join(ours)})"
        )
    shares = _read_shares(attributes, common) if theirs.quantity == "strongest line" else {}
    agreements, pictures = [], []
    for component in common:
        one = maps.isel(component=ours.index(component))
        amplitude, sigma = (one[key].values.astype(np.float64) for key in ("amplitude", "sigma"))
        values = theirs.counts[theirs.names.index(component)]
        share = shares.get(component, 1.0)
        agreements.append(compare_component(component, amplitude, sigma, values, strongest_share=share))
        pictures.append((amplitude, values / share))
    comparison = Comparison(
        ours=name,
        theirs=other.name,
        program=theirs.program,
        method=theirs.method,
        detector=detector,
        quantity=theirs.quantity,
        remarks=theirs.remarks,
        only_ours=tuple(c for c in ours if c not in theirs.names),
        only_theirs=tuple(c for c in theirs.names if c not in ours),
        agreements=tuple(agreements),
    )
    if page is not None:
        write_comparison_page(comparison, pictures, page)
    return comparison


def _read_shares(attributes: Mapping[str, Any], components: Sequence[str]) -> dict[str, float]:
    """Shares of the strongest lines by what the store says of its fit."""
    configuration = attributes["configuration"]
    stated = {key: value for key, value in configuration["detector"].items() if value is not None}
    known = {key: value for key, value in stated.items() if key in Detector.__dataclass_fields__}
    return share_strongest_lines(components, float(attributes["incident_energy_kev"]), Detector(**known))


def _is_family(name: str) -> bool:
    try:
        return parse_component(name).kind in {"K", "L", "M"}
    except FitError:
        return False


def _choose_only(names: Sequence[str]) -> str:
    if len(names) != 1:
        raise ConfigError(f"{len(names)} datasets; name one with --dataset: {', '.join(names[:20])}")
    return names[0]


def _choose_methods(path: Path, found: Sequence[ElementMaps], method: str | None) -> list[ElementMaps]:
    chosen = [one for one in found if method in {None, one.method}]
    if not chosen:
        names = ", ".join(sorted({one.method for one in found}))
        raise ConfigError(f"{path}: no maps of method {method!r}; there are {names}")
    return chosen


def _choose_detector(theirs: ElementMaps, detectors: Sequence[str], wanted: str | None) -> str | None:
    """Ours to compare with; None: the results have no maps of that detector."""
    if wanted is not None:
        if wanted not in detectors:
            raise ConfigError(f"detector {wanted!r} is not in the results; there are {', '.join(detectors)}")
        return wanted if theirs.detector in {None, wanted} else None
    if theirs.detector is not None:
        return theirs.detector if theirs.detector in detectors else None
    return SUM if SUM in detectors else detectors[0] if len(detectors) == 1 else None


def _name_page(page: Path, one: ElementMaps, detector: str) -> Path:
    return page.with_name(f"{page.stem}-{one.method}-{detector}{page.suffix}")
