"""The fit of the integrated spectrum."""
