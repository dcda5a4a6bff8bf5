"""Micro-graphs: one pattern in one spelling each, as ONNX text, and what must be gone or must stay after a tool ran.

The text of a spelling is ``(inputs) => (outputs) <values> { nodes }``; without the first part it has the row's
``head``. A value in ``<>`` with contents is a constant; one without contents that no node makes is a weight, filled
with noise whose seed is its name up to the first underscore: positive if that starts with ``v`` (a variance), zero in
every second slice if it starts with ``z`` (a mask).
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Case", "Spelling", "at_least", "kinds", "row", "within"]

_VECTOR = "(float[N,4] x) => (float[N,4] y)"
_WEIGHT = 0.3  # standard deviation of weights


@dataclasses.dataclass(frozen=True)
class Spelling:
    """A spelling that differs from its row in more than the text; ``None`` and empty: as in the row."""

    text: str
    gone: str | None = None
    keep: str | None = None
    opset: int | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A micro-graph.

    Attributes:
        row: The row of the feature table that it belongs to.
        name: Of the spelling, unique in the row.
        text: ONNX text, with header.
        gone: What a tool that knows the pattern leaves: ``Op`` none of these, ``Op:2`` at most two. The pseudo-kinds
            ``initializer``, ``elements`` (of initializers), ``input`` and ``function`` count too; empty for a trap.
        keep: What a trap must still hold: ``Op`` at least one, ``Op:2`` at least two.
        compare: Results can be compared; not so if they are random.
        option: The graphopt pass that does it, where no default pass may (it changes the interface, or slows).
    """

    row: str
    name: str
    text: str
    gone: str = ""
    keep: str = ""
    compare: bool = True
    option: str = ""

    def model(self) -> onnx.ModelProto:
        """The graph, its weights filled in."""
        model = onnx.parser.parse_model(self.text)
        graph = model.graph
        made = {name for node in graph.node for name in node.output}
        for value in [one for one in graph.value_info if one.name not in made]:
            kind = value.type.tensor_type
            shape = [dim.dim_value for dim in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            random = np.random.default_rng(zlib.crc32(value.name.partition("_")[0].encode()))
            contents = random.standard_normal(shape) * _WEIGHT
            if value.name.startswith("v"):
                contents = 0.5 + np.abs(contents)
            elif value.name.startswith("z"):
                contents[1::2] = 0
            graph.initializer.append(numpy_helper.from_array(np.asarray(contents, dtype), value.name))
            graph.value_info.remove(value)
        return model


def row(
    name: str,
    *,
    head: str = _VECTOR,
    gone: str = "",
    keep: str = "",
    opset: int = 21,
    domains: str = "",
    compare: bool = True,
    option: str = "",
    **spellings: str | Spelling,
) -> list[Case]:
    """The cases of a row, one a keyword; see :class:`Case`."""
    cases = []
    for label, given in spellings.items():
        one = Spelling(given) if isinstance(given, str) else given
        body = one.text if one.text.startswith("(") else f"{head} {one.text}"
        version = one.opset or opset
        imports = f'"" : {version}{", " * bool(domains)}{domains}'
        text = f"<ir_version: {8 if version < 19 else 10}, opset_import: [{imports}]>\nagraph {body}"
        cases.append(
            Case(
                name,
                label.rstrip("_").replace("_", "-"),
                text,
                gone if one.gone is None else one.gone,
                keep if one.keep is None else one.keep,
                compare,
                option,
            )
        )
    return cases


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How often each kind of node occurs, subgraphs and functions included; and the pseudo-kinds of :class:`Case`."""
    found: Counter[str] = Counter()
    for node in _nodes(model.graph.node):
        found[f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type] += 1
    for function in model.functions:
        found["function"] += 1
        found.update(node.op_type for node in _nodes(function.node))
    fed = {one.name for one in model.graph.initializer}
    found["initializer"] = len(fed)
    found["elements"] = sum(int(np.prod(one.dims)) for one in model.graph.initializer)
    found["input"] = sum(one.name not in fed for one in model.graph.input)
    return found


def within(found: Mapping[str, int], limits: str) -> bool:
    """Whether there is no more of each kind than ``limits`` (``Op`` or ``Op:2``, separated by spaces) allow."""
    return all(found.get(kind, 0) <= int(most or 0) for kind, most in _limits(limits))


def at_least(found: Mapping[str, int], limits: str) -> bool:
    """Whether there is as much of each kind as ``limits`` (``Op`` or ``Op:2``) ask for."""
    return all(found.get(kind, 0) >= int(least or 1) for kind, least in _limits(limits))


def _limits(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split():
        match = re.fullmatch(r"(.+?)(?::(\d+))?", item)
        assert match is not None
        yield match[1], match[2] or ""


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _nodes(graph.node)
