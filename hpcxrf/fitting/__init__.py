"""Fits: integrated spectra and pixels. Tensors in, dataclasses out."""
