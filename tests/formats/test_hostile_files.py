"""Files that nobody should have: refused by name, within a bound, and with nothing run or awaited."""

import json
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcxrf.config.untrusted import MAX_DEPTH, parse_yaml, refuse_irregular, show_lines, show_name
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.formats import children, edge, first_look, registry
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.hdf5_links import follow_path, has_path
from hpcxrf.formats.label_images import read_label_image
from hpcxrf.formats.override import read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.room import require_room
from hpcxrf.formats.scan import RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.zarr_codecs import refuse_unsafe_codecs

HOSTILE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "hostile"
needs_cases = pytest.mark.usefixtures("shared_cases")


def read_all(path, options=None):
    scan = open_scan(path, options)
    scan.read_scalars()
    return scan.read_counts(slice(0, scan.shape[1]))


def cpu_s():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@needs_cases
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("attribute_loop.h5", "busy without an end"),
        ("huge_dimension.h50", "a MAPS file without spectra"),
        ("huge_times.h50", "more memory"),
        ("negative_shape.npy", "shape"),
        ("nested_header.npy", "header of 4294967295 bytes"),
        ("long_integer.mca", "ELEMENTS is"),
        ("zarr3_attributes_list.zarr", "damaged"),
    ],
)
def test_hostile_scans_are_refused_by_name_within_the_bounds(name, words):
    before = cpu_s()
    with pytest.raises(InputFileError, match=words) as error:
        read_all(HOSTILE / name)
    assert name in str(error.value)
    assert cpu_s() - before < 10.0


@needs_cases
@pytest.mark.parametrize("name", sorted(path.name for path in HOSTILE.glob("labels_*")))
def test_hostile_label_images_are_refused_by_name(name):
    before = cpu_s()
    with pytest.raises(InputFileError, match=name):
        read_label_image(HOSTILE / name)
    assert cpu_s() - before < 10.0


@needs_cases
def test_an_override_file_with_an_endless_range_is_refused_and_one_that_is_not_utf8_is_read():
    with pytest.raises(InputFileError, match="MAX_ENERGY_TO_FIT"):
        read_override(HOSTILE / "override_huge_range.txt")
    override = read_override(HOSTILE / "override_not_utf8.txt")
    for name in override.elements:
        name.encode("utf-8")


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: os.mkfifo(folder / "x.h5") or folder / "x.h5",
        lambda _: Path("/dev/zero"),
        lambda _: Path("/proc/self/environ"),
    ],
)
def test_what_is_not_a_regular_file_is_never_opened(tmp_path, make):
    path = make(tmp_path)
    for read in (open_scan, read_override, refuse_irregular):
        with pytest.raises(InputFileError, match=r"pipe|device|system"):
            read(path)


def test_stray_files_and_loops_of_links_in_a_folder_are_notes(tmp_path):
    np.save(tmp_path / "scan.npy", np.ones((3, 4, 256), np.uint16))
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "gone.h5").symlink_to("nowhere")
    (tmp_path / "._scan.npy").write_bytes(b"macOS")
    found, notes = find_scans([tmp_path])
    assert found == [tmp_path / "scan.npy"]
    assert sorted(note.text.split(":")[0].rpartition("/")[2] for note in notes) == ["gone.h5", "loop.h5", "pipe.h5"]


def test_a_name_that_no_file_can_have_is_an_error_and_not_a_crash():
    found, _ = find_scans([Path("a" * 300)])
    with pytest.raises(InputFileError, match="name"):
        open_scan(found[0])


LAUGHS = "a: &a [1]\n" + "\n".join(f"{c}: &{c} [" + ",".join([f"*{chr(ord(c) - 1)}"] * 9) + "]" for c in "bcdefgh")


class Shout:
    """Pickled, it would make a file when it is loaded."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


def make_pickled_names(folder, proof):
    """A store of format 2 with sound counts, whose scaler names go through the filter `pickle`."""
    import zarr

    store = folder / "evil.zarr"
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.create_array("counts", data=np.ones((3, 4, 256), np.uint16), chunks=(3, 4, 256), compressors=None)
    group.create_array("scaler_values", data=np.ones((1, 3, 4)), compressors=None)
    names = store / "scaler_names"
    names.mkdir()
    document = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None}
    document |= {"order": "C", "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]}
    (names / ".zarray").write_text(json.dumps(document))
    (names / "0").write_bytes(pickle.dumps(Shout(proof)))
    return store


def test_a_codec_that_runs_what_the_store_holds_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMCODECS_ALLOW_PICKLE", "1")
    proof = tmp_path / "proof"
    with pytest.raises(InputFileError, match="codec pickle"):
        read_all(make_pickled_names(tmp_path, proof))
    assert not proof.exists()


@pytest.mark.parametrize(
    "document",
    [
        {"zarr_format": 2, "compressor": {"id": "json2"}},
        {"node_type": "array", "codecs": [{"name": "numcodecs.pickle"}]},
        {"node_type": "array", "codecs": [{"name": "sharding_indexed", "configuration": {"codecs": ["pickle"]}}]},
        {"node_type": "group", "consolidated_metadata": {"metadata": {"a": {"codecs": [{"name": "pickle"}]}}}},
    ],
)
def test_codecs_are_looked_for_wherever_a_store_can_name_them(tmp_path, document):
    (tmp_path / ("zarr.json" if "node_type" in document else ".zarray")).write_text(json.dumps(document))
    with pytest.raises(InputFileError, match=r"pickle|json2"):
        refuse_unsafe_codecs(tmp_path)


def test_a_store_with_a_loop_of_links_ends(tmp_path):
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "a").symlink_to(tmp_path)
    with pytest.raises(InputFileError, match="loop"):
        refuse_unsafe_codecs(tmp_path)


def test_links_are_followed_by_hand_and_counted(tmp_path):
    path, outside = tmp_path / "a.h5", tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.ones(3)
    with h5py.File(path, "w") as file:
        file["sound"] = np.arange(3)
        file["out"] = h5py.ExternalLink("outside.h5", "/secret")
        file["round"] = h5py.SoftLink("/round")
        file["detour"] = h5py.SoftLink("/" + "./" * 80 + "out")
        file["link0"] = h5py.SoftLink("/sound")
        for number in range(1, 70):
            file[f"link{number}"] = h5py.SoftLink(f"/link{number - 1}")
    with h5py.File(path, "r") as file:
        assert follow_path(file, "link40").name.endswith("sound")
        assert follow_path(file, "out", allow_external=True).shape == (3,)
        assert has_path(file, "out")
        assert not has_path(file, "nothing/here")
        for name in ("round", "link69"):
            with pytest.raises(InputFileError, match="more than 64 links"):
                follow_path(file, name)
        for name in ("out", "detour"):
            with pytest.raises(InputFileError, match=r"external link to outside\.h5"):
                follow_path(file, name)


def test_a_pipe_behind_an_external_link_is_not_opened_even_where_links_are_allowed(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["MAPS_RAW/data_a"] = h5py.ExternalLink("pipe.h5", "/x")
    with pytest.raises(InputFileError, match="pipe"):
        open_scan(tmp_path / "a.h5", ReadOptions(allow_external=True))


def test_escapes_in_names_are_shown_and_never_sent_to_the_terminal(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.ones((3, 4, 256), np.uint16)
        file["scaler_values"] = np.ones((1, 3, 4))
        file["scaler_names"] = np.array(["ring\x1b]0;owned\x07\ncurrent"], dtype=h5py.string_dtype())
        file["other/x"] = h5py.ExternalLink("\x1b[2Jb.h5", "/x")
    assert open_scan(tmp_path / "a.h5").read_scalars().scaler_names == (r"ring\x1b]0;owned\x07\ncurrent",)
    with pytest.raises(InputFileError) as error:
        open_scan(tmp_path / "a.h5", ReadOptions(dataset_path="other/x"))
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[0m", r"a\x1b[0m"), (os.fsdecode(b"\xff\xfe.npy"), r"\xff\xfe.npy"), ("µ\u202e", "µ\\u202e")],
)
def test_names_are_shown_in_printable_characters(text, shown):
    assert show_name(text) == shown
    assert show_lines(f"one\n{text}\ttwo") == f"one\n{shown}\ttwo"


def a_scan(path, **changes):
    facts = {"name": "a", "format": "test", "files": (path,), "shape": (1, 2, 3, 64), "dtype": np.dtype("u2")}
    facts |= {"rows_per_read": 1, "read_counts": lambda rows: np.zeros((1, 2, 3, 64)), "read_scalars": ScanScalars}
    return RawScan(**facts | changes)


@pytest.mark.parametrize("error", [RecursionError, MemoryError, SystemError, KeyError, AssertionError])
def test_whatever_a_reader_raises_becomes_the_projects_own_error(tmp_path, error):
    path = tmp_path / "a.xyz"
    path.write_bytes(b"some text")

    def fail(*_):
        raise error("\x1b[2J")

    for of in (fail, lambda p, o: a_scan(p, read_counts=fail, read_scalars=fail)):
        with pytest.raises(InputFileError, match=r"a\.xyz") as found:
            edge.open_within_bounds(of, path, ReadOptions()).read_counts(slice(0, 1))
        assert "\x1b" not in str(found.value)
    assert not edge.sniff(fail, path, b"")


def test_readers_that_are_added_later_are_held_by_the_same_rules(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    added = registry.ScanFormat(looks_for="x", sniff=lambda _path, _head: True, open_file=fail, file_formats=())
    monkeypatch.setattr(registry, "scan_formats", lambda: (added,))
    (tmp_path / "a.new").write_bytes(b"some text")
    with pytest.raises(InputFileError, match=r"a\.new.*ZeroDivisionError"):
        open_scan(tmp_path / "a.new")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (1, 1, 1, 2**20)}, "channels"),
        ({"shape": (1, 2**20, 2**20, 8)}, "a map"),
        ({"shape": (1, 1, 2**22, 4096)}, "one read"),
    ],
)
def test_claims_are_compared_with_the_size_of_the_file(tmp_path, changes, words):
    path = tmp_path / "a.xyz"
    path.write_bytes(bytes(1000))
    with pytest.raises(InputFileError, match=words):
        edge.open_within_bounds(lambda p, o: a_scan(p, **changes), path, ReadOptions())


def test_room_grows_with_the_file_and_ends_with_the_memory(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(3 * 2**20))
    require_room("a", "it", 290 * 2**20, [path])
    for needed in (310 * 2**20, 2**60, -1):
        with pytest.raises(InputFileError, match="would take"):
            require_room("a", "it", needed, [path])


def test_the_first_look_goes_on_after_a_child_was_ended(tmp_path):
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["counts"] = np.ones((3, 4, 256), np.uint16)
    first_look.require_readable(tmp_path / "a.h5")
    if (HOSTILE / "attribute_loop.h5").is_file():
        with pytest.raises(InputFileError):
            first_look.require_readable(HOSTILE / "attribute_loop.h5")
    first_look.require_readable(tmp_path / "b.h5")


def test_a_look_that_waits_for_a_busy_child_goes_on_when_that_child_dies(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.ones((3, 4, 256), np.uint16)
    looks = first_look._Looks()
    looks.pool.most = 1
    monkeypatch.setattr(first_look, "_LOOKS", looks)
    busy = children.take_child(looks.pool)
    waiting = threading.Thread(target=first_look.require_readable, args=(tmp_path / "a.h5",), daemon=True)
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    children.end_child(looks.pool, busy)
    waiting.join(timeout=60)
    assert not waiting.is_alive()
    children.end_children(looks.pool)


def test_children_end_with_the_process_that_started_them(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.ones((3, 4, 256), np.uint16)
    code = (
        "import sys; from pathlib import Path; from hpcxrf.formats import first_look as f;"
        "f.require_readable(Path(sys.argv[1])); child = f._LOOKS.pool.idle.get(); f._LOOKS.pool.idle.put(child);"
        "print(child.pid, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.h5"], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@needs_cases
@pytest.mark.parametrize(
    "name", ["run_5000_digits.yaml", "deep.yaml", "int.yaml", "timestamp.yaml", "site_timestamp.yaml"]
)
def test_hostile_run_files_and_profiles_are_refused_by_name(name):
    from hpcxrf.config.run import load_run_file
    from hpcxrf.config.site import load_site

    for load in (load_run_file, load_site):
        with pytest.raises(ConfigError, match=name):
            load(HOSTILE / f"{name}.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * (MAX_DEPTH + 1),
        "a: &a [*a]",
        "\n".join(
            ["a: &a [1,1,1,1,1,1,1,1,1]", *(f"{c}: &{c} [{','.join([f'*{chr(ord(c) - 1)}'] * 9)}]" for c in "bcdefghi")]
        ),
        "a: 0x" + "f" * 5000,
        "2001-99-99 00:00:00",
        "!!binary x",
        "? [1]\n: 2",
    ],
)
def test_text_that_is_not_plain_yaml_raises_the_error_of_its_reader(text, tmp_path):
    from hpcxrf.config.run import load_run_file

    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run_file(path)


def test_yaml_within_the_bounds_is_what_it_was():
    assert parse_yaml("a: &x [1, 2.5, on]\nb: *x\n", "x", ConfigError) == {"a": [1, 2.5, True], "b": [1, 2.5, True]}


def test_numbers_of_a_damaged_file_that_overflow_print_no_warning(tmp_path):
    with edge.own_errors(tmp_path / "a.mda"):
        assert np.isinf(np.array([1e308]) * 1e3).all()
        assert np.array([np.nan]).astype(np.int64).shape == (1,)
