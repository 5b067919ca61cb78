"""Two runs, or two results, beside each other: dataset by dataset, and which changed most."""
