"""Turns a workload into a resumable Dask graph."""
