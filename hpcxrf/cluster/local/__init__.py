"""A Dask cluster on this machine."""
