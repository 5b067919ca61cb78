"""Maps of counts to maps of counts per second at a fixed I0."""
