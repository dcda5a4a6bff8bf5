"""Attention and rotary embeddings of ONNX's own domain (opset 23 and later)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import torch_dtype

__all__ = ["heads_apart", "heads_together", "rotate"]


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """``(batch, length, heads * size)`` as ``(batch, heads, length, size)``."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def heads_together(x: Tensor) -> Tensor:
    """The way back from :func:`heads_apart`."""
    return x.transpose(1, 2).flatten(2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool, width: int = 0) -> Tensor:
    """Rotates the first ``width`` of the last axis (all for 0); ``cos`` and ``sin`` broadcast against half of it."""
    width = width or x.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., : width // 2], turned[..., width // 2 :]
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    made = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    return torch.cat([made, rest], -1) if rest.shape[-1] else made


@op("RotaryEmbedding", since=23)
def rotary_embedding(
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    flat = x.ndim == 3
    if flat:
        x = heads_apart(x, num_heads)
    cos = cos_cache if position_ids is None else F.embedding(position_ids, cos_cache)
    sin = sin_cache if position_ids is None else F.embedding(position_ids, sin_cache)
    y = rotate(x, cos.unsqueeze(1), sin.unsqueeze(1), interleaved=bool(interleaved), width=rotary_embedding_dim)
    return heads_together(y) if flat else y


@builds("Attention", since=23)
def attention(node: OpNode) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    precision = node.attribute("softmax_precision")
    return functools.partial(
        _attention,
        causal=bool(node.attribute("is_causal", 0)),
        scale=node.attribute("scale"),
        softcap=node.attribute("softcap", 0.0),
        heads=node.attribute("q_num_heads", 0),
        kv_heads=node.attribute("kv_num_heads", 0),
        stage=node.attribute("qk_matmul_output_mode", 0) if node.outputs > 3 else None,
        precision=None if precision is None else torch_dtype(precision),
        window=(node.attribute("left_window_size", -1), node.attribute("right_window_size", -1)),
        outputs=node.outputs,
    )


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    causal: bool,
    scale: float | None,
    softcap: float,
    heads: int,
    kv_heads: int,
    stage: int | None,
    precision: torch.dtype | None,
    window: tuple[int, int],
    outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    flat = q.ndim == 3
    if flat:
        q, k, v = heads_apart(q, heads), heads_apart(k, kv_heads), heads_apart(v, kv_heads)
    k = k if past_key is None else torch.cat([past_key, k], 2)
    v = v if past_value is None else torch.cat([past_value, v], 2)
    present = k, v
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    before = 0 if past_key is None else past_key.shape[2]
    bias = _bias(q, k, mask, lengths, (window[0], 0 if causal else window[1]), before)
    if not softcap and stage is None and precision is None:
        y, scores = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale), q
        if bias is not None and (lengths is not None or mask is not None):
            y = _defined(y, bias)
    else:
        y, scores = _by_hand(q, k, v, bias, scale, softcap, stage, precision)
    y = heads_together(y) if flat else y
    return y if outputs == 1 else (y, *present, scores)


def _defined(y: Tensor, bias: Tensor) -> Tensor:
    """Rows that may look at nothing give zeros."""
    nowhere = (~bias if bias.dtype == torch.bool else torch.isneginf(bias)).all(-1, keepdim=True)
    return torch.where(nowhere, torch.zeros((), dtype=y.dtype, device=y.device), y)


def _bias(
    q: Tensor, k: Tensor, mask: Tensor | None, lengths: Tensor | None, window: tuple[int, int], before: int
) -> Tensor | None:
    rows, columns = q.shape[2], k.shape[2]
    bias = mask
    if bias is not None and bias.shape[-1] < columns:
        fill = False if bias.dtype == torch.bool else float("-inf")
        bias = F.pad(bias, (0, columns - bias.shape[-1]), value=fill)
    allowed: Tensor | None = None
    if max(window) >= 0:
        offset = torch.full((), before, device=q.device)
        if lengths is not None:
            offset = (lengths - rows)[:, None, None, None]
        ahead = torch.arange(columns, device=q.device) - torch.arange(rows, device=q.device)[:, None] - offset
        allowed = ahead <= window[1] if window[1] >= 0 else ahead >= -window[0]
        if min(window) >= 0:
            allowed = allowed & (ahead >= -window[0])
    if lengths is not None:
        there = torch.arange(columns, device=q.device) < lengths[:, None, None, None]
        allowed = there if allowed is None else allowed & there
    if allowed is None:
        return bias
    if bias is None:
        return allowed
    if bias.dtype == torch.bool:
        return bias & allowed
    return torch.where(allowed, bias, torch.full((), float("-inf"), dtype=bias.dtype, device=bias.device))


def _by_hand(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float | None,
    softcap: float,
    stage: int | None,
    precision: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    root = math.sqrt(scale if scale is not None else 1 / math.sqrt(q.shape[-1]))
    scores = (q * root) @ (k * root).transpose(-1, -2)
    raw = scores
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, dtype=q.dtype, device=q.device).masked_fill(~bias, float("-inf"))
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    capped = scores
    if bias is not None:
        scores = scores + bias
    stages = [raw, capped, scores]
    weights = torch.softmax(scores if precision is None else scores.to(precision), -1).to(q.dtype)
    if bias is not None:
        weights = _defined(weights, scores)
    stages.append(weights)
    return weights @ v, stages[stage or 0]
