"""The published case study on a simulated scan."""
