"""Maps of this program beside those of another one, of the same scan."""
