"""What a run file says: the sections of a configuration that differ from the defaults, and their text."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.case_study import CaseStudyConfig
from hpcxrf.config.input import InputConfig
from hpcxrf.config.run import RunConfig, list_sections
from hpcxrf.config.yaml_text import dump_yaml


def list_given(config: RunConfig) -> dict[str, Any]:
    """The sections of a run file with what differs from the defaults, as YAML has it, and its groups.

    A section that chooses the workload is there even where it says nothing else, and so are the input files.
    """
    default = RunConfig(
        input=InputConfig(files=config.input.files),
        benchmark=None if config.benchmark is None else BenchmarkConfig(),
        case_study=None if config.case_study is None else CaseStudyConfig(),
    )
    given, plain = _sections(config), _sections(default)
    found = {
        section: {key: value for key, value in values.items() if _is_given(key, value, plain[section][key])}
        for section, values in given.items()
    }
    left = {section: values for section, values in found.items() if values or section in {"benchmark", "case_study"}}
    return {**left, "groups": _list_groups(config)} if config.groups else left


def _is_given(key: str, value: object, default: object) -> bool:
    return (key == "files" and bool(value)) or value != default


def _list_groups(config: RunConfig) -> list[dict[str, Any]]:
    groups = json.loads(json.dumps([dataclasses.asdict(group) for group in config.groups]))
    return [{section: values for section, values in group.items() if values} for group in groups]


def _sections(config: RunConfig) -> dict[str, dict[str, Any]]:
    return dict(json.loads(json.dumps(list_sections(config))))


def strip_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as YAML has them, which knows no tuples; without those that are None."""
    return dict(json.loads(json.dumps({key: value for key, value in values.items() if value is not None})))


def dump_sections(sections: Mapping[str, Any]) -> str:
    """The text of a run file."""
    return dump_yaml(dict(sections), default_flow_style=None, width=110)
