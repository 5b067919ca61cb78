"""The fits of every pixel."""
