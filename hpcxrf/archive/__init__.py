"""Archives: their catalogue, runs over them, what changed between two, scans as they land. Answers on a login node."""
