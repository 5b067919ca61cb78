"""JSON schemas of run files and site profiles: they take what the program takes, and refuse what it refuses."""

from pathlib import Path

import pytest
import yaml

from hpcxrf.config.run import check_config
from hpcxrf.config.schema import make_run_schema, make_site_schema
from hpcxrf.config.site import check_site
from hpcxrf.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((ROOT / "workflows").glob("*.yaml"))
PROFILES = sorted((ROOT / "slurm").glob("*.yaml"))
RUN = {"input": {"files": ["a.mda"]}}
SITE = {"cores_per_node": 4, "memory_per_worker_mb": 1000, "time_limit_h": 1}

pytestmark = pytest.mark.more


def faults_of(value: object, schema: dict) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install hpcxrf[docs]")
    kind = jsonschema.Draft202012Validator
    kind.check_schema(schema)
    return [error.message for error in kind(schema).iter_errors(value)]


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_the_run_files_that_come_with_it_are_valid(path):
    assert faults_of(yaml.safe_load(path.read_text(encoding="utf-8")), make_run_schema()) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_profiles_that_come_with_it_are_valid(path):
    assert faults_of(yaml.safe_load(path.read_text(encoding="utf-8")), make_site_schema()) == []


@pytest.mark.parametrize(
    "more",
    [
        {"benchmark": None},
        {"pixels": {"phases": "one"}},
        {"fit": {"parameters": {"energy_offset": {"lower": -1, "upper": 1}}}},
        {"regions": {"thresholds": {"copper": {"component": "Cu", "above": 20}}}},
        {"normalise": {"reference": 175000}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_a_run_file_may_say_is_valid_for_both(more):
    assert faults_of({**RUN, **more}, make_run_schema()) == []
    if "normalise" not in more:
        check_config({**RUN, **more}, "run.yaml")


@pytest.mark.parametrize(
    "more",
    [
        {"pixel": {}},
        {"pixels": {"methods": "linear"}},
        {"pixels": {"method": "lineer"}},
        {"pixels": {"background_columns": 17}},
        {"sample": {"incident_energy_kev": 0}},
        {"fit": {"energy_range_kev": [1.0]}},
    ],
    ids=str,
)
def test_what_the_program_refuses_the_schema_refuses(more):
    assert faults_of({**RUN, **more}, make_run_schema()) != []
    with pytest.raises(ConfigError):
        check_config({**RUN, **more}, "run.yaml")


@pytest.mark.parametrize("more", [{"gpu": 1}, {"nodes": 0}, {"gpus": {"request": "please"}}], ids=str)
def test_what_a_profile_may_not_say_is_refused_by_both(more):
    assert faults_of({**SITE, **more}, make_site_schema()) != []
    with pytest.raises(ConfigError):
        check_site({**SITE, **more}, "site.yaml", name="site")
