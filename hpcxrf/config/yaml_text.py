"""Values written as YAML, so that what is read back is what was written."""

import json
import re
from typing import Any, Final

import yaml

_BREAKS: Final = re.compile("[\x85\u2028\u2029\ufeff]")
"""YAML takes them for ends of lines or for a mark at its begin, and PyYAML writes them as they are."""


def dump_yaml(value: object, **options: Any) -> str:  # noqa: ANN401 (options of PyYAML)
    """Write JSON values as YAML: letters of all languages as they are, unless one of them would not be read back.

    Args:
        value: JSON values.
        options: of `yaml.safe_dump`.
    """
    plain = _BREAKS.search(json.dumps(value, ensure_ascii=False)) is None
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=plain, **options))
