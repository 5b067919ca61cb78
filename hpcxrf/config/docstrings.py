"""Docstrings below the fields of the configuration's classes, which are the reference of run files and profiles."""

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping


@functools.cache
def read_docstrings(kind: type) -> Mapping[str, str]:
    """Read the docstrings below the fields of a dataclass.

    Args:
        kind: class whose source is at hand.

    Returns:
        Text in one line by the name of the field.
    """
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
