"""Which scans a run takes from a catalogue, with which configuration, from which donor, in which order."""

import dataclasses
import json

import pytest
from catalogue_samples import row, write_archive, write_catalogue
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.config.run import check_config, effective, load_run_file
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.pipeline.catalogued.donors import SERVED, choose_donors, name_family
from hpcxrf.pipeline.catalogued.element_table import find_elements, read_element_table
from hpcxrf.pipeline.catalogued.entries import read_entries
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.request import check_request
from hpcxrf.pipeline.units import units_of
from hpcxrf.runner.records import Refusal
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.workloads import choose_workload

PLAIN = {"regions": {"find": []}, "fit": {"suggest": False}}


def config_of(catalogue, **sections):
    return check_config({"input": {"catalogue": str(catalogue)}, **PLAIN, **sections}, "x.yaml")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three scans, one that is broken, and a file that the catalogue leaves out."""
    folder = tmp_path_factory.mktemp("archive")
    rows = write_archive(folder, ["a", "b", "c"])
    (folder / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00torn")
    rows[1] = dataclasses.replace(rows[1], sample="leaf", shape_y=40)
    rows += [
        row(4, folder, "torn.npy", state="refused", fault="cut off", shape_y=None, size_bytes=10),
        row(5, folder, "note.txt", state="ignored"),
        row(6, folder, "gone.npy", state="vanished"),
    ]
    return write_catalogue(folder / "archive.sqlite", rows)


def test_a_run_takes_the_scans_of_a_catalogue_the_biggest_first_and_refuses_what_cannot_be_opened(archive, tmp_path):
    made = make_plan(config_of(archive), tmp_path / "run")
    assert [job.source.name for job in made.jobs] == ["b.npy", "a.npy", "c.npy"]
    # Tables are in the order of the catalogue.
    assert [job.number for job in made.jobs] == [1, 0, 2]
    [refusal] = made.refusals
    assert "torn.npy" in refusal.reason
    [note] = made.notes
    assert "1 ignored, 1 vanished" in note.text


def test_a_dataset_has_the_name_that_a_run_over_the_folder_gives_it(archive, tmp_path):
    of_catalogue = {job.source: job.dataset_id for job in make_plan(config_of(archive), tmp_path).jobs}
    of_folder = make_plan(check_config({"input": {"files": [str(archive.parent)]}, **PLAIN}, "x"), tmp_path).jobs
    assert of_catalogue == {job.source: job.dataset_id for job in of_folder}


def test_conditions_choose_scans_and_do_not_rename_them(archive, tmp_path):
    every = {job.source: job.dataset_id for job in make_plan(config_of(archive), tmp_path).jobs}
    config = check_config({"input": {"catalogue": str(archive), "where": "sample = 'leaf'"}, **PLAIN}, "x")
    [job] = make_plan(config, tmp_path).jobs
    assert every[job.source] == job.dataset_id
    with pytest.raises(InputFileError, match="no scan that meets 'shape_y > 1000'"):
        make_plan(check_config({"input": {"catalogue": str(archive), "where": "shape_y > 1000"}}, "x"), tmp_path)


def test_of_several_groups_the_later_one_wins_and_each_dataset_keeps_what_it_got(archive, tmp_path):
    groups = [
        {"where": "shape_y < 30", "sample": {"elements": ["Fe"]}, "fit": {"kbeta_sd": 0.1}},
        {"where": "path = 'c.npy'", "sample": {"elements": ["Fe", "Zn"], "incident_energy_kev": 11.0}},
    ]
    jobs = {job.source.stem: job for job in make_plan(config_of(archive, groups=groups), tmp_path).jobs}
    assert {name: job.config.sample.elements for name, job in jobs.items()} == {
        "a": ("Fe",),
        "b": (),
        "c": ("Fe", "Zn"),
    }
    assert {name: job.config.fit.kbeta_sd for name, job in jobs.items()} == {"a": 0.1, "b": 0.0, "c": 0.1}
    assert jobs["c"].config.sample.incident_energy_kev == 11.0
    # What a dataset keeps is the run file of a run over its file alone.
    kept = effective(jobs["c"].config)
    assert kept["input"]["files"] == [str(jobs["c"].source)]
    assert kept["groups"] == []
    assert check_config(kept, "kept").sample == jobs["c"].config.sample


@pytest.mark.parametrize(
    ("group", "fault"),
    [
        (
            {"where": "shape_y > 1", "fit": {"kbeta": 0.1}},
            r"groups\[0\]: fit.kbeta: unknown; did you mean fit.kbeta_sd",
        ),
        ({"where": "shape_y > 1", "input": {"files": ["a"]}}, r"groups\[0\]: input.files: is of the whole run"),
        ({"where": "shape_y > 1", "execution": {}}, r"groups.0.execution: unknown"),
        ({"sample": {"elements": ["Fe"]}}, r"groups.0.where: .*required"),
        ({"where": "shape_y > 1", "normalise": {"i0": "us_ic"}}, r"groups\[0\]: normalise.reference: is needed"),
    ],
)
def test_groups_are_checked_as_the_run_file_is(group, fault):
    with pytest.raises(ConfigError, match=fault):
        config_of("archive.sqlite", groups=[group])


def test_conditions_of_groups_are_refused_before_the_archive_is_read(archive):
    config = config_of(archive, groups=[{"where": "shape_z > 1"}, {"where": "load_extension('x')"}])
    with pytest.raises(ConfigError, match=r"groups\[0\].where: .*shape_z is not a column[^|]*\n?.*groups\[1\].where: "):
        check_request(config)


def test_groups_and_tables_need_a_catalogue():
    with pytest.raises(ConfigError, match=r"groups: needs a catalogue.*\n.*sample.elements_table: needs a catalogue"):
        check_config(
            {"input": {"files": ["a"]}, "groups": [{"where": "1"}], "sample": {"elements_table": "t.csv"}}, "x.yaml"
        )
    with pytest.raises(ConfigError, match="both given"):
        check_config({"input": {"files": ["a"], "catalogue": "b"}}, "x.yaml")


def test_paths_of_groups_are_relative_to_the_run_file(tmp_path, archive):
    (tmp_path / "run.yaml").write_text(
        f"input: {{catalogue: {archive}}}\n"
        "groups:\n- where: shape_y > 1\n  fit: {override: o.txt}\n  sample: {elements_table: t.csv}\n"
    )
    config, _ = load_run_file(tmp_path / "run.yaml")
    assert config.groups[0].fit["override"] == str(tmp_path / "o.txt")
    assert config.groups[0].sample["elements_table"] == str(tmp_path / "t.csv")


def test_a_group_of_another_site_has_its_scalers_and_not_those_of_the_run(archive):
    normalise = {"i0": "us_ic", "reference": 1.0}
    group = {"where": "shape_y > 1", "normalise": {"site": "aps-2id-e", "i0": "ds_ic"}}
    config = config_of(archive, normalise={**normalise, "scalers": {"us_ic": {"pvs": ["x"]}}}, groups=[group])
    scalers = config.groups[0].normalise["scalers"]
    assert "ds_ic" in scalers
    assert scalers != {"us_ic": {"pvs": ["x"]}}


def test_a_table_gives_elements_by_path_and_sample_and_its_last_line_wins(tmp_path, archive):
    table = tmp_path / "elements.csv"
    table.write_text('path,sample,elements\n*.npy,,Fe\nc.npy,,"Fe, Zn"\n,leaf,auto\nb.npy,,\n'.replace("b.npy,,\n", ""))
    read = read_element_table(table)
    assert find_elements(read, "a.npy", None) == ("Fe",)
    assert find_elements(read, "c.npy", "other") == ("Fe", "Zn")
    assert find_elements(read, "b.npy", "leaf") == ("auto",)
    assert find_elements(read, "b.mda", None) is None
    sample = {"elements": ["Ca"], "elements_table": str(table)}
    jobs = {job.source.stem: job for job in make_plan(config_of(archive, sample=sample), tmp_path / "run").jobs}
    assert {name: job.config.sample.elements for name, job in jobs.items()} == {
        "a": ("Fe",),
        "b": ("auto",),
        "c": ("Fe", "Zn"),
    }


def test_all_faults_of_a_table_are_named_with_their_lines(tmp_path):
    table = tmp_path / "elements.csv"
    table.write_text("path,elements\na.npy,Xx\n,Fe\nb.npy,\nc.npy,Fe\n")
    with pytest.raises(ConfigError) as told:
        read_element_table(table)
    assert all(f"line {n}: " in str(told.value) for n in (2, 3, 4))
    assert "line 5" not in str(told.value)
    table.write_text("scan;elements\n")
    with pytest.raises(ConfigError, match="give path or sample, and elements"):
        read_element_table(table)


@given(st.lists(st.lists(st.integers(1, 28), max_size=40), max_size=4))
def test_donors_serve_at_most_fifteen_others_and_have_none_themselves(months):
    numbers = iter(range(1000))
    families = [[(f"2024-{month:02}-{day:02}", next(numbers)) for day in days] for month, days in enumerate(months)]
    donor_of = choose_donors(families)
    assert not donor_of.keys() & set(donor_of.values())
    assert all(list(donor_of.values()).count(donor) < SERVED for donor in donor_of.values())
    place = {number: (month, (date, number)) for month, days in enumerate(families) for date, number in days}
    for number, donor in donor_of.items():
        assert place[donor] < place[number]
        assert place[donor][0] == place[number][0]
    assert len(donor_of) == sum(len(days) - -(-len(days) // SERVED) for days in families)
    # Scans of another month, found later, change no donor.
    assert donor_of.items() <= choose_donors([*families, [("2025-01-01", 1000), ("2025-01-02", 1001)]]).items()


def test_scans_of_a_month_and_of_the_same_detectors_are_put_together():
    one = row(1, "/a", "x/1.mda", date="2024-03-01T10:00:00", instrument="i")
    assert name_family(one, ()) == name_family(dataclasses.replace(one, path="y/2.mda", date="2024-03-31"), ())
    for other in ({"date": "2024-04-01"}, {"n_detectors": 4}, {"n_channels": 4096}, {"instrument": "j"}):
        assert name_family(one, ()) != name_family(dataclasses.replace(one, **other), ())
    assert name_family(one, ()) != name_family(one, (0,))
    undated = dataclasses.replace(one, date=None)
    assert name_family(undated, ()) == name_family(dataclasses.replace(undated, path="x/2.mda"), ())
    assert name_family(undated, ()) != name_family(dataclasses.replace(undated, path="y/2.mda"), ())


def test_donors_come_first_in_the_plan_and_the_others_follow_them(archive, tmp_path):
    jobs = make_plan(config_of(archive, fit={"warm_start": "donor"}), tmp_path / "run").jobs
    assert [job.source.stem for job in jobs] == ["a", "b", "c"]
    donor, *others = jobs
    assert donor.donor is None
    assert donor.follows == ()
    assert {job.donor.dataset_id for job in others} == {donor.dataset_id}
    assert {job.follows for job in others} == {(donor.number,)}
    # The same inputs, the same stamp; another configuration of the donor's fit, another.
    again = make_plan(config_of(archive, fit={"warm_start": "donor"}), tmp_path / "run").jobs
    assert again[1].donor == others[0].donor
    other = make_plan(config_of(archive, fit={"warm_start": "donor", "kbeta_sd": 0.1}), tmp_path / "run").jobs
    assert other[1].donor.stamp != others[0].donor.stamp


def test_by_default_fits_begin_at_donors_where_the_energy_axis_is_to_be_found(archive, tmp_path):
    jobs = make_plan(config_of(archive, fit={"calibration": "none"}), tmp_path / "run").jobs
    assert [job.donor is not None for job in jobs] == [False, True, True]


def test_without_warm_starts_and_in_a_benchmark_no_dataset_waits_for_another(archive, tmp_path):
    assert {job.donor for job in make_plan(config_of(archive), tmp_path).jobs} == {None}
    raw = {
        "input": {"catalogue": str(archive)},
        "fit": {"warm_start": "donor"},
        "benchmark": {"methods": ["separable"]},
    }
    config = check_config(raw, "x")
    planned = list(choose_workload(config).plan(PlanRequest(config=config, run_dir=tmp_path, kept={})))
    jobs = [one.dataset for one in planned if not isinstance(one, Refusal)]
    assert len(jobs) == 3
    assert {job.donor for job in jobs} == {None}


def test_tasks_read_the_stamps_of_the_sections_that_they_depend_on(archive, tmp_path):
    [job] = [one for one in make_plan(config_of(archive), tmp_path).jobs if one.source.stem == "a"]
    reads = {unit.task: set(unit.reads) for unit in units_of(job)}
    assert reads["ingest"] == {"stamps", "reading settings"}
    assert reads["integrated"] == {"stamps", "fit settings"}
    assert "report settings" in reads["finalise"]
    plain = dataclasses.replace(job, settings=())
    assert {unit.reads for unit in units_of(plain) if unit.task == "finalise"} == {()}
    assert json.loads(json.dumps(job.made_from)) == job.made_from


def test_two_folders_of_which_one_lies_in_the_other_give_each_file_once(tmp_path):
    inner = tmp_path / "outer" / "inner"
    write_archive(inner, ["a"])
    rows = [row(1, tmp_path / "outer", "inner/a.npy"), row(2, inner, "a.npy")]
    found = read_entries(config_of(write_catalogue(tmp_path / "two.sqlite", rows)))
    assert [entry.file for entry in found.entries] == [inner / "a.npy"]
    assert isinstance(found.name(found.entries[0]), str)
