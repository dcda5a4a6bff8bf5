"""Axes of tensors as ordered products of factors, and what makes two of them the same.

An axis of 12 heads of 64 lanes is the product of the factors 12 and 64, the outer one first. Reshapes split axes into
factors and join them; an operator that needs two axes equal unites them, factor by factor. A factor may be symbolic
(``4*N`` rows are 4 in each of N). Uniting is union-find, so cost stays linear in the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from graphopt.analysis.dims import Dim, exact_div

__all__ = ["LARGEST", "Axis", "Freeze", "Role", "align", "find", "freeze", "leaves", "unite", "with_leaves"]


LARGEST = 1 << 22
"""Longer axes are no rows of channels; they stay, and no array of their places is made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Freeze:
    """Why an axis keeps its size.

    Attributes:
        node: The operator that needs it; ``None`` where the model's interface does.
        reason: A short clause.
    """

    node: ir.Node | None
    reason: str


@dataclasses.dataclass(slots=True)
class Role:
    """What operators do with an axis, which decides what to prune where two factors of one axis could be.

    Attributes:
        head: It counts attention heads: a batch axis of a product of two activations.
        group: It counts the blocks of a grouped operator.
        channel: Weights are laid out along it.
    """

    head: bool = False
    group: bool = False
    channel: bool = False


class Axis:
    """One axis or factor; after :func:`unite`, all that are one share the representative that :func:`find` gives.

    Attributes:
        size: Its extent.
        parts: Its factors, outermost first, where something has split it.
        frozen: Why it keeps its size, if it must.
        role: What operators do with it.
        met: Axes that became one with it, or are its factors or what it is a factor of, each with the node that said
            so; as the rules named them, before :func:`find`, so that a walk along them tells why two axes are one.
    """

    __slots__ = ("frozen", "met", "parent", "parts", "role", "size")

    def __init__(self, size: Dim, frozen: Freeze | None = None) -> None:
        self.size = size
        self.parent: Axis | None = None
        self.parts: list[Axis] | None = None
        self.frozen = frozen
        if frozen is None and isinstance(size, int) and size > LARGEST:
            self.frozen = Freeze(None, "it is too long to be channels")
        self.role = Role()
        self.met: list[tuple[Axis, ir.Node | None]] = []


def find(axis: Axis) -> Axis:
    """The representative of all axes that are one with ``axis``."""
    root = axis
    while root.parent is not None:
        root = root.parent
    while axis.parent is not None:
        axis.parent, axis = root, axis.parent
    return root


def leaves(axis: Axis) -> list[Axis]:
    """The factors that nothing splits further, outermost first."""
    found: list[Axis] = []
    stack = [find(axis)]
    while stack:
        current = stack.pop()
        if current.parts is None:
            found.append(current)
        else:
            stack.extend(find(part) for part in reversed(current.parts))
    return found


def with_leaves(axis: Axis) -> list[Axis]:
    """An axis and its factors, which may be factors of other axes too: what is said of it holds for them."""
    return list(dict.fromkeys((find(axis), *leaves(axis))))


def freeze(axis: Axis, node: ir.Node | None, reason: str) -> None:
    """Makes an axis, and every factor of it, keep its size. The first reason given is the one that is kept."""
    for one in with_leaves(axis):
        if one.frozen is None:
            one.frozen = Freeze(node, reason)


def unite(a: Axis, b: Axis, node: ir.Node | None) -> None:
    """Makes two axes one, as ``node`` needs; freezes both where their sizes are not known to be equal."""
    pending = [(a, b)]
    while pending:
        named = pending.pop()
        a, b = map(find, named)
        if a.size == b.size and named[0] is not named[1]:
            _meet(*named, node)
        if a is b:
            continue
        if a.size != b.size:
            for one in (a, b):
                freeze(one, node, "it meets an axis whose size is not known to be equal")
            continue
        parts = (a.parts, b.parts)
        b.parent = a
        a.parts = a.parts or b.parts
        a.frozen = a.frozen or b.frozen
        a.role = Role(a.role.head or b.role.head, a.role.group or b.role.group, a.role.channel or b.role.channel)
        if a.parts is not None:
            _hand_down(a)
        if parts[0] is not None and parts[1] is not None:
            pending += _matched(parts[0], parts[1], node)


def _hand_down(axis: Axis) -> None:
    """Lets the factors of an axis know what is known of it: they may be factors of other axes, too."""
    for leaf in leaves(axis):
        leaf.frozen = leaf.frozen or axis.frozen
        if leaf is not axis:
            leaf.role.channel |= axis.role.channel


def _meet(a: Axis, b: Axis, node: ir.Node | None) -> None:
    a.met.append((b, node))
    b.met.append((a, node))


def align(a: Iterable[Axis], b: Iterable[Axis], node: ir.Node | None) -> None:
    """Splits and unites two lists of axes that hold the same elements in the same order, as a Reshape says.

    Where two factors cut across each other (12 as 3 of 4 and as 2 of 6 leaves 2, and 6 against 2 of 3) they are split
    into what both consist of; where that is impossible they are frozen.
    """
    for one, other in _matched(list(a), list(b), node):
        unite(one, other, node)


def _matched(a: Sequence[Axis], b: Sequence[Axis], node: ir.Node | None) -> list[tuple[Axis, Axis]]:
    """Pairs of factors that are equal, found from the outermost inwards and then from the innermost outwards."""
    left, right = _trimmed(a), _trimmed(b)
    pairs: list[tuple[Axis, Axis]] = []
    for at in (0, -1):
        while left and right:
            x, y = left[at], right[at]
            if x.size == y.size:
                pairs.append((x, y))
                left.pop(at)
                right.pop(at)
            elif not (
                _open(left, at, node)
                or _open(right, at, node)
                or _split(left, right, at, node)
                or _split(right, left, at, node)
            ):
                break
    for axis in (*left, *right):
        freeze(axis, node, "it is reshaped in a way that cuts across its factors")
    return pairs


def _trimmed(axes: Iterable[Axis]) -> list[Axis]:
    return [axis for axis in axes if axis.size != 1]


def _open(axes: list[Axis], at: int, node: ir.Node | None) -> bool:
    """Replaces an axis by its factors."""
    parts = find(axes[at]).parts
    if parts is None:
        return False
    for part in parts:
        _meet(axes[at], part, node)
    place = at % len(axes)
    axes[place : place + 1] = _trimmed(parts)
    return True


def _split(axes: list[Axis], others: list[Axis], at: int, node: ir.Node | None) -> bool:
    """Splits an axis so that its outermost (innermost) factor has the size of what it must equal."""
    axis, size = find(axes[at]), others[at].size
    if size == 0 or axis.size == 0:
        return False
    rest = exact_div(axis.size, size)
    if rest is None or rest == 1:
        return False
    ends = [Axis(size), Axis(rest)]
    axis.parts = ends if at == 0 else ends[::-1]
    _hand_down(axis)
    return _open(axes, at, node)
