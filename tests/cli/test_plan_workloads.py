"""`hpcxrf plan` of run files that do not describe scans."""

import yaml

from hpcxrf.simulate import demo_spec, simulate_scan, write_scan


def test_the_plan_of_a_benchmark_counts_its_fits_and_names_what_cannot_be_opened(hpcxrf, tmp_path):
    spec = demo_spec(seed=1, shape=(1, 4, 4, 1536), name="small")
    write_scan(simulate_scan(spec), tmp_path, scan_format="array")
    (tmp_path / "torn.h5").write_bytes((tmp_path / "small.h5").read_bytes()[:2000])
    file = tmp_path / "bench.yaml"
    raw = {"input": {"files": ["small.h5", "torn.h5"]}, "benchmark": {"methods": ["separable", "product"]}}
    file.write_text(yaml.safe_dump(raw))
    before = sorted(p.name for p in tmp_path.iterdir())
    ran = hpcxrf("plan", file, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["tasks"] == {"sum": 1, "initial": 2, "refinement": 2}
    assert (ran.json["items"], list(ran.json["refused"])) == (1, [str(tmp_path / "torn.h5")])
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_plan_of_a_case_study_says_what_is_not_known_yet(hpcxrf, tmp_path):
    raw = {
        "input": {"files": ["scan/leaf.h50"]},
        "fit": {"calibration": "none"},
        "regions": {"find": ["squares"]},
        "case_study": {"size": [70, 40]},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(raw))
    ran = hpcxrf("plan", file)
    assert ran.code == 0, ran.err
    assert "1 simulate" in ran.out
    assert "2 ingest" in ran.out
    assert "known when the maps are there" in ran.out
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


def test_the_plan_of_a_benchmark_refuses_what_it_cannot_act_on(hpcxrf, tmp_path):
    spec = demo_spec(seed=1, shape=(1, 4, 4, 1536), name="small")
    write_scan(simulate_scan(spec), tmp_path, scan_format="array")
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump({"input": {"files": ["small.h5"]}, "benchmark": {"methods": ["separable"]}}))
    ran = hpcxrf("plan", file, "--site", "nosuchsite")
    assert (ran.code, "nosuchsite" in ran.err) == (2, True)
    ran = hpcxrf("plan", file, "--max-gpu-hours", "1")
    assert (ran.code, "--max-gpu-hours" in ran.err) == (2, True)
    (tmp_path / "taken").touch()
    ran = hpcxrf("plan", file, "-o", tmp_path / "taken" / "out", "--json")
    assert ran.code == 2
    assert ran.json["faults"] == [f"output {tmp_path}/taken/out: {tmp_path}/taken is not a folder"]


def test_a_plan_of_which_nothing_can_be_opened_fails_as_the_run_would(hpcxrf, tmp_path):
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    for command in (("plan",), ("run", "-o", tmp_path / "out")):
        ran = hpcxrf(*command, tmp_path / "a.h5", tmp_path / "b.h5", "--elements", "Fe")
        assert ran.code == 3, ran.err
        assert "a.h5" in ran.out + ran.err
    assert not (tmp_path / "out").exists()
