"""What answers on a login node."""
