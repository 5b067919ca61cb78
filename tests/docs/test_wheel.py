"""A stranger's path: the wheel in a fresh environment without the checkout, and commands of the pages as written."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import hpcxrf
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

ROOT = Path(__file__).resolve().parents[2]
START = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
DENSITIES = (ROOT / "docs" / "how-to" / "areal-densities.md").read_text(encoding="utf-8")

# Kernels are compiled for the place where the wheel lies.
pytestmark = [pytest.mark.more, pytest.mark.timeout(1200)]


def shell_lines(page: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of the tracked files and of those that are about to be."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        if name.startswith(("hpcxrf/", "slurm/", "workflows/")) or "/" not in name:
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "tree", capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("hpcxrf-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a line of a page in a fresh environment with the wheel; the packages it needs are those of the tests."""
    folder = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "xrf")], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "xrf"), "platbase": str(folder / "xrf")}))
    install = [sys.executable, "-m", "pip", "--python", str(folder / "xrf" / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    # A line of path alone: what an editable installation adds by code of its own stays out.
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}}
    environment |= {"PATH": f"{folder / 'xrf' / 'bin'}:{os.environ['PATH']}", "COLUMNS": "200"}

    def run(line: str, *, code: int = 0) -> str:
        done = subprocess.run(
            shlex.split(line, comments=True), cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    run.folder = folder
    return run


def test_the_package_is_that_of_the_wheel(installed):
    where = installed("python -c 'import hpcxrf; print(hpcxrf.__file__)'")
    assert Path(where.strip()).is_relative_to(installed.folder)
    assert installed("hpcxrf --version").strip() == f"hpcxrf {hpcxrf.__version__}"


@pytest.mark.slow
def test_the_demonstration_runs(installed):
    assert "hpcxrf demo" in shell_lines(START)
    installed("hpcxrf demo --workers 1")
    run = installed.folder / "hpcxrf-demo" / "run"
    assert (run / "report.html").stat().st_size > 100_000
    page = (ROOT / "docs" / "reference" / "what-a-run-leaves.md").read_text(encoding="utf-8")
    told = [name.rstrip("/") for name in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)]
    for path in run.rglob("*"):
        if any(folder.suffix == ".zarr" for folder in path.parents):
            continue
        place = re.sub(r"leaf_on_soil-[0-9a-f]{8}", "<dataset>", str(path.relative_to(run)))
        known = (name == place or name.startswith(f"{place}/") or place.startswith(f"{name}/") for name in told)
        assert any(known), f"{place} is not on the page of what a run leaves"


@pytest.mark.slow
def test_the_commands_of_the_first_page_run_in_their_order(installed):
    write_scan(simulate_scan(demo_spec(seed=2, shape=(1, 6, 9, 2048), name="scan")), installed.folder)
    own = [line for line in shell_lines(START) if re.match(r"hpcxrf (inspect|fit|run|export)\b", line)]
    assert [line.split()[1] for line in own] == ["inspect", "fit", "run", "export"]
    for line in own:
        installed(line)
    assert list((installed.folder / "out" / "export" / "nexus").glob("scan-*.nxs"))
    (code,) = re.findall(r"^```python\n(.*?)^```", START, re.DOTALL | re.MULTILINE)
    script = installed.folder / "read_maps.py"
    script.write_text(code + "\nprint(iron.shape, error.attrs['units'])\n", encoding="utf-8")
    assert installed("python read_maps.py").split() == ["(1,", "6,", "9)", "count"]


def test_a_run_file_comes_with_it(installed):
    names = [line.partition(":")[0] for line in installed("hpcxrf init").splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "workflows").glob("*.yaml"))
    installed("hpcxrf init scan -o mine.yaml")
    assert "input" in yaml.safe_load((installed.folder / "mine.yaml").read_text(encoding="utf-8"))
    assert "generic-cpu: " in installed("hpcxrf site list")


@pytest.mark.slow
def test_measured_scans_become_areal_densities_by_the_command_of_the_page(installed, shared_data):
    (line,) = [one for one in shell_lines(DENSITIES) if one.startswith("hpcxrf quantify out ")]
    data = shared_data / "aps-2ide"
    names = ("mda/2xfm_0010.mda", "mda/axo_std.mda", "maps_standardinfo.txt", "maps_fit_parameters_override.txt")
    for path in (data / name for name in names):
        (installed.folder / path.name).write_bytes(path.read_bytes())
    installed("hpcxrf run 2xfm_0010.mda --elements Si,S,Ar,Ca,Fe,Cu,Zn --energy 10 --set regions.find=[] -o densities")
    installed(line.replace("quantify out", "quantify densities"))
    code = "import hpcxrf; print(hpcxrf.open_results('densities').areal_density().areal_density.attrs['units'])"
    assert installed(f'python -c "{code}"').strip() == "ug cm-2"


def test_the_metadata_says_where_the_project_lives(wheel):
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [one for one in packed.namelist() if one.endswith(".dist-info/METADATA")]
        facts = Parser().parsestr(packed.read(name).decode())
    links = dict(text.split(", ", 1) for text in facts.get_all("Project-URL"))
    assert set(links) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(link.startswith("https://github.com/hpcxrf/hpcxrf") for link in links.values())
    assert facts["Description-Content-Type"] == "text/markdown"
    # What an index shows has no files beside it.
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", str(facts.get_payload()))
    assert pictures
    assert all(link.startswith("https://") for link in pictures)
