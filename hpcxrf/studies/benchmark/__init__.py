"""The published benchmark over an archive."""
