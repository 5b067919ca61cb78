"""What runs inside a Slurm job."""
