"""A table of thin-film standards in YAML: elements, areal densities, their errors, and where each number comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hpcxrf.config.fields import CHECKED, Positive
from hpcxrf.config.untrusted import parse_yaml, read_yaml, report_faults
from hpcxrf.errors import ConfigError

DensityUnit = Literal["ug/cm2", "ng/mm2"]
RelativeError = Annotated[float, Field(gt=0, lt=1)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]

_SHIPPED: Final = "data/standards.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementRow:
    """One element of a standard."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    areal_density: Positive
    """Areal density in the unit of the standard."""
    relative_error: RelativeError | None = None
    """Standard uncertainty of the certificate, relative; None: that of the standard."""
    source: str | None = None
    """Source of this number; None: that of the standard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardRow:
    """One standard."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    name: Annotated[str, Field(min_length=1)]
    """Name of the standard, with its serial number."""
    source: Annotated[str, Field(min_length=1)]
    """Where the numbers come from: certificate, date."""
    elements: Annotated[Mapping[Symbol, ElementRow | Positive], Field(min_length=1)]
    """Element to its row, or to its areal density alone."""
    unit: DensityUnit | None = None
    """Unit of the areal densities, `ug/cm2` or `ng/mm2` (a tenth of it); None: ug/cm2, and refused where the numbers
    are those of a list in ng/mm2."""
    relative_error: RelativeError | None = None
    """Standard uncertainty of all elements without their own; None: not stated by the certificate."""
    file: str | None = None
    """Name of its scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    standards: Annotated[tuple[StandardRow, ...], Field(min_length=1)]


def read_standard_rows(path: Path) -> tuple[StandardRow, ...]:
    """Read a table of standards.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has faults: all of them at once.
    """
    raw, _ = read_yaml(path, ConfigError)
    return check_standard_rows(raw, str(path))


def load_shipped_rows() -> tuple[StandardRow, ...]:
    """Load the table that comes with the program."""
    text = files("hpcxrf.config").joinpath(_SHIPPED).read_text(encoding="utf-8")
    return check_standard_rows(parse_yaml(text, _SHIPPED, ConfigError), _SHIPPED)


def check_standard_rows(raw: object, where: str) -> tuple[StandardRow, ...]:
    """Check the content of a table.

    Args:
        raw: content of the file as `yaml.safe_load` returns it.
        where: name of the file, for the message.

    Raises:
        ConfigError: all faults at once, each with its place.
    """
    with report_faults(where, ConfigError, "correct the table of standards"):
        try:
            rows = TypeAdapter(_Table).validate_python(raw).standards
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
            raise ConfigError(_list_faults(where, faults)) from error
    names = [row.name for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(_list_faults(where, [f"{name}: is listed twice; remove one" for name in doubled]))
    return rows


def _list_faults(where: str, faults: list[str]) -> str:
    return "\n".join([f"{where}: not a valid table of standards:", *[f"  {fault}" for fault in faults]])
