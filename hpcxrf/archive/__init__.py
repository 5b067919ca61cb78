"""Archives: their catalogue, runs over them, what changed between two, scans as they land."""
