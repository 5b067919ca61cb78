"""The page of a dataset: what it shows as numbers and 8-bit maps, its templates and its scripts."""
