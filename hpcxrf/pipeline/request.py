"""What was asked for: checked before anything is read, and read back from a run directory.

This module loads neither torch nor dask: a login node answers with it.
"""

from pathlib import Path
from typing import Any

import yaml

from hpcxrf.config.run import RunConfig, check_config
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.formats.override import read_override
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV, parse_components
from hpcxrf.pipeline.prepare.previous import require_previous
from hpcxrf.pipeline.prepare.starting import refuse_start
from hpcxrf.store.rundir import RunDir


def check_request(config: RunConfig) -> None:
    """Refuse what no scan can be fitted with, before an archive is read for it.

    Raises:
        ConfigError: names of parameters that do not exist, options that exclude each other, a previous store that
            is none.
        FitError: elements that do not exist, or that the incident energy of the configuration cannot excite.
        InputFileError: the override file that is named cannot be read.
    """
    energy_kev = config.sample.incident_energy_kev
    highest = HIGHEST_INCIDENT_KEV if energy_kev is None else energy_kev
    parse_components(config.sample.elements, highest, ())
    refuse_start(config)
    if config.fit.override not in {"auto", "none"}:
        read_override(Path(config.fit.override))
    if config.fit.previous is not None:
        require_previous(Path(config.fit.previous))


def config_of_run(run: RunDir) -> tuple[RunConfig, str]:
    """The configuration of a run directory and its run file's text, as `create_or_resume` was given them.

    Paths are those of the effective configuration, absolute, wherever the run file once lay; the section
    `execution`, which changes no result, is that of the run file.

    Raises:
        OutputError: no run there, or a damaged one.
        ConfigError: made by another version, whose options are none any more.
    """
    try:
        text = run.run_file.read_text(encoding="utf-8")
        given: Any = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OutputError(f"{run.run_file}: cannot be read ({error}); name another run directory") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{run.run_file} is no run file: it must be a mapping")
    raw = run.effective() | {"execution": given.get("execution") or {}}
    return check_config(raw, str(run.path)), text
