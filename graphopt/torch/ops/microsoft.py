"""Operators of ONNX Runtime's own domain that its and our fusions emit."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.ops.attention import heads_apart, heads_together, rotate
from graphopt.torch.ops.norm import rms_norm
from graphopt.torch.registry import builds, op

__all__: list[str] = []

_DOMAIN = "com.microsoft"


@op("FastGelu", domain=_DOMAIN)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@op("BiasGelu", domain=_DOMAIN)
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@op("QuickGelu", domain=_DOMAIN)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@op("SimplifiedLayerNormalization", domain=_DOMAIN)
def simplified_layer_norm(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return rms_norm(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type)


@builds("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_norm(node: OpNode) -> Callable[..., tuple[Tensor | None, ...]]:
    return functools.partial(_skip_layer_norm, epsilon=node.attribute("epsilon", 1e-12))


def _skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float,
) -> tuple[Tensor | None, ...]:
    total = x + skip if bias is None else x + skip + bias
    return F.layer_norm(total, total.shape[-1:], gamma, beta, epsilon), None, None, total


@builds("SkipSimplifiedLayerNormalization", domain=_DOMAIN)
def skip_rms_norm(node: OpNode) -> Callable[..., tuple[Tensor | None, ...]]:
    return functools.partial(_skip_rms_norm, epsilon=node.attribute("epsilon", 1e-12))


def _skip_rms_norm(
    x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None, *, epsilon: float
) -> tuple[Tensor | None, ...]:
    total = x + skip if bias is None else x + skip + bias
    return rms_norm(total, gamma, epsilon=epsilon), None, None, total


@op("RotaryEmbedding", domain=_DOMAIN)
def rotary_embedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
) -> Tensor:
    flat = x.ndim == 3
    size = rotary_embedding_dim or 2 * cos_cache.shape[-1]
    if flat:
        x = heads_apart(x, num_heads or x.shape[-1] // size)
    if position_ids.numel() == 1:
        position_ids = position_ids.reshape(1, 1) + torch.arange(x.shape[2], device=x.device)
    cos, sin = F.embedding(position_ids, cos_cache).unsqueeze(1), F.embedding(position_ids, sin_cache).unsqueeze(1)
    y = rotate(x, cos, sin, interleaved=bool(interleaved), width=rotary_embedding_dim)
    return heads_together(y) if flat else y


@builds("MultiHeadAttention", domain=_DOMAIN)
def multi_head_attention(node: OpNode) -> Callable[..., Tensor]:
    if node.outputs > 1 or any(node.given(place) for place in (6, 7)) or not node.given(1):
        raise node.refuse("a cache of keys and values, and packed queries, are not known")
    return functools.partial(
        _multi_head_attention,
        heads=node.attribute("num_heads"),
        scale=node.attribute("scale"),
        fill=node.attribute("mask_filter_value", -10000.0),
        causal=bool(node.attribute("unidirectional", 0)),
    )


def _multi_head_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    added: Tensor | None = None,
    *,
    heads: int,
    scale: float | None,
    fill: float,
    causal: bool,
) -> Tensor:
    if bias is not None:
        width = q.shape[-1]
        q, k, v = q + bias[:width], k + bias[width : width + k.shape[-1]], v + bias[width + k.shape[-1] :]
    q, k, v = (x if x.ndim == 4 else heads_apart(x, heads) for x in (q, k, v))
    mask = _padding_bias(q, k, padding, fill)
    mask = added if mask is None else mask if added is None else mask + added
    if causal and mask is not None:
        below = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
        mask = mask + torch.zeros_like(mask).masked_fill(~below, fill)
        causal = False
    return heads_together(F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale or None))


def _padding_bias(q: Tensor, k: Tensor, padding: Tensor | None, fill: float) -> Tensor | None:
    """``(batch, 1, 1 or rows, columns)``, zero where there is something; lengths and masks of 0 and 1."""
    if padding is None:
        return None
    if padding.ndim == 1:
        padding = torch.arange(k.shape[2], device=q.device) < padding[:, None]
    while padding.ndim < 4:
        padding = padding.unsqueeze(1)
    zero = torch.zeros(padding.shape, dtype=q.dtype, device=q.device)
    return zero.masked_fill(padding == 0, fill)


@builds("Attention", domain=_DOMAIN)
def attention(node: OpNode) -> Callable[..., Tensor]:
    if node.outputs > 1 or node.given(4) or node.attribute("do_rotary", 0):
        raise node.refuse("a cache of keys and values, and rotation, are not known")
    return functools.partial(
        _attention,
        heads=node.attribute("num_heads"),
        sizes=node.attribute("qkv_hidden_sizes"),
        scale=node.attribute("scale"),
        fill=node.attribute("mask_filter_value", -10000.0),
        causal=bool(node.attribute("unidirectional", 0)),
    )


def _attention(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    padding: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    *,
    heads: int,
    sizes: tuple[int, ...] | None,
    scale: float | None,
    fill: float,
    causal: bool,
) -> Tensor:
    packed = x @ w if b is None else x @ w + b
    q, k, v = torch.split(packed, list(sizes or (w.shape[1] // 3,) * 3), -1)
    return _multi_head_attention(q, k, v, None, padding, added, heads=heads, scale=scale, fill=fill, causal=causal)
