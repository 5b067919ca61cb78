"""Chunked Zarr stores of spectra, and the run directory."""
