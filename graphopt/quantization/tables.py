"""Tables of embeddings, whose rows are kept as integers and become floats when they are looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.names import Names, label
from graphopt.rewrite import edit

__all__ = ["FEWEST", "Table", "round_rows", "table_of"]

Array = npt.NDArray[Any]

FEWEST = 4096
"""Elements of a table that is worth it."""
_LEVELS = 127


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A Gather of rows of a constant.

    Attributes:
        node: The Gather.
        weight: The table.
    """

    node: ir.Node
    weight: ir.TensorProtocol

    @property
    def name(self) -> str:
        """The node's name."""
        return label(self.node)

    def read(self) -> Array:
        """The table, read now."""
        array = self.weight.numpy()
        return np.asarray(array, array.dtype.newbyteorder("="))

    def rounded(self) -> Array:
        """The table as integers hold it, in float."""
        rows, scale = _quantized(self.read())
        held: Array = (rows * scale).astype(np.float32)
        return held


def table_of(node: ir.Node) -> Table | None:
    """The node as a table; ``None`` if it gathers something else, or too little to matter."""
    if node.domain or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return None
    weight = constants.constant(node.inputs[0])
    if weight is None or weight.dtype != ir.DataType.FLOAT or len(weight.shape) < 2 or weight.size < FEWEST:
        return None
    return Table(node, weight)


def _quantized(table: Array) -> tuple[Array, Array]:
    """Rows in symmetric int8, and their scales in a shape that multiplies them."""
    others = tuple(range(1, table.ndim))
    scale = np.abs(table).max(others, keepdims=True) / np.float32(_LEVELS)
    scale[scale < np.finfo(np.float32).tiny] = 1
    return np.clip(np.round(table / scale), -_LEVELS, _LEVELS).astype(np.int8), scale


def round_rows(model: ir.Model, tables: Iterable[Table]) -> None:
    """Keeps tables as integers, in a model that descends from the one the tables are of.

    Args:
        model: The model, changed in place; its Gather nodes have the names that they had.
        tables: Which.
    """
    wanted = {table.node.name: table for table in tables}
    names = Names(model)
    made: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for node in [node for node in model.graph if node.name in wanted]:
        table = node.inputs[0]
        assert table is not None
        if table not in made:
            rows, scale = _quantized(wanted[node.name].read())
            made[table] = (
                _constant(model, names.fresh(f"{table.name}_rows"), rows),
                _constant(model, names.fresh(f"{table.name}_scales"), scale),
            )
        _replace(model, node, *made[table], names)
    for table in made:
        if table.is_initializer() and not table.uses():
            del model.graph.initializers[table.name or ""]


def _constant(model: ir.Model, name: str, contents: Array) -> ir.Value:
    value = edit.constant_value(name, constants.tensor(contents, name))
    model.graph.register_initializer(value)
    return value


def _replace(model: ir.Model, node: ir.Node, rows: ir.Value, scale: ir.Value, names: Names) -> None:
    """Looks up rows and their scales, and makes the node their product."""
    indices = node.inputs[1]
    found = [
        ir.node("Gather", [held, indices], {"axis": 0}, name=names.fresh(f"{node.name}_{what}"))
        for held, what in ((rows, "rows"), (scale, "scales"))
    ]
    cast = ir.node("Cast", found[0].outputs, {"to": int(ir.DataType.FLOAT)}, name=names.fresh(f"{node.name}_Cast"))
    for new in (*found, cast):
        new.outputs[0].name = names.fresh(new.name)
        model.graph.insert_before(node, new)
    node.replace_input_with(0, cast.outputs[0])
    node.replace_input_with(1, found[1].outputs[0])
    node.op_type = "Mul"
    node.attributes.clear()
