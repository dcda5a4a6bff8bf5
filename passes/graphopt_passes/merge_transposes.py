"""Merges a Transpose of a Transpose into one, or none."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import input_of, ints_attribute

__all__ = ["MergeTransposes"]


@dataclasses.dataclass(frozen=True)
class MergeTransposes(RulePass):
    """Merges a Transpose of a Transpose into one, or none.

    What it does:
        Axis ``i`` of the result is axis ``inner[outer[i]]`` of the input, so the outer Transpose can read that input
        by the composed permutation. If that is the identity, none is left. The inner one stays as long as something
        else reads it.

    Before:
        ``t = Transpose<perm=[0, 2, 1]>(x); y = Transpose<perm=[2, 0, 1]>(t)``

    After:
        ``y = Transpose<perm=[1, 0, 2]>(x)``

    Does not apply when:
        - anything lies between the two.

    Safety:
        Exact.
    """

    name = "merge-transposes"
    safety = Safety.EXACT
    ops = ("Transpose",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(input_of(node, 0), "Transpose")
        source = None if inner is None else input_of(inner, 0)
        if inner is None or source is None:
            return None
        composed = _compose(ints_attribute(inner, "perm"), ints_attribute(node, "perm"))
        if composed is None:
            return None

        def build(builder: Builder) -> list[ir.Value | None]:
            identity = composed == list(range(len(composed)))
            return [source if identity else builder.like(node, [source], {"perm": composed})]

        return Match(node, build=build)


def _compose(inner: tuple[int, ...] | None, outer: tuple[int, ...] | None) -> list[int] | None:
    """The permutation of both; ``[]``, the identity of any rank, if both just reverse; ``None`` if they do not fit."""
    if inner is None and outer is None:
        return []
    rank = len(inner if inner is not None else outer or ())
    reverse = tuple(reversed(range(rank)))
    inner, outer = inner if inner is not None else reverse, outer if outer is not None else reverse
    if sorted(inner) != sorted(reverse) or sorted(outer) != sorted(reverse):
        return None
    return [inner[axis] for axis in outer]
