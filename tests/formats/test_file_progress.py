"""How far a file is by its format: whole files, files cut anywhere, and files that a writer has open."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mda_files import write_step_scan

from hpcxrf.formats import progress
from hpcxrf.formats.progress import crop_rows, read_progress
from hpcxrf.formats.registry import open_scan

COUNTS = np.random.default_rng(4).poisson(3.0, (2, 5, 4, 16)).astype(np.float32)


def test_an_mda_file_says_how_many_rows_are_finished(tmp_path):
    whole = read_progress(write_step_scan(tmp_path / "whole.mda", COUNTS))
    assert (whole.state, whole.rows_done, whole.rows) == ("complete", 5, 5)
    half = read_progress(write_step_scan(tmp_path / "half.mda", COUNTS, last_row=2, last_point=3))
    assert (half.state, half.rows_done, half.rows, half.by_rows) == ("growing", 2, 5, True)
    assert half.reason == "2 of 5 rows are finished"


@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_an_mda_file_that_is_cut_anywhere_is_never_complete(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    content = write_step_scan(folder / "whole.mda", COUNTS).read_bytes()
    # The extra variables, here their number 0, are the last four bytes.
    (folder / "cut.mda").write_bytes(content[: int(share * (len(content) - 4))])
    assert read_progress(folder / "cut.mda").state != "complete"


def test_the_measured_scans_are_complete(shared_data):
    step = read_progress(shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda")
    assert (step.state, step.rows_done, step.rows, step.elsewhere) == ("complete", 11, 11, False)
    fly = read_progress(shared_data / "aps-2ide" / "mda" / "2xfm_0011.mda")
    assert (fly.state, fly.elsewhere) == ("complete", True)


def test_an_hdf5_file_that_a_writer_with_swmr_has_open_grows_and_says_nothing_when_it_is_closed(tmp_path):
    file = tmp_path / "scan.h5"
    with h5py.File(file, "w", libver="latest") as writer:
        counts = writer.create_dataset("counts", (0, 4, 16), maxshape=(None, 4, 16), chunks=(1, 4, 16), dtype="u2")
        writer.swmr_mode = True
        counts.resize(2, axis=0)
        counts.flush()
        seen = read_progress(file)
        assert (seen.state, seen.by_rows) == ("growing", True)
        assert "SWMR" in seen.reason
    assert read_progress(file).state == "not said"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_an_hdf5_file_that_another_program_has_open_grows(tmp_path, libver):
    file = tmp_path / "scan.h5"
    program = (
        f"import h5py, sys; f = h5py.File({str(file)!r}, 'w', libver={libver!r}); f['counts'] = [1]; f.flush(); "
        "print(flush=True); sys.stdin.read(); f.close()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert read_progress(file).state == "growing"
        writer.communicate()
    assert read_progress(file).state == "not said"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_an_hdf5_file_that_is_half_copied_names_the_bytes_that_are_missing(tmp_path, libver):
    with h5py.File(tmp_path / "whole.h5", "w", libver=libver) as writer:
        writer["counts"] = np.zeros((4, 4, 64), "u2")
    content = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(content[: len(content) // 2])
    seen = read_progress(tmp_path / "half.h5")
    assert seen.state == "growing"
    assert seen.reason == f"it has {len(content) // 2} of {len(content)} bytes"


def test_a_lock_is_asked_for_and_none_is_taken(tmp_path, monkeypatch):
    """Even a shared lock for an instant can make the instrument's own opening fail."""
    h5py.File(tmp_path / "scan.h5", "w").close()
    monkeypatch.setattr(progress.fcntl, "flock", lambda *_: pytest.fail("flock"))
    monkeypatch.setattr(progress.fcntl, "lockf", lambda *_: pytest.fail("lockf"))
    assert read_progress(tmp_path / "scan.h5").state == "not said"


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_numpy_that_are_cut_grow(tmp_path, suffix):
    file = tmp_path / f"scan.{suffix}"
    np.save(file, COUNTS) if suffix == "npy" else np.savez(file, counts=COUNTS)
    content = file.read_bytes()
    assert read_progress(file).state == "not said"
    file.write_bytes(content[:-40])
    assert read_progress(file).state == "growing"


@pytest.mark.parametrize("content", [b"\x93NUMPY\x01\x00v\x00garbage", b"#MCA", b"PK\x03\x04", bytes(64)])
def test_what_cannot_be_read_says_nothing_or_grows_and_raises_nothing(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert read_progress(tmp_path / "file").state in {"not said", "growing"}
    assert read_progress(tmp_path / "missing").state == "not said"
    assert read_progress(tmp_path).state == "not said"


def test_the_first_rows_of_a_scan_are_a_scan_of_their_own(tmp_path):
    scan = open_scan(write_step_scan(tmp_path / "scan.mda", COUNTS, last_row=4))
    first = crop_rows(scan, 3)
    assert first.shape == (2, 3, 4, 16)
    np.testing.assert_array_equal(first.read_counts(slice(1, 3)), COUNTS[:, 1:3])
    scalars, all_scalars = first.read_scalars(), scan.read_scalars()
    assert scalars.live_time_s.shape == (2, 3, 4)
    np.testing.assert_array_equal(scalars.scaler_values, all_scalars.scaler_values[:, :3])
    np.testing.assert_array_equal(scalars.measured, all_scalars.measured[:3])
    with pytest.raises(ValueError, match="6 rows of a scan of 5"):
        crop_rows(scan, 6)
