"""The largest probabilities of a teacher, and one bin for what is left."""

from __future__ import annotations

from torch import Tensor

from graphopt.distillation.batch import TopK
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind, log_probabilities

__all__ = ["top_k"]


def top_k(output: Tensor, kind: Kind, k: int, temperature: float = 1.0) -> TopK:
    """Keeps the ``k`` most probable of C classes.

    The rest is added up from the small ones, not taken from 1, so that little of it is precise too. Source: stored
    sparse soft labels, as in FKD (Shen and Xing, arXiv 2112.01528) and TinyViT (Wu et al., arXiv 2207.10666).

    Args:
        output: ``(B, ..., C)``: logits, probabilities or their logarithms.
        kind: Which of them; ``values`` are taken for logits.
        k: From 1 to C - 1.
        temperature: What logits are divided by, above 0.

    Raises:
        UsageError: ``k`` is out of range.
    """
    classes = output.shape[-1]
    if not 0 < k < classes:
        raise UsageError(
            f"the {k} most probable of {classes} classes cannot be kept apart from the rest",
            hint=f"Give 1 to {classes - 1}, or keep all classes." if classes > 1 else "Keep the output whole.",
        )
    logarithms = log_probabilities(output.float(), "logits" if kind == "values" else kind, temperature)
    # At temperature 1 the model's own probabilities may not quite add up to 1, and the loss counts on it.
    probabilities = logarithms.softmax(-1)
    largest, indices = probabilities.topk(k, -1)
    rest = probabilities.scatter(-1, indices, 0.0).sum(-1)
    return TopK(largest, indices, rest, temperature)
