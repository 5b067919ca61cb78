"""Results for other programs: one module a format, and the table of them in `formats`."""
