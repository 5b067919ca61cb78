"""Scans as they land: folders that are watched, scans that are complete, first views of those that grow, and a page."""
