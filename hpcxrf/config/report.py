"""The section `report` of the run file: which pages a run draws."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED

PagesChoice = Literal["all", "failed", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Pages of the run beside its summary, `report.html`."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    pages: PagesChoice = "all"
    """Datasets with a page of their own: `all`; `failed`: those with a fit that is not good, while a dataset without
    results has its reason in the summary; `none`."""
