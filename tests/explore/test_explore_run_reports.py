"""Reports as the explorer serves them: their own files, with a code in the address, and nothing else of a run."""

import pytest
from run_folders import Asked, bare_run, ended_run

from hpcxrf.explore.run_reports import write_address

FILES = {
    "report.html": ("text/html", b"<p>the report"),
    "pages/leaf_0-00000000.html": ("text/html", b"<p>a page"),
    "pages/leaf_0-00000000.files/sum.js": ("text/javascript", b"hpcxrf.scan.receive();"),
    "tables/leaf_0-00000000.regions.csv": ("text/csv", b"a,b"),
}
OTHERS = (
    "run.yaml",
    "effective.json",
    "configuration.yaml",
    "datasets.jsonl",
    "jobs/request.json",
    "logs/job-7.log",
    "secrets/key.pem",
    "state/leaf_0-00000000.jsonl",
    "explore/history.jsonl",
    "results/leaf_0-00000000.zarr/zarr.json",
    "report-single-file.html",
    "pages/.hidden.html",
    "pages/x.js",
    "pages/leaf_0-00000000.files/x.html",
    "pages/deeper/leaf.html",
    "other.html",
)
BAD = (
    "",
    "..",
    "../torn/report.html",
    "pages/../run.yaml",
    "pages/..%2Frun.yaml",
    "%2e%2e/torn/report.html",
    "pages%2Fleaf_0-00000000.html%00",
    "report.html/",
    "/report.html",
    "//etc/passwd",
    "/etc/passwd",
    "report.html\n",
    "pages/link.html",
    "benchmark.html",
)


@pytest.fixture
def asked(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    run = ended_run(folder / "leaf run", "done")
    ended_run(folder / "torn", "failed")
    for name in (*FILES, *OTHERS):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (run.path / name).exists():
            (run.path / name).write_bytes(FILES.get(name, ("", b"secret"))[1])
    (run.path / "pages" / "link.html").symlink_to(run.path / "run.yaml")
    (tmp_path / "stolen.html").write_text("secret")
    (folder / "torn" / "report.html").symlink_to(tmp_path / "stolen.html")
    (run.path / "benchmark.html").mkdir()
    return Asked(folder)


def address(asked, name, key="leaf%20run"):
    return write_address(asked.runs, key, name)


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_a_report_come_without_a_cookie_in_a_page_that_reaches_nothing(asked, name):
    headers = {"Cookie": "", "Origin": "null", "Sec-Fetch-Site": "cross-site"}
    answer = asked.ask("GET", address(asked, name), **headers)
    kind, content = FILES[name]
    assert (answer.status, answer.body) == (200, content)
    assert answer.kind.startswith(kind)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts allow-downloads; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "connect-src 'none'" in policy
    assert ("Content-Disposition" in answer.headers) == name.endswith(".csv")


@pytest.mark.parametrize("name", [*OTHERS, *BAD])
def test_nothing_else_of_a_run_is_served_by_any_name(asked, name):
    answer = asked.ask("GET", address(asked, name))
    assert answer.status in {403, 404}
    assert b"secret" not in answer.body
    assert b"input" not in answer.body


def test_a_report_that_is_a_link_out_of_its_run_is_not_served(asked):
    assert asked.ask("GET", address(asked, "report.html", "torn")).status == 404


def test_the_code_of_a_run_opens_that_run_and_at_this_start_only(asked):
    right = address(asked, "report.html")
    code = right.split("/")[2]
    of_other = address(asked, "report.html", "torn").split("/")[2]
    assert len(code) == 32
    for wrong in (of_other, code[:-1], code.upper(), "", "x" * 32, Asked(asked.runs.folder).runs.report_key.decode()):
        answer = asked.ask("GET", right.replace(code, wrong))
        assert answer.status == 403, wrong
        assert b"<p>the report" not in answer.body
    later = Asked(asked.runs.folder)
    assert later.ask("GET", right).status == 403


def test_a_report_is_asked_for_by_get_of_the_loopback_alone(asked):
    right = address(asked, "report.html")
    assert asked.ask("POST", right, {}).status == 404
    assert asked.ask("POST", right, {}, Origin="null", Cookie="").status == 403
    assert asked.ask("PUT", right).status == 405
    assert asked.ask("GET", right, Host="evil.example").status == 403


def test_the_list_has_the_address_of_a_report_where_there_is_one(asked):
    bare_run(asked.runs.folder / "new")
    assert asked.row("leaf run")["report"] == address(asked, "report.html")
    assert asked.row("new")["report"] is None
    assert asked.get("/api/runs/one?run=leaf%20run")["report"] == address(asked, "report.html")
