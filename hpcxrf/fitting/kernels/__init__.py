"""Compiled inner loops for the processor: a second implementation of a few of the tensor ones, and held equal to them.

Only the modules of this package import numba, and only what runs on a processor imports them.
"""
