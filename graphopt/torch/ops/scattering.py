"""Writing at computed places: Scatter, ScatterElements, ScatterND, TensorScatter."""

from __future__ import annotations

import torch
from torch import Tensor

from graphopt.torch.ops.gathering import positive
from graphopt.torch.registry import op

__all__: list[str] = []

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("Scatter")
@op("ScatterElements", since=11)
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    places = positive(indices.to(torch.int64), x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@op("ScatterND", since=11)
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    depth = indices.shape[-1]
    places = tuple(positive(indices[..., axis].to(torch.int64), x.shape[axis]) for axis in range(depth))
    if reduction in ("none", "add"):
        return x.index_put(places, updates, accumulate=reduction == "add")
    flat = torch.zeros_like(places[0])
    for axis, place in enumerate(places):
        flat = flat * x.shape[axis] + place
    rest = x.shape[depth:]
    rows = x.reshape(-1, *rest)
    values = updates.reshape(-1, *rest)
    where = flat.reshape(-1, *[1] * len(rest)).expand(values.shape)
    return rows.scatter_reduce(0, where, values, _REDUCTIONS[reduction]).reshape(x.shape)


@op("TensorScatter", since=24)
def tensor_scatter(
    past: Tensor, update: Tensor, write_indices: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    axis = axis % past.ndim
    steps = torch.arange(update.shape[axis], device=past.device)
    if write_indices is None:
        write_indices = torch.zeros(past.shape[0], dtype=torch.int64, device=past.device)
    places = write_indices[:, None] + steps
    if mode == "circular":
        places = places % past.shape[axis]
    shape = [1] * past.ndim
    shape[0], shape[axis] = places.shape
    return past.scatter(axis, places.reshape(shape).expand(update.shape), update)
