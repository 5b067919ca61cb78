"""The lowest versions that `pyproject.toml` allows: as constraints, and tried in an environment of their own.

    python docs/packaging/floors.py > floors.txt
    python docs/packaging/floors.py --run build/floors

torch is the version of `constraints.txt`: its lowest one is a build of several gigabytes.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FLOOR = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(\[[^]]*\])?>=(?P<version>[0-9.]+)")
_PINNED = "torch"


def list_floors(pyproject: Path) -> dict[str, str]:
    """List the lowest version of every package that hpcxrf depends on."""
    stated = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = [_FLOOR.fullmatch(text) for text in stated]
    if None in found:
        raise SystemExit(f"{pyproject}: every dependency is written as name>=version")
    return {match["name"]: match["version"] for match in found if match}


def read_pin(constraints: Path, name: str) -> str:
    """Read the version of a package in a file of constraints."""
    pins = dict(line.split("==") for line in constraints.read_text(encoding="utf-8").split())
    return pins[name]


def make_constraints() -> str:
    """Make the text of a file of constraints, one pin a line."""
    floors = list_floors(ROOT / "pyproject.toml") | {_PINNED: read_pin(ROOT / "constraints.txt", _PINNED)}
    return "".join(f"{name}=={version}\n" for name, version in floors.items())


def try_floors(folder: Path) -> None:
    """Install the lowest versions into `folder/venv`, then simulate, map, export and open a scan with them."""
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / "floors.txt"
    constraints.write_text(make_constraints(), encoding="utf-8")
    venv.create(folder / "venv", with_pip=True, clear=True)
    python = str(folder.absolute() / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    _run(*install, _PINNED)
    _run(*install, str(ROOT))
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    there = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in json.loads(listed.stdout)}
    for name, version in list_floors(ROOT / "pyproject.toml").items():
        print(f"{name} {there[name.lower()]} (lowest: {version})", flush=True)
    scan, out = folder.absolute() / "scan", folder.absolute() / "out"
    command = [python, "-P", "-m", "hpcxrf"]
    _run(*command, "simulate", "-o", str(scan), "--size", "24", "32", cwd=folder)
    files = [str(sorted(scan.glob("*.h50"))[0])]
    elements = "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,As,Pb_L"
    _run(*command, "run", *files, "--elements", elements, "--workers", "1", "-o", str(out), cwd=folder)
    for form in ("nexus", "maps", "tiff", "csv"):
        _run(*command, "export", str(out), "--to", form, cwd=folder)
    code = (
        "import sys, hpcxrf; maps = hpcxrf.open_results(sys.argv[1]).maps(); hpcxrf.plot_maps(maps, ['Fe']); "
        "print(float(maps.xrf.map('Fe').sum()))"
    )
    _run(python, "-P", "-c", code, str(out), cwd=folder)


def _run(*words: str, cwd: Path = ROOT) -> None:
    print("+", *words, flush=True)
    subprocess.run(words, check=True, cwd=cwd)


def main() -> None:
    """Print the constraints, or try them."""
    parser = argparse.ArgumentParser(description="Lowest versions that pyproject.toml allows.")
    parser.add_argument("--run", type=Path, metavar="DIR", help="install and try them in this folder")
    given = parser.parse_args()
    if given.run is None:
        sys.stdout.write(make_constraints())
    else:
        try_floors(given.run)


if __name__ == "__main__":
    main()
