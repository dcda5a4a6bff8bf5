"""Merges a Transpose of a Transpose into one, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._shape_ops import constant_target, input_of, ints_attribute, reshape, result_shape

__all__ = ["MergeTransposes"]

_VIEWS: Final = ("Reshape", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class MergeTransposes(RulePass):
    """Merges a Transpose of a Transpose into one, or none.

    What it does:
        Axis ``i`` of the result is axis ``inner[outer[i]]`` of the input, so the outer Transpose can read that input
        by the composed permutation. If that is the identity, none is left. The inner one stays as long as something
        else reads it. A Reshape may lie between the two that only parts axes: where the outer Transpose then puts all
        parts back in order, a Reshape of the input does it, and nothing is moved.

    Before:
        ``t = Transpose<perm=[0, 2, 1]>(x); y = Transpose<perm=[2, 0, 1]>(t)``

    After:
        ``y = Transpose<perm=[1, 0, 2]>(x)``

    Does not apply when:
        - anything else lies between the two;
        - there is a Reshape, and something else reads what is computed on the way, or the extents are not known.

    Safety:
        Exact.
    """

    name = "merge-transposes"
    safety = Safety.EXACT
    ops = ("Transpose",)
    reach = 3

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        view = context.producer(input_of(node, 0), *_VIEWS)
        if view is not None:
            return _past_view(node, view, context)
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


def _past_view(node: ir.Node, view: ir.Node, context: Context) -> Match | Miss | None:
    """Both Transposes go if all that they and the Reshape between them do is to part axes."""
    inner = context.producer(input_of(view, 0), "Transpose")
    source = None if inner is None else input_of(inner, 0)
    first, last = (ints_attribute(one, "perm") if one is not None else None for one in (inner, node))
    if inner is None or source is None or first is None or last is None:
        return None
    before, turned = context.shapes.of(source), context.shapes.of(inner.outputs[0])
    parted, after = result_shape(view, context), context.shapes.of(node.outputs[0])
    if before is None or turned is None or parted is None or after is None or len(last) != len(parted):
        return Miss("the shapes are not known", node)
    parts = _parts(turned, parted)
    if parts is None or sorted(first) != list(range(len(parts))):
        return Miss("the Reshape does more than to part axes", node)
    in_order = [place for axis in range(len(before)) for place in parts[first.index(axis)]]
    if [place for place in in_order if parted[place] != 1] != [place for place in last if parted[place] != 1]:
        return Miss("the axes are not in order again", node)
    if not (context.only_reader(inner.outputs[0], view) and context.only_reader(view.outputs[0], node)):
        return Miss("an inner result is read elsewhere", node)
    target = constant_target(before, after)
    if target is None:
        return Miss("no constant target gives the result's shape", node)
    return Match(node, build=lambda builder: [reshape(builder, source, target)])


def _parts(whole: Sequence[Dim], parted: Sequence[Dim]) -> list[list[int]] | None:
    """For each axis the axes that it was parted into; those of length 1 in front belong to the next."""
    parts: list[list[int]] = []
    place = 0
    for extent in whole:
        part: list[int] = []
        size: Dim = 1
        while place < len(parted) and (size != extent or not part):
            size = size * parted[place]
            part.append(place)
            place += 1
        if size != extent:
            return None
        parts.append(part)
    if any(dim != 1 for dim in parted[place:]) or not parts:
        return None
    parts[-1] += range(place, len(parted))
    return parts


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
