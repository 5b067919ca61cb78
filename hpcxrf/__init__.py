"""hpcxrf: archives of X-ray fluorescence scans into element maps."""

from typing import Final

__version__: Final = "0.1.0"
