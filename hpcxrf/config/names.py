"""Names of the run file's options, and the nearest known one to a name that is unknown."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence


def option_names(config: type) -> list[str]:
    """List the options of a configuration as `section.key`, a section that is a plain value by its name."""
    names = []
    for name, annotation in typing.get_type_hints(config, include_extras=False).items():
        kinds = () if typing.get_origin(annotation) is tuple else (annotation, *typing.get_args(annotation))
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if section is not None:
            names += [f"{name}.{field.name}" for field in dataclasses.fields(section)]
        elif name in {field.name for field in dataclasses.fields(config)}:
            names.append(name)
    return names


def nearest_name(loc: Sequence[int | str], names: Iterable[str]) -> str:
    """Say which known option an unknown one may have meant: `; did you mean fit.kbeta_sd?`, or nothing.

    Args:
        loc: place of the unknown name, from the section on.
        names: known options as `section.key`.
    """
    wanted, known = ".".join(map(str, loc)), list(names)
    sections = dict.fromkeys(name.split(".")[0] for name in known)
    same_key = [name for name in known if name.split(".")[-1] == loc[-1]]
    beside = [name for name in known if name.startswith(f"{loc[0]}.")]
    near: list[str] = []
    if len(loc) == 1:
        near = difflib.get_close_matches(wanted, sections, n=1) or same_key
    elif len(loc) == 2:
        near = difflib.get_close_matches(wanted, beside, n=1, cutoff=0.7) or same_key
        near = near or difflib.get_close_matches(wanted, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
