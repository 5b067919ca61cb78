"""Exceptions and exit codes: one string argument each, all faults at once, then the remedy.

Exit codes (documented in README): 0 done; 1 a fault of the program; 2 command line or run file; 3 input
file; 4 output folder or store; 5 the fit as asked is impossible; 6 finished, but some datasets failed or
their fits are wrong; 7 Slurm refuses or does not answer; 8 what was compared differs; 75 stopped early, resumable;
130 Ctrl-C, resumable.
"""

from typing import ClassVar, Final

EXIT_RESUMABLE: Final = 75
EXIT_INTERRUPTED: Final = 130


class HpcxrfError(Exception):
    """Base of every error that a user can do something about; `str(error)` is the whole message."""

    exit_code: ClassVar[int] = 1


class ConfigError(HpcxrfError):
    """A run file or an option that cannot be meant."""

    exit_code = 2


class InputFileError(HpcxrfError):
    """A file that cannot be read as a scan, an override file or a standard."""

    exit_code = 3


class OutputError(HpcxrfError):
    """A folder or store that cannot be written, or that another version wrote."""

    exit_code = 4


class FitError(HpcxrfError):
    """A fit that is impossible as asked: unknown element, unexcited family, empty range."""

    exit_code = 5


class DeviceLostError(HpcxrfError):
    """A GPU stopped to work: what the process computes there from then on cannot be trusted; it must start anew."""


class DatasetsFailedError(HpcxrfError):
    """The run went to its end, but some datasets failed, or the verdict on their fits refuses them."""

    exit_code = 6


class SlurmError(HpcxrfError):
    """Slurm refuses what is asked, or does not answer."""

    exit_code = 7


class OtherScanError(OutputError):
    """A finished store of spectra is that of another scan, or of other options of reading."""


class DifferentError(HpcxrfError):
    """What was compared is not the same: two runs, or a result and what it was made from, or it and its second."""

    exit_code = 8


class DamagedStoreError(OutputError):
    """A store that was finished lost a file or holds bytes that cannot be read; it is made again."""
