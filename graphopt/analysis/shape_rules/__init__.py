"""The shape and type rule of every ONNX operator that has one here, as one table."""

from __future__ import annotations

from graphopt.analysis.shape_rules import elementwise, generators, linear, movement, spatial
from graphopt.analysis.shape_rules.call import ShapeRule, TypeRule

__all__ = ["RULES"]

RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **elementwise.RULES,
    **movement.RULES,
    **spatial.RULES,
    **linear.RULES,
    **generators.RULES,
}
