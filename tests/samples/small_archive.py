"""A tiny archive for studies: whole scans, an override file for all of them, and a scan cut in half."""

from collections.abc import Sequence
from pathlib import Path

from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

TORN = "torn.h5"


def write_small_archive(folder: Path, seeds: Sequence[int]) -> None:
    """Writes `small-SEED.h5` of 6 x 6 pixels and its truth for each seed, the override file, and `torn.h5`."""
    for seed in seeds:
        spec = demo_spec(seed=seed, shape=(1, 6, 6, 1536), name=f"small-{seed}", counts_scale=5.0)
        write_scan(simulate_scan(spec), folder, scan_format="array")
    whole = (folder / f"small-{seeds[0]}.h5").read_bytes()
    (folder / TORN).write_bytes(whole[: len(whole) // 2])
    (folder / "maps_fit_parameters_override.txt").write_text(
        f"ELEMENTS_TO_FIT: {', '.join(spec.listed_elements)}\nCOHERENT_SCT_ENERGY: {spec.incident_energy_kev + 0.1}\n"
    )
