"""Archives of scans: what is there, what changed, and what is landing."""
