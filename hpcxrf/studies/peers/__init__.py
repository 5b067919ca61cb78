"""Other programs on the same spectra."""
