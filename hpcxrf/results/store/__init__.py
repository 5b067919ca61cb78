"""The results store of a dataset."""
