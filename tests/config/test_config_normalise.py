"""The section `normalise` of a run file: off by default, faults with their remedies, names of PVs by site."""

import pytest

from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.config.run import check_config, effective, load_run_file
from hpcxrf.config.settings import parse_setting
from hpcxrf.config.site import load_site
from hpcxrf.config.site_files import load_named_site
from hpcxrf.errors import ConfigError

SMALL = "cores_per_node: 8\nmemory_per_worker_mb: 1000\ntime_limit_h: 1\n"


def normalise(**section):
    return check_config({"input": {"files": ["scan.mda"]}, "normalise": section}, "run.yaml").normalise


def test_it_is_off_by_default_and_on_with_a_live_time_or_i0():
    assert not NormaliseConfig().wanted
    assert not normalise().wanted
    assert normalise(live_time="auto").wanted
    asked = normalise(i0="us_ic", reference=175000)
    assert asked.wanted
    assert asked.live_time_choice == "auto"
    assert normalise(live_time=0.5).live_time_choice == 0.5


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"i0": "us_ic"}, r"normalise\.reference: is needed with normalise\.i0; give the I0 that all scans"),
        (
            {"reference": 5.0, "i0_kind": "rate"},
            r"normalise\.i0_kind, normalise\.reference: given without normalise\.i0",
        ),
        ({"i0": "us_ic", "reference": "1.75e5"}, r"normalise\.reference: '1\.75e5' is a text in YAML; write 175000"),
        ({"i0": "us_ic", "reference": 1, "i0_clock": 1.0, "i0_clock_hz": 2.0}, r"i0_clock is given in seconds already"),
        ({"i0": "us_ic", "reference": 0}, r"normalise\.reference.*greater than 0"),
        # `on` of YAML: no second.
        ({"live_time": True}, r"normalise\.live_time"),
        ({"live_time": 0}, r"normalise\.live_time.*greater than 0"),
        ({"i_0": "us_ic"}, r"normalise\.i_0: unknown; did you mean normalise\.i0"),
        (
            {"i0": "us_ic", "reference": 1.0, "site": "nowhere"},
            r"normalise\.site: no site profile 'nowhere'; there are aps-2id-e",
        ),
    ],
)
def test_faults_are_told_with_the_remedy(section, said):
    with pytest.raises(ConfigError, match=said):
        normalise(**section)


def test_the_table_of_the_shipped_site_is_kept_with_the_run_and_read_back():
    config = check_config(
        {"input": {"files": ["scan.mda"]}, "normalise": {"i0": "us_ic", "reference": 1.0}}, "run.yaml"
    )
    assert config.normalise.scalers == load_named_site("aps-2id-e").scalers
    assert config.normalise.scalers["us_ic"].pvs == ("2xfm:scaler3_cts1.B", "2xfm:mcs:mca2.VAL")
    assert set(config.normalise.scalers) == {"us_ic", "ds_ic", "sr_current"}
    assert check_config(effective(config), "effective.json") == config


def test_a_table_of_the_run_file_stands_in_the_place_of_the_site(tmp_path):
    table = {"mine": {"pvs": ["b:I0"], "kind": "rate"}}
    found = normalise(i0="mine", reference=2.0, scalers=table, site="nowhere")
    assert found.scalers["mine"].kind == "rate"


def test_sites_and_reference_scans_are_found_beside_the_run_file(tmp_path, monkeypatch):
    (tmp_path / "lab.yaml").write_text(SMALL + "scalers: {i0: {pvs: [b:i0], clock: [b:t]}}\n")
    run_file = tmp_path / "run.yaml"
    run_file.write_text("input: {files: [a.mda]}\nnormalise: {i0: i0, reference: std.mda, site: ./lab.yaml}\n")
    config, _ = load_run_file(run_file)
    assert config.normalise.reference == str(tmp_path / "std.mda")
    assert config.normalise.scalers["i0"].clock == ("b:t",)
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path))
    named, _ = load_run_file(run_file, [parse_setting("normalise.site=lab"), parse_setting("normalise.reference=2000")])
    assert named.normalise.scalers == config.normalise.scalers
    assert named.normalise.reference == 2000.0


def test_a_profile_with_a_wrong_table_is_refused_with_the_place(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(SMALL + "scalers: {i0: {pvs: [], kind: current}}\n")
    with pytest.raises(ConfigError, match=r"(?s)scalers\.i0\.pvs.*scalers\.i0\.kind"):
        load_site(path)


def test_other_workloads_have_no_such_section():
    raw = {"input": {"files": ["a"]}, "benchmark": {}, "normalise": {"live_time": "auto"}}
    with pytest.raises(ConfigError, match=r"normalise: a benchmark does not use this section"):
        check_config(raw, "run.yaml")
