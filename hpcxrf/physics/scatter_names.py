"""Names of the columns of scattered photons; pages and tables need them without the model."""

from typing import Final

ELASTIC: Final = "COHERENT_SCT_AMPLITUDE"
COMPTON: Final = "COMPTON_AMPLITUDE"
OTHER_SERIES: Final = "ANODE_{series}_SCT"
"""Name of the elastic component of the anode's other series."""
SCATTER: Final = frozenset({ELASTIC, COMPTON, *(OTHER_SERIES.format(series=one) for one in "KL")})
"""Names of all columns of scattered photons."""
