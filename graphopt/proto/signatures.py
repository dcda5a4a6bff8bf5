"""Checks nodes against the definitions of their operators, so that passes may rely on them."""

from __future__ import annotations

import dataclasses
import functools

import onnx.defs
import onnx_ir as ir

from graphopt import walk
from graphopt.errors import ModelError

__all__ = ["check"]

_HINT = "The model is malformed; export it again, or check it with onnx.checker."


@dataclasses.dataclass(frozen=True, slots=True)
class _Signature:
    required: tuple[int, ...]
    max_inputs: int
    max_outputs: int
    attributes: dict[str, ir.AttributeType]
    required_attributes: tuple[str, ...]


def check(model: ir.Model) -> None:
    """Makes sure that every node has the inputs and attributes it needs, no more inputs than it may have, attributes
    of the right type, and that ONNX's own operator set is imported where its operators are used.

    Linear and cheap; nodes of unknown operators or domains, and calls of the model's own functions, are not judged.

    Raises:
        ModelError: A node does not fit its operator; names the node and what is wrong.
    """
    own = {(domain, name) for domain, name, _ in model.functions}
    unnamed = 1 if model.ir_version < 3 else 0  # before IR version 3 there was one operator set and no import
    for scope in walk.scopes(model):
        for node in scope.graph:
            version = scope.opset.get(node.domain, unnamed)
            if not 0 < version < _ABSURD and not node.domain:
                raise _error(node, "it is of ONNX's own operators, of which the model imports no usable version")
            signature = _signature(node.op_type, version, node.domain)
            for attribute in node._attributes.data.values():
                if attribute.is_ref() and scope.function is None:
                    raise _error(node, "an attribute of it refers to an attribute of a function, but it is in none")
            if signature is not None and (not own or (node.domain, node.op_type) not in own):
                _check_node(node, signature)


_ABSURD = 1 << 31


@functools.lru_cache(maxsize=4096)
def _signature(op_type: str, version: int, domain: str) -> _Signature | None:
    if not 0 < version < _ABSURD:
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, UnicodeError):
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return _Signature(
        tuple(index for index, formal in enumerate(schema.inputs) if formal.option == single),
        schema.max_input,
        schema.max_output,
        {name: ir.AttributeType(_number(attribute.type)) for name, attribute in schema.attributes.items()},
        tuple(name for name, attribute in schema.attributes.items() if attribute.required),
    )


def _check_node(node: ir.Node, signature: _Signature) -> None:
    inputs = node.inputs
    for index in signature.required:
        if index >= len(inputs) or inputs[index] is None:
            raise _error(node, f"input {index} is missing")
    if len(inputs) > signature.max_inputs:
        raise _error(node, f"it has {len(inputs)} inputs, at most {signature.max_inputs} are allowed")
    if len(node.outputs) > signature.max_outputs:
        raise _error(node, f"it has {len(node.outputs)} outputs, at most {signature.max_outputs} are allowed")
    for name in signature.required_attributes:
        if name not in node.attributes.data:
            raise _error(node, f"its attribute '{name}' is missing")
    for name, attribute in node.attributes.data.items():
        wanted = signature.attributes.get(name)
        if wanted is not None and attribute._type != wanted:  # the property costs as much as all the rest
            if attribute.is_ref() and attribute.type == ir.AttributeType.UNDEFINED:
                continue  # ONNX Runtime takes the type from the call of the function
            raise _error(node, f"attribute '{name}' is of type {attribute.type.name}, must be {wanted.name}")


def _error(node: ir.Node, what: str) -> ModelError:
    outputs = ", ".join(f"'{output.name}'" for output in node.outputs[:2])
    return ModelError(f"node '{node.name or ''}' ({node.op_type}, computes {outputs}): {what}", hint=_HINT)


def _number(kind: object) -> int:
    """The enumerator's number, which is that of ``AttributeProto.AttributeType``; onnx's stubs do not know it."""
    return int(getattr(kind, "value"))  # noqa: B009
