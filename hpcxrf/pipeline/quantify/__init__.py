"""Normalised maps to areal densities, by standards that are fitted as the samples are."""
