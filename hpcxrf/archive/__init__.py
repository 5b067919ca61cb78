"""Archives of scans: their catalogue, and what runs over them have found."""
