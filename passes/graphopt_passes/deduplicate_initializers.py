"""Keeps one of several identical initializers."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.proto.tensors import BufferTensor, SparseTensor
from graphopt.rewrite import edit
from graphopt_passes._initializers import is_private, named_by_annotations

__all__ = ["DeduplicateInitializers"]

_FIRST_CHUNK = 4096
_CHUNK = 1 << 18
_WORTH_CAPTURING = 1024

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class DeduplicateInitializers(GraphPass):
    """Keeps one of several initializers of the same type, shape and bytes, whatever their size.

    What it does:
        Initializers that agree in type and shape are compared chunk by chunk, and only for as long as they agree: what
        is unique in its shape, or differs early, is hardly read, and each byte at most once. Bytes count, so ``0.0``
        and ``-0.0`` differ and equal NaNs are equal. Readers of a duplicate read the first one.

    Before:
        ``a = Add(x, u); b = Add(y, v)`` with equal ``u`` and ``v``

    After:
        ``a = Add(x, u); b = Add(y, u)``

    Does not apply when:
        - one of the two is a graph output, or a graph input that the caller may override;
        - they lie in graphs of which neither encloses the other, such as the two branches of an If; or in nested
          graphs, and they are small: a capture costs more than the bytes;
        - a quantization annotation names the duplicate.

    Safety:
        Exact.
    """

    name = "deduplicate-initializers"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        groups: dict[Hashable, list[ir.Value]] = collections.defaultdict(list)
        enclosing: dict[ir.Graph | None, frozenset[ir.Graph]] = {None: frozenset()}
        for scope in context.scopes():
            outer = scope.owner.graph if scope.owner is not None else None
            enclosing[scope.graph] = enclosing[outer] | {scope.graph}
            for value in scope.graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and is_private(value) and type(tensor) is not SparseTensor:
                    groups[tensor.dtype, tensor.shape.dims].append(value)
        twins = [twin for group in groups.values() if len(group) > 1 for twin in _twins(group, enclosing)]
        if not twins:
            return Outcome()
        annotated = named_by_annotations(context)
        twins = [(kept, duplicate) for kept, duplicate in twins if duplicate.name not in annotated]
        touched: list[ir.Node] = []
        for kept, duplicate in twins:
            touched += edit.redirect(duplicate, kept)
            assert duplicate.graph is not None
            assert duplicate.name is not None
            del duplicate.graph.initializers[duplicate.name]
        return Outcome(len(twins), touched)


def _twins(
    group: Sequence[ir.Value], enclosing: Mapping[ir.Graph | None, frozenset[ir.Graph]]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Of initializers of one type and shape, outer ones first: what to keep, and what to replace by it."""
    for equal in _equal_contents(group):
        kept: list[ir.Value] = []
        for value in equal:
            small = value.const_value is None or value.const_value.nbytes < _WORTH_CAPTURING
            visible = {value.graph} if small else enclosing[value.graph]
            first = next((other for other in kept if other.graph in visible), None)
            if first is None:
                kept.append(value)
            else:
                yield first, value


def _equal_contents(group: Sequence[ir.Value]) -> Iterator[list[ir.Value]]:
    """Splits ``group`` into the lists, longer than one, of those that hold the same bytes."""
    tensors = [value.const_value for value in group if value.const_value is not None]
    if tensors[0].dtype == ir.DataType.STRING:
        contents = (tuple(tensor.numpy().reshape(-1)) for tensor in tensors)
        yield from _split(zip(contents, group, strict=True))
        return
    views = [_bytes(tensor) for tensor in tensors]
    pending = [(list(range(len(group))), 0)]
    while pending:
        members, start = pending.pop()
        if start >= len(views[0]):
            yield [group[index] for index in members]
            continue
        end = start + (_CHUNK if start else _FIRST_CHUNK)
        pending.extend((alike, end) for alike in _split((bytes(views[index][start:end]), index) for index in members))


def _bytes(tensor: ir.TensorProtocol) -> memoryview:
    """The contents, not copied where they lie in memory or in a mapped file."""
    if type(tensor) is BufferTensor:
        return memoryview(tensor.raw)
    if tensor.dtype.bitwidth < 8:
        return memoryview(tensor.tobytes())
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def _split(keyed: Iterable[tuple[Hashable, _Item]]) -> list[list[_Item]]:
    """Items by key, lone ones left out."""
    found: dict[Hashable, list[_Item]] = collections.defaultdict(list)
    for key, item in keyed:
        found[key].append(item)
    return [items for items in found.values() if len(items) > 1]
