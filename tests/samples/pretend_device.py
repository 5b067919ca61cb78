"""A strict device that is not there: tensors of a foreign device, whose mixing with those of the processor raises.

What runs on it runs on the processor, so that numbers can be compared; it counts what a real device would have to start
(launches) and where the processor would have to wait for it (synchronisations). A CUDA device lets some mixtures pass
that cost a synchronisation (a mask of the processor as an index); here every one raises, but for numbers, which have
no dimension.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
_COPY = torch.ops.aten.copy_.default
_COPIES = {torch.ops.aten._to_copy.default, _COPY}
_BY_INDEX = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}
# Their result has a size, or is a number, that only the device knows.
_WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_consecutive.default,
    torch.ops.aten.repeat_interleave.Tensor,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.bincount.default,
}
# What takes memory and starts nothing.
_MEMORY_ALONE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.new_empty.default,
}


@dataclass
class Use:
    """What a device was asked to do."""

    launches: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)
    recorded: list | None = None
    """What is captured: functions that do again what was asked; None: nothing is captured."""


class ForeignTensor(torch.Tensor):
    """A tensor of the device, with its numbers in memory of the processor."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self):
        return f"ForeignTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function, _types, args=(), kwargs=None):
        return _run(function, args, kwargs or {}, Use())


class _Watch(TorchDispatchMode):
    def __init__(self, use):
        super().__init__()
        self.use = use

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        return _run(function, args, kwargs or {}, self.use)


def _is_foreign(device):
    return device is not None and torch.device(device).type == NAME


def _run(function, args, kwargs, use):
    leaves = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    foreign = [x for x in leaves if isinstance(x, ForeignTensor)]
    wanted = kwargs.get("device")
    if not foreign and not _is_foreign(wanted):
        return function(*args, **kwargs)
    stays = isinstance(args[0], ForeignTensor) if function is _COPY else wanted is None or _is_foreign(wanted)
    if function in _COPIES:
        _count_copy(function, leaves, use, stays=stays, at_once=not kwargs.get("non_blocking", False))
    else:
        _refuse_mixture(function, leaves)
        _count(function, args, use)
    inner_args, inner_kwargs = tree_map(lambda x: x.inner if isinstance(x, ForeignTensor) else x, (args, kwargs))
    if _is_foreign(wanted):
        inner_kwargs["device"] = torch.device("cpu")
    found = function(*inner_args, **inner_kwargs)
    if use.recorded is not None and not function.is_view:
        use.recorded.append(partial(_again, function, inner_args, inner_kwargs, found))
    if function is _COPY:
        return args[0]
    if not stays:
        return found
    wrapped = tree_map(lambda x: ForeignTensor(x) if isinstance(x, torch.Tensor) else x, found)
    return return_and_correct_aliasing(function, args, kwargs, wrapped) if foreign else wrapped


def _again(function, args, kwargs, found):
    """What was done, with what lies in the same memory now."""
    for old, new in zip(tree_flatten(found)[0], tree_flatten(function(*args, **kwargs))[0], strict=True):
        if isinstance(old, torch.Tensor) and old is not new:
            old.copy_(new)


def _refuse_mixture(function, leaves):
    own = [x for x in leaves if not isinstance(x, ForeignTensor) and x.dim() > 0]
    if own and len(own) < len(leaves):
        shapes = ", ".join(str(tuple(x.shape)) for x in own)
        raise RuntimeError(f"{function}: tensors of the processor {shapes} mixed with those of the device")


def _count_copy(function, leaves, use, *, stays, at_once):
    if all(isinstance(x, ForeignTensor) for x in leaves) and stays:
        use.launches[str(function)] += 1
        return
    use.launches["copy to the device" if stays else "copy from the device"] += 1
    if not stays and at_once:
        use.waits["copy from the device"] += 1


def _count(function, args, use):
    by_mask = function in _BY_INDEX and any(x is not None and x.dtype == torch.bool for x in args[1])
    if function in _WAITS or by_mask:
        if use.recorded is not None:
            raise RuntimeError(f"{function}: the processor would wait for the device while a graph is captured")
        use.waits[str(function)] += 1
    if not function.is_view and function not in _MEMORY_ALONE:
        use.launches[str(function)] += 1


def _spoil(found):
    for values in tree_flatten(found)[0]:
        if isinstance(values, torch.Tensor):
            values.fill_(torch.nan if values.dtype.is_floating_point else 1)


_registered = []
_watching = []


def pretend_device():
    """The device; it is registered with torch when it is first asked for."""
    if not _registered:
        backend_registration._setup_privateuseone_for_python_backend(NAME)
        _registered.append(NAME)
    return torch.device(NAME, 0)


@contextmanager
def watched():
    """Run on the device within this context; what it was asked to do."""
    use = Use()
    _watching.append(use)
    try:
        with _Watch(use):
            yield use
    finally:
        _watching.pop()


def capture(run):
    """What `graphs.capture_on_cuda` does, here: the function that repeats, by one launch, what was asked within.

    As of a CUDA graph, nothing of the processor is repeated, memory stays where it was, and waiting is an error. A
    CUDA device does nothing while it captures; here the results of the capture are overwritten, so that whoever reads
    them without a replay reads nonsense.
    """
    use, recorded = _watching[-1], []
    before, use.recorded = use.launches.copy(), recorded
    try:
        run()
    finally:
        use.launches, use.recorded = before, None
    for again in recorded:
        _spoil(again.args[-1])

    def replay():
        _watching[-1].launches["replay"] += 1
        for again in recorded:
            again()

    return replay
