"""What the parts of an attention are, however exporters spell it: queries, keys, masks and the scale."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from graphopt.pipeline.base import Context

__all__ = ["Scores", "is_private", "read", "unscaled"]


class Scores(NamedTuple):
    """The operand of a Softmax, ``q @ k.T * scale + masks``.

    Attributes:
        product: ``q @ k.T``.
        q: Queries.
        k: Keys, as they are before their Transpose.
        turned: What that Transpose makes of them.
        perm: Brings ``k`` to the order of axes that ``q`` has; ``()`` if that is not known.
        masks: What is added, innermost first.
        scale: What the product is multiplied by, wherever this happens.
    """

    product: ir.Value
    q: ir.Value
    k: ir.Value
    turned: ir.Value
    perm: tuple[int, ...]
    masks: tuple[ir.Value, ...]
    scale: float


def read(softmax: ir.Node, context: Context) -> Scores | str:
    """What a Softmax over four axes is of, or why it is of no attention."""
    if context.opset(softmax) < 7:
        return "before opset 7, arithmetic broadcasts by attributes"
    axis = softmax.attributes.get("axis")
    given = axis.as_int() if axis is not None else -1 if context.opset(softmax) >= 13 else 1
    if given not in (-1, 3):
        return "the Softmax is not over the last axis"
    if context.shapes.rank(softmax.outputs[0]) != 4:
        return "the scores are not known to have four axes"
    scores, scale, masks = _unmasked(softmax.inputs[0], context)
    product = context.producer(scores, "MatMul")
    if scores is None or product is None:
        return "the Softmax is not of a product"
    q, of_q = unscaled(product.inputs[0], context)
    turned, of_k = unscaled(product.inputs[1], context)
    transpose = context.producer(turned, "Transpose")
    if turned is None or transpose is None or transpose.inputs[0] is None or q is None:
        return "the keys are not transposed"
    order = transpose.attributes.get("perm")
    perm = tuple(order.as_ints()) if order is not None else ()
    found = (*perm[:-2], *perm[:-3:-1])
    return Scores(scores, q, transpose.inputs[0], turned, found, masks, scale * of_q * of_k)


def _unmasked(value: ir.Value | None, context: Context) -> tuple[ir.Value | None, float, tuple[ir.Value, ...]]:
    """The product that ``value`` comes from, what it is multiplied by, and what is added."""
    inner, factor = unscaled(value, context)
    if factor != 1.0:
        return inner, factor, ()  # a scaled mask would be another mask
    added = context.producer(inner, "Add")
    for place in (0, 1) if added is not None else ():
        assert added is not None
        mask = added.inputs[1 - place]
        product, scale, masks = _unmasked(added.inputs[place], context)
        if mask is not None and context.producer(product, "MatMul") is not None:
            return product, scale, (*masks, mask)
    return inner, factor, ()


def unscaled(value: ir.Value | None, context: Context) -> tuple[ir.Value | None, float]:
    """A value without the multiplications by numbers that make it, and the product of these."""
    factor = 1.0
    while (node := context.producer(value, "Mul", "Div")) is not None:
        places = (0, 1) if node.op_type == "Mul" else (1,)
        found = [(node.inputs[1 - place], context.scalar(node.inputs[place])) for place in places]
        rest = next(((one, float(number)) for one, number in found if number), None)
        if rest is None:
            break
        value, factor = rest[0], factor * rest[1] if node.op_type == "Mul" else factor / rest[1]
    return value, factor


def is_private(value: ir.Value, last: ir.Node) -> bool:
    """Whether each result from ``value`` to what ``last`` reads is read once, in one graph."""
    while True:
        uses = value.uses()
        if value.is_graph_output() or len(uses) != 1:
            return False
        reader = next(iter(uses)).node
        if reader is last:
            return True
        if reader.graph is not last.graph:
            return False
        value = reader.outputs[0]
