"""The result of one method on one spectrum of a benchmark: a small file of its own."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcxrf.errors import OutputError
from hpcxrf.fitting.status import FitStatus
from hpcxrf.store.files import atomic_write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """A fit of one method. Quantities that it does not have are NaN."""

    method: str
    status: FitStatus
    r2: float
    r2_expected: float
    deviance: float
    """Poisson deviance per degree of freedom."""
    cpu_s: float
    wall_s: float
    evaluations: int
    """Steps or evaluations of the model, as the method counts them."""
    counts: float
    """Counts of the fitted spectrum, all channels."""
    parameters: tuple[str, ...]
    theta: tuple[float, ...]
    theta_sigma: tuple[float, ...]
    components: tuple[str, ...]
    amplitude: tuple[float, ...]
    """Recorded counts of each component."""
    energy_range_kev: tuple[float, float]


def write_result(path: Path, result: MethodResult) -> None:
    """Write the file by a temporary name; what is not finite becomes null.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    plain = asdict(result) | {"status": result.status.name}
    text = json.dumps({k: _encode(v) for k, v in plain.items()}, indent=1, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_result(path: Path) -> MethodResult:
    """Read it back.

    Raises:
        OutputError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        content["status"] = FitStatus[content["status"]]
        fields: dict[str, Any] = {k: _decode(v) for k, v in content.items()}
        return MethodResult(**fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path}: is not a result of a benchmark ({error}); remove it and rerun the same command"
        ) from error


def _encode(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_encode(v) for v in value] if isinstance(value, list | tuple) else value


def _decode(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    return math.nan if value is None else value
