"""Normalizations (ONNX: BatchNormalization, LayerNormalization, ...)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Run

__all__: list[str] = []


@builds("BatchNormalization", run=True, pure=False)
def batch_norm(node: OpNode) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """In training mode, or with ``training_mode``, by the statistics of the batch; those of the module then move."""
    held = node.holds(3) and node.holds(4)
    if node.attribute("spatial", 1) != 1:
        raise node.refuse("statistics for each place (spatial=0) are not known")
    settings = {"epsilon": node.attribute("epsilon", 1e-5), "momentum": node.attribute("momentum", 0.9)}
    if node.attribute("training_mode", 0):
        return functools.partial(_batch_norm_training, **settings, outputs=node.outputs)
    return functools.partial(_batch_norm, **settings, held=held)


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    held: bool,
    run: Run,
) -> Tensor:
    training = run.training and held
    return F.batch_norm(x, mean, variance, scale, bias, training, 1 - momentum, epsilon)


def _batch_norm_training(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    outputs: int,
    run: Run,
) -> Tensor | tuple[Tensor, ...]:
    y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    if outputs == 1:
        return y
    axes = [axis for axis in range(x.ndim) if axis != 1]
    spread, centre = torch.var_mean(x.detach().to(mean.dtype), axes, correction=0)
    return y, mean * momentum + centre * (1 - momentum), variance * momentum + spread * (1 - momentum)


@op("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    if x[0, 0].numel() > 1:
        return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)
    return torch.zeros_like(x) + bias.reshape(-1, *[1] * (x.ndim - 2))


@builds("LayerNormalization", since=1)
@builds("LayerNormalization", since=17)
def layer_norm(node: OpNode) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    axis, epsilon = node.attribute("axis", -1), node.attribute("epsilon", 1e-5)
    if node.outputs > 1:
        return functools.partial(_layer_norm_statistics, axis=axis, epsilon=epsilon)
    return functools.partial(_layer_norm, axis=axis, epsilon=epsilon)


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, epsilon: float) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * scale
    return y if bias is None else y + bias


def _layer_norm_statistics(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, epsilon: float
) -> tuple[Tensor, ...]:
    axes = list(range(axis % x.ndim, x.ndim))
    spread, mean = torch.var_mean(x.float() if x.dtype.itemsize < 4 else x, axes, correction=0, keepdim=True)
    return _layer_norm(x, scale, bias, axis=axis, epsilon=epsilon), mean, torch.rsqrt(spread + epsilon)


@op("RMSNormalization", since=23)
@op("SimplifiedLayerNormalization")
def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape and x.dtype == scale.dtype and x.dtype.itemsize >= 4:
        return F.rms_norm(x, shape, scale, epsilon)
    work = x.float() if stash_type == 1 and x.dtype.itemsize < 4 else x
    axes = list(range(axis % x.ndim, x.ndim))
    y = work * torch.rsqrt(work.square().mean(axes, keepdim=True) + epsilon)
    return y.to(x.dtype) * scale


@builds("GroupNormalization", since=18)
def group_norm_of_groups(node: OpNode) -> Callable[..., Tensor]:
    """Scale and bias for each group (opset 18)."""
    return functools.partial(_group_norm, groups=node.attribute("num_groups"), epsilon=node.attribute("epsilon", 1e-5))


@builds("GroupNormalization", since=21)
def group_norm(node: OpNode) -> Callable[..., Tensor]:
    """Scale and bias for each channel."""
    return functools.partial(_group_norm, groups=node.attribute("num_groups"), epsilon=node.attribute("epsilon", 1e-5))


def _group_norm(x: Tensor, scale: Tensor, bias: Tensor, *, groups: int, epsilon: float) -> Tensor:
    if scale.shape[0] != x.shape[1]:
        scale = scale.repeat_interleave(x.shape[1] // groups)
        bias = bias.repeat_interleave(x.shape[1] // groups)
    return F.group_norm(x, groups, scale, bias, epsilon)


@op("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("LRN")
def local_response_norm(x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Tensor:
    before = (size - 1) // 2
    squares = x.square().flatten(2).unsqueeze(1)
    squares = F.pad(squares, (0, 0, before, size - 1 - before))
    sums = F.avg_pool2d(squares, (size, 1), stride=1).squeeze(1).reshape(x.shape)  # divided by size, as ONNX wants
    return x / (bias + alpha * sums).pow(beta)


@op("MeanVarianceNormalization", since=9)
def mean_variance_norm(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    mean = x.mean(tuple(axes), keepdim=True)
    deviation = ((x * x).mean(tuple(axes), keepdim=True) - mean * mean).sqrt()
    return (x - mean) / (deviation + 1e-9)
