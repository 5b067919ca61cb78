"""Names of what a fit may say against its energy axis: this module imports no torch, so that pages can read it."""

from typing import Final

AMBIGUOUS: Final = "ambiguous_calibration"
"""Another energy axis explains the spectrum as well, or nearly so."""
NOT_FOUND: Final = "energy_axis_not_found"
"""The axis of the fit contradicts the spectrum, or nothing fixes it."""
INCIDENT_DOUBTFUL: Final = "incident_energy_doubtful"
"""The incident energy that was given contradicts the spectrum."""
AXIS_FLAGS: Final = (AMBIGUOUS, NOT_FOUND, INCIDENT_DOUBTFUL)
"""Flags with which amplitudes are not presented as results."""
