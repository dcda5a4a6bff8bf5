"""The type and shape rule of every operator that has one here, as one table.

The key is the operator's name, with ``domain::`` before it outside ONNX's default domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.analysis.shape_rules import elementwise, generators, linear, movement, other_domains, spatial

if TYPE_CHECKING:
    from graphopt.analysis.shape_rules.call import ShapeRule, TypeRule

__all__ = ["RULES"]

RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **elementwise.RULES,
    **movement.RULES,
    **spatial.RULES,
    **linear.RULES,
    **generators.RULES,
    **other_domains.RULES,
}
