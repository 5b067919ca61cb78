"""A result that says of itself what a run writes, of a scan that is there; nothing was fitted for it."""

from dataclasses import dataclass
from pathlib import Path

from diff_samples import write_result

from hpcxrf.config.run import check_config, effective
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.prepare.inputs import input_stamps, read_options
from hpcxrf.pipeline.provenance import begin_provenance, end_provenance
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.files import tree_bytes, tree_sha256

ENERGY_KEV = 12.0
COMPONENTS = ("Si", "Fe", "Pt_L", "Si_Cl", "elastic")


@dataclass(frozen=True)
class Sample:
    scan: Path
    store: Path


def write_sample(folder: Path, *, override: str | None = "ELEMENTS_TO_FIT: Si, Fe\n", **sections) -> Sample:
    """Write a scan, an override file beside it, and the store of a result that was made from both."""
    data = folder / "data"
    write_scan(simulate_scan(demo_spec(seed=1, shape=(1, 4, 5, 1536), name="leaf")), data, scan_format="array")
    scan = data / "leaf.h5"
    if override is not None:
        (data / "maps_fit_parameters_override.txt").write_text(override)
    raw = {"input": {"files": [str(scan)]}, "sample": {"elements": ["Si", "Fe"]}, **sections}
    config = check_config(raw, "test")
    opened = open_scan(scan, read_options(config))
    job = DatasetJob(
        number=0,
        dataset_id="leaf-00000001",
        source=scan,
        run_dir=folder / "run",
        config=config,
        detectors=("0",),
        shape=opened.shape,
        stamps=input_stamps(config, opened, scan),
    )
    sources = [{"path": str(f), "bytes": tree_bytes(f), "sha256": tree_sha256(f)} for f in opened.files]
    begun = begin_provenance("physics", COMPONENTS, ENERGY_KEV)
    about = {**begun, "source_files": sources, "incident_energy_kev": ENERGY_KEV, "devices": ["cpu"]}
    about |= end_provenance(job, about, ())
    configuration = about.pop("configuration")
    assert configuration == effective(config)
    store = write_result(
        folder / "run" / "results" / "leaf-00000001.zarr", configuration=configuration, attributes=about
    )
    return Sample(scan=scan, store=store)
