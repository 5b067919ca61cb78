"""The results of one method on some spectra of a case study: a small file of its own."""

from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import OutputError
from hpcxrf.store.files import atomic_write_bytes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFits:
    """Fits of some spectra by one method. Quantities that a method does not have are NaN."""

    components: tuple[str, ...]
    amplitude: FloatArray
    """(spectrum, component) recorded counts."""
    theta: FloatArray
    """(spectrum, parameter)."""
    r2: FloatArray
    """(spectrum,)."""
    r2_expected: FloatArray
    deviance: FloatArray
    """(spectrum,) Poisson deviance per degree of freedom."""
    cpu_s: FloatArray
    """(spectrum,); of pixels fitted together an equal share each."""
    evaluations: NDArray[np.int64]
    status: NDArray[np.int64]
    """(spectrum,) FitStatus."""
    model: NDArray[np.float32]
    """(spectrum, channel) with background, NaN outside the fit range."""


def join_fits(parts: list[StudyFits]) -> StudyFits:
    """The same method's fits of further spectra, one after the other; at least one part."""
    named: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in asdict(parts[0])
        if name != "components"
    }
    return StudyFits(components=parts[0].components, **named)


def write_fits(path: Path, fits: StudyFits) -> None:
    """Write the file by a temporary name.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    content = BytesIO()
    np.savez_compressed(content, **asdict(fits) | {"components": np.array(fits.components)})
    atomic_write_bytes(path, content.getvalue())


def read_fits(path: Path) -> StudyFits:
    """Read it back.

    Raises:
        OutputError: the file is missing or damaged.
    """
    try:
        with BytesIO(path.read_bytes()) as content, np.load(content, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            return StudyFits(**arrays | {"components": tuple(arrays["components"].tolist())})
    except (OSError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path}: does not hold fits of a case study ({error}); remove it and rerun the same command"
        ) from error
