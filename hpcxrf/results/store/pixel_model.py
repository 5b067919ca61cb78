"""The true model of the pixels, kept in a results store where pixels have a theta of their own: `model/<detector>`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.errors import OutputError
from hpcxrf.fitting.pixels.model import DetectorPart, PixelModel
from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.parameters import PARAMETER_NAMES
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_group,
    create_labels,
    labels_of,
    open_group,
    require_readable_schema,
    update_attributes,
)
from hpcxrf.store.array_writer import remove_array
from hpcxrf.store.schema import MODEL_VARIABLES

GROUP: Final = "model"
_LINES: Final = tuple(name for name, spec in MODEL_VARIABLES.items() if "line" in spec.dims)
# The attribute of the one-dimensional facts of every part.
_FACTS: Final = "parts"
_ELASTIC: Final = "elastic"
_COPY_NUMBERS: Final = ("energy_kev", "elastic", "compton")


def write_pixel_models(path: Path, models: Mapping[str, PixelModel]) -> None:
    """Write the model of every detector's pixels; twice equals once.

    Args:
        path: the results store.
        models: models by detector name; none: nothing is written.

    Raises:
        OutputError: no store of this schema there.
    """
    require_readable_schema(path)
    if not models:
        return
    group = path / GROUP
    if not group.exists():
        create_group(group)
    for name, model in models.items():
        remove_array(group / name)
        _write(create_group(group / name), model)


def read_pixel_model(path: Path, detector: str, constants: ConstantSet) -> PixelModel:
    """The model of one detector's pixels, as it was written, bit for bit.

    Args:
        path: the results store.
        detector: name of the detector.
        constants: constants of the run.

    Raises:
        OutputError: no store of this schema there, or one without a model of that detector.
    """
    require_readable_schema(path)
    try:
        group = open_group(path, f"{GROUP}/{detector}")
    except OutputError as error:
        raise OutputError(
            f"{path}: has no model of the pixels of detector {detector}, since an earlier version of this program "
            "wrote it; remove it and rerun the same command, or choose another folder"
        ) from error
    facts: Any = group.attrs[_FACTS]
    names = labels_of(group, "family")
    return PixelModel(
        parts=tuple(_part(group, row, dict(fact), names) for row, fact in enumerate(facts)),
        channel=torch.from_numpy(np.asarray(array_of(group, "channel")[:])),
        constants=constants,
        elastic=bool(group.attrs[_ELASTIC]),
    )


def _write(group: Path, model: PixelModel) -> None:
    some = model.parts[0]
    lengths = [part.table.energy_kev.shape[0] for part in model.parts]
    sizes = {
        "part": len(model.parts),
        "name": len(PARAMETER_NAMES),
        "component": some.share.shape[0],
        "line": max(lengths),
        "channel": model.channel.shape[0],
    }
    create_labels(group, "name", PARAMETER_NAMES)
    create_labels(group, "family", some.table.component_names)
    for name, spec in MODEL_VARIABLES.items():
        values = model.channel.cpu().numpy() if name == "channel" else _stack_parts(model, name, sizes)
        create_array(group, name, ArrayPlan(spec=spec, sizes=sizes), values)
    facts = [
        {
            "lines": length,
            "incident_energy_kev": part.table.incident_energy_kev,
            "table_version": part.table.table_version,
            "copies": None if part.copies is None else _describe_copies(part.copies),
        }
        for part, length in zip(model.parts, lengths, strict=True)
    ]
    update_attributes(group, {_ELASTIC: model.elastic, _FACTS: facts})


def _stack_parts(model: PixelModel, name: str, sizes: Mapping[str, int]) -> NDArray[Any]:
    """One quantity of all parts; what a part has fewer of is filled up by NaN or 0."""
    spec = MODEL_VARIABLES[name]
    dtype = np.dtype(spec.dtype)
    stacked = np.full([sizes[dim] for dim in spec.dims], np.nan if dtype.kind == "f" else 0, dtype=dtype)
    for row, part in enumerate(model.parts):
        values = getattr(part.table if name in _LINES else part, name).cpu().numpy()
        stacked[row, : values.shape[0]] = values
    return stacked


def _part(group: zarr.Group, row: int, fact: Mapping[str, Any], names: tuple[str, ...]) -> DetectorPart:
    def values(name: str) -> Tensor:
        return torch.from_numpy(np.asarray(array_of(group, name)[row]))

    lines: dict[str, Any] = {name: values(name)[: fact["lines"]] for name in _LINES}
    lines |= {name: lines[name].to(torch.bool) for name in ("is_kbeta", "has_tail")}
    return DetectorPart(
        theta=values("theta"),
        share=values("share"),
        table=LineTable(
            component_names=names,
            incident_energy_kev=float(fact["incident_energy_kev"]),
            table_version=str(fact["table_version"]),
            **lines,
        ),
        copies=None if fact.get("copies") is None else _read_copies(fact["copies"]),
    )


def _describe_copies(copies: ScatterCopies) -> dict[str, Any]:
    numbers = {name: getattr(copies, name).tolist() for name in _COPY_NUMBERS}
    return {**numbers, "subshell": list(copies.subshell), "main": copies.main, "anode": copies.anode}


def _read_copies(fact: Mapping[str, Any]) -> ScatterCopies:
    numbers = {name: torch.tensor(fact[name], dtype=torch.float64) for name in _COPY_NUMBERS}
    return ScatterCopies(**numbers, subshell=tuple(fact["subshell"]), main=fact["main"], anode=str(fact["anode"]))
