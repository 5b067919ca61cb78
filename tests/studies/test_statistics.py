"""The tables of a benchmark, against numbers worked out by hand and by numpy; its page, as a browser shows it."""

import csv
import html
import math
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pages import browse, parsed

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.notes import Note
from hpcxrf.studies.arms import ARMS
from hpcxrf.studies.benchmark import page as benchmark_page
from hpcxrf.studies.benchmark.method_result import MethodResult, read_result, write_result
from hpcxrf.studies.benchmark.page import (
    BenchmarkSummary,
    FailedTask,
    list_dataset_rows,
    write_fits_csv,
    write_page,
    write_table_csv,
)
from hpcxrf.studies.benchmark.plots import cpu_bins, draw_cpu_histograms, draw_r2_histograms, r2_bins
from hpcxrf.studies.benchmark.printout import make_search_tables, make_shared_tables
from hpcxrf.studies.benchmark.statistics import (
    FAILED_STATUS,
    DatasetResults,
    Truth,
    calibration_error_kev,
    gather,
    open_statistics,
    save_statistics,
)
from hpcxrf.studies.benchmark.tables import (
    amplitude_errors,
    build_tables,
    calibration_errors,
    compare_pair,
    compare_shared,
    list_search_steps,
    summarise_distribution,
)

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"
METHODS = ("separable", "separable-start", "product", "adam")
THETA = {"energy_offset": 0.0, "energy_slope": 0.01, "energy_quadratic": 0.0, "fwhm_offset": 0.1}


def result(method="adam", r2=0.9, **changes) -> MethodResult:
    facts = {
        "method": method,
        "status": FitStatus.CONVERGED,
        "r2": r2,
        "r2_expected": 0.99,
        "deviance": 1.2,
        "cpu_s": 1.0,
        "wall_s": 1.1,
        "evaluations": 500,
        "counts": 1e5,
        "parameters": tuple(THETA),
        "theta": tuple(THETA.values()),
        "theta_sigma": (1e-3, 1e-5, math.nan, 1e-3),
        "components": ("Fe", "Zn"),
        "amplitude": (5000.0, 300.0),
        "energy_range_kev": (1.0, 11.0),
    }
    return MethodResult(**{**facts, **changes})


def archive(r2_by_method: dict[str, list], task="initial", **changes) -> xr.Dataset:
    """Datasets whose fits have these R2; None: failed, absent: not asked."""
    length = max(map(len, r2_by_method.values()))
    datasets = []
    for i in range(length):
        column = {m: v[i] for m, v in r2_by_method.items() if i < len(v)}
        datasets.append(
            DatasetResults(
                dataset_id=f"d-{i}",
                source=f"d{i}.h5",
                asked=frozenset((task, m) for m in column),
                results={(task, m): result(m, v, **changes) for m, v in column.items() if v is not None},
                reasons={(task, m): "no luck" for m, v in column.items() if v is None},
            )
        )
    return gather(datasets, (task,), tuple(r2_by_method), {"title": "test"})


def test_every_fit_is_found_at_its_labels_and_what_is_not_there_is_nan():
    one = result("adam", 0.7, components=("Zn", "Ca"), amplitude=(7.0, 8.0))
    datasets = [
        DatasetResults(
            dataset_id="a-1",
            source="a.h5",
            asked=frozenset({("initial", "adam"), ("initial", "separable")}),
            results={("initial", "adam"): one},
            reasons={("initial", "separable"): "it broke"},
        ),
        DatasetResults(
            dataset_id="b-2",
            source="b.h5",
            asked=frozenset({("refinement", "adam")}),
            results={("refinement", "adam"): result("adam", 0.8)},
        ),
    ]
    data = gather(datasets, ("initial", "refinement"), METHODS, {})
    first = data.sel(dataset="a-1", task="initial")
    assert first["r2"].sel({"method": "adam"}).item() == 0.7
    assert first["status"].values.tolist() == [FAILED_STATUS, 0, 0, FitStatus.CONVERGED]
    assert first["reason"].sel({"method": "separable"}).item() == "it broke"
    assert first["amplitude"].sel({"method": "adam", "component": ["Ca", "Zn"]}).values.tolist() == [8, 7]
    assert math.isnan(first["amplitude"].sel({"method": "adam", "component": "Fe"}).item())
    assert first["theta"].sel({"method": "adam", "parameter": "energy_slope"}).item() == 0.01
    second = data.sel({"dataset": "b-2", "task": "refinement", "method": "adam"})
    assert second["r2"].item() == 0.8
    assert second["source"].item() == "b.h5"
    assert np.isfinite(data["r2"].values).sum() == 2


def test_the_statistics_read_back_from_zarr_as_they_were(tmp_path):
    data = archive({"separable": [0.9, None], "adam": [0.5]})
    save_statistics(data, tmp_path / "s.zarr")
    save_statistics(data, tmp_path / "s.zarr")
    back = open_statistics(tmp_path / "s.zarr")
    xr.testing.assert_identical(back, data)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    with pytest.raises(OutputError, match="no statistics here"):
        open_statistics(tmp_path / "other.zarr")


def test_a_result_reads_back_from_its_file_with_its_nans(tmp_path):
    one = result(r2=math.nan, status=FitStatus.NONFINITE)
    write_result(tmp_path / "r.json", one)
    back = read_result(tmp_path / "r.json")
    assert repr(back) == repr(one)
    assert "NaN" not in (tmp_path / "r.json").read_text()
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(OutputError, match=r"r\.json: is not a result"):
        read_result(tmp_path / "r.json")


def test_a_distribution_has_the_figures_of_the_hand():
    data = archive({"adam": [0.5, 0.85, 0.95, 1.0, None]})
    row = summarise_distribution(data, "initial", "adam")
    assert (row.n, row.failures) == (5, 1)
    assert row.mean == pytest.approx(0.825)
    assert row.median == pytest.approx(0.9)
    # Squares of -0.325, 0.025, 0.125, 0.175 over three.
    assert row.sd == pytest.approx(math.sqrt((0.105625 + 0.000625 + 0.015625 + 0.030625) / 3))
    assert row.q25 == pytest.approx(0.7625)  # three quarters of the way from 0.5 to 0.85
    assert row.q75 == pytest.approx(0.9625)
    assert (row.above_080, row.above_090, row.above_099) == (0.6, 0.4, 0.2)
    assert row.excess_median == pytest.approx(0.9 - 0.99)
    assert row.cpu_median_s == 1.0


@given(st.lists(st.one_of(st.none(), st.floats(-5.0, 1.0)), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_a_distribution_agrees_with_numpy_and_forgets_the_order(values, random):
    row = summarise_distribution(archive({"adam": values}), "initial", "adam")
    known = np.array([v for v in values if v is not None])
    assert row.failures == len(values) - known.size
    if known.size:
        quantiles = np.percentile(known, [5, 25, 50, 75, 95])
        np.testing.assert_allclose([row.q05, row.q25, row.median, row.q75, row.q95], quantiles)
        np.testing.assert_allclose(row.mean, known.mean(), atol=1e-12)
    if known.size > 1:
        np.testing.assert_allclose(row.sd, np.std(known, ddof=1), atol=1e-12)
    for share, limit in ((row.above_080, 0.8), (row.above_090, 0.9), (row.above_099, 0.99)):
        assert share == pytest.approx(np.sum(known > limit) / len(values))
    shuffled = random.sample(values, len(values))
    again = summarise_distribution(archive({"adam": shuffled}), "initial", "adam")
    assert again.median == pytest.approx(row.median, nan_ok=True)
    assert again.failures == row.failures


def test_a_method_without_any_fit_has_a_row_of_failures():
    row = summarise_distribution(archive({"adam": [None, None]}), "initial", "adam")
    assert (row.n, row.failures, row.above_080) == (2, 2, 0.0)
    assert math.isnan(row.median)


def test_a_pair_counts_ties_as_equal_and_failures_as_lost():
    data = archive(
        {"separable": [0.9, 0.9, 0.9, None, 0.9, None, 0.9], "adam": [0.8, 0.90009, 0.9002, 0.1, None, None]}
    )
    row = compare_pair(data, "initial", "separable", "adam")
    # Better, equal, worse, lost, won by their failure, both failed; the seventh is not asked of adam.
    assert row.n == 6
    assert row.better_or_equal == pytest.approx(3 / 6)


def test_the_cpu_ratio_is_of_the_other_over_ours():
    cell = frozenset({("initial", "separable"), ("initial", "adam")})
    datasets = [
        DatasetResults(
            dataset_id=f"d-{i}",
            source="d",
            asked=cell,
            results={("initial", "separable"): result(cpu_s=2.0), ("initial", "adam"): result(cpu_s=seconds)},
        )
        for i, seconds in enumerate((2.0, 6.0, 20.0))
    ]
    data = gather(datasets, ("initial",), ("separable", "adam"), {})
    assert compare_pair(data, "initial", "separable", "adam").cpu_ratio == 3.0


def test_ours_are_compared_with_all_others_once():
    rows = build_tables(archive({"separable": [0.9], "product": [0.9], "adam": [0.9]})).pairs
    assert [(r.method, r.other) for r in rows] == [("separable", "product"), ("separable", "adam"), ("product", "adam")]


def test_every_method_of_one_range_and_background_stands_on_the_datasets_that_all_fitted():
    data = archive(
        {
            "separable-start": [0.1, 0.2, 0.3],
            "separable": [0.7, 0.8, 0.9, 0.95],
            "product": [0.71, 0.81, 0.91, 0.96],
            "adam": [0.3, None, 0.5],
            "adam-guessed": [0.6, 0.7, 0.8],
            "pymca": [0.99, 0.99],
            "pymca-shared": [0.65, 0.75],
        }
    )
    rows = compare_shared(data, "initial")
    # Own backgrounds and shorter searches are elsewhere; the product is last.
    assert [r.method for r in rows] == ["separable", "adam", "adam-guessed", "pymca-shared", "product"]
    assert [r.n for r in rows] == [2] * 5
    assert [r.median for r in rows] == pytest.approx([0.75, 0.3, 0.65, 0.7, 0.76])
    assert [r.failures for r in rows] == [0, 1, 0, 0, 0]
    assert compare_shared(archive({"product": [0.9]}), "initial") == []


def test_parts_of_the_search_are_counted_against_the_whole():
    data = archive(
        {
            "separable": [0.9, 0.9, 0.9, None, 0.9],
            "separable-pairs": [0.9, 0.90009, 0.89995, 0.5, None],
            "separable-start": [0.2, 0.9, 0.89, None, -3.0],
        }
    )
    start, pairs, whole = list_search_steps(data, "initial")
    assert [r.method for r in (start, pairs, whole)] == ["separable-start", "separable-pairs", "separable"]
    # Where the whole failed, any fit is as good; a failure never is.
    assert (start.as_good, pairs.as_good, whole.as_good) == pytest.approx((1 / 5, 4 / 5, 4 / 5))
    assert (start.lowest, start.n) == (-3.0, 5)
    assert list_search_steps(archive({"separable": [0.9]}), "initial") == []


def test_shorter_searches_are_in_no_pair_and_no_histogram():
    data = archive({"separable-near": [0.8], "separable": [0.9], "product": [0.9], "adam-guessed": [0.7]})
    pairs = build_tables(data).pairs
    assert {(r.method, r.other) for r in pairs} == {
        ("separable", "product"),
        ("separable", "adam-guessed"),
        ("product", "adam-guessed"),
    }
    titles = [axes.get_title() for axes in draw_r2_histograms(data).axes]
    assert titles == ["separable, initial", "product, initial", "adam-guessed, initial"]


def test_more_methods_than_fit_beside_each_other_go_on_in_a_row_below():
    names = ("separable", "product", "adam", "adam-guessed", "sbplx", "sbplx-guessed", "pymca")
    figure = draw_r2_histograms(archive({name: [0.9] for name in names}))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{name}, initial" for name in names]
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in figure.axes}) == 2


def simulated() -> xr.Dataset:
    """One dataset of 1e5 counts with a strong, a middle, a weak and an absent element."""
    names = ("Fe", "Zn", "Cu", "As")
    amplitude = (5100.0, 980.0, 110.0, 40.0)
    one = result(components=names, amplitude=amplitude, theta=(0.003, 0.0101, 0.0, 0.1))
    truth = Truth(
        amplitude={"initial": {"Fe": 5000.0, "Zn": 1000.0, "Cu": 100.0, "Mn": 1e4}},
        theta={"energy_offset": 0.0, "energy_slope": 0.01, "energy_quadratic": 0.0},
    )
    asked = frozenset({("initial", "adam")})
    fits = DatasetResults(dataset_id="s-1", source="s.h5", asked=asked, results={("initial", "adam"): one}, truth=truth)
    return gather([fits], ("initial",), ("adam",), {})


def test_errors_of_amplitudes_fall_into_their_strength():
    # 5 %, 1 % and 0.1 % of the counts; what is absent or was not fitted has no relative error.
    rows = {r.strength: r for r in amplitude_errors(simulated(), "initial", "adam")}
    assert rows["strong"].n == rows["middle"].n == rows["weak"].n == 1
    assert rows["strong"].median == pytest.approx(0.02)
    assert rows["middle"].mean == pytest.approx(-0.02)
    assert rows["weak"].q95 == pytest.approx(0.1)


def test_errors_of_the_axis_are_taken_at_both_ends():
    # Channels 100 and 1100: 3 eV + 100 x 0.1 eV and 3 eV + 1100 x 0.1 eV.
    low, high = calibration_errors(simulated(), "initial", "adam")
    assert (low.end, high.end) == ("low", "high")
    assert low.median_abs_kev == pytest.approx(0.013)
    assert high.q95_abs_kev == pytest.approx(0.113)


def test_the_ends_are_channels_of_the_true_axis_with_its_bend():
    true = {"energy_offset": 0.05, "energy_slope": 0.01, "energy_quadratic": 5e-8}
    one = result(theta=(0.06, 0.01, 5e-8, 0.1))
    np.testing.assert_allclose(calibration_error_kev(one, true), 0.01, atol=1e-12)
    channel = np.roots([5e-8, 0.01, 0.05 - 11.0]).max()
    bent = result(theta=(0.05, 0.01, 0.0, 0.1))
    assert calibration_error_kev(bent, true)[1] == pytest.approx(-5e-8 * channel**2)


def test_without_a_truth_there_are_no_errors():
    found = build_tables(archive({"adam": [0.9]}))
    assert found.amplitudes == found.calibrations == ()


def test_bins_hold_every_value():
    bins = r2_bins()
    assert bins[1] == 0.0
    assert bins[-1] == 1.0
    seconds = np.array([0.031, 0.5, 29.0, np.nan])
    edges = cpu_bins(seconds)
    assert edges[0] <= 0.031
    assert edges[-1] >= 29.0
    np.testing.assert_allclose(np.diff(np.log10(edges)), 0.1, atol=1e-9)


def test_a_histogram_shows_every_fit_and_those_below_zero_at_the_left():
    data = archive({"separable": [0.9, 0.99, -30.0, None], "adam": [0.1, 0.1, -0.5, -7.0]})
    figure = draw_r2_histograms(data)
    heights = [[patch.get_height() for patch in axes.patches] for axes in figure.axes]
    # In per cent of a method's datasets, of which one has failed.
    assert [sum(h) for h in heights] == pytest.approx([75.0, 100.0])
    assert [h[0] for h in heights] == pytest.approx([25.0, 50.0])
    assert "failed 1" in figure.axes[0].texts[0].get_text()
    assert len(draw_cpu_histograms(data).axes) == 1


def summary(**changes) -> BenchmarkSummary:
    facts = {
        "title": HOSTILE,
        "start": "narrow",
        "seed": 3,
        "background": "snip",
        "device": "CPU",
        "started": "2026-11-20T10:00:00+00:00",
        "finished": "2026-11-20T10:01:40+00:00",
        "seconds": 100.0,
        "command": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "configuration": HOSTILE,
        "notes": (Note("warning", HOSTILE),),
    }
    return BenchmarkSummary(**{**facts, **changes})


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """A benchmark with a truth, a failure, and names by an attacker."""
    path = tmp_path_factory.mktemp("benchmark") / "benchmark.html"
    true = Truth(amplitude={"initial": {"Fe": 5100.0}}, theta=THETA)
    cells = frozenset({("initial", m) for m in METHODS})
    bad = DatasetResults(
        dataset_id="x-1",
        source=HOSTILE,
        asked=cells,
        results={
            ("initial", "separable"): result("separable", 0.998),
            ("initial", "separable-start"): result("separable-start", 0.7),
            ("initial", "product"): result("product", 0.999),
        },
        reasons={("initial", "adam"): HOSTILE},
        truth=true,
    )
    good = DatasetResults(
        dataset_id="y-2",
        source="=cmd()",
        asked=frozenset({("initial", "adam")}),
        results={("initial", "adam"): result("adam", -0.3)},
    )
    data = gather([bad, good], ("initial",), METHODS, {})
    failed = FailedTask(dataset_id="x-1", source=HOSTILE, task="initial-adam", reason=HOSTILE)
    write_page(summary(), data, build_tables(data), [failed], path)
    write_fits_csv(data, path.with_name("benchmark.csv"))
    write_table_csv(build_tables(data).distributions, path.with_name("table.csv"))
    return path


def test_the_page_escapes_names_and_shows_all_tables(page_path):
    page = parsed(page_path.read_text(encoding="utf-8"))
    assert len(page.attributes("script")) == 1
    assert all(a["src"].startswith("data:image/webp") for a in page.attributes("img"))
    words = " ".join(page.texts)
    for arm in ("separable-start", "separable", "adam", "product"):
        assert ARMS[arm].words in words
    assert "{{ 7*7 }}" in words
    ids = {a.get("id") for a in page.attributes("table")}
    assert {"distributions", "shares", "shared", "ablation", "pairs", "amplitudes", "calibrations", "datasets"} <= ids
    assert any(a.get("id") == "failures" for a in page.attributes("section"))


@pytest.mark.browser
def test_a_browser_shows_the_pictures_and_sorts_the_tables(page_path, chromium, tmp_path):
    done = browse(chromium, tmp_path, "--dump-dom", page_path.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    assert 'data-images="2/2"' in re.search(r"<html[^>]*>", done.stdout).group()
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL).group(1)
    assert html.unescape(title) == f"{HOSTILE} – hpcxrf benchmark"
    assert len(parsed(done.stdout).attributes("button")) > 20


def test_the_csv_has_a_row_for_every_fit_that_was_asked_and_no_formula(page_path):
    with page_path.with_name("benchmark.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["dataset"], r["method"], r["status"]) for r in rows] == [
        ("x-1", "separable", "converged"),
        ("x-1", "separable-start", "converged"),
        ("x-1", "product", "converged"),
        ("x-1", "adam", "failed"),
        ("y-2", "adam", "converged"),
    ]
    assert rows[4]["source"] == "'=cmd()"
    assert rows[4]["r2"] == "-0.3"
    assert rows[3]["r2"] == ""
    with page_path.with_name("table.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(r["method"], r["n"], r["failures"]) for r in table] == [
        ("separable", "1", "0"),
        ("separable-start", "1", "0"),
        ("product", "1", "0"),
        ("adam", "2", "1"),
    ]


def test_a_long_table_shows_failures_first_then_the_lowest(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_page, "MAX_ROWS", 2)
    data = archive({"adam": [0.9, 0.2, None, 0.5]})
    worst = sorted(list_dataset_rows(data), key=lambda row: row.worst)
    assert [row.source for row in worst] == ["d2.h5", "d1.h5", "d3.h5", "d0.h5"]
    write_page(summary(), data, build_tables(data), [], tmp_path / "b.html")
    page = parsed((tmp_path / "b.html").read_text(encoding="utf-8"))
    assert any("4 rows; the table shows 2" in text for text in page.texts)
    assert [text for text in page.texts if text.endswith(".h5")] == ["d2.h5", "d1.h5"]


def test_the_tables_of_the_terminal_fit_into_eighty_columns():
    names = ("separable-pairs", "separable", "product", "sbplx", "sbplx-guessed", "pymca-shared")
    tables = build_tables(archive({name: [0.9876, -40.5809] for name in names}))
    for table in (*make_shared_tables(tables.shared), *make_search_tables(tables.ablation)):
        columns = zip(table.columns, *table.rows, strict=True)
        assert sum(max(map(len, cells)) + 1 for cells in columns) <= 79
        assert len(table.title) <= 80
