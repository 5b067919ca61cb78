"""What a file of an archive is: the answer of a child process, by the rules that a run follows.

The rules are those of `formats.candidates` (what is left out) and `formats.registry` (what cannot be read): a scan that
is `ok` here is one that `hpcxrf run FOLDER` takes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcxrf.archive.catalogue.fingerprint import make_fingerprint
from hpcxrf.config.untrusted import describe_fault, show_name
from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import list_candidates, why_left_out
from hpcxrf.formats.children import is_short_of_memory
from hpcxrf.formats.origins import read_origin
from hpcxrf.formats.override import Override, read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import FloatMap, RawScan
from hpcxrf.pipeline.inspect import complete_from_override
from hpcxrf.store.files import file_sha256

_I0: Final = re.compile(
    r"(?i)(?<![a-z0-9])(i_?0|us_?ic|ds_?ic|ic_?\d{0,2}|ion_?chamber_?\d?|sr_?current(ai)?|ring_?current|beam_?current)(?![a-z0-9])"
)
_LONGEST_FAULT: Final = 1000


def answer_question(question: Mapping[str, Any]) -> dict[str, Any]:
    """Look at one file.

    Args:
        question: `path`; `beside`: files that may belong to the same scan; `override`: its override file or None;
            `sha256`: compute the checksum; `scalers`: table of scalers, PVs by name.

    Returns:
        `state`, `fault` and what is known for the row; `gone`: the file is no longer there; `retry`: the system refused
        it, which another day may change.
    """
    path = Path(question["path"])
    answer: dict[str, Any] = {"fault": "", "state": "ok"}
    try:
        answer["fingerprint"] = make_fingerprint(path)
        _describe(path, question, answer)
        if question["sha256"] and answer["state"] == "ok":
            answer["sha256"] = file_sha256(path)
    except FileNotFoundError:
        return {"fault": "", "gone": True}
    except OSError as error:
        _refuse(answer, path, f"cannot be read: {describe_fault(error)}; check its permissions")
        answer["retry"] = True
    except InputFileError as error:
        _refuse(answer, path, str(error))
    except Exception as error:
        if is_short_of_memory(error):
            raise
        _refuse(answer, path, f"cannot be read: {describe_fault(error)}; the file is damaged: copy it again")
    return answer


def _refuse(answer: dict[str, Any], path: Path, text: str) -> None:
    answer["state"], answer["fault"] = "refused", shorten_fault(text, path)


def shorten_fault(text: str, path: Path) -> str:
    """One line of printable text, without the name of the file itself, which its row has."""
    for name in (str(path), show_name(str(path))):
        text = text.replace(f"{name}: ", "")
    lines = (" ".join(line.split()) for line in text.splitlines())
    return show_name("; ".join(line for line in lines if line))[:_LONGEST_FAULT]


def _describe(path: Path, question: Mapping[str, Any], answer: dict[str, Any]) -> None:
    candidates = replace(list_candidates([path, *map(Path, question["beside"])]), explicit=frozenset())
    reason = why_left_out(path, candidates)
    if reason is not None:
        answer["state"], answer["fault"] = "ignored", shorten_fault(reason, path)
        return
    scan = open_scan(path)
    n_detectors, shape_y, shape_x, n_channels = map(int, scan.shape)
    answer |= {
        "format": scan.format,
        "shape_y": shape_y,
        "shape_x": shape_x,
        "n_channels": n_channels,
        "n_detectors": n_detectors,
        "files": [str(file) for file in scan.files[1:]],
    }
    origin = read_origin(scan)
    answer |= {"date": origin.date, "sample": origin.sample, "instrument": origin.instrument, "counts": origin.counts}
    _describe_override(scan, question["override"], answer)
    scalars = scan.read_scalars()
    answer["live_time_s"] = _mean_live_time_s(scalars.live_time_s)
    answer["i0_names"] = find_i0_names(scalars.scaler_names, question["scalers"])


def _describe_override(scan: RawScan, place: str | None, answer: dict[str, Any]) -> None:
    """The element list, and what the scan itself lacks; a bad override file fails the scan, as it does in a run."""
    override = None
    if place is not None:
        answer["override_path"] = place
        status = Path(place).stat()
        override = _read_once(place, status.st_mtime_ns, status.st_size)
        answer["elements"] = list(override.elements)
        answer["elements_from"] = "override file" if override.elements else None
    energy_kev = complete_from_override(scan, override)[0]
    answer["incident_energy_kev"] = None if energy_kev is None or not np.isfinite(energy_kev) else float(energy_kev)


@lru_cache(maxsize=64)
def _read_once(place: str, _mtime_ns: int, _size: int) -> Override:
    return read_override(Path(place))


def _mean_live_time_s(live_time_s: FloatMap | None) -> float | None:
    """Live time of the whole scan, mean over the detectors that have one."""
    if live_time_s is None:
        return None
    totals = [float(np.nansum(one)) for one in live_time_s if np.isfinite(one).any()]
    mean = sum(totals) / len(totals) if totals else float("nan")
    return mean if np.isfinite(mean) else None


def find_i0_names(names: Sequence[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of scalers that can be I0: those of the table whose PVs the scan has, and those that look like one.

    Args:
        names: scalers of the scan.
        table: PVs of the scalers of a site, by name.
    """
    of_table = {name: set(pvs) & set(names) for name, pvs in table.items()}
    known = {pv for pvs in of_table.values() for pv in pvs}
    like_one = (name for name in names if name not in known and _I0.search(name))
    return list(dict.fromkeys([*(name for name, pvs in of_table.items() if pvs), *like_one]))
