"""What a rule says of a node: it applies (:class:`Match`) or why it does not (:class:`Miss`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from graphopt.rewrite.builder import Builder

__all__ = ["Match", "Miss", "Rewrite"]

Rewrite = Callable[["Builder"], "Sequence[ir.Value | None]"]


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A rewrite that applies at ``root``; nothing has changed yet.

    Exactly one of the two forms is used:

    Attributes:
        root: The node whose outputs are replaced. It is removed, and so is what only it used.
        forward: The existing values that take the place of the root's outputs (``None``: that output is unused).
        build: Creates new nodes with a :class:`~graphopt.rewrite.builder.Builder` and returns the values that take
            the place of the root's outputs.
    """

    root: ir.Node
    forward: Sequence[ir.Value | None] | None = None
    build: Rewrite | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Miss:
    """Why a rule that looked promising does not apply at ``node``.

    Attributes:
        reason: A short clause that a user understands; it is counted, so it names no node or value.
    """

    reason: str
    node: ir.Node
