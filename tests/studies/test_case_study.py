"""What a case study asks for, in which order, and how its errors are counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.simulate import archive_spec, demo_spec
from hpcxrf.simulate.spec import list_families
from hpcxrf.simulate.spectra import emission_lines
from hpcxrf.studies.case_study.fits import StudyFits, join_fits, read_fits, write_fits
from hpcxrf.studies.case_study.plan import (
    COMPARED,
    MAPPED,
    PRODUCT,
    SINGLE,
    STUDY_STAGES,
    check_case_study,
    plan_units,
    study_scan,
)
from hpcxrf.studies.case_study.printout import make_draw_table
from hpcxrf.studies.case_study.tables import (
    StudyData,
    list_area_rows,
    list_draw_rows,
    list_fit_rows,
    list_map_rows,
    list_pixel_rows,
)
from hpcxrf.studies.case_study.workload import make_dataset

ASKED = {"input": {"files": ["scan/plant.h50"]}, "fit": {"calibration": "none"}, "regions": {"find": ["squares"]}}
OK, EMPTY = int(FitStatus.CONVERGED), int(FitStatus.EMPTY)


def config(**sections):
    return check_config(ASKED | {"case_study": {}} | sections, "test")


@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=4),
    starts=st.integers(1, 5),
    trials=st.integers(0, 4),
    draws=st.integers(0, 9),
    data=st.data(),
)
def test_every_asked_spectrum_is_fitted_once_by_every_method_after_what_it_needs(sizes, starts, trials, draws, data):
    mapped = data.draw(st.integers(0, len(sizes) - 1))
    chosen = tuple(sorted(data.draw(st.sets(st.integers(0, max(sizes) - 1), max_size=80))))
    asked = config(case_study={"starts": starts, "trials": trials, "draws": draws})
    units = plan_units(asked, tuple(sizes), mapped, chosen)
    before: set[str] = set()
    for unit in units:
        assert set(unit.needs) <= before
        assert unit.task not in before
        before.add(unit.task)
    assert [STUDY_STAGES.index(u.stage) for u in units] == sorted(STUDY_STAGES.index(u.stage) for u in units)

    def rows(stage, spectra, method):
        mine = [u for u in units if (u.stage, u.spectra, u.method) == (stage, spectra, method)]
        return [row for u in mine for row in u.rows]

    for region, n in enumerate(sizes):
        for method in SINGLE:
            found = rows("single-pixels", f"pixels-{region}", method)
            assert found == [i for i in chosen if i < n]
        for method in MAPPED:
            wanted = list(range(n)) if region == mapped else []
            assert rows("map", f"pixels-{region}", method) == wanted
        for method in COMPARED:
            assert rows("areas", f"region-{region}", method) == [0]
            assert rows("draws", f"draws-{region}", method) == list(range(draws))
    assert sum(u.region is not None for u in units) == (len(sizes) if draws else 0)
    for method in ("separable", "adam", "adam-guessed", "sbplx", "sbplx-guessed"):
        mine = [u for u in units if u.stage == "first-pass" and u.method == method]
        assert [u.start for u in mine] == list(range(starts))
    assert [u.task for u in units if u.method == "product" and u.stage == "first-pass"] == [PRODUCT]
    assert sum(u.stage == "trials" for u in units) == trials * 5
    for method in ("product", "adam", "adam-guessed", "sbplx", "sbplx-guessed"):
        mine = [u for u in units if u.stage == "trials" and u.method == method]
        # Another start of the amplitudes has the same random parameters.
        assert [(u.start, u.source) for u in mine] == [(i, f"trial-{i:03}") for i in range(trials)]


@pytest.mark.parametrize("amplitudes", [["random"], ["guessed"]])
def test_a_start_of_amplitudes_that_is_not_asked_for_is_not_fitted(amplitudes):
    units = plan_units(config(case_study={"amplitudes": amplitudes}), (9,), 0, (0,))
    first = {u.method for u in units if u.stage in {"first-pass", "trials"}}
    suffix = "" if amplitudes == ["random"] else "-guessed"
    assert first == {"product", "separable", f"adam{suffix}", f"sbplx{suffix}"}
    for wrong in ([], amplitudes * 2):
        with pytest.raises(ConfigError, match=r"case_study\.amplitudes: .*name each once"):
            check_case_study(config(case_study={"amplitudes": wrong}))


def test_a_run_file_of_something_else_is_refused_with_all_its_faults_at_once():
    check_case_study(config())
    other = check_config(
        {"input": {"files": ["scan.mda"]}, "regions": {"find": ["phases"]}, "sample": {"elements": ["Fe"]}}, "test"
    )
    with pytest.raises(ConfigError) as told:
        check_case_study(other)
    for word in ("NAME.h50", "squares", "calibration", "elements"):
        assert word in str(told.value)
    with pytest.raises(ConfigError, match="none; give find"):
        check_case_study(config(regions={"find": []}))
    with pytest.raises(ConfigError, match=r"pixels\.detectors: sum"):
        check_case_study(config(pixels={"detectors": "sum"}))


@pytest.mark.parametrize(("given", "names"), [({}, ("0", "1")), ({"detectors": "both"}, ("sum", "0", "1"))])
def test_detectors_of_a_study_are_not_summed_unless_that_is_asked_for(tmp_path, given, names):
    """It compares fits of one detector, as it did when runs had no sums by default."""
    request = PlanRequest(config=config(pixels=given), run_dir=tmp_path, kept={})
    assert make_dataset(request, demo_spec(seed=1, shape=(2, 8, 8, 2048))).detectors == names


def fits(amplitude, status, *, r2=0.5, cpu_s=0.002) -> StudyFits:
    """Fits of one component, Cu."""
    n = len(amplitude)
    full = np.full(n, 1.0)
    return StudyFits(
        components=("Cu",),
        amplitude=np.array(amplitude, float)[:, None],
        theta=np.zeros((n, 2)),
        r2=r2 * full,
        r2_expected=0.999 * full,
        deviance=full,
        cpu_s=cpu_s * full,
        evaluations=np.full(n, 7),
        status=np.array(status),
        model=np.zeros((n, 4), np.float32),
    )


def study(**changes) -> StudyData:
    true = np.arange(12.0).reshape(3, 4)
    box = (slice(1, 3), slice(0, 2))  # truth 4, 5, 8, 9
    values = {
        "traces": ("Cu",),
        "energy_kev": np.arange(4.0),
        "boxes": (box,),
        "chosen": (np.array([1, 3]),),
        "spectra": {},
        "fits": {},
        "truth": {"Cu": true},
        "region_truth": ({"Cu": 26.0},),
        "mapped": 0,
        "maps": {("linear", "Cu"): true + 1.0},
        "map_cpu_s": {"linear": 0.12},
        "markers": (),
        "trials": (),
    }
    return StudyData(**(values | changes))


def test_errors_of_pixels_are_against_the_truth_of_these_pixels():
    found = fits([6.0, 9.0], [OK, OK])  # of true 5 and 9
    (row,) = list_pixel_rows(study(fits={("single-pixels-0", "adam"): found}))
    assert (row.n, row.failed, row.true, row.error) == (2, 0, 7.0, 0.5)
    assert row.bias == pytest.approx(0.5 / 7.0)
    # Errors 1 and 0: standard deviation 1/sqrt(2), of their mean 1/2.
    assert row.bias_error == pytest.approx(0.5 / 7.0)
    assert row.rms == pytest.approx(0.5**0.5)
    assert row.correlation == pytest.approx(1.0)


def test_a_failed_pixel_is_counted_and_in_no_mean():
    found = fits([np.nan, 9.5], [EMPTY, OK])
    (row,) = list_pixel_rows(study(fits={("single-pixels-0", "adam"): found}))
    assert (row.n, row.failed, row.true, row.error) == (2, 1, 9.0, 0.5)
    number = fits([3.0, 9.5], [EMPTY, OK])
    (other,) = list_pixel_rows(study(fits={("single-pixels-0", "adam"): number}))
    assert (other.failed, other.error) == (1, 0.5)


def test_where_nothing_is_true_the_error_is_in_counts_and_no_share():
    nothing = study(truth={"Cu": np.zeros((3, 4))}, fits={("single-pixels-0", "adam"): fits([1, 2], [OK, OK])})
    (row,) = list_pixel_rows(nothing)
    assert row.error == 1.5
    assert np.isnan(row.bias)
    assert np.isnan(row.correlation)


def test_maps_are_judged_in_the_regions_and_in_the_scan():
    mapped = fits([4.0, 5.0, 8.0, 13.0], [OK] * 4)
    rows = list_map_rows(study(fits={("map-0", "sbplx"): mapped}))
    by_name = {(r.group, r.method): r for r in rows}
    assert by_name["region-0", "linear"].bias == pytest.approx(1.0 / 6.5)
    assert by_name["scan", "linear"].bias == pytest.approx(1.0 / 5.5)
    assert by_name["scan", "linear"].cpu_s == pytest.approx(0.01)
    assert by_name["region-0", "sbplx"].error == 1.0


def test_summed_spectra_have_their_r2_and_their_failures_counted():
    good, bad = fits([1.0, 1.0], [OK, OK], r2=0.995), fits([np.nan], [EMPTY], r2=np.nan)
    data = study(fits={("first-pass", "adam"): join_fits([good, bad]), ("region-0", "adam"): fits([13.0], [OK])})
    (row,) = list_fit_rows(data, ("first-pass",))
    assert (row.n, row.failed, row.good, row.median) == (3, 1, 2, 0.995)
    (area,) = list_area_rows(data)
    assert area.error == pytest.approx(-0.5)


def test_draws_give_the_bias_its_error_and_what_one_draw_scatters():
    # Of true 26: -1, +1, +2 and one failure.
    drawn = fits([25.0, 27.0, 28.0, 3.0], [OK, OK, OK, EMPTY])
    (row,) = list_draw_rows(study(fits={("draws-0", "adam"): drawn, ("region-0", "adam"): fits([1.0], [OK])}))
    assert (row.group, row.method, row.component, row.n, row.failed) == ("draws-0", "adam", "Cu", 4, 1)
    assert row.bias == pytest.approx((2.0 / 3.0) / 26.0)
    spread = np.std([-1.0, 1.0, 2.0], ddof=1) / 26.0
    assert row.spread == pytest.approx(spread)
    assert row.bias_error == pytest.approx(spread / 3**0.5)
    assert make_draw_table([row]).rows == (("1", "Cu", "adam", "4", "26", "2.6", "3.4", "5.9"),)


def test_draws_of_what_is_not_there_and_of_one_fit_have_no_error():
    nothing = study(region_truth=({"Cu": 0.2},), fits={("draws-0", "adam"): fits([1.0, 2.0], [OK, OK])})
    (row,) = list_draw_rows(nothing)
    assert np.isnan([row.bias, row.bias_error, row.spread]).all()
    (row,) = list_draw_rows(study(fits={("draws-0", "adam"): fits([27.3], [OK])}))
    assert row.bias == pytest.approx(0.05)
    assert np.isnan(row.bias_error)


def test_the_spectra_of_both_studies_have_other_line_data_than_the_fit():
    for spec in (study_scan(config()), archive_spec(2411, 0)):
        energy = spec.incident_energy_kev
        families = [name for name in spec.listed_elements if name in list_families(spec)]
        fitted = build_line_table(families, energy, efficiency=Detector())
        differing = 0
        for index, name in enumerate(families):
            lines = emission_lines(name, energy)
            mine = fitted.component == index
            top = max(lines, key=lambda line: line[1])
            share = top[1] / sum(strength for _, strength in lines)
            others = float(fitted.ratio[mine].max() / fitted.ratio[mine].sum())
            differing += abs(share / others - 1.0) > 1e-3
            assert float((fitted.energy_kev[mine] - top[0]).abs().min()) < 0.03, name
        assert differing > 0.8 * len(families)


def test_fits_come_back_as_they_were_written_and_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "fits.npz"
    written = fits([1.0, np.nan], [OK, EMPTY])
    write_fits(path, written)
    back = read_fits(path)
    assert back.components == ("Cu",)
    for name in ("amplitude", "status", "model", "cpu_s"):
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OutputError, match=r"fits\.npz"):
        read_fits(path)
