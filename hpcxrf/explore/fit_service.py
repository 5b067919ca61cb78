"""What the server asks of the fits of a dataset; the server itself loads nothing that fits."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]


class Fits(Protocol):
    """Fits by eye of one dataset, as `hpcxrf.explore.fit_session.FitSession` makes them."""

    def detectors_of(self, name: str) -> tuple[int, ...]:
        """Numbers of the detectors whose counts `submit` needs."""
        ...

    def submit(
        self,
        request: Mapping[str, Any],
        counts: Mapping[int, NDArray[np.integer[Any]]] | None = None,
        *,
        n_pixels: int | None = None,
        session: str = "",
    ) -> Json:
        """Ask for a fit; gives its id."""
        ...

    def poll(self, job_id: str) -> Json:
        """State of a request, and the fit when it is done."""
        ...

    def cancel(self, job_id: str) -> Json:
        """End a request."""
        ...

    def history(self) -> list[Json]:
        """Kept fits without their spectra, oldest first."""
        ...

    def one(self, fit_id: str) -> Json:
        """One fit whole."""
        ...

    def take_back(self) -> Json | None:
        """Mark the last kept fit as taken back."""
        ...

    def elements(self, detector: str) -> list[Json]:
        """The periodic table with its evidence."""
        ...

    def write(self, request: Mapping[str, Any]) -> Json:
        """Text of a file; nothing is written."""
        ...

    def close(self) -> None:
        """End what runs."""
        ...
