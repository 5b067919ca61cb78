"""Maps that add up to more than there is are named, with the excess; those within chance are not."""

import numpy as np
import pytest
from run_samples import SLOPE_KEV, maps_of, run_scan, spectrum, write_scan

import hpcxrf
from hpcxrf.config.pixels import PixelConfig
from hpcxrf.pipeline.pixels.excess import describe_excess, find_excess

NAMES = ("Fe", "Co", "Pt_L", "Zn")
NNLS = PixelConfig(method="nnls")


def found(total, amplitude, *, sigma=10.0, variance=100.0):
    n = len(total)
    return find_excess(
        NAMES[:n],
        np.array(total),
        np.full(n, variance),
        np.array(amplitude),
        np.broadcast_to(sigma, (n,)).astype(float),
    )


def test_an_excess_needs_three_sigmas_and_three_per_cent():
    names = [one.component for one in found([1020.0, 1020.0, 1050.0, 1025.0], [1000.0, 1000.0, 1000.0, 1000.0])]
    assert names == ["Pt_L"]
    assert found([131.0], [100.0], sigma=10.0)
    assert not found([129.0], [100.0], sigma=10.0)
    assert not found([102_900.0], [100_000.0])
    assert found([103_100.0], [100_000.0])


def test_the_uncertainty_is_the_larger_of_map_and_fit():
    assert not found([160.0], [100.0], sigma=1.0, variance=900.0)
    assert not found([160.0], [100.0], sigma=30.0, variance=1.0)
    assert found([160.0], [100.0], sigma=1.0, variance=1.0)


def test_a_component_that_is_not_there_is_named_by_its_counts():
    high = found([1000.0, 60_000.0, 1250.0], [1000.0, 0.0, 1000.0])
    (note,) = describe_excess("0", high, NNLS)
    assert note.kind == "warning"
    assert note.text.startswith("detector 0: maps of nnls add up to more than the fit of the summed spectrum: ")
    assert "Co (6e+04 counts, not 0 ± 10)" in note.text
    assert "Pt_L +25 % (1250 counts, not 1000 ± 10)" in note.text
    assert "Fe" not in note.text
    assert "linear" in note.text


def test_detectors_without_a_solution_and_nothing_high_are_no_notes():
    assert found([0.0, 1.0], [np.nan, np.nan]) == []
    assert describe_excess("0", [], NNLS) == []


@pytest.fixture(scope="module")
def mean():
    """(1, 24, 40, channel): iron, and neither cobalt nor manganese."""
    return np.broadcast_to(spectrum({"Fe": 300.0, "Ca": 20.0}), (1, 24, 40, 1200))


@pytest.mark.parametrize("method", ["linear", "nnls"])
def test_a_run_warns_of_absent_neighbours_of_iron_and_says_so_on_its_page(tmp_path, mean, method):
    write_scan(tmp_path, mean, elements=("Ca", "Mn", "Fe", "Co"))
    store, records = run_scan(tmp_path, tmp_path / "run", pixels={"method": method, "deviance": False})
    warned = [note.text for note in records["finalise"].notes]
    total = maps_of(store).amplitude.sum(["y", "x"]).sel(component="Co").item()
    if method == "linear":
        assert warned == []
        return
    assert total > 300
    (text,) = warned
    assert "maps of nnls add up to more" in text
    assert "Co" in text
    assert "Fe" not in text.split("Co")[0].split(":")[-1]
    (page,) = (tmp_path / "run").rglob("*.html")
    assert "maps of nnls add up to more" in page.read_text()


def test_maps_in_memory_warn_as_well(mean):
    counts = np.random.default_rng(3).poisson(mean[0]).astype(np.uint16)
    fit = hpcxrf.fit_spectrum(
        counts.sum(axis=(0, 1)), ["Ca", "Mn", "Fe", "Co"], 10.0, energy_offset_kev=0.0, energy_slope_kev=SLOPE_KEV
    )
    maps = hpcxrf.fit_map(counts, fit, method="nnls", deviance=False)
    assert "maps of nnls add up to more" in maps.attrs["notes"]
