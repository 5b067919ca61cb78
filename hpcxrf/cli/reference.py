"""Pages of `docs/reference/` that are made from the program: commands, formats, run file, site profile, stores.

`python -m hpcxrf.cli.man` writes them anew; a test compares them with the program.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"
"""Folder of the pages, in a checkout."""
PROGRAM: Final = "hpcxrf"

Row = Sequence[str]


def make_pages() -> dict[str, str]:
    """Make the text of every generated page, by file name."""
    return {
        "commands.md": make_commands_page(),
        "formats.md": make_formats_page(),
        "run-file.md": make_run_file_page(),
        "site-profile.md": make_site_profile_page(),
        "stores.md": make_stores_page(),
    }


def list_commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    """List a command and those below it, each with the words that call it."""
    yield words, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from list_commands((*words, name), inner)


def list_examples(command: Any) -> list[str]:  # noqa: ANN401
    """List the example lines of a command."""
    parts = (command.epilog or "").partition(":")[2].split("   |   ")
    return [text.strip() for text in parts if text.strip()]


def make_commands_page() -> str:
    """Make `commands.md`: a table of all commands, then each with its options and examples."""
    import typer

    from hpcxrf.cli.app import app

    # Vendored by the command line library, which gives its commands no public type.
    root: Any = typer.main.get_command(app)
    found = [(words, command) for words, command in list_commands((PROGRAM,), root) if len(words) > 1]
    rows = [(f"[`{' '.join(words)}`](#{'-'.join(words)})", _summary(command)) for words, command in found]
    lines = _title("Commands", "Each has `--help`; `--help-all` shows the rare options too.")
    lines += _table(("command", "does"), rows)
    for words, command in found:
        lines += _describe_command(words, command)
    return _join(lines)


def make_formats_page() -> str:
    """Make `formats.md`: the table of formats, from the registry of the readers."""
    from hpcxrf.formats.registry import list_file_formats

    lines = _title(
        "File formats",
        "A file is recognised by its content, never by its name. `hpcxrf inspect --formats` lists these too.",
    )
    rows = [
        (row.name, row.files, row.reads, "" if row.extra is None else f"`hpcxrf[{row.extra}]`")
        for row in list_file_formats()
    ]
    return _join([*lines, *_table(("format", "files", "what is read", "needs"), rows)])


def make_run_file_page() -> str:
    """Make `run-file.md`: every section and option of a run file, from the schema that checks it."""
    from hpcxrf.config.run import RunConfig
    from hpcxrf.config.schema import make_run_schema

    lines = _title(
        "Run file",
        "A run file is YAML: sections, and options in them. Everything but `input.files` has a default. Unknown names "
        "are refused, and all faults are reported at once. `hpcxrf init scan` writes a file with every option and a "
        "comment on each; `--set section.key=value` changes one on the command line; `hpcxrf schema run` prints the "
        "schema for editors.",
    )
    return _join([*lines, *_describe_schema(RunConfig, make_run_schema(), by_section=True)])


def make_site_profile_page() -> str:
    """Make `site-profile.md`: every field of a site profile."""
    from hpcxrf.config.schema import make_site_schema
    from hpcxrf.config.site import SiteProfile

    lines = _title(
        "Site profile",
        "A site profile is a YAML file that says what a cluster is like and how jobs are requested there. `hpcxrf site "
        "init` proposes one; [a site profile](../how-to/site-profile.md) says how to complete it; `hpcxrf schema site` "
        "prints the schema for editors.",
    )
    return _join([*lines, *_describe_schema(SiteProfile, make_site_schema(), by_section=False)])


def make_stores_page() -> str:
    """Make `stores.md`: every array of the stores of spectra and results."""
    from hpcxrf.store import schema

    lines = _title(
        "Stores",
        "A run directory has two Zarr stores (format 3) for each dataset, `spectra/<dataset>.zarr` and "
        "`results/<dataset>.zarr`; `.zarr.zip` where they are packed. `xarray.open_zarr` opens every group, and "
        "`hpcxrf.open_results` opens the results of a run. A number that is missing is NaN; `status` 0 means that a "
        "pixel was not run. Units are in the attribute `units` of each array. This page is made from "
        "`hpcxrf/store/schema.py`, the only place that fixes names and units.",
    )
    for title, note, names in _STORE_GROUPS:
        lines += [f"## {title}", "", note, ""]
        rows = [
            (f"`{name}`", ", ".join(spec.dims) or "-", spec.dtype, spec.units, spec.long_name)
            for table in names
            for name, spec in getattr(schema, table).items()
        ]
        lines += [*_table(("array", "dimensions", "type", "unit", "meaning"), rows), ""]
    return _join(lines)


_STORE_GROUPS: Final = (
    (
        "Spectra",
        "The root group of `spectra/<dataset>.zarr`. `counts` is uint8, uint16 where a channel exceeds 255, uint32 "
        "where one exceeds 65535, and float32 only where counts are not whole numbers: beware of sums in one byte. "
        "`missing`, `spike` and `tile_sums` are there only where they are needed. A scan without scalers has neither "
        "`scaler` nor `name`. Energy calibration, incident energy and provenance are in the root attributes.",
        ("SPECTRA_VARIABLES", "FAULT_VARIABLES", "TILE_VARIABLES", "SPECTRA_COORDINATES"),
    ),
    (
        "Results: maps",
        "The group `maps` of `results/<dataset>.zarr`: one number for each pixel. The coordinate `detector` has `sum`, "
        "`0`, `1` ...; `component` has the names of the families and of the scatter peaks. The shifts of theta are "
        "there where pixels have a theta of their own (`nonlinear`, `full`).",
        ("MAP_VARIABLES", "SHIFT_VARIABLES", "POSITION_VARIABLES"),
    ),
    (
        "Results: spectrum",
        "The group `spectrum`: the integrated spectrum of each detector with its fit. The figures of merit `r2`, "
        "`r2_expected`, `reduced_chi2`, `deviance` and `cpu_s` are float64 and `status` is uint8, one value for each.",
        ("SPECTRUM_VARIABLES",),
    ),
    (
        "Results: parameters",
        "The group `parameters`: theta of each detector. The coordinate `unit` gives the unit of each name.",
        ("PARAMETER_VARIABLES",),
    ),
    (
        "Results: regions",
        "The group `regions`: pixels that were looked at together, and the fit of their summed spectra. Regions may "
        "overlap; those of one layer do not. `kind` and `reason` say where a region comes from. The group "
        "`regions/maps` has the arrays of `maps` once more, with a first dimension `region`, where pixels were fitted "
        "again with the theta of their region.",
        ("REGION_VARIABLES", "REGION_FIT_VARIABLES"),
    ),
    (
        "Results: normalised",
        "The group `normalised`, where a run asks for rates. Its detectors are those of `maps` and, where there are "
        "several, `combined`. See [normalisation](../normalisation.md).",
        ("NORMALISED_VARIABLES", "I0_VARIABLES", "COMBINATION_VARIABLES"),
    ),
    (
        "Results: areal_density",
        "The group `areal_density`, where a run asks for it. Its components are the families of single elements. See "
        "[areal densities](../quantification.md).",
        ("AREAL_DENSITY_VARIABLES", "RESPONSE_VARIABLES"),
    ),
    (
        "Results: basis and model",
        "What the pixels were fitted with: the group `basis` has the columns of the linear model, and where pixels "
        "have a theta of their own its changes; every group `model/<detector>` has the lines of the model. Classes of "
        "weights have names that begin with `phase`, as in version 0.1.0.",
        ("BASIS_VARIABLES", "WEIGHT_CLASS_VARIABLES", "TANGENT_VARIABLES", "MODEL_VARIABLES"),
    ),
)
"""Title, note, and the tables of `hpcxrf.store.schema` of every group; a test compares them with all that there are."""


def _describe_command(words: tuple[str, ...], command: Any) -> list[str]:  # noqa: ANN401
    name = " ".join(words)
    for parameter in command.params:
        parameter.hidden = False
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(" ".join(command.collect_usage_pieces(context)).split())
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    lines = ["", f"## {name}", "", *(line for text in paragraphs for line in (text, ""))]
    lines += ["```text", f"{name} {_plain(usage)}", "```", ""]
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context)) is not None]
    if records:
        lines += _table(("option", "meaning"), [(f"`{_plain(option)}`", _plain(text)) for option, text in records])
    if examples := list_examples(command):
        lines += ["", "```sh", *examples, "```"]
    return lines


def _summary(command: Any) -> str:  # noqa: ANN401
    return " ".join((command.help or "").split("\n\n")[0].split())


def _describe_schema(kind: type, schema: Mapping[str, Any], *, by_section: bool) -> list[str]:
    from hpcxrf.config.schema import list_classes

    definitions = schema.get("$defs", {})
    if not by_section:
        lines = _describe_options(schema, definitions)
        inner = [one.__name__ for one in list_classes(kind) if one is not kind]
    else:
        sections = {name: _name_section(shape) for name, shape in schema["properties"].items()}
        lines = []
        for name, section in sections.items():
            lines += [f"## {name}", "", definitions[section]["description"], ""]
            lines += [*_describe_options(definitions[section], definitions), ""]
        inner = [one.__name__ for one in list_classes(kind) if one is not kind]
        inner = [name for name in inner if name not in sections.values()]
    for name in inner:
        lines += ["", f"## {_heading(name)}", "", definitions[name]["description"], ""]
        lines += _describe_options(definitions[name], definitions)
    return lines


def _name_section(shape: Mapping[str, Any]) -> str:
    """Name of the definition that a section is, or that the items of a list of sections are."""
    forms = [shape, *shape.get("anyOf", ())]
    forms += [form["items"] for form in forms if "items" in form]
    return str(next(form["$ref"] for form in forms if "$ref" in form)).rpartition("/")[2]


def _describe_options(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    required = shape.get("required", ())
    rows = [
        (
            f"`{name}`",
            _describe_form(option, definitions),
            "must be given" if name in required else _describe_default(option),
            option.get("description", ""),
        )
        for name, option in shape["properties"].items()
        if not option.get("deprecated")
    ]
    return _table(("option", "value", "default", "meaning"), rows)


def _describe_default(option: Mapping[str, Any]) -> str:
    import json

    if "default" not in option:
        return ""
    return f"`{json.dumps(option['default'])}`"


def _describe_form(form: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Describe a value in words: `number, 0 or more; or null`."""
    if "anyOf" in form:
        return "; or ".join(_describe_form(one, definitions) for one in form["anyOf"])
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        return f"[{_heading(name)}](#{_heading(name).replace(' ', '-')})"
    if "enum" in form or "const" in form:
        return ", ".join(f"`{value}`" for value in form.get("enum", [form.get("const")]))
    if form.get("type") == "array":
        return _describe_list(form, definitions)
    if form.get("type") == "object":
        values = form.get("additionalProperties")
        return f"names, each with: {_describe_form(values, definitions)}" if isinstance(values, dict) else "mapping"
    words = {"boolean": "true, false", "integer": "whole number", "number": "number", "string": "text", "null": "null"}
    return ", ".join(filter(None, (words.get(form.get("type", ""), "anything"), _describe_range(form))))


def _describe_list(form: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "prefixItems" in form:
        return "list of " + " and ".join(_describe_form(one, definitions) for one in form["prefixItems"])
    return f"list of {_describe_form(form.get('items', {}), definitions)}"


def _describe_range(form: Mapping[str, Any]) -> str:
    words = (
        ("minimum", "{} or more"),
        ("maximum", "{} or less"),
        ("exclusiveMinimum", "above {}"),
        ("exclusiveMaximum", "below {}"),
    )
    return ", ".join(text.format(f"{form[key]:g}") for key, text in words if key in form)


def _heading(class_name: str) -> str:
    """Words of a class name as a heading: `ThresholdConfig` is `threshold`, `GpuRequest` is `gpu request`."""
    words = re.findall(r"[A-Z][a-z0-9]*", class_name.removesuffix("Config"))
    return " ".join(words).lower()


def _title(title: str, text: str) -> list[str]:
    return [f"# {title}", "", text, "", "This page is written by `python -m hpcxrf.cli.man`.", ""]


def _table(titles: Row, rows: Sequence[Row]) -> list[str]:
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return [*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _plain(text: str) -> str:
    """Write `[default: (auto)]` and `{FILES}...` of the library as they are typed."""
    return re.sub(r"default: \((.*?)\)(?=[\];])", r"default: \1", re.sub(r"\{(\w+)\}", r"\1", " ".join(text.split())))


def _join(lines: Sequence[str]) -> str:
    text = "\n".join(lines).strip() + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)
