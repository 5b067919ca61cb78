"""What becomes of a run while it is looked at: written again, or gone."""

from hpcxrf.errors import OutputError


class StoreChangedError(OutputError):
    """What is open was written again, or removed from its run: what is there now can be opened in its place."""


class StoreGoneError(OutputError):
    """What is open is gone, and the run with it: there is nothing to open in its place."""
