"""What a benchmark asks of which dataset, from which seeds, and what it refuses."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.config.benchmark import BenchmarkConfig
from hpcxrf.config.run import RunConfig, check_config
from hpcxrf.errors import ConfigError
from hpcxrf.studies.arms import ARMS, list_arms
from hpcxrf.studies.benchmark.plan import central_region, check_benchmark, choose_arms, seed_of

NAMES = [f"scan-{i:08x}" for i in range(50)]


def config(**benchmark) -> RunConfig:
    return check_config({"input": {"files": ["x"]}, "benchmark": benchmark}, "test")


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 5))
def test_the_choice_depends_neither_on_order_nor_on_other_methods(random, number, seed):
    first = BenchmarkConfig(datasets={"adam": number}, seed=seed)
    other = BenchmarkConfig(methods=("adam", "sbplx"), datasets={"sbplx": 3, "adam": number}, seed=seed)
    shuffled = random.sample(NAMES, len(NAMES))
    chosen = {n for n, m in choose_arms(NAMES, first).items() if "adam" in m}
    assert len(chosen) == min(number, len(NAMES))
    assert chosen == {n for n, m in choose_arms(shuffled, other).items() if "adam" in m}


def test_another_seed_chooses_others_and_a_larger_number_keeps_the_smaller():
    def chosen(number: int, seed: int) -> set[str]:
        asked = BenchmarkConfig(datasets={"adam": number}, seed=seed)
        return {n for n, m in choose_arms(NAMES, asked).items() if "adam" in m}

    assert chosen(10, 0) != chosen(10, 1)
    assert chosen(10, 0) < chosen(20, 0)


def test_methods_keep_the_order_of_the_run_file_and_without_a_number_get_all():
    methods = choose_arms(NAMES, BenchmarkConfig(methods=("product", "separable")))
    assert set(methods.values()) == {("product", "separable")}


def test_published_optimisers_have_a_row_for_each_start_and_the_search_one_for_each_part():
    assert list_arms(BenchmarkConfig(methods=("adam", "product", "sbplx"))) == (
        "adam",
        "adam-guessed",
        "product",
        "sbplx",
        "sbplx-guessed",
    )
    assert list_arms(BenchmarkConfig(methods=("adam",), amplitudes=("guessed",))) == ("adam-guessed",)
    asked = BenchmarkConfig(methods=("separable", "pymca"), ablation=("pairs", "start"))
    assert list_arms(asked) == ("separable-pairs", "separable-start", "separable", "pymca", "pymca-shared")
    assert [ARMS[a].search for a in list_arms(asked)[:3]] == ["pairs", "start", "screen"]


def test_a_number_of_datasets_holds_for_every_row_of_its_method():
    asked = BenchmarkConfig(methods=("separable", "sbplx"), datasets={"sbplx": 3}, ablation=("near",))
    arms = choose_arms(NAMES, asked)
    few = [name for name, mine in arms.items() if "sbplx" in mine]
    assert len(few) == 3
    assert all("sbplx-guessed" in arms[name] for name in few)
    assert {mine for name, mine in arms.items() if name not in few} == {("separable-near", "separable")}


def test_seeds_are_the_same_everywhere_and_differ_in_every_argument():
    # The first 64 bits of sha256("7\nscan-1\ninitial"), by sha256sum, without their last 11.
    assert seed_of(7, "scan-1", "initial") == 0xA8F41039361493C4 >> 11
    every = {seed_of(s, d, t) for s in range(10) for d in ("scan-1", "scan-11") for t in ("initial", "refinement")}
    assert len(every) == 40


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((500, 600), (237, 262), (287, 312)),
        ((8, 8), (2, 6), (2, 6)),
        ((30, 100), (7, 22), (42, 57)),
        ((3, 3), (0, 2), (0, 2)),
        ((1, 40), (0, 1), (19, 21)),
        ((1, 1), (0, 1), (0, 1)),
    ],
)
def test_the_region_is_a_centred_square(shape, rows, columns):
    y, x = central_region(shape)
    assert (y.start, y.stop) == rows
    assert (x.start, x.stop) == columns


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_region_lies_inside_and_in_the_middle(n_y, n_x):
    for n, part in zip((n_y, n_x), central_region((n_y, n_x)), strict=True):
        inside = np.arange(n)[part]
        assert 1 <= inside.size <= 25
        assert abs(inside.mean() - (n - 1) / 2) <= 0.5


def test_what_cannot_be_compared_is_refused_all_at_once(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    asked = config(methods=["adam", "sbplx", "pymca", "adam"])
    with pytest.raises(ConfigError) as refused:
        check_benchmark(asked)
    said = str(refused.value)
    assert "sbplx needs the package nlopt, which is not installed: pip install hpcxrf[bench]" in said
    assert "pymca needs the package PyMca5" in said
    assert "benchmark.methods" in said
    assert "refinement starts from the initial separable fit" in said


@pytest.mark.parametrize("calibration", ["none", "previous"])
def test_a_benchmark_needs_a_calibration_to_start_around(calibration):
    fit = {"calibration": calibration} | ({"previous": "x.zarr"} if calibration == "previous" else {})
    raw = {"input": {"files": ["x"]}, "fit": fit, "benchmark": {"methods": ["separable"]}}
    with pytest.raises(ConfigError, match="starting values are drawn around"):
        check_benchmark(check_config(raw, "test"))


def test_an_initial_task_alone_needs_no_separable_fit():
    check_benchmark(config(methods=["adam"], tasks=["initial"]))


@pytest.mark.parametrize("name", ["amplitudes", "peer_backgrounds"])
def test_a_list_of_variants_names_each_once_and_at_least_one(name):
    for values in ([], [*getattr(BenchmarkConfig(), name)] * 2):
        with pytest.raises(ConfigError, match=f"benchmark.{name}: .*name each once"):
            check_benchmark(config(methods=["separable"], **{name: values}))
    check_benchmark(config(methods=["separable"], ablation=[]))


def test_a_fitted_background_cannot_be_shared_with_another_program(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    asked = {"methods": ["separable", "pymca"], "background": "hats"}
    with pytest.raises(ConfigError, match=r"hats .* give background: snip or peer_backgrounds: \[own"):
        check_benchmark(config(**asked))
    check_benchmark(config(**asked, peer_backgrounds=["own"]))
    check_benchmark(config(methods=["separable"], background="hats"))
