"""A run beside files of other programs of the same scan: detectors, shapes, lines and families, page and JSON."""

import json

import numpy as np
import pytest
import xraylib
from pages import browse, parsed
from peer_maps import LIVE_S, write_pyxrf, write_xrf_maps
from run_samples import jobs_of, run_maps, spectrum, write_scan
from typer.testing import CliRunner

from hpcxrf.cli.app import app
from hpcxrf.errors import ConfigError
from hpcxrf.physics.detector import Detector
from hpcxrf.pipeline.compare import compare_with, share_strongest_lines
from hpcxrf.results.opened import find_results

ELEMENTS = ("Ca", "Fe", "Zn")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    grain = np.linspace(0.5, 1.5, 30).reshape(1, 5, 6, 1)
    mean = grain * spectrum({"Ca": 200.0, "Fe": 300.0, "Zn": 100.0})
    write_scan(folder, mean, elements=ELEMENTS)
    (job,) = jobs_of(folder, folder / "run")
    return run_maps(job)[0]


@pytest.fixture(scope="module")
def ours(store):
    maps = find_results(store).maps().load()
    return {
        str(name): maps["amplitude"].sel(component=name).values[0].astype(float) for name in maps["component"].values
    }


def test_the_share_of_the_strongest_line_is_that_of_its_radiative_rate():
    found = share_strongest_lines(["Fe", "Pt_L", "COMPTON_AMPLITUDE", "Si_Si"], 17.0, Detector())
    assert set(found) == {"Fe", "Pt_L"}
    # 5.9 to 7.1 keV: windows and path pass all lines of Fe alike.
    assert found["Fe"] == pytest.approx(xraylib.RadRate(26, xraylib.KA1_LINE), rel=0.02)
    assert 0.3 < found["Pt_L"] < 0.6


def test_counts_of_the_strongest_line_agree_with_counts_of_the_family(store, ours, tmp_path):
    shares = share_strongest_lines(ELEMENTS, 10.0, Detector())
    rates = {name: ours[name] * shares[name] / LIVE_S for name in ELEMENTS} | {"Au_M": ours["Fe"]}
    (found,) = compare_with(store, write_xrf_maps(tmp_path / "scan.h50", rates))
    assert [one.component for one in found.agreements] == list(ELEMENTS)
    for one in found.agreements:
        assert one.ratio == pytest.approx(1.0, abs=1e-5)
        assert one.correlation == pytest.approx(1.0, abs=1e-6)
    assert found.only_theirs == ("Au_M",)
    assert "COMPTON_AMPLITUDE" in found.only_ours


def test_windows_are_compared_as_they_are(store, ours, tmp_path):
    path = write_xrf_maps(tmp_path / "scan.h50", {"Fe": 2 * ours["Fe"] / LIVE_S}, method="ROI")
    (found,) = compare_with(store, path)
    assert found.agreements[0].ratio == pytest.approx(2.0, rel=1e-5)


def test_other_detectors_of_the_file_are_left_out_and_named_where_there_is_no_other(store, ours, tmp_path):
    both = write_pyxrf(tmp_path / "both.h5", {"det1": {"Fe_K": ours["Fe"]}, "det2": {"Fe_K": ours["Fe"]}})
    (found,) = compare_with(store, both)
    assert found.detector == "0"
    second = write_pyxrf(tmp_path / "second.h5", {"det2": {"Fe_K": ours["Fe"]}})
    with pytest.raises(ConfigError, match="maps of detector 1, and the results of 0"):
        compare_with(store, second)


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ({"Fe_K": np.ones((5, 9))}, {}, "5 rows and 9 columns, those of .* 5 and 6"),
        ({"Au_M": np.ones((5, 6))}, {}, "none of its components"),
        ({"Fe_K": np.ones((5, 6))}, {"method": "nnls"}, "no maps of method 'nnls'; there are xrf_fit"),
        ({"Fe_K": np.ones((5, 6))}, {"detector": "7"}, "detector '7' is not in the results; there are 0"),
        ({"Fe_K": np.ones((5, 6))}, {"dataset": "moon"}, "'moon' is not a finished dataset"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_both_sides(store, tmp_path, maps, options, message):
    path = write_pyxrf(tmp_path / "theirs.h5", {"det1": maps})
    with pytest.raises(ConfigError, match=message):
        compare_with(store, path, **options)


def test_the_command_prints_a_table_or_json_and_writes_the_page(store, ours, tmp_path):
    path = write_pyxrf(tmp_path / "<b>theirs.h5", {"det1": {"Fe_K": 1.1 * ours["Fe"], "compton": ours["Fe"]}})
    page = tmp_path / "page.html"
    plain = CliRunner().invoke(app, ["compare", str(store), "--with", str(path), "-o", str(page)])
    assert plain.exit_code == 0, plain.output
    assert "1.1000" in plain.output
    found = json.loads(CliRunner().invoke(app, ["compare", str(store), "--with", str(path), "--json"]).stdout)
    (one,) = found["comparisons"]
    assert one["program"] == "PyXRF"
    assert one["components"][0]["ratio"] == pytest.approx(1.1, rel=1e-5)
    html = page.read_text()
    assert "<b>theirs" not in html
    drawn = parsed(html)
    assert len(drawn.attributes("img")) == 3 * 2


@pytest.mark.browser
def test_the_browser_shows_the_page_without_a_complaint(store, ours, tmp_path, chromium):
    path = write_pyxrf(tmp_path / "theirs.h5", {"det1": {"Fe_K": 1.1 * ours["Fe"]}})
    compare_with(store, path, page=tmp_path / "page.html")
    done = browse(chromium, tmp_path, "--dump-dom", (tmp_path / "page.html").as_uri())
    assert "CONSOLE" not in done.stderr
    assert "aria-sort" in done.stdout or "<th><button" in done.stdout


def test_what_this_program_exports_in_the_layout_of_xrf_maps_agrees_with_itself(store, tmp_path):
    (path,) = find_results(store).to("maps", tmp_path / "scan.h50")
    (found,) = compare_with(store, path)
    assert found.quantity == "family"
    for one in found.agreements:
        assert one.ratio == pytest.approx(1.0, abs=1e-5)
