"""Which nodes give the same result whenever they see the same inputs."""

from __future__ import annotations

import onnx_ir as ir

from graphopt import walk

__all__ = ["RANDOM_OPS", "is_deterministic", "is_standard"]

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def is_standard(node: ir.Node) -> bool:
    """Whether the node's operator is defined by ONNX itself, so that its meaning is known."""
    return node.domain in _STANDARD_DOMAINS


def is_deterministic(node: ir.Node) -> bool:
    """Whether equal inputs give equal outputs: nothing random, nothing of unknown domains, nested nodes included.

    A seed attribute does not make a random operator deterministic: each run of a session continues its stream.
    """
    if not is_standard(node) or node.op_type in RANDOM_OPS:
        return False
    if node.op_type == "Dropout" and _may_train(node):
        return False
    return all(is_deterministic(inner) for graph in walk.subgraphs(node) for inner in graph)


def _may_train(node: ir.Node) -> bool:
    """Dropout has a ``training_mode`` input since opset 12; present means it may be on."""
    return len(node.inputs) > 2 and node.inputs[2] is not None
