"""What a model does with its integer inputs, and so which values make sense: indices, sizes, choices.

Found by following each input forward, into subgraphs and functions, through operators that keep or shift its values
(Cast, Reshape, Add of a constant ...), to the inputs of operators that put a bound on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from graphopt import walk
from graphopt.analysis import constants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from graphopt.verify.dims import Dim

    SizeOf = Callable[[ir.Value, int], Dim | None]

__all__ = ["Uses", "exits", "follow"]


@dataclass(slots=True)
class Uses:
    """What is known about an input's values.

    Attributes:
        limits: Exclusive upper bounds, as sizes or names of dimensions.
        low: Smallest value.
        is_index: It selects elements; without ``limits`` of what, so far.
        choices: Values that the graph compares it with, or the only ones it knows.
        kind: A role from ``KINDS`` when its values are sizes, axes or the like.
    """

    limits: list[Dim] = field(default_factory=list)
    low: int = 0
    is_index: bool = False
    choices: list[object] = field(default_factory=list)
    kind: str = ""


KEEP: Final[Mapping[str, frozenset[int]]] = {
    name: frozenset(positions)
    for name, positions in {
        "Cast": [0], "CastLike": [0], "Identity": [0], "Reshape": [0], "Squeeze": [0], "Unsqueeze": [0],
        "Flatten": [0], "Transpose": [0], "Slice": [0], "Split": [0], "Expand": [0], "Tile": [0], "Gather": [0],
        "GatherElements": [0], "GatherND": [0], "Concat": range(1000), "Where": [1, 2], "Pad": [0], "Dropout": [0],
        "Clip": [0], "Max": range(99), "Min": range(99), "Abs": [0], "Add": [0, 1], "Sub": [0], "Round": [0],
        "Floor": [0], "Ceil": [0], "ScatterElements": [0, 2], "ScatterND": [0, 2], "Unique": [0], "ReduceMax": [0],
        "ReduceMin": [0], "Trilu": [0], "SequenceConstruct": range(99), "OptionalGetElement": [0],
        "ReverseSequence": [0], "Compress": [0],
    }.items()
}  # fmt: skip
"""Operators (and which inputs) whose output values are their input's, some of them, or shifted ones."""

INDEX: Final[Mapping[tuple[str, int], Callable[[ir.Node], tuple[int, int]]]] = {
    ("Gather", 1): lambda node: (0, _int(node, "axis", 0)),
    ("GatherElements", 1): lambda node: (0, _int(node, "axis", 0)),
    ("ScatterElements", 1): lambda node: (0, _int(node, "axis", 0)),
    ("Scatter", 1): lambda node: (0, _int(node, "axis", 0)),
    ("GatherND", 1): lambda node: (0, _int(node, "batch_dims", 0)),
    ("ScatterND", 1): lambda node: (0, 0),
    ("TensorScatter", 2): lambda node: (0, -2),
    ("GatherBlockQuantized", 1): lambda node: (0, _int(node, "gather_axis", 0)),
    ("EmbedLayerNormalization", 0): lambda node: (2, 0),
    ("EmbedLayerNormalization", 1): lambda node: (4, 0),
    ("NegativeLogLikelihoodLoss", 1): lambda node: (0, 1),
    ("SoftmaxCrossEntropyLoss", 1): lambda node: (0, 1),
    ("MaxUnpool", 1): lambda node: (0, -1),
}
"""Where an input selects: (operator, position) -> (position of what is selected from, axis)."""

LENGTHS: Final[Mapping[tuple[str, int], tuple[int, int]]] = {
    ("LSTM", 4): (0, 0),
    ("GRU", 4): (0, 0),
    ("RNN", 4): (0, 0),
    ("ReverseSequence", 1): (0, 0),
    ("TopK", 1): (0, -1),
}
"""Where an input counts elements of another one, from 1: (operator, position) -> (position, axis)."""

KINDS: Final[Mapping[tuple[str, int], str]] = {
    ("Reshape", 1): "reshape", ("Expand", 1): "ones", ("Tile", 1): "ones", ("ConstantOfShape", 0): "sizes",
    ("Loop", 0): "trips", ("OneHot", 1): "depth", ("Resize", 2): "scales", ("Resize", 3): "sizes",
    ("Upsample", 1): "scales", ("Range", 0): "zeros", ("Range", 1): "sizes", ("Range", 2): "ones",
    ("Slice", 1): "zeros", ("Slice", 2): "ends", ("Slice", 3): "axes", ("Slice", 4): "ones", ("Pad", 1): "ones",
    ("Pad", 3): "axes", ("Squeeze", 1): "axes", ("Unsqueeze", 1): "axes", ("CumSum", 1): "zeros",
    ("CumProd", 1): "zeros", ("DFT", 1): "sizes", ("DFT", 2): "ones", ("CenterCropPad", 1): "sizes",
    ("Trilu", 1): "zeros", ("SequenceAt", 1): "zeros", ("SequenceErase", 1): "zeros", ("SequenceInsert", 2): "zeros",
    ("EyeLike", 1): "zeros", ("Div", 1): "divisor", ("Mod", 1): "divisor", ("BitShift", 1): "shift",
    ("Dropout", 1): "unit", ("NonMaxSuppression", 2): "trips", ("NonMaxSuppression", 3): "unit",
    ("NonMaxSuppression", 4): "unit", ("HannWindow", 0): "sizes", ("HammingWindow", 0): "sizes",
    ("BlackmanWindow", 0): "sizes", ("STFT", 1): "trips", ("STFT", 3): "sizes", ("AffineGrid", 1): "sizes",
    ("Clip", 1): "zeros", ("Col2Im", 1): "sizes", ("Col2Im", 2): "ones", ("QuantizeLinear", 1): "unit",
    ("DequantizeLinear", 1): "unit", ("BatchNormalization", 4): "unit",
} | {
    (f"Reduce{name}", 1): "axes"
    for name in ("Max", "Min", "Mean", "Sum", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
}  # fmt: skip
"""Where an input is a size, an axis or the like: (operator, position) -> the word for ``fill.KINDS``."""

_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "LabelEncoder": ("keys_strings", "keys_int64s", "keys_floats"),
    "OneHotEncoder": ("cats_strings", "cats_int64s"),
    "TfIdfVectorizer": ("pool_strings", "pool_int64s"),
    "CategoryMapper": ("cats_strings", "cats_int64s"),
}

_MAX_STEPS: Final = 20_000


def exits(model: ir.Model) -> dict[ir.Value, list[ir.Value]]:
    """For each value that a subgraph or function returns, the outputs of the nodes that hold or call it."""
    found: dict[ir.Value, list[ir.Value]] = {}
    calls: dict[ir.OperatorIdentifier, list[ir.Node]] = {}
    for scope in walk.scopes(model):
        if scope.owner is not None:
            skip = 1 if scope.owner.op_type == "Loop" else 0  # a Loop body returns its condition first
            for inner, outer in zip(scope.graph.outputs[skip:], scope.owner.outputs, strict=False):
                found.setdefault(inner, []).append(outer)
        if model.functions:
            for node in scope.graph:
                calls.setdefault(node.op_identifier(), []).append(node)
    for name, function in model.functions.items():
        for call in calls.get(name, ()):
            for inner, outer in zip(function.outputs, call.outputs, strict=False):
                found.setdefault(inner, []).append(outer)
    return found


def follow(
    model: ir.Model,
    start: ir.Value,
    size_of: SizeOf,
    returned: Mapping[ir.Value, list[ir.Value]],
) -> Uses:
    """Everything the graph does with ``start``.

    Args:
        model: Whose functions are entered at their calls.
        start: A graph input.
        size_of: The size of a value along an axis, if known: a number, or the name of a dimension.
        returned: :func:`exits` of the model.
    """
    uses = Uses()
    queue = [(start, 1, 0)]  # the value is scale * start + shift
    seen = {start}
    steps = 0
    while queue and steps < _MAX_STEPS:
        value, scale, shift = queue.pop()
        steps_on = [(outer, 1, 0) for outer in returned.get(value, ())]
        for node, position in value.uses():
            steps += 1
            _note(uses, node, position, scale, shift, size_of)
            steps_on += _successors(model, node, position)
        for successor, factor, offset in steps_on:
            if successor not in seen:
                seen.add(successor)
                queue.append((successor, scale * factor, shift * factor + offset))
    return uses


def _note(uses: Uses, node: ir.Node, position: int, scale: int, shift: int, size_of: SizeOf) -> None:
    where = (node.op_type, position)
    if where in INDEX:
        data, axis = INDEX[where](node)
        uses.is_index = True
        _limit(uses, _size(node, data, axis, size_of), scale, shift)
    elif where in LENGTHS:
        size = _size(node, *LENGTHS[where], size_of)
        uses.low = max(uses.low, 1)
        uses.limits.append(size + 1 if isinstance(size, int) else 2 if size is None else size)
    elif node.op_type in ("Split", "SplitToSequence") and position == 1:
        size = _size(node, 0, _int(node, "axis", 0), size_of)
        uses.kind, uses.limits = ("parts", [size]) if size is not None else ("ones", [])
    elif where == ("Resize", 3) and node.inputs[0] is not None and node.inputs[0].shape is not None:
        sizes = [size_of(node.inputs[0], axis) for axis in range(len(node.inputs[0].shape))]
        uses.kind, uses.limits = "resized", [size for size in sizes if size is not None]
    elif where in KINDS:
        uses.kind = uses.kind or KINDS[where]
    elif node.op_type == "Equal":
        constant = constants.scalar(node.inputs[1 - position])
        if constant is not None and scale == 1:
            uses.choices.append(constant - shift)
    for attribute in _TABLES.get(node.op_type, ()):
        if attribute in node.attributes:
            uses.choices.extend(_plain(node.attributes[attribute].value))


def _size(node: ir.Node, position: int, axis: int, size_of: SizeOf) -> Dim | None:
    value = node.inputs[position]
    return None if value is None else size_of(value, axis)


def _limit(uses: Uses, size: Dim | None, scale: int, shift: int) -> None:
    if isinstance(size, int):
        if scale > 0:
            uses.limits.append(max(1, -((shift - size) // scale)))
            uses.low = max(uses.low, -(shift // scale))
    elif size is not None:
        uses.limits.append(size)


def _successors(model: ir.Model, node: ir.Node, position: int) -> Iterator[tuple[ir.Value, int, int]]:
    """Values that hold what input ``position`` holds, with the (scale, shift) applied to it."""
    function = model.functions.get(node.op_identifier())
    if function is not None:
        if position < len(function.inputs):
            yield function.inputs[position], 1, 0
        return
    if node.op_type in ("Loop", "Scan"):
        body = node.attributes["body"].as_graph()
        if (position > 0 or node.op_type == "Scan") and position < len(body.inputs):
            yield body.inputs[position], 1, 0  # a Loop's trip count and iteration number share position 0
        return
    if position not in KEEP.get(node.op_type, ()):
        yield from _scaled(node, position)
        return
    shift = 0
    if node.op_type in ("Add", "Sub"):
        constant = constants.scalar(node.inputs[1 - position])
        if isinstance(constant, int):
            shift = constant if node.op_type == "Add" else -constant
    for output in node.outputs[:1] if node.op_type != "Split" else node.outputs:
        yield output, 1, shift


def _scaled(node: ir.Node, position: int) -> Iterator[tuple[ir.Value, int, int]]:
    if node.op_type == "Mul":
        constant = constants.scalar(node.inputs[1 - position])
        if isinstance(constant, int) and constant > 0:
            yield node.outputs[0], constant, 0


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.as_int()


def _plain(values: object) -> list[object]:
    items = list(values) if isinstance(values, (list, tuple)) else []
    return [item.decode(errors="replace") if isinstance(item, bytes) else item for item in items]
