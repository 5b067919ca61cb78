"""Line data of other tables: fisx (Chen, Bhalla, Scofield), xraydb (Elam) and EADL97, read from their files."""

from collections import defaultdict
from functools import cache

from make_line_data import MissingPackageError, folder_of, read_elam, read_livermore

from tests.conftest import skip_or_fail

SUBSHELLS = {"K": ("K",), "L": ("L1", "L2", "L3"), "M": ("M1", "M2", "M3", "M4", "M5")}
FISX = {"K": "KShell", "L": "LShell", "M": "MShell"}


def require_tables():
    """Skip, or fail in CI, where a package of the test extra is missing."""
    try:
        folder_of("fisx"), folder_of("xraydb")
    except MissingPackageError as error:
        skip_or_fail(str(error))


@cache
def read_fisx(name):
    """{subshell: {Z: {column: value}}} of a file of fisx."""
    found, labels, subshell = defaultdict(dict), [], ""
    for line in (folder_of("fisx") / "fisx_data" / f"{name}.dat").read_text().splitlines():
        if line.startswith("#S"):
            subshell = line.split()[2].split("-")[0]
        elif line.startswith("#L"):
            labels = line.split()[1:]
        elif line and not line.startswith("#"):
            values = line.split()
            found[subshell][int(float(values[0]))] = dict(zip(labels[1:], map(float, values[1:]), strict=True))
    return found


@cache
def elam():
    return read_elam()


@cache
def livermore(name):
    return read_livermore(name)


def fisx_yield(z, subshell):
    return read_fisx(f"{FISX[subshell[0]]}Constants")[subshell][z].get(f"omega{subshell}", 0.0)


def fisx_shares(z, subshell):
    """{outer shell: share of the subshell's photons}."""
    rates = read_fisx(f"{FISX[subshell[0]]}Rates")[subshell].get(z, {})
    total = sum(rate for name, rate in rates.items() if name != "TOTAL")
    return {name.removeprefix(subshell): rate / total for name, rate in rates.items() if name != "TOTAL" and rate > 0}


def elam_lines(z, subshell):
    """{outer shell: (energy in keV, share)}."""
    return {outer: (energy, share) for inner, outer, energy, share in elam()[2][z] if inner == subshell}
