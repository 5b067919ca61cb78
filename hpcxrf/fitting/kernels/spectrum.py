"""The kernels of the integrated spectrum, as `load_kernels` loads them."""

from hpcxrf.fitting.kernels.axis_scores import score_partners, score_positions
from hpcxrf.fitting.kernels.spectrum_absence import add_information
from hpcxrf.fitting.kernels.spectrum_amplitudes import leave_residual, multiply_columns, solve_members
from hpcxrf.fitting.kernels.spectrum_columns import draw_columns
from hpcxrf.fitting.kernels.spectrum_lines import place_lines
from hpcxrf.fitting.kernels.spectrum_screen import screen_axes
from hpcxrf.fitting.kernels.spectrum_slopes import derive
from hpcxrf.fitting.kernels.spectrum_steps import build_equations, take_step
from hpcxrf.fitting.kernels.spectrum_sums import sum_lines

__all__ = [
    "add_information",
    "build_equations",
    "derive",
    "draw_columns",
    "leave_residual",
    "multiply_columns",
    "place_lines",
    "score_partners",
    "score_positions",
    "screen_axes",
    "solve_members",
    "sum_lines",
    "take_step",
]
