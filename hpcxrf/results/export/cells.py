"""Cells of a table that a spreadsheet takes for what they are."""

import math
from typing import Final

Cell = str | float | int

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def escape_cell(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula: text that starts like one gets an apostrophe.

    Numbers stay numbers; NaN becomes an empty cell.
    """
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
    return "" if isinstance(cell, float) and math.isnan(cell) else cell
