"""Readers of the instruments' files: recognise by content, read lazily."""
