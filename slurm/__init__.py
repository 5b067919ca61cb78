"""Beside the package: site profiles, a rendered job script to read, and a private Slurm to try them on."""
