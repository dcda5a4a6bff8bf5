"""Operators whose new version is no drop-in for the old one, where onnx's own converter does nothing or too little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from graphopt.proto.versions import Unconvertible
from graphopt.rewrite.builder import Builder

__all__ = ["ADAPTERS", "Adapter"]

Adapter = Callable[[Builder, ir.Node], Sequence[ir.Value] | None]
"""Builds what replaces a node and gives its results, or ``None`` if the node can stay.

Raises :class:`~graphopt.proto.versions.Unconvertible` if there is no way.
"""


def _upsample(builder: Builder, node: ir.Node) -> list[ir.Value]:
    resized = builder.op("Resize", node.inputs, node.attributes)
    builder.nodes[-1].meta[_ENLARGES] = True  # ONNX: scales are at least 1
    return [resized]


def _resize_of_two_operands(builder: Builder, node: ir.Node) -> list[ir.Value]:
    """Version 10 knows no other coordinates than ``asymmetric``, version 11 has others by default.

    Which neighbour is the nearest, ONNX does not say; ONNX Runtime takes the one before when it enlarges, the one
    after when it shrinks.
    """
    source, scales = node.inputs
    attributes: dict[str, ir.Attr | str | None] = {"coordinate_transformation_mode": "asymmetric"}
    if node.attributes.get_string("mode", "nearest") == "nearest":
        factors = builder.context.array(scales, max_elements=64)
        enlarges = node.meta.get(_ENLARGES) or (factors is not None and bool((factors >= 1).all()))
        if not enlarges and (factors is None or bool((factors > 1).any())):
            raise Unconvertible("which neighbour is the nearest depends on scales that are not known, or go both ways")
        attributes["nearest_mode"] = "floor" if enlarges else "ceil"
    return [builder.like(node, [source, None, scales], attributes)]


def _resize_as_tensorflow(_: Builder, node: ir.Node) -> None:
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise Unconvertible("there is no coordinate_transformation_mode 'tf_half_pixel_for_nn' any more")


def _hardmax(builder: Builder, node: ir.Node) -> list[ir.Value]:
    """From version 13 on along one axis, before over all from that axis on."""
    source = node.inputs[0]
    assert source is not None
    axis = node.attributes.get_int("axis", 1)
    rank = builder.context.shapes.rank(source)
    if axis == -1 or (rank is not None and axis in (rank - 1, -1)):
        return [builder.like(node, [source], {"axis": -1})]
    flat = builder.op("Flatten", [source], {"axis": axis})
    ones = builder.op("Hardmax", [flat], {"axis": -1})
    return [builder.op("Reshape", [ones, builder.op("Shape", [source])])]


def _group_normalization(builder: Builder, node: ir.Node) -> list[ir.Value]:
    """From version 21 on scale and bias are those of each channel, before those of each group."""
    source, *affine = node.inputs
    shape = builder.context.shapes.of(source) if source is not None else None
    groups = node.attributes.get_int("num_groups")
    if shape is None or not isinstance(shape[1], int) or not groups:
        raise Unconvertible("the number of its channels is not known")
    each = np.array([groups, shape[1] // groups], np.int64)
    spread = [
        builder.op(
            "Reshape",
            [
                builder.op("Expand", [builder.op("Unsqueeze", [value, _vector(builder, 1)]), builder.constant(each)]),
                _vector(builder, -1),
            ],
        )
        for value in affine
    ]
    return [builder.like(node, [source, *spread])]


def _vector(builder: Builder, number: int) -> ir.Value:
    return builder.constant(np.array([number], np.int64))


def _batch_normalization(_: Builder, node: ir.Node) -> None:
    if len(node.outputs) > 1:
        raise Unconvertible("more than one output means that it trains")


def _dropout(_: Builder, node: ir.Node) -> None:
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        raise Unconvertible("its mask, a number before, is a boolean now")


def _scan(builder: Builder, node: ir.Node) -> list[ir.Value]:
    """The first version works on batches: a Scan over the batch, of a Scan over the sequence."""
    lengths, *operands = node.inputs
    if lengths is not None:
        raise Unconvertible("it reads the lengths of its sequences")
    names = builder.context.names
    rows = [ir.Value(name=names.fresh("row"), type=None if value is None else value.type) for value in operands]
    attributes = {"body": node.attributes.pop("body"), "num_scan_inputs": node.attributes["num_scan_inputs"]}
    if "directions" in node.attributes:
        attributes["scan_input_directions"] = ir.AttrInt64s(
            "scan_input_directions", node.attributes.get_ints("directions")
        )
    inner = ir.Node(
        "", "Scan", rows, list(attributes.values()), num_outputs=len(node.outputs), name=names.fresh("Scan")
    )
    for output in inner.outputs:
        output.name = names.fresh("row")
    body = ir.Graph(rows, inner.outputs, nodes=[inner], name=names.fresh("batch"))
    builder.op("Scan", operands, {"body": body, "num_scan_inputs": len(operands)}, outputs=len(node.outputs))
    return list(builder.nodes[-1].outputs)


_ENLARGES = "graphopt.enlarges"

ADAPTERS: Final[Mapping[str, Mapping[int, Adapter]]] = {
    "BatchNormalization": {14: _batch_normalization},
    "Dropout": {10: _dropout},
    "GroupNormalization": {21: _group_normalization},
    "Hardmax": {13: _hardmax},
    "Resize": {11: _resize_of_two_operands, 13: _resize_as_tensorflow},
    "Scan": {9: _scan},
    "Upsample": {10: _upsample},
}
"""By operator, and the version of the operator set that changed it."""
