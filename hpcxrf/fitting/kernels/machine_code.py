"""Compiling kernels once per machine, also where many workers start at once or no folder can be written.

Machine code is loaded by `pickle` from its cache, so that the cache lies where nobody else may write. numba writes its
files by temporary name and rename, so that a lock that a file system does not know costs time and nothing else.
"""

import fcntl
import functools
import hashlib
import importlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, TypeVar, cast

import llvmlite.binding
import numba

# Not `nnan` and `ninf`: they may delete the tests for what is not finite.
FAST_MATH: Final = frozenset({"reassoc", "contract", "nsz", "arcp", "afn"})
# More than the machine code of all kernels: a disk or a quota that is full has no room for a file of so much.
_ROOM: Final = 4 << 20
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

# Whoever waits for the compiling process holds the other end of its input: with them, killed or not, it ends. Nearly
# all that a compiler makes is in use until the end: to look for what is not takes a tenth of its time, for 80 MB.
_IMPORT: Final = """
import gc, importlib, os, sys, threading
gc.disable()
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
importlib.import_module(sys.argv[1])
"""
# The third level takes a tenth more time, and gives no faster kernel.
_OPTIMISED: Final = "2"
_LOG = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(signature: str, *, makes_arrays: bool = False) -> Callable[[Function], Function]:
    """Decorator of a function that is compiled for this signature, releases the interpreter and is kept in the cache.

    A function has one signature: two that are saved at a time could take one file name. What it calls stands in this
    package: changes elsewhere would not be noticed.

    Args:
        signature: of numba, types of all arguments.
        makes_arrays: whether it has arrays of its own. Where it has not, a piece of an array costs nothing: else each
            is counted, by an instruction that waits for all other cores.
    """
    cached = _use_cache(os.environ)
    return cast(Callable[[Function], Function], numba.njit(signature, cache=cached, **_options(arrays=makes_arrays)))


def part(function: Function) -> Function:
    """Decorator of a part of kernels of this package: compiled with those that call it, and not by itself.

    It makes no arrays, and Python cannot call it: what it would be called through takes an eighth of the compiling.
    """
    options = _options(arrays=False) | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Function, numba.njit(**options)(function))


def glue(function: Function) -> Function:
    """Decorator of a part that calls others, or makes arrays for a kernel, written into it before compiling."""
    return cast(Function, numba.njit(inline="always", **_options(arrays=True))(function))


def _options(*, arrays: bool) -> dict[str, Any]:
    return {"nogil": True, "fastmath": set(FAST_MATH), "error_model": "numpy", "_nrt": arrays}


def load_kernels(module: str) -> ModuleType:
    """Import a module of kernels; where several processes need it at once, one has it compiled and the others wait.

    What has compiled a kernel does not run the same instructions as what loads it: it takes parts that are not written
    into the kernel as they were compiled by themselves, which adds up in another order. So kernels are compiled by a
    process of their own, which ends, and with it the memory that this takes; everybody loads them. Where there is no
    folder to load from, everybody compiles.

    Args:
        module: name in this package, without its own.
    """
    folder = kernel_folder(os.environ)
    with _one_compiles(folder):
        if folder is not None:
            _compile_missing([module], folder)
        return importlib.import_module(f"{__package__}.{module}")


def compile_kernels(modules: Sequence[str]) -> None:
    """Have modules compiled that are not, each by a process of its own, all at once; `load_kernels` then loads them.

    Args:
        modules: names in this package, without its own.
    """
    folder = kernel_folder(os.environ)
    if folder is not None:
        with _one_compiles(folder):
            _compile_missing(modules, folder)


def _compile_missing(modules: Sequence[str], folder: Path) -> None:
    """Compile what no process has compiled yet; whoever calls holds the lock of the folder."""
    made = {module: folder / f"{module}-{_stamp_sources()}.compiled" for module in modules}
    missing = [one for one in made if f"{__package__}.{one}" not in sys.modules and not made[one].exists()]
    with ExitStack() as stack:
        begun = {one: stack.enter_context(_compile_apart(f"{__package__}.{one}")) for one in missing}
        for one, wait in begun.items():
            if wait():
                made[one].touch()


@contextmanager
def _compile_apart(name: str) -> Iterator[Callable[[], bool]]:
    """Import a module in a process of its own, which leaves its machine code in the cache.

    Yields:
        What waits for its end, and says whether that went well.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-P", "-c", _IMPORT, name],
            env={"NUMBA_OPT": _OPTIMISED, **os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        ) as child,
    ):
        yield lambda: _has_ended_well(child, said, name)


def _has_ended_well(child: "subprocess.Popen[bytes]", said: IO[str], name: str) -> bool:
    code = child.wait()
    said.seek(0)
    last = (said.read().strip().splitlines() or [f"it ended with {code}"])[-1]
    if code != 0:
        _LOG.warning(
            "%s could not be compiled in a process of its own (%s): it is compiled here, and the last digits of this "
            "process may differ from those of others",
            name,
            last,
        )
    return code == 0


def _stamp_sources() -> str:
    """Where the kernels stand and when they were written, which is what numba knows them by."""
    facts = [(str(path), path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def kernel_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder of this processor's machine code: the first that this user alone can write; None: there is none.

    In turn: NUMBA_CACHE_DIR; `hpcxrf/kernels` in the user's cache (XDG_CACHE_HOME, else ~/.cache); the folder for
    temporary files. Each has a folder for the versions of hpcxrf and numba, the text of the kernels and the kind of
    processor, so that nodes of several kinds share a home.
    """
    return _find_folder(tuple(_list_candidates(environment)))


def _list_candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    given = environment.get("NUMBA_CACHE_DIR")
    if given:
        yield Path(given)
    home = environment.get("HOME")
    cache = environment.get("XDG_CACHE_HOME") or (str(Path(home) / ".cache") if home else None)
    if cache:
        yield Path(cache) / "hpcxrf" / "kernels"
    yield Path(environment.get("TMPDIR") or tempfile.gettempdir()) / f"hpcxrf-kernels-{os.getuid()}"


@functools.cache
def _find_folder(candidates: tuple[Path, ...]) -> Path | None:
    name = _name_machine()
    return next((base / name for base in candidates if _is_own(base) and _is_own(base / name)), None)


def _name_machine() -> str:
    features = llvmlite.binding.get_host_cpu_features().flatten()
    # numba sees changes of a kernel's own file, and not of the files that its parts are in.
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    key = hashlib.sha256(b"".join([features.encode(), *sources])).hexdigest()[:12]
    cpu = llvmlite.binding.get_host_cpu_name()
    return f"{version('hpcxrf')}-numba{version('numba')}-{cpu}-{key}"


def _is_own(folder: Path) -> bool:
    """Whether this user, and nobody else, can write the folder, and has room there; it is made if it is not there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
        if facts.st_uid != os.getuid() or facts.st_mode & _OTHERS_MAY_WRITE:
            return False
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
    except OSError:
        return False
    return True


def _use_cache(environment: Mapping[str, str]) -> bool:
    """Point numba at the folder; whether there is one (with none, its cache raises)."""
    folder = kernel_folder(environment)
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)
    return folder is not None


@contextmanager
def _one_compiles(folder: Path | None) -> Iterator[None]:
    """Hold the lock of the folder; where there is none, or the file system knows no locks, everybody compiles."""
    if folder is None:
        yield
        return
    with (folder / "compiling.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield
            return
        yield
