"""The published comparison: nothing below imports it."""
