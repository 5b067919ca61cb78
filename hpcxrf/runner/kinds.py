"""Reasons of failures without the names of files, so that equal ones are counted together."""

import re
from typing import Final

# In whatever an error says, what differs from file to file: absolute paths, in quotes where they have blanks. Paths
# within files of known layouts tell the kind of the fault.
_PATH: Final = re.compile(
    r"'/[^']*'|\"/[^\"]*\"|(?<![^\s(=])/(?!(?:MAPS|MAPS_RAW|xrfmap|entry\w*|exchange)/)\S*[^\s:,;.)]"
)


def name_kind(reason: str, dataset_id: str, name: str) -> str:
    """A reason without the names of files, so that equal ones can be counted.

    Args:
        reason: what was recorded.
        dataset_id: of the dataset that failed.
        name: name of its file.
    """
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason was recorded"
    own_file = re.compile(rf"[^\s'\"(]*{re.escape(name)}")
    return _PATH.sub("<file>", own_file.sub("<file>", first).replace(dataset_id, "<dataset>"))
