"""Matrix products (ONNX: MatMul, Gemm, Einsum, Det)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.ops.arithmetic import wide
from graphopt.torch.registry import builds, op

__all__: list[str] = []


@op("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(wide(a), wide(b)).to(a.dtype) if not a.is_floating_point() else torch.matmul(a, b)


@builds("Gemm")
def gemm(node: OpNode) -> Callable[..., Tensor]:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    left, right = node.attribute("transA", 0), node.attribute("transB", 0)
    if alpha == 1 and right and not left and (beta == 1 or not node.given(2)):
        return _linear
    return functools.partial(_gemm, alpha=alpha, beta=beta, left=bool(left), right=bool(right))


def _linear(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    if c is None or (c.ndim == 1 and c.shape[0] == b.shape[0] and c.is_floating_point()):
        return F.linear(a, b, c)
    return torch.add(F.linear(a, b), c)


def _gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float, beta: float, left: bool, right: bool
) -> Tensor:
    a = a.t() if left else a
    b = b.t() if right else b
    if c is not None and a.is_floating_point():
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    product = matmul(a, b)
    if alpha != 1:
        product = (product * alpha).to(product.dtype)
    if c is None:
        return product
    added = wide(product) + (wide(c) if beta == 1 else wide(c) * beta)
    return added.to(product.dtype)


@op("Einsum", since=12)
def einsum(*xs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation.replace(" ", ""), *xs)


@op("Det", since=11)
def determinant(x: Tensor) -> Tensor:
    found: Tensor = torch.linalg.det(x)
    return found


@op("FusedMatMul", domain="com.microsoft")
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Tensor:
    a = _turned(a, transA, transBatchA)
    b = _turned(b, transB, transBatchB)
    product = torch.matmul(a, b)
    return product if alpha == 1 else product * alpha


def _turned(x: Tensor, last: int, batch: int) -> Tensor:
    if batch:
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if last and x.ndim > 1 else x
