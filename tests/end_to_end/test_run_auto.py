"""A scan of which nobody lists the elements, from the command to the maps."""

import pytest

from hpcxrf.results.store.basis import component_names
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from tests.samples.commands import ELEMENTS, child

STRONG = {"Si", "K", "Ca", "Ti", "Mn", "Fe", "Cu", "Zn"}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_scan(simulate_scan(demo_spec(seed=3, shape=(1, 12, 16, 1536), name="small")), folder)
    return folder / "small.h50"


def test_a_run_without_a_list_maps_what_it_finds(scan, tmp_path):
    out = tmp_path / "out"
    options = ("--energy", "13.5", "--pixels", "nnls", "--workers", "1", "--set", "regions.find=[]")
    done = child("-m", "hpcxrf", "run", str(scan), "-o", str(out), *options)
    assert done.returncode == 0, done.stderr
    assert "elements found in the spectrum: certain" in done.stderr
    (store,) = (out / "results").glob("small-*.zarr")
    names = set(component_names(store)) - {"COHERENT_SCT_AMPLITUDE", "COMPTON_AMPLITUDE"}
    assert names >= STRONG
    # What the simulation hides from its list is found, and nothing that is not there.
    assert names <= {*ELEMENTS.split(","), "Se"}


@pytest.mark.parametrize("more", [(), ("--elements", "auto")])
def test_a_fit_without_a_list_says_how_sure_each_family_is(hpcxrf, scan, more):
    ran = hpcxrf("fit", scan, "--energy", 13.5, *more, "--json")
    assert ran.code == 0, ran.err
    assert set(ran.json["amplitudes"]) >= STRONG
    (said,) = [text for text in ran.json["notes"] if "elements found in the spectrum" in str(text)]
    assert "certain" in str(said)
