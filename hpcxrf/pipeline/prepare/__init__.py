"""From a run file and a scan to the problem that is fitted."""
