"""Archives of scans as a whole: what they hold, and what was made of them. Answers on a login node."""
