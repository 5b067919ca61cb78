"""Man pages and completion: in step with the commands, readable by man, and inside the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from hpcxrf.cli.app import app
from hpcxrf.cli.man import FOLDER, make_files

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_are_those_of_the_commands():
    wanted = make_files()
    assert sorted(wanted) == sorted(file.name for file in FOLDER.iterdir()), "run python -m hpcxrf.cli.man"
    for name, text in wanted.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run python -m hpcxrf.cli.man"


def test_the_page_of_a_command_has_its_rare_options_and_its_example():
    page = (FOLDER / "hpcxrf-run.1").read_text().replace(r"\-", "-")
    for option in typer.main.get_command(app).commands["run"].params:
        assert option.opts[-1].upper().strip("-") in page.upper()
        assert option.help in page
    assert "--set fit.kbeta_sd=0.15" in page.split(".SH EXAMPLES")[1]


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.1")), ids=lambda page: page.name)
def test_a_page_is_roff_without_a_warning(page):
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    shown = subprocess.run([groff, "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert "SYNOPSIS" in shown.stdout.replace("\b", "").replace("SSYYNNOOPPSSIISS", "SYNOPSIS")


@pytest.mark.parametrize(
    ("words", "index", "offered"),
    [("hpcxrf re", 1, {"report", "resume", "retry"}), ("hpcxrf run --se", 2, {"--set"}), ("hpcxrf site ", 2, {"init"})],
)
def test_the_shell_is_offered_commands_and_options(words, index, offered):
    environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(index), "_HPCXRF_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-m", "hpcxrf"], capture_output=True, text=True, check=True, env=environment)
    assert offered <= set(done.stdout.split())
    assert all(word.startswith(words.split(" ")[-1]) for word in done.stdout.split())


def test_the_wheel_installs_pages_and_completion_where_shells_and_man_look(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = tracked.stdout.splitlines() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    for name in names:
        if name.startswith(("hpcxrf/", "slurm/", "workflows/")) or "/" not in name:
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "tree", capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("hpcxrf-*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    # Templates, tables and scripts: what a page or a command opens is of no use in the repository alone.
    opened = [n for n in names if n.startswith("hpcxrf/") and n.endswith((".j2", ".yaml", ".csv", ".js", ".css"))]
    assert len(opened) > 10
    assert [name for name in opened if name not in packed] == []
    inside = {name.partition(".data/data/")[2]: name for name in packed}
    for page in FOLDER.glob("*.1"):
        assert f"share/man/man1/{page.name}" in inside
    for place in (
        "share/bash-completion/completions/hpcxrf",
        "share/zsh/site-functions/_hpcxrf",
        "share/fish/vendor_completions.d/hpcxrf.fish",
        "share/hpcxrf/sites/generic-gpu.yaml",
        "share/hpcxrf/workflows/scan.yaml",
    ):
        assert place in inside
