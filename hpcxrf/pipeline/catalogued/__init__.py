"""Scans of a catalogue as the datasets of a run."""
