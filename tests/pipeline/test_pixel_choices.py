"""Choices before the pixels are fitted, and their notes: classes with weights of their own, families too alike."""

import json

import numpy as np
import pytest
from run_samples import jobs_of, maps_of, run_scan, spectrum, write_scan

from hpcxrf.config.run import effective
from hpcxrf.config.younger import YOUNGER_OPTIONS
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.fitting.pixels.mixtures import find_mixtures
from hpcxrf.pipeline.pixels.choices import sample_pixels
from hpcxrf.pipeline.pixels.task import read_block
from hpcxrf.results.report.views import list_flags
from hpcxrf.results.store.basis import read_basis
from hpcxrf.results.store.maps import open_results
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import create_or_resume
from hpcxrf.store.spectra import open_spectra

SHAPE = (70, 12)
TISSUE = {"Ca": 3.0, "Fe": 3.0, "Mn": 3.0, "elastic": 5.0, "Compton": 10.0}
GRAIN = {"Ca": 30.0, "Fe": 900.0, "Mn": 3.0, "elastic": 60.0, "Compton": 40.0}


@pytest.fixture(scope="module")
def grains(tmp_path_factory):
    """A scan of thin tissue, its lower third grains of iron; two map blocks high."""
    folder = tmp_path_factory.mktemp("grains")
    mean = np.empty((1, *SHAPE, 1200))
    mean[:] = spectrum(TISSUE)
    mean[:, 45:] = spectrum(GRAIN)
    write_scan(folder, mean, elements=("Ca", "Fe", "Mn"))
    return folder


@pytest.fixture(scope="module")
def weighed(grains, tmp_path_factory):
    return run_scan(grains, tmp_path_factory.mktemp("runs") / "run")


def test_weight_classes_are_found_noted_and_gain_precision(grains, weighed, tmp_path):
    store, records = weighed
    (note,) = [n.text for n in records["integrated"].notes if "pixel classes" in n.text]
    assert note.startswith(
        "detector 0: fit weights chosen separately for 2 pixel classes; expected noise reduction up "
    )
    pixels = [int(word) for word in note.split("about ")[1].split() if word.isdecimal()]
    assert sum(pixels) == SHAPE[0] * SHAPE[1]
    assert max(pixels) == pytest.approx(45 * 12, rel=0.05)
    assert note in open_results(store).attrs["notes"]
    basis = read_basis(store, "0")
    classes = basis.weight_classes
    assert classes.coefficients.shape == (2, basis.columns.shape[1])
    assert classes.report in note
    one, one_records = run_scan(grains, tmp_path / "one", pixels={"weights": "one"})
    assert read_basis(one, "0").weight_classes is None
    assert not any("pixel classes" in n.text for n in one_records["integrated"].notes)
    spread = [maps_of(s).amplitude.values[0, :, :45].std(axis=(1, 2)) for s in (store, one)]
    assert (spread[0] / spread[1]).min() < 1.02 - float(classes.gain.max()) < 0.92
    assert (spread[0] / spread[1]).max() < 1.05
    tissue = maps_of(store).sel(component="Mn", detector="0").isel(y=slice(0, 45))
    error = float(tissue.amplitude.std()) / tissue.amplitude.size**0.5
    assert float(tissue.amplitude.mean()) == pytest.approx(TISSUE["Mn"], abs=3.5 * error)
    assert float(tissue.sigma.mean()) == pytest.approx(float(tissue.amplitude.std()), rel=0.1)


def test_weights_by_class_are_the_same_bits_for_any_tiling(grains, weighed, tmp_path):
    for blocks in (1, 2):
        store, records = run_scan(grains, tmp_path / str(blocks), pixels={"blocks_per_task": blocks})
        assert sum(name.startswith("pixels") for name in records) == 3 - blocks
        assert tree_sha256(store / "maps") == tree_sha256(weighed[0] / "maps")
        assert tree_sha256(store / "basis") == tree_sha256(weighed[0] / "basis")


def test_a_scan_of_one_composition_says_so(tmp_path):
    mean = np.broadcast_to(spectrum(GRAIN), (1, 24, 24, 1200))
    write_scan(tmp_path / "in", mean, elements=("Ca", "Fe", "Mn"))
    store, records = run_scan(tmp_path / "in", tmp_path / "run")
    assert not any("pixel classes" in n.text for n in records["integrated"].notes)
    # Named so since version 0.1.0.
    report = open_results(store).attrs["phases"]["0"]
    assert report.startswith("one set of weights: classes would reduce the noise by")
    assert read_basis(store, "0").weight_classes is None


def test_the_sample_is_spread_over_the_scan_and_small(grains, weighed):
    (job,) = jobs_of(grains, weighed[0].parents[1])
    store = open_spectra(weighed[0].parents[1] / "spectra" / f"{job.dataset_id}.zarr")
    counts, measured = sample_pixels(store, "0", slice(None), read_block)
    assert counts.shape == (SHAPE[0] * SHAPE[1], 1200)
    assert measured.all()
    assert counts.sum() == store.integrated(0).sum()
    some, _ = sample_pixels(store, "0", slice(100, 300), read_block)
    assert (some == counts[:, 100:300]).all()


def test_the_name_of_the_weights_in_version_0_1_0_means_the_same(grains, tmp_path):
    (old,), (new,) = (jobs_of(grains, tmp_path / "run", pixels={name: "one"}) for name in ("phases", "weights"))
    assert old.config == new.config
    assert new.config.pixels.weights == "one"


@pytest.mark.parametrize("name", ["phases", "weights"])
def test_a_choice_of_weights_that_does_not_exist_is_refused_by_the_name_in_the_file(grains, tmp_path, name):
    with pytest.raises(ConfigError, match=rf"pixels\.{name}: .*'two'"):
        jobs_of(grains, tmp_path / "run", pixels={name: "two"})


def test_both_names_of_the_weights_together_are_refused(grains, tmp_path):
    with pytest.raises(ConfigError, match=r"pixels\.weights: given as 'one'.*remove pixels\.phases"):
        jobs_of(grains, tmp_path / "run", pixels={"phases": "auto", "weights": "one"})


def test_a_run_of_version_0_1_0_goes_on_with_the_defaults_of_younger_options(grains, tmp_path):
    (job,) = jobs_of(grains, tmp_path / "run")
    old = effective(job.config)
    for name, default in YOUNGER_OPTIONS.items():
        section, _, key = name.partition(".")
        held = old[section] if key else old
        assert held[key or section] == default
        del held[key or section]
    create_or_resume(tmp_path / "run", "", {section: values for section, values in old.items() if values})
    create_or_resume(tmp_path / "run", "", effective(job.config))
    wanted = effective(job.config)
    wanted["detectors"]["exclude"] = [0]
    with pytest.raises(OutputError, match=r"detectors\.exclude: the run has \[\], this command \[0\]"):
        create_or_resume(tmp_path / "run", "", wanted)


def test_a_run_of_version_0_1_0_goes_on_although_its_weights_were_called_phases(grains, tmp_path):
    (job,) = jobs_of(grains, tmp_path / "run", pixels={"weights": "one"})
    old = effective(job.config)
    old["pixels"] = {("phases" if key == "weights" else key): value for key, value in old["pixels"].items()}
    create_or_resume(tmp_path / "run", "", old)
    create_or_resume(tmp_path / "run", "", effective(job.config))
    (other,) = jobs_of(grains, tmp_path / "run")
    with pytest.raises(OutputError, match=r'pixels\.weights: the run has "one", this command "auto"'):
        create_or_resume(tmp_path / "run", "", effective(other.config))


# --- families too alike --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lead(tmp_path_factory):
    """Lead and arsenic of a few counts a pixel."""
    folder = tmp_path_factory.mktemp("lead")
    found = {}
    for name, level in (("faint", 1.0), ("bright", 400.0)):
        counts = {"Fe": 50.0 * level, "As": 6.0 * level, "Pb_L": 6.0 * level}
        scatter = {"elastic": 30.0 * level, "Compton": 60.0 * level}
        mean = spectrum(counts | scatter, incident_kev=16.0, continuum=0.02 * level, n_channels=1700)
        write_scan(
            folder / name, np.broadcast_to(mean, (1, 12, 12, 1700)), elements=("Fe", "As", "Pb_L"), incident_kev=16.0
        )
        found[name] = run_scan(folder / name, folder / f"run-{name}")
    return found


def test_families_that_a_pixel_cannot_tell_apart_are_named_with_their_sum(lead):
    store, records = lead["faint"]
    (note,) = [n.text for n in records["integrated"].notes if "told apart" in n.text]
    assert note.startswith("detector 0: As, Pb_L cannot be told apart in a mean pixel")
    tree = open_results(store)
    (group,) = tree.attrs["mixed"]["0"]
    assert group["members"] == ["As", "Pb_L"]
    assert group["counts"] == pytest.approx(12.0, rel=0.15)
    assert not group["in_sum"]
    assert "detector 0: indistinguishable in a pixel: As, Pb_L" in list_flags(tree)
    maps = maps_of(store).isel(detector=0)
    both = maps.amplitude.sel(component=["As", "Pb_L"])
    # What the sentence says of the sum and of each holds for the maps, and sigma has it.
    assert float(both.sum("component").std()) == pytest.approx(group["sigma"], rel=0.15)
    assert np.corrcoef(*both.values.reshape(2, -1))[0, 1] < -0.4
    for one in ("As", "Pb_L"):
        spread = float(maps.amplitude.sel(component=one).std())
        assert float(maps.sigma.sel(component=one).mean()) == pytest.approx(spread, rel=0.15)
        assert spread > 6.0 / 3.0


def test_the_same_families_with_enough_counts_are_not(lead):
    store, records = lead["bright"]
    assert not any("told apart" in n.text for n in records["integrated"].notes)
    assert open_results(store).attrs["mixed"] == {"0": []}
    assert find_mixtures(read_basis(store, "0"), 144) == ()


def test_what_was_found_is_plain_json(lead):
    text = json.dumps(open_results(lead["faint"][0]).attrs["mixed"], allow_nan=False)
    assert "NaN" not in text
