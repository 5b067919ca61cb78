"""The explorer: one scan in the browser, its spectra, and fits by eye."""
