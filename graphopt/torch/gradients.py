"""Gradients of a loss by the constants of an ONNX model: what ``taylor`` and ``fisher`` importance rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.errors import UsageError
from graphopt.torch.module import from_onnx
from graphopt.torch.outputs import Kind, kinds, log_probabilities
from graphopt.torch.values import to_numpy

__all__ = ["Loss", "gradients"]

Array = npt.NDArray[Any]
Loss: TypeAlias = Literal["ce", "kl", "mse"]


def gradients(
    model: ir.Model,
    names: Sequence[str],
    batches: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[Array] | None = None,
    loss: Loss = "ce",
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[Mapping[str, Array]]:
    """The gradient of a loss, the mean over the samples of a batch, by each named constant.

    Without labels they are drawn from what the model itself predicts: classes for outputs ``(N, classes)``, a normal
    distribution around the output for others. The mean of the squared gradients then is the diagonal of the true
    Fisher information (Martens, arXiv 1412.1193), which at a well-trained model is that of the Hessian.

    Args:
        model: The model.
        names: Initializers, or outputs of Constant nodes.
        batches: Inputs by name.
        labels: For the first output, one array for each batch: classes ``(N,)`` for ``ce``, a teacher's logits for
            ``kl``, values for ``mse``.
        loss: Cross-entropy, Kullback-Leibler divergence from the labels, or half the squared error. It only matters
            with labels.
        temperature: Of ``kl``.
        seed: For drawing labels.
        device: Where to compute.

    Yields:
        For each batch an array for each name that the loss depends on.

    Raises:
        UsageError: There are fewer labels than batches.
        UnsupportedOperator: A node cannot be differentiated here.
    """
    if labels is not None and len(labels) != len(batches):
        raise UsageError(f"there are {len(batches)} batches and labels for {len(labels)}")
    wanted = set(names)
    module = from_onnx(model, trainable=lambda value: value.name in wanted).to(device)
    parameters = {
        onnx_name: module.get_parameter(name)
        for name, onnx_name in module.names.items()
        if onnx_name in wanted and name in dict(module.named_parameters(recurse=False))
    }
    for other in module.parameters():
        other.requires_grad_(any(other is one for one in parameters.values()))
    generator = torch.Generator(device).manual_seed(seed)
    found = kinds(model)
    for number, feeds in enumerate(batches):
        outputs = list(module.named(feeds).values())
        if labels is None:
            value = _against_itself(outputs, found, generator)
        else:
            target = torch.from_numpy(np.ascontiguousarray(labels[number])).to(device)
            value = _against_labels(outputs[0], target, found[0], loss, temperature)
        yield _differentiate(value, parameters)


def _differentiate(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Array]:
    if not loss.requires_grad or not parameters:
        return {}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: to_numpy(one) for name, one in zip(parameters, found, strict=True) if one is not None}


def _against_labels(output: Tensor, target: Tensor, kind: Kind, loss: Loss, temperature: float) -> Tensor:
    if loss == "mse":
        return 0.5 * (output - target).square().flatten(1).sum(1).mean()
    if loss == "kl":
        wanted = torch.softmax(target / temperature, -1)
        own = log_probabilities(output, kind, temperature)
        return F.kl_div(own, wanted, reduction="none").sum(-1).mean() * temperature**2
    logarithms = log_probabilities(output, kind)
    if target.is_floating_point():
        return -(target * logarithms).sum(-1).mean()
    return F.nll_loss(logarithms.reshape(-1, logarithms.shape[-1]), target.reshape(-1).to(torch.int64))


def _against_itself(outputs: Sequence[Any], found: Sequence[Kind], generator: torch.Generator) -> Tensor:
    """The negative logarithm of the likelihood of outcomes that the model itself gives."""
    total: Any = 0.0
    for output, kind in zip(outputs, found, strict=True):
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim == 0:
            continue
        if kind == "values":
            spread = output.detach().std(correction=0) if output.numel() > 1 else output.detach().abs()
            noise = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)
            scaled = output / torch.where(spread > 0, spread, torch.ones_like(spread))
            total = total + (scaled * noise).flatten(1 if output.ndim > 1 else 0).sum(-1).mean()
            continue
        logarithms = log_probabilities(output, kind).reshape(-1, output.shape[-1])
        drawn = torch.multinomial(logarithms.detach().exp(), 1, generator=generator)
        total = total - logarithms.gather(1, drawn).mean()
    return total if isinstance(total, Tensor) else torch.zeros(())
