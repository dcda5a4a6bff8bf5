"""Losses (ONNX: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.torch.registry import op

__all__: list[str] = []


@op("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Tensor:
    ignored = -100 if ignore_index is None else ignore_index
    return F.nll_loss(x, target.to(torch.int64), weight, ignore_index=ignored, reduction=reduction)


@op("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    logarithms = torch.log_softmax(x, 1)
    loss = negative_log_likelihood(logarithms, target, weight, ignore_index=ignore_index, reduction=reduction)
    return loss, logarithms
