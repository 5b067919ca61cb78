"""The catalogue of an archive: one SQLite file with a row for every scan of nested folders."""
