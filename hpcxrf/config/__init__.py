"""The run file and the site profile, one module a section."""
