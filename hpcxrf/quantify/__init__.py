"""Rates, areal densities and their errors."""
