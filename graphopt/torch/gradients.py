"""Gradients of a loss by the constants of an ONNX model: the importances taylor, fisher and hessian rest on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphopt.errors import UsageError
from graphopt.torch.module import GraphModule, from_onnx
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
    order: Literal[1, 2] = 1,
    probes: int = 4,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[Mapping[str, Array]]:
    """The gradient of a loss, the mean over the samples of a batch, by each named constant; or its second derivative.

    Without labels they are drawn from what the model itself predicts: classes for outputs ``(N, classes)``, a normal
    distribution around the output for others. The mean of the squared gradients then is the diagonal of the true
    Fisher information (Martens, arXiv 1412.1193), which at a well-trained model is that of the Hessian.

    The diagonal of the Hessian itself (``order=2``) is estimated: the mean of ``v * (H v)`` over random signs ``v``
    (Hutchinson; Yao et al., arXiv 2006.00719). It errs by what is beside the diagonal, and not if nothing is.

    Args:
        model: The model.
        names: Initializers, or outputs of Constant nodes.
        batches: Inputs by name.
        labels: For the first output, one array for each batch: classes ``(N,)`` for ``ce``, a teacher's logits for
            ``kl``, values for ``mse``.
        loss: Cross-entropy, Kullback-Leibler divergence from the labels, or half the squared error. It only matters
            with labels.
        temperature: Of ``kl``.
        order: 1 for gradients, 2 for the diagonal of the Hessian.
        probes: Random vectors for each batch, with ``order=2``.
        seed: For drawing labels and probes.
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
        outputs = _run(module, feeds, twice=order == 2)
        if labels is None:
            value = _against_itself(outputs, found, generator)
        else:
            target = torch.from_numpy(np.ascontiguousarray(labels[number])).to(device)
            value = _against_labels(outputs[0], target, found[0], loss, temperature)
        if not value.requires_grad or not parameters:
            yield {}
        elif order == 1:
            yield _arrays(torch.autograd.grad(value, list(parameters.values()), allow_unused=True), parameters)
        else:
            yield _arrays(_diagonal(value, list(parameters.values()), probes, generator), parameters)


def _run(module: GraphModule, feeds: Mapping[str, Any], *, twice: bool) -> list[Any]:
    """The outputs; if they are to be differentiated twice, without torch's kernels that can be only once."""
    if not twice:
        return list(module.named(feeds).values())
    with sdpa_kernel(SDPBackend.MATH):
        return list(module.named(feeds).values())


def _arrays(found: Sequence[Tensor | None], parameters: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: to_numpy(one) for name, one in zip(parameters, found, strict=True) if one is not None}


def _diagonal(
    loss: Tensor, parameters: Sequence[Tensor], probes: int, generator: torch.Generator
) -> list[Tensor | None]:
    """Estimates the diagonal of the Hessian of a loss; ``None`` for what the loss does not depend on."""
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    sums: list[Tensor | None] = [None if one is None else torch.zeros_like(one) for one in first]
    bent = [place for place, one in enumerate(first) if one is not None and one.requires_grad]
    for number in range(probes if bent else 0):
        signs = {
            place: torch.randint(0, 2, parameters[place].shape, generator=generator, device=loss.device) * 2.0 - 1
            for place in bent
        }
        products = torch.autograd.grad(
            [first[place] for place in bent],
            [parameters[place] for place in bent],
            [sign.to(parameters[place].dtype) for place, sign in signs.items()],
            retain_graph=number + 1 < probes,
            allow_unused=True,
        )
        for place, product in zip(bent, products, strict=True):
            total = sums[place]
            if product is not None and total is not None:
                total += signs[place] * product / probes
    return sums


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
            error = (output - output.detach()) / torch.where(spread > 0, spread, torch.ones_like(spread)) + noise
            total = total + 0.5 * error.square().flatten(1 if output.ndim > 1 else 0).sum(-1).mean()
            continue
        logarithms = log_probabilities(output, kind).reshape(-1, output.shape[-1])
        drawn = torch.multinomial(logarithms.detach().exp(), 1, generator=generator)
        total = total - logarithms.gather(1, drawn).mean()
    return total if isinstance(total, Tensor) else torch.zeros(())
