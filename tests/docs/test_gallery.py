"""The scripts of the gallery: short, and each of its own. `make docs` runs them."""

import ast
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "docs" / "gallery").glob("plot_*.py"))


def test_there_are_eight():
    assert len(SCRIPTS) == 8


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_has_ten_lines_beside_its_imports(script):
    text = script.read_text(encoding="utf-8")
    title, *others = ast.parse(text).body
    code = [node for node in others if not isinstance(node, ast.Import | ast.ImportFrom)]
    lines = text.splitlines()[code[0].lineno - 1 :]
    assert sum(bool(line.strip()) for line in lines) <= 10
    assert "\n===" in title.value.value
