"""The section `store` of the run file: in what form stores are kept; changes no result."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED

MANY_DATASETS: Final = 50
"""Runs of more datasets have one file a store, where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Form of the finished stores."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    pack: Literal["auto", "folder", "zip"] = "auto"
    """`zip`: a finished store is one file, `X.zarr.zip`, unless it is larger than 2 GB; `folder`: it is the folder
    `X.zarr`; `auto`: `zip` where the run has more than 50 datasets. `hpcxrf pack` and `unpack` change a run that has
    ended."""


def wants_packing(store: StoreConfig, n_datasets: int) -> bool:
    """Whether the finished stores of a run with so many datasets become one file each."""
    return store.pack == "zip" or (store.pack == "auto" and n_datasets > MANY_DATASETS)
