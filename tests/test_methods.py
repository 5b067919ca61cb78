"""The table of pixel methods: every row has its file, and run file, help and comments name rows of it."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import hpcxrf
from hpcxrf.cli.options import Pixels
from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError
from hpcxrf.fitting.pixels import linear
from hpcxrf.methods import METHODS, PixelMethod, PixelMethodName, methods_text, methods_that
from hpcxrf.pipeline.pixels.from_config import free_parameters

PACKAGE = Path(hpcxrf.__file__).parent
SCAN = PACKAGE.parent / "workflows" / "scan.yaml"


def test_names_and_rows_are_the_same():
    assert get_args(PixelMethodName) == tuple(METHODS)
    assert {name for name, method in METHODS.items() if not method.summary} == set()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_of_its_name_with_the_one_signature(name):
    module = import_module(f"hpcxrf.fitting.pixels.{name}")
    assert inspect.signature(module.prepare) == inspect.signature(linear.prepare)
    assert inspect.getdoc(module)


def test_no_file_of_a_method_is_without_a_row():
    folder = PACKAGE / "fitting" / "pixels"
    found = {file.stem for file in folder.glob("*.py") if re.search(r"^def prepare\(", file.read_text(), re.M)}
    assert found == set(METHODS)


def test_no_other_code_lists_the_methods():
    """A row is enough: nothing beside the table is keyed by all of its names."""
    names = [n for n in METHODS if n != "linear"]
    lists = [
        file.relative_to(PACKAGE)
        for file in PACKAGE.rglob("*.py")
        if all(f'"{name}"' in file.read_text(encoding="utf-8") for name in names)
    ]
    assert lists == [Path("methods.py")]


def test_the_run_file_takes_every_method_of_the_table_and_no_other():
    def config(**sections):
        return check_config({"input": {"files": ["a"]}, **sections}, "test")

    for name in METHODS:
        assert config(pixels={"method": name}).pixels.method == name
        assert config(regions={"remap": name}).regions.remap == name
    for sections in ({"pixels": {"method": "none"}}, {"regions": {"remap": "none"}}):
        with pytest.raises(ConfigError) as refused:
            config(**sections)
        assert all(f"'{name}'" in str(refused.value) for name in METHODS)


def test_the_options_of_a_row_are_what_the_run_file_refuses():
    for name, method in METHODS.items():
        for allowed, pixels in ((method.snip, {"background": "snip"}), (method.sums, {"detectors": "sum"})):
            raw = {"input": {"files": ["a"]}, "pixels": {"method": name, **pixels}}
            if allowed:
                check_config(raw, "test")
            else:
                with pytest.raises(ConfigError, match="not available with"):
                    check_config(raw, "test")
        assert bool(free_parameters(name)) == method.free
        assert PixelConfig(method=name).wants_weight_classes == method.weight_classes


def test_the_commented_run_file_names_methods_of_the_table():
    text = SCAN.read_text(encoding="utf-8")
    comment = re.search(r"^  method: linear(.*?)^  detectors:", text, re.M | re.S).group(1)
    comment = re.sub(r"\n +# ", " ", comment)
    named = re.findall(r"(\w+): ", comment)
    assert len(named) >= 5
    assert set(named) <= set(METHODS)
    assert f"at most {METHODS['full'].most_pixels:,}".replace(",", " ") in comment
    assert f"at most {METHODS['full'].most_pixels:,}".replace(",", " ") in (PACKAGE / "config/pixels.py").read_text()


def test_the_help_of_the_command_line_describes_every_method():
    (option,) = Pixels.__metadata__
    assert all(f"{name} ({method.summary})" in option.help for name, method in METHODS.items())


def test_texts_of_the_table():
    assert methods_text().startswith("linear (signed, unbiased), nnls (")
    assert methods_that("snip").startswith("linear or nnls")
    assert methods_that("free").startswith("nonlinear or full")


def test_a_row_cannot_be_changed():
    with pytest.raises(AttributeError):
        METHODS["linear"].cpu_rate = 1.0
    assert isinstance(METHODS["linear"], PixelMethod)


def test_the_table_is_read_without_torch():
    code = "import sys, hpcxrf.methods; print(sorted({'torch', 'dask', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
