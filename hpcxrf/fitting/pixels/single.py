"""Numbers of single precision that every processor computes with alike."""

from typing import Final

import torch
from torch import Tensor

_TINY: Final = torch.finfo(torch.float32).tiny


def to_single(values: Tensor) -> Tensor:
    """Values in float32, with 0 for what is below its smallest normal number.

    Threads that flush such numbers and threads that keep them would round some sums otherwise, and they are slow.

    Args:
        values: of any real type and shape.
    """
    single = values.to(torch.float32)
    return torch.where(single.abs() < _TINY, 0.0, single)
