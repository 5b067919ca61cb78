"""A simulated archive of MAPS files, a few of them broken, each in one of ten ways that archives have."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from hpcxrf.simulate import write_archive

COUNTS = "MAPS/Spectra/mca_arr"


def make_broken_archive(folder: Path, number: int, seed: int, *, share: float = 0.02, **shape) -> dict[str, str]:
    """Write `number` scans, `share` of them broken; the way of each broken one by the name of its file."""
    write_archive(folder, number, seed, **shape)
    chosen = np.random.default_rng(seed).permutation(number)[: max(1, round(share * number))]
    broken = {}
    for turn, index in enumerate(sorted(map(int, chosen))):
        way = list(WAYS)[turn % len(WAYS)]
        (file,) = (folder / f"sim-{index:05d}").glob("*.h50")
        WAYS[way](file)
        broken[file.name] = way
    return broken


def cut_in_half(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def put_a_web_page(file: Path) -> None:
    file.write_text("<html><body><h1>403 Forbidden</h1></body></html>\n")


def drop_the_counts(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[COUNTS]


def replace_counts(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(file, "r+") as opened:
        counts = opened[COUNTS][...]
        del opened[COUNTS]
        opened.create_dataset(COUNTS, data=change(counts), chunks=True, compression="gzip")


def turn_the_sign(file: Path) -> None:
    replace_counts(file, lambda counts: -1 - counts)


def make_one_nan(file: Path) -> None:
    def change(counts):
        counts[700, 3, 4] = np.nan
        return counts

    replace_counts(file, change)


def close_the_shutter(file: Path) -> None:
    # Of all detectors: one without counts among others is a dead detector, and no broken scan.
    for detector in file.parent.glob(f"{file.stem}.h5?"):
        replace_counts(detector, np.zeros_like)


def lose_an_axis(file: Path) -> None:
    replace_counts(file, lambda counts: counts[:, 0, 0])


def damage_a_chunk(file: Path) -> None:
    with h5py.File(file, "r") as opened:
        chunks = opened[COUNTS].id
        found = max((chunks.get_chunk_info(i) for i in range(chunks.get_num_chunks())), key=lambda one: one.size)
    with file.open("r+b") as stream:
        stream.seek(found.byte_offset + found.size // 2)
        stream.write(b"\xff" * 16)


def name_no_element(file: Path) -> None:
    override = file.parent / "maps_fit_parameters_override.txt"
    lines = override.read_text().splitlines()
    override.write_text("\n".join(["ELEMENTS_TO_FIT: Ca, Xy, Fe", *lines[1:]]) + "\n")


WAYS: dict[str, Callable[[Path], None]] = {
    "cut in half": cut_in_half,
    "empty": empty,
    "a web page": put_a_web_page,
    "no counts": drop_the_counts,
    "counts below zero": turn_the_sign,
    "a count that is NaN": make_one_nan,
    "shutter closed": close_the_shutter,
    "an axis lost": lose_an_axis,
    "a damaged chunk": damage_a_chunk,
    "no element Xy": name_no_element,
}
REASONS: dict[str, str] = {
    "cut in half": "truncated",
    "empty": "0 bytes",
    "a web page": "begins with b'<html>",
    "no counts": "without spectra",
    "counts below zero": "is not a count",
    "a count that is NaN": "nan is not a count",
    "shutter closed": "no counts in the fit range",
    "an axis lost": "must be numbers (channel, row, column)",
    "a damaged chunk": "cannot be unpacked",
    "no element Xy": "Xy: no such element",
}
"""What the reason of the failure says."""
