"""Kernels with a derivative written by hand, as the compiler should see them: whole.

Dynamo looks into an `autograd.Function` and loses its batching rule there, so that `compile(vmap(grad(...)))` would fail.
Put into the graph as one call, the function keeps both its rules. Asking for a kernel here is what tells Dynamo so: it
happens while a program is traced and not at import, because importing Dynamo takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from craft.types import Tensor

_KERNELS: dict[str, Callable[..., Tensor]] = {}


def kernel(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Enter a function of tensors and constants under its own name."""
    _KERNELS[function.__name__] = function
    return function


def __getattr__(name: str) -> Any:
    if name not in _KERNELS:
        raise AttributeError(f"no kernel {name!r}")
    from torch import _dynamo

    return _dynamo.allow_in_graph(_KERNELS[name])  # type: ignore[no-untyped-call]
