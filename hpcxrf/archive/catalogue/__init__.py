"""Walking an archive into its catalogue, which `hpcxrf.catalogue` reads."""
