"""One word on a fit: good, doubtful or wrong. R2 alone says too little: a wrong energy axis can reach .9999."""

from enum import IntEnum


class Verdict(IntEnum):
    """Verdict on a fit; stored as uint8 with CF `flag_values` and `flag_meanings`, worse ones are larger."""

    NOT_JUDGED = 0
    """A detector without counts, or a fit of a version or of a program that gives no verdict."""
    GOOD = 1
    DOUBTFUL = 2
    """The numbers may hold; somebody should look at the reasons first."""
    WRONG = 3
    """The amplitudes are not results: no solution, a wrong energy axis, or a model that does not describe the
    spectrum."""

    @property
    def word(self) -> str:
        """The verdict as people and scripts read it."""
        return self.name.lower().replace("_", " ")
