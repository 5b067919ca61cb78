"""Every pixel of a scan: from its store to its maps."""
