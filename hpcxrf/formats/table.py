"""A row of the table of formats: what a reader says of itself, for `hpcxrf inspect --formats` and the pages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One format of files."""

    name: str
    """Name as `inspect` prints it."""
    files: str
    """Kind and usual endings of the files; what decides is their content."""
    reads: str
    """Whatever is read from them."""
    extra: str | None = None
    """Extra of this package that must be installed, as in `pip install 'hpcxrf[eds]'`; None: nothing more."""
