"""Who is answered: the cookie, the host, the origin; and which machine counts as shared."""

import pytest

from hpcxrf.explore import access as module
from hpcxrf.explore.access import HEADERS, explain_sharing, find_refusal, is_loopback, is_same, new_access, write_cookie

ACCESS = new_access()
HOST = "127.0.0.1:8000"
COOKIE = f"{ACCESS.cookie_name}={ACCESS.cookie_value}"
OWN = {"Host": HOST, "Origin": f"http://{HOST}", "Content-Type": "application/json", "Cookie": COOKIE}


def status(method="POST", path="/api/spectrum", body_bytes=10, **changed):
    headers = {name: value for name, value in (OWN | changed).items() if value is not None}
    refusal = find_refusal(ACCESS, method, path, headers, body_bytes)
    return 200 if refusal is None else refusal.status


def test_a_request_of_the_own_page_is_answered():
    assert status() == 200
    assert status("GET", "/api/scan", Origin=None) == 200
    for path in ("/", "/page/spectrum.js"):
        assert status("GET", path, Cookie=None, Origin=None) == 200
    assert status("POST", "/open", Cookie=None) == 200


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        f"{ACCESS.cookie_name}=x",
        f"{ACCESS.cookie_name}=",
        f"hpcxrf={ACCESS.cookie_value}",
        f"{ACCESS.cookie_name}={new_access().cookie_value}",
        f"{ACCESS.cookie_name}={ACCESS.secret}",
        "a=;;\x00=",
    ],
    ids=[
        "none",
        "empty",
        "of another value",
        "without a value",
        "of another name",
        "of another start",
        "the secret",
        "torn",
    ],
)
def test_without_the_cookie_of_this_start_nothing_is_answered(cookie):
    for method, path in (("GET", "/api/scan"), ("POST", "/api/spectrum"), ("GET", "/else"), ("GET", "/api/map")):
        assert status(method, path, Cookie=cookie) == 403


def test_the_cookie_is_found_among_others():
    assert status(Cookie=f"a=1; {COOKIE}; b=2") == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.", "x@localhost:1", "localhost:x",
     "[::1", "localhost/evil", "10.0.0.1:8000", "localhost:99999999"],
)  # fmt: skip
def test_a_name_that_only_leads_here_is_refused_everywhere(host):
    assert not is_loopback(host)
    for method, path in (("GET", "/"), ("GET", "/page/a.js"), ("POST", "/open"), ("GET", "/api/scan")):
        assert status(method, path, Host=host, Origin=f"http://{host}") == 403
    assert status("GET", "/", Host=None) == 403


def test_the_near_end_of_a_tunnel_may_have_any_port_and_any_name_of_the_loopback():
    for host in ("localhost:8123", "127.0.0.1", "[::1]:9", "LOCALHOST:80"):
        assert status(Host=host, Origin=f"http://{host}") == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8000", "127.0.0.1:8000"]
)
def test_a_post_of_another_page_is_refused_also_with_the_cookie(origin):
    assert status(Origin=origin) == 403
    assert status("POST", "/open", Origin=origin) == 403


def test_what_the_browser_says_of_the_asking_page_counts():
    for site, wanted in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert status("GET", "/api/scan", **{"Sec-Fetch-Site": site}) == wanted


def test_bodies_are_json_and_bounded_and_methods_two():
    assert status(**{"Content-Type": "text/plain"}) == 415
    assert status(**{"Content-Type": None}) == 415
    assert status(**{"Content-Type": "application/json; charset=utf-8"}) == 200
    assert status(body_bytes=1 << 20) == 200
    assert status(body_bytes=(1 << 20) + 1) == 413
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"):
        assert status(method) == 405


def test_secret_and_cookie_are_long_new_with_every_start_and_not_the_same():
    made = [new_access() for _ in range(50)]
    values = {value for one in made for value in (one.secret, one.cookie_value, one.cookie_name)}
    assert len(values) == 150
    assert min(len(one.secret) for one in made) >= 22
    written = write_cookie(made[0])
    assert made[0].secret not in written
    assert written.endswith("; Path=/; HttpOnly; SameSite=Strict")


def test_only_the_same_text_is_the_same():
    assert is_same("secret", "secret")
    for other in ("Secret", "", None, 7, ["secret"], "secre\udcff"):
        assert not is_same(other, "secret")


def test_the_policy_lets_no_script_in_but_the_own_files():
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == "'self'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe-inline" not in policy["script-src"] + policy["connect-src"]
    assert HEADERS["Cache-Control"] == "no-store"
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["Referrer-Policy"] == "no-referrer"


@pytest.fixture
def lonely(monkeypatch, tmp_path):
    """A Linux machine without Slurm, on which the user alone has processes."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(module.sys, "platform", "linux")
    (tmp_path / "12").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "mounts").write_text(f"proc {tmp_path} proc rw,nosuid,hidepid=0 0 0\n/dev/sda / ext4 rw 0 0\n")
    return tmp_path


def test_a_machine_of_one_user_is_not_shared(lonely, monkeypatch):
    assert explain_sharing(lonely) == ""
    assert explain_sharing(lonely / "nothing") == ""
    (lonely / "mounts").unlink()
    assert explain_sharing(lonely) == ""


def test_slurm_hidden_processes_and_other_people_make_a_machine_shared(lonely, monkeypatch):
    (lonely / "mounts").write_text(f"proc {lonely} proc rw,hidepid=invisible 0 0\n")
    assert "hidden" in explain_sharing(lonely)
    (lonely / "mounts").write_text("")
    owner = (lonely / "12").stat().st_uid
    monkeypatch.setattr(module, "_FIRST_USER", owner)
    monkeypatch.setattr(module.os, "getuid", lambda: owner + 1)
    assert explain_sharing(lonely) == "another user works on it"
    monkeypatch.setattr(module.os, "getuid", lambda: owner)
    assert explain_sharing(lonely) == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "Slurm" in explain_sharing(lonely)
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "Slurm" in explain_sharing(lonely)
