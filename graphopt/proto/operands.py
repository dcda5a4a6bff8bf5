"""Which element types ONNX lets an operator have, operand by operand."""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

import onnx.defs
import onnx_ir as ir

__all__ = ["Operands", "operands"]

_FLOATS: Final = {
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(float16)": ir.DataType.FLOAT16,
    "tensor(bfloat16)": ir.DataType.BFLOAT16,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Operands:
    """The types among float32, float16 and bfloat16 that each operand of an operator may have.

    Attributes:
        inputs: Of each formal input; the last one's may be those of any number.
        outputs: Of each formal output, likewise.
    """

    inputs: tuple[frozenset[ir.DataType], ...]
    outputs: tuple[frozenset[ir.DataType], ...]

    def of_input(self, index: int) -> frozenset[ir.DataType]:
        """The types that the input at ``index`` may have."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def of_output(self, index: int) -> frozenset[ir.DataType]:
        """The types that the output at ``index`` may have."""
        return self.outputs[min(index, len(self.outputs) - 1)]


@functools.lru_cache(maxsize=1024)
def operands(op_type: str, version: int) -> Operands | None:
    """What ONNX says of an operator of its own domain; None if it does not know it.

    Args:
        op_type: The operator.
        version: The version of the operator set.
    """
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except (onnx.defs.SchemaError, TypeError):  # unknown, or no such version can be
        return None
    variables = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}

    def allowed(kind: str) -> frozenset[ir.DataType]:
        return frozenset(_FLOATS[text] for text in variables.get(kind, [kind]) if text in _FLOATS)

    return Operands(
        tuple(allowed(formal.type_str) for formal in schema.inputs),
        tuple(allowed(formal.type_str) for formal in schema.outputs),
    )
