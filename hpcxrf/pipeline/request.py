"""What was asked for: checked before anything is read, and read back from a run directory.

This module loads neither torch nor dask: a login node answers with it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcxrf.catalogue.schema import require_catalogue
from hpcxrf.catalogue.where import check_where
from hpcxrf.config.run import RunConfig, check_config, drop_unused, effective, of_groups
from hpcxrf.config.sample import AUTO
from hpcxrf.config.settings import Setting, apply_settings
from hpcxrf.config.untrusted import parse_yaml, read_regular, read_yaml, report_faults
from hpcxrf.config.yaml_text import dump_yaml
from hpcxrf.errors import ConfigError, FitError, HpcxrfError, OutputError
from hpcxrf.fitting.spectrum.theta import EDGE_REACH_SD
from hpcxrf.formats.override import read_override
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV
from hpcxrf.physics.element_list import leave_out_unexcited, read_element_list
from hpcxrf.pipeline.catalogued.element_table import read_element_table
from hpcxrf.pipeline.normalise.reference import read_reference
from hpcxrf.pipeline.prepare.checks import refuse_start
from hpcxrf.pipeline.prepare.previous import require_previous
from hpcxrf.pipeline.quantify.certificates import check_standards
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.rundir import RunDir


def check_request(config: RunConfig) -> None:
    """Refuse what no scan can be fitted with, before an archive is read for it.

    Raises:
        ConfigError: names of parameters that do not exist, options that exclude each other, a previous store that
            is none, a scan without the I0 that is to be the reference, standards without a certificate; of a catalogue
            conditions that are none, and a table of elements with faults.
        FitError: elements that do not exist, are listed twice, or none that the incident energy can excite.
        InputFileError: the override file that is named cannot be read, or the catalogue.
    """
    if config.input.catalogue is not None:
        _check_catalogue(config, Path(config.input.catalogue))
    _check_sections(config)
    for number in range(len(config.groups)):
        try:
            _check_sections(of_groups(config, (number,)))
        except HpcxrfError as error:
            raise type(error)(f"groups[{number}]: {error}") from error


def _check_catalogue(config: RunConfig, catalogue: Path) -> None:
    require_catalogue(catalogue)
    places = {f"groups[{number}].where": group.where for number, group in enumerate(config.groups)}
    faults = []
    for place, where in {"input.where": config.input.where, **places}.items():
        try:
            if where is not None:
                check_where(where)
        except ConfigError as error:
            faults.append(f"{place}: {str(error).removeprefix('--where ')}")
    if faults:
        raise ConfigError("\n".join(faults))
    tables = [of_groups(config, chosen).sample.elements_table for chosen in ((), *((n,) for n in range(len(places))))]
    for table in dict.fromkeys(filter(None, tables)):
        read_element_table(Path(table))


def _check_sections(config: RunConfig) -> None:
    given = () if config.sample.elements == AUTO else config.sample.elements
    energy_kev, listed = config.sample.incident_energy_kev, read_element_list(given).names
    reach_kev = EDGE_REACH_SD * config.fit.incident_energy_sd_kev if config.sample.source == "monochromatic" else 0.0
    seen = leave_out_unexcited(listed, HIGHEST_INCIDENT_KEV if energy_kev is None else energy_kev, reach_kev)
    if listed and not seen.names:
        raise FitError("no element of the list can be fitted; " + "; ".join(note.text for note in seen.notes))
    refuse_start(config.fit)
    if config.fit.override not in {"auto", "none"}:
        read_override(Path(config.fit.override))
    if config.fit.previous is not None:
        require_previous(Path(config.fit.previous))
    # A standard may be the reference of I0, too: what is said of it is said as of a standard.
    check_standards(config.quantify)
    read_reference(config)


def keep_configuration(run: RunDir, config: RunConfig) -> None:
    """Write the whole configuration of the latest command into the run directory, `execution` and overrides included.

    The file is a run file of its own: it says the same from any folder.

    Raises:
        OutputError: the run directory cannot be written.
    """
    atomic_write_text(run.configuration_file, write_run_file(config))


def write_run_file(config: RunConfig) -> str:
    """Text of the run file that says the same as a configuration, every option of it."""
    sections = drop_unused({name: value for name, value in asdict(config).items() if value is not None})
    # Through JSON: YAML has no tuples.
    return dump_yaml(json.loads(json.dumps(sections)))


def config_of_run(run: RunDir, settings: Sequence[Setting] = ()) -> tuple[RunConfig, str]:
    """The configuration of a run directory and its run file's text, as the latest command had them.

    Paths are absolute, wherever the run file once lay.

    Args:
        run: the run directory.
        settings: values that take the place of the run's.

    Raises:
        OutputError: no run there, or a damaged one.
        ConfigError: made by another version, whose options are none any more.
    """
    remedy = "name another run directory"
    with report_faults(run.path, OutputError, remedy):
        text = read_regular(run.run_file, OutputError).decode("utf-8")
        if run.configuration_file.is_file():
            raw: Any = read_yaml(run.configuration_file, OutputError)[0]
        else:
            # Version 0.1.0 kept `execution`, which changes no result, in the run file alone.
            written = parse_yaml(text, run.run_file, OutputError) or {}
            raw = run.effective() | {"execution": written.get("execution") or {}}
        sections = apply_settings(drop_unused(raw), settings)
    return check_config(sections, str(run.path)), text


def config_of_dataset(config: RunConfig, attributes: Mapping[str, Any]) -> RunConfig:
    """The configuration that a dataset of a run was made with: that of the run, or over a catalogue its own.

    Args:
        config: configuration of the run.
        attributes: those of the dataset's results store.

    Raises:
        OutputError: the store does not say it.
    """
    if config.input.catalogue is None:
        return config
    own = attributes.get("configuration")
    remedy = "run the scan again with this version"
    with report_faults("the results store", OutputError, remedy):
        kept = {**effective(config), **(own if isinstance(own, dict) else {})}
        sections = drop_unused({name: value for name, value in kept.items() if value is not None})
        return dataclasses.replace(check_config(sections, "the results store"), execution=config.execution)
