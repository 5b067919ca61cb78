"""Normalised maps of whole runs: what differs in exposure and flux alone is alike, and what is missing is refused."""

import warnings

import numpy as np
import pytest
import xarray as xr
from normalise_samples import ELEMENTS, FLUX, RATES, SHAPE, TABLE, plan_timed, run_timed, write_timed_scan
from run_samples import run_all
from scan_units import finished_tasks, units_of

import hpcxrf
from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.pipeline.blocks import blocks_of
from hpcxrf.pipeline.normalise.choice import (
    calculate_live_time,
    choose_i0,
    choose_live_time,
    read_i0,
    require_live_time,
)
from hpcxrf.pipeline.normalise.reference import read_reference
from hpcxrf.pipeline.normalise.task import run_normalise
from hpcxrf.pipeline.normalise.times import ScanTimes, find_live_times, sum_exposure
from hpcxrf.pipeline.request import check_request
from hpcxrf.quantify.normalise import PixelFlag, normalise_spectrum
from hpcxrf.results.store.maps import finalise, is_complete, open_results, reopen
from hpcxrf.runner.journal import finished_line
from hpcxrf.runner.verify import find_damage
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.spectra import open_spectra

US_IC = {"i0": "us_ic", "reference": FLUX}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normalise")
    write_timed_scan(folder / "scan")
    store, records = run_timed(folder / "scan", folder / "run", US_IC, pixels={"detectors": "both"})
    return folder / "run", store, records


def group(store):
    return open_results(store)["normalised"].to_dataset().load()


def test_the_group_opens_without_a_warning_and_says_what_its_arrays_are(run):
    _, store, _ = run
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = xr.open_zarr(store, group="normalised", chunks=None).load()
    assert maps.detector.values.tolist() == ["sum", "0", "1", "combined"]
    assert maps.rate.dims == maps.sigma.dims == ("detector", "component", "y", "x")
    assert maps.rate.shape[2:] == SHAPE
    for name in ("rate", "sigma", "detection_limit", "live_time_s", "i0", "i0_sigma", "share", "weight"):
        assert maps[name].attrs["units"]
        assert maps[name].attrs["long_name"]
    assert maps.rate.attrs["units"] == "count s-1"
    assert maps.flag.attrs["flag_meanings"].split()[1] == "normalised"
    about = maps.attrs
    assert (about["i0"], about["i0_scaler"], about["i0_clock"], about["i0_clock_hz"]) == (
        "us_ic",
        "b:us",
        "b:clock",
        1e7,
    )
    assert (about["reference"], about["reference_origin"]) == (FLUX, "number of the run file")
    assert about["live_time_source"] == {"0": "real_time * ocr / icr", "1": "real_time * ocr / icr"}
    assert about["detectors_left_out"] == {}
    assert about["source"] == "scan.npz"
    assert about["stored_detectors"] == ["combined"]
    assert "combined are stored; those of other detectors are NaN here" in about["comment"]
    assert np.isfinite(maps.rate).all(("component", "y", "x")).values.tolist() == [False, False, False, True]
    assert (maps.flag == PixelFlag.NORMALISED).all()


def test_pixels_of_any_exposure_and_flux_have_the_rate_of_the_sample(run):
    _, store, _ = run
    maps = group(store)
    for detector, share in (("0", 0.6), ("1", 0.4), ("sum", 1.0), ("combined", 1.0)):
        for element in ELEMENTS:
            one = maps.sel(detector=detector, component=element)
            pull = (one.rate - share * RATES[element]) / one.sigma
            assert abs(float(pull.mean())) < 4.0 / np.sqrt(pull.size), (detector, element)
            assert 0.75 < float(pull.std()) < 1.3, (detector, element)


def test_the_sum_and_the_combination_of_the_detectors_agree(run):
    _, store, _ = run
    maps = group(store)
    total, combined = (maps.sel(detector=name) for name in ("sum", "combined"))
    np.testing.assert_allclose(combined.rate.mean(("y", "x")), total.rate.mean(("y", "x")), rtol=0.02)
    np.testing.assert_allclose(combined.sigma, total.sigma, rtol=0.15)
    np.testing.assert_allclose(combined.detection_limit, total.detection_limit, rtol=0.2)
    np.testing.assert_allclose(maps["share"].sel(detector=["0", "1"]).sum("detector"), 1.0)


def test_counts_stay_as_they_are(run):
    _, store, _ = run
    counts = xr.open_zarr(store, group="maps", chunks=None)
    maps = group(store)
    factor = FLUX / maps.i0 / maps.live_time_s.sel(detector="0")
    expected = counts.amplitude.sel(detector="0") * factor
    np.testing.assert_allclose(maps.rate.sel(detector="0"), expected, rtol=1e-5)
    # The longest exposure has five times the counts of the shortest.
    assert (
        float(
            counts.amplitude.sel(component="Fe")[0, :, -1].mean() / counts.amplitude.sel(component="Fe")[0, :, 0].mean()
        )
        > 4.0
    )


def test_what_was_done_is_a_note_a_row_of_the_page_and_in_the_library(run):
    path, _, records = run
    (note,) = records["normalise"].notes
    assert note.kind == "fact"
    assert note.text == (
        "counts per second of live time (real_time * ocr / icr) at us_ic = 200000 s-1 (number of the run file); "
        "us_ic is b:us / b:clock * 1e+07 s-1"
    )
    (page,) = (path / "pages").glob("*.html")
    assert f"<dt>Normalised</dt><dd>{note.text}" in page.read_text(encoding="utf-8")
    results = hpcxrf.open_results(path)
    maps = results.normalised()
    assert maps.xrf.map("Fe").dims == ("detector", "y", "x")
    assert maps.xrf.map("Fe").name == "rate"
    assert maps.xrf.rgb("Fe", "Ca", "Cu").shape == (*SHAPE, 3)
    with pytest.raises(ConfigError, match=r"found: these maps are normalised"):
        maps.xrf.found("Fe")


def test_the_checksums_hold_in_the_closed_store_and_the_task_can_be_repeated(run):
    path, store, records = run
    assert is_complete(store)
    assert list(find_damage(RunDir(path=path))) == []
    names = {name.split("normalised/")[1].split("/")[0] for name in records["normalise"].checksums}
    assert {"rate", "sigma", "flag", "i0", "weight", "zarr.json"} <= names


def test_a_second_pass_over_a_reopened_store_gives_the_same_bits(tmp_path):
    write_timed_scan(tmp_path / "scan")
    store, records = run_timed(tmp_path / "scan", tmp_path / "run", US_IC)
    before = group(store)
    reopen(store)
    (job,) = plan_timed(tmp_path / "scan", tmp_path / "run", US_IC).jobs
    forget_attempts(job.run_dir)
    again = run_normalise(job, [])
    assert again.checksums == records["normalise"].checksums
    finalise(store, {})
    xr.testing.assert_identical(before, group(store))


def test_only_live_times_give_rates_without_a_reference(tmp_path):
    write_timed_scan(tmp_path / "scan", shares=(1.0,), drop=("scaler_names", "scaler_units", "scaler_values"))
    store, _ = run_timed(tmp_path / "scan", tmp_path / "run", {"live_time": "auto"})
    maps = group(store)
    assert maps.detector.values.tolist() == ["0"]
    assert "i0" not in maps
    rows = maps.rate.sel(component="Fe")[0].mean("x")
    assert float(rows[-1] / rows[0]) == pytest.approx(1.3 / 0.7, rel=0.05)


def test_pixels_without_i0_are_flagged_and_told(tmp_path):
    scan = np.load(write_timed_scan(tmp_path / "scan", shares=(1.0,)))
    values = scan["scaler_values"].copy()
    values[0, 0, :3] = (0.0, -5.0, np.nan)
    values[1, 1, 1] = 0.0
    write_timed_scan(tmp_path / "scan", shares=(1.0,), scaler_values=values)
    store, records = run_timed(tmp_path / "scan", tmp_path / "run", US_IC)
    maps = group(store)
    dark = np.zeros(SHAPE, dtype=bool)
    dark[0, :3] = dark[1, 1] = True
    np.testing.assert_array_equal(maps.flag[0] == PixelFlag.NO_I0, dark)
    np.testing.assert_array_equal(np.isnan(maps.rate[0]).all("component"), dark)
    assert any(
        note.kind == "warning" and "b:us is not positive, or not known, in 4 pixels" in note.text
        for note in records["normalise"].notes
    )


def test_a_scan_in_the_dark_fails_with_the_remedy(tmp_path):
    scan = np.load(write_timed_scan(tmp_path / "scan", shares=(1.0,)))
    values = scan["scaler_values"].copy()
    values[0] = 0.0
    write_timed_scan(tmp_path / "scan", shares=(1.0,), scaler_values=values)
    with pytest.raises(InputFileError, match=r"no pixel can be normalised: in 48 b:us .* set normalise\.i0 to another"):
        run_timed(tmp_path / "scan", tmp_path / "run", US_IC)


WRONG = {2: {"Fe": 3.0 * RATES["Fe"]}}


@pytest.mark.parametrize("choice", ["auto", "all"])
def test_a_detector_with_other_ratios_is_named_and_left_out_where_asked(tmp_path, choice):
    write_timed_scan(tmp_path / "scan", shares=(0.4, 0.3, 0.2, 0.1), rates=WRONG)
    store, records = run_timed(tmp_path / "scan", tmp_path / "run", US_IC | {"detectors": choice})
    maps = group(store)
    (said,) = [note for note in records["normalise"].notes if note.kind == "warning"]
    assert "detector 2 disagrees with the others" in said.text
    assert maps.detector.values.tolist()[-1] == "combined"
    rate = float(maps.rate.sel(detector="combined", component="Cu").mean())
    if choice == "auto":
        assert "left out of the map combined" in said.text
        assert list(maps.attrs["detectors_left_out"]) == ["2"]
        assert np.isnan(maps.weight.sel(detector="2")).all()
        assert rate == pytest.approx(0.8 * RATES["Cu"], rel=0.03)
    else:
        assert "normalise.detectors: auto leaves it out" in said.text
        assert maps.attrs["detectors_left_out"] == {}
        assert rate == pytest.approx(RATES["Cu"], rel=0.03)


def test_the_exposure_of_the_integrated_spectra_gives_the_rates_of_the_sample(run):
    path, store, _ = run
    config = normalise_of().normalise
    (spectra_store,) = (path / "spectra").glob("*.zarr")
    spectra = open_spectra(spectra_store)
    times = ScanTimes(
        store=spectra,
        config=config,
        reference=None,
        live=find_live_times(spectra, config, "scan"),
        i0=choose_i0(config, spectra.scaler_names, "scan"),
        parts=(0, 1),
    )
    exposure = sum_exposure(times, blocks_of(SHAPE))
    assert exposure.live_time_s.tolist() == pytest.approx([0.95 * 72.0, 0.85 * 72.0])
    spectrum = xr.open_zarr(store, group="spectrum", chunks=None)
    for d, share in enumerate((0.6, 0.4)):
        one = spectrum.sel(detector=str(d), component="Fe")
        found = normalise_spectrum(
            one.amplitude.values[None],
            one.sigma.values[None],
            np.zeros(1),
            live_time_s=float(exposure.live_time_s[d]),
            i0=exposure.i0[d],
            reference=FLUX,
        )
        assert abs(found.rate[0] - share * RATES["Fe"]) < 4.0 * found.sigma[0]
        assert found.i0_sigma[0] < 1e-3 * found.rate[0]


# --- the reference -------------------------------------------------------------------------------


def test_the_reference_is_the_mean_of_a_named_scan_stored_with_its_origin(tmp_path):
    path = write_timed_scan(tmp_path / "other", shares=(1.0,), seed=3)
    write_timed_scan(tmp_path / "scan", shares=(1.0,))
    (job,) = plan_timed(tmp_path / "scan", tmp_path / "run", {"i0": "us_ic", "reference": str(path)}).jobs
    assert job.i0_reference.value == pytest.approx(FLUX, rel=1e-3)
    assert job.i0_reference.origin == "mean of b:us over 48 pixels of scan.npz"
    assert dict(job.made_from["reference_stamps"]).keys() == {str(path)}
    # Never that of the scan itself, whatever its own flux is.
    brighter = np.load(tmp_path / "scan" / "scan.npz")["scaler_values"] * np.array([3.0, 1.0, 1.0])[:, None, None]
    write_timed_scan(tmp_path / "scan", shares=(1.0,), scaler_values=brighter)
    (again,) = plan_timed(tmp_path / "scan", tmp_path / "run", {"i0": "us_ic", "reference": str(path)}).jobs
    assert again.i0_reference == job.i0_reference


def test_another_reference_scan_makes_only_the_normalised_maps_again(tmp_path):
    path = write_timed_scan(tmp_path / "other", shares=(1.0,), seed=3)
    write_timed_scan(tmp_path / "scan", shares=(1.0,))
    wanted = {"i0": "us_ic", "reference": str(path)}
    (same,) = plan_timed(tmp_path / "scan", tmp_path / "run", wanted).jobs
    _, records = run_all(same)
    run = RunDir(path=tmp_path / "run")
    for unit in units_of(same):
        run.append(same.dataset_id, finished_line(records[unit.task], same, unit))
    assert set(finished_tasks(run, same)) == set(records)
    write_timed_scan(tmp_path / "other", shares=(1.0,), seed=4)
    (other,) = plan_timed(tmp_path / "scan", tmp_path / "run", wanted).jobs
    assert set(records) - set(finished_tasks(run, other)) == {"normalise", "finalise"}


def normalise_of(**changed):
    raw = {"input": {"files": ["scan.npz"]}, "normalise": {"scalers": TABLE} | US_IC | changed}
    return check_config(raw, "test")


def test_a_reference_scan_that_is_not_there_or_lacks_the_scaler_is_refused_before_the_run(tmp_path):
    path = write_timed_scan(tmp_path / "scan", shares=(1.0,))
    with pytest.raises(
        ConfigError, match=r"normalise\.reference: .*nix\.npz is not there; in that folder are scan\.npz; name"
    ):
        check_request(normalise_of(reference=str(path.with_name("nix.npz"))))
    bare = write_timed_scan(tmp_path / "bare", shares=(1.0,), drop=("scaler_names", "scaler_units", "scaler_values"))
    with pytest.raises(ConfigError, match=r"normalise\.reference: .*scan\.npz: the scan has no scalers"):
        check_request(normalise_of(reference=str(bare)))
    dark = write_timed_scan(tmp_path / "dark", shares=(1.0,), scaler_values=np.zeros((3, *SHAPE)))
    with pytest.raises(ConfigError, match=r"b:us is not positive in any pixel; name another scan, or give a number"):
        read_reference(normalise_of(reference=str(dark)))


# --- what a plan refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalise", "drop", "said"),
    [
        (
            {"i0": "us_id"},
            (),
            r"has no scaler us_id; set normalise\.i0 to one of its scalers: .*the table of scalers has us_ic",
        ),
        ({"i0": "B:US"}, (), r"has no scaler B:US; .*one of its scalers: b:us, "),
        ({"i0": "b:clock"}, (), r"b:clock is in no table .* set normalise\.i0_kind: count and the clock"),
        ({"i0_clock": "b:tick"}, (), r"has no scaler b:tick; set normalise\.i0_clock to one"),
        ({"i0_clock": "b:ring"}, (), r"nobody knows how fast the clock b:ring ticks; set normalise\.i0_clock_hz"),
        ({"i0": "ring", "i0_kind": "count"}, (), r"ring is a count, and the scan has no clock of its gate; set"),
        (
            {},
            ("icr_hz",),
            r"has neither a live time nor real time, ICR and OCR .*; set normalise\.live_time to seconds",
        ),
        ({"live_time": "rates"}, ("ocr_hz",), r"has no real time with ICR and OCR of any detector; set"),
        ({"live_time": "real"}, ("real_time_s",), r"has no real time of any detector"),
        ({}, ("scaler_names", "scaler_units", "scaler_values"), r"the scan has no scalers, and normalise\.i0 is us_ic"),
    ],
)
def test_a_scan_that_cannot_be_normalised_is_refused_in_the_plan(tmp_path, normalise, drop, said):
    write_timed_scan(tmp_path / "scan", shares=(1.0,), drop=drop)
    plan = plan_timed(tmp_path / "scan", tmp_path / "run", US_IC | normalise)
    assert plan.jobs == ()
    (refusal,) = plan.refusals
    with pytest.raises(ConfigError, match=said):
        raise ConfigError(refusal.reason)
    # Without the section the scan is fitted.
    assert len(plan_timed(tmp_path / "scan", tmp_path / "run", {}).jobs) == 1


# --- choices, without a scan ---------------------------------------------------------------------


def test_the_first_pv_of_the_table_that_a_scan_has_is_taken():
    table = {
        "i": {"pvs": ["step:B", "fly:B"], "clock": ["step:A", "fly:A"], "clock_hz": 5.0, "amplifier": ["s:n", "s:u"]}
    }
    config = check_config(
        {"input": {"files": ["a"]}, "normalise": {"i0": "i", "reference": 1.0, "scalers": table}}, "t"
    )
    step = choose_i0(config.normalise, ["step:A", "step:B", "s:n", "s:u"], "x")
    assert (step.pv, step.clock, step.clock_hz, step.amplifier) == ("step:B", "step:A", 5.0, ("s:n", "s:u"))
    fly = choose_i0(config.normalise, ["fly:A", "fly:B"], "x")
    assert (fly.pv, fly.clock, fly.amplifier) == ("fly:B", "fly:A", None)


def test_a_pv_of_the_table_is_known_by_its_own_name_too():
    found = choose_i0(normalise_of(i0="b:us").normalise, ["b:clock", "b:us"], "x")
    assert (found.kind, found.clock) == ("count", "b:clock")


def test_the_gate_may_be_given_in_seconds_and_a_scaler_be_said_to_be_a_rate():
    assert choose_i0(normalise_of(i0_clock=0.5).normalise, ["b:us"], "x").clock == 0.5
    found = choose_i0(normalise_of(i0_kind="rate").normalise, ["b:us"], "x")
    assert (found.kind, found.clock) == ("rate", None)


ONE = np.ones((1, 3))


def test_a_live_time_is_the_part_of_the_real_time_that_was_not_dead():
    live = calculate_live_time(
        "real_time * ocr / icr",
        "auto",
        live_time_s=9.0 * ONE,
        real_time_s=2.0 * ONE,
        icr_hz=np.array([[1000.0, 0.0, np.nan]]),
        ocr_hz=np.array([[900.0, 0.0, 900.0]]),
    )
    np.testing.assert_allclose(live, [[1.8, 2.0, np.nan]])


@pytest.mark.parametrize(
    ("choice", "rates", "live", "real", "source"),
    [
        ("auto", True, True, True, "real_time * ocr / icr"),
        ("auto", False, True, True, "live time of the file"),
        ("auto", False, False, True, None),
        ("rates", False, True, True, None),
        ("real", True, True, True, "real time"),
        (0.5, False, False, False, "given"),
    ],
)
def test_no_live_time_is_ever_made_up(choice, rates, live, real, source):
    found = choose_live_time(choice, has_rates=[rates], has_live=[live], has_real=[real])
    assert found.get(0) == source
    if source is None:
        with pytest.raises(ConfigError, match=r"set normalise\.live_time to seconds"):
            require_live_time(choice, found, "x")


# --- measured scans ------------------------------------------------------------------------------


def test_the_shipped_table_finds_i0_of_step_and_fly_scans_and_their_amplifiers(shared_data):
    folder = shared_data / "aps-2ide" / "mda"
    raw = {"input": {"files": [str(folder)]}, "normalise": {"i0": "us_ic", "reference": str(folder / "2xfm_0010.mda")}}
    config = check_config(raw, "t")
    reference = read_reference(config)
    found = {}
    for name in ("2xfm_0010", "2xfm_0011", "axo_std"):
        scalars = hpcxrf.open_scan(folder / f"{name}.mda").read_scalars()
        values = dict(zip(scalars.scaler_names, scalars.scaler_values, strict=True))
        choice = choose_i0(config.normalise, scalars.scaler_names, name)
        i0 = read_i0(choice, values.__getitem__, reference.gain_a_per_v)
        found[name] = float(i0.rate.mean())
        # A count of so many has that error.
        assert float(i0.sigma.mean() / i0.rate.mean()) == pytest.approx(np.nanmean(values[choice.pv]) ** -0.5, rel=0.1)
    assert found["2xfm_0010"] == pytest.approx(reference.value)
    assert found["2xfm_0011"] == pytest.approx(reference.value, rel=0.01)
    # The standard was measured at 100 nA/V, half as sensitive: its 312 815 counts a second are twice that current.
    assert found["axo_std"] == pytest.approx(2.0 * 312815.0, rel=1e-3)


def test_the_ring_current_of_the_fly_scan_is_missing_and_said_so(shared_data):
    scalars = hpcxrf.open_scan(shared_data / "aps-2ide" / "mda" / "2xfm_0011.mda").read_scalars()
    config = check_config(
        {"input": {"files": ["a"]}, "normalise": {"i0": "sr_current", "reference": 100}}, "t"
    ).normalise
    with pytest.raises(
        ConfigError, match=r"fly: has no scaler sr_current \(looked for S:SRcurrentAI\); set normalise\.i0"
    ):
        choose_i0(config, scalars.scaler_names, "fly")
