"""The energy axis from the spectrum alone: its peaks, the axes that put them on lines, and how sure one can be."""
