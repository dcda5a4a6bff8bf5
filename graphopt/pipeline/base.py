"""The pass protocol: what a pass is, what it may assume, what it gives back."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.names import Names
from graphopt.rewrite import edit
from graphopt.rewrite.match import Match, Miss

if TYPE_CHECKING:
    from graphopt.analysis.shapes import Shapes

__all__ = ["Context", "GraphPass", "Outcome", "Pass", "RulePass", "Safety", "Target"]


class Safety(enum.IntEnum):
    """What a pass may change about the results.

    ``EXACT``: not a bit. ``NUMERIC``: rounding, within a tolerance that follows from the dtype. ``LOSSY``: accuracy;
    needs data or training, and never runs unless asked for. It runs once, before all others, and what it left is what
    their result is compared with.
    """

    EXACT = 0
    NUMERIC = 1
    LOSSY = 2


class Target(enum.StrEnum):
    """Where the result must run: any ONNX runtime, or ONNX Runtime's own operators on one provider."""

    PORTABLE = "portable"
    ORT_CPU = "ort-cpu"
    ORT_CUDA = "ort-cuda"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a whole-graph pass did.

    Attributes:
        count: How many places it changed.
        touched: Nodes whose surroundings changed, for the driver to look at again; ``None`` means all.
        reference: Of a lossy pass, which does not keep the results: what it left must do the same as this model (the
            one with a mask in place of what was removed, say). ``None`` if it claims nothing.
    """

    count: int = 0
    touched: Iterable[ir.Node] | None = ()
    reference: ir.Model | None = None


@dataclasses.dataclass(frozen=True)
class Pass(abc.ABC):
    """Base of all passes: a frozen dataclass whose fields are its options, on the command line too.

    Attributes:
        name: Verb first, in kebab case; file, class and test are named after it.
        safety: The most that it may change.
        needs: Operator types, ``domain::op`` outside ONNX's own domain, of which every place that it changes has at
            least one. Where the model has none of them the pass does not run. Empty: it always does.
    """

    name: ClassVar[str]
    safety: ClassVar[Safety]
    needs: ClassVar[frozenset[str]] = frozenset()


class RulePass(Pass):
    """A set of local rewrites. The driver looks at each node of ``ops`` and does the rewriting.

    Attributes:
        ops: The operator types of the root node, ``domain::op`` outside ONNX's own domain. The root is the *last*
            node of the pattern; the rule looks upstream from there.
        reach: How many nodes upstream of the root a match depends on; what lies further is not looked at again
            after a change.
    """

    ops: ClassVar[tuple[str, ...]]
    reach: ClassVar[int] = 1

    @abc.abstractmethod
    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        """Says whether the rule applies at ``node``. Pure: changes nothing.

        Args:
            node: A node whose type is in ``ops``; none of its attributes refers to a function's attribute.
            context: What is known about the model.

        Returns:
            A match, a miss (it looked right, but), or ``None`` (not the pattern at all).
        """


class GraphPass(Pass):
    """A pass that needs the whole graph at once and owns its mutation.

    Attributes:
        late: Run it only once nothing else changes the model any more: for what is costly to find out.
    """

    late: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, model: ir.Model, context: Context) -> Outcome:
        """Changes ``model`` in place and says what it did."""


class Context:
    """What passes may ask about the model they work on, and the only way they create names and constants.

    Args:
        model: The model being rewritten.
        target: Where the result must run.
        explain: Whether to keep the reasons of misses.

    Attributes:
        misses: How often a pass missed for which reason, by pass name.
        examples: One node for each pass name and reason.
        computes_shapes: Whether the model, before anything was rewritten, works out shapes as it runs. Runtimes then do
            not know those of much of it.
    """

    def __init__(self, model: ir.Model, *, target: Target = Target.PORTABLE, explain: bool = False) -> None:
        self.model = model
        self.target = target
        self.explain = explain
        self.misses: dict[str, collections.Counter[str]] = {}
        self.examples: dict[tuple[str, str], str] = {}
        self._scopes = {scope.graph: scope for scope in walk.scopes(model)}
        self.computes_shapes = any(node.op_type == "Shape" for graph in self._scopes for node in graph)

    def refresh(self) -> None:
        """Forgets what is known, after a pass that does not say what it changed."""
        self._scopes = {scope.graph: scope for scope in walk.scopes(self.model)}
        self.__dict__.pop("names", None)
        self.__dict__.pop("shapes", None)

    @functools.cached_property
    def names(self) -> Names:
        """Every name in use."""
        return Names(self.model)

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Symbolic shapes, dtypes and contents of small integer tensors; computed when asked for."""
        from graphopt.analysis.shapes import Shapes

        return Shapes(self.model)

    @property
    def shapes_or_none(self) -> Shapes | None:
        """The shape analysis if anyone has asked for it yet."""
        return self.__dict__.get("shapes")

    def scopes(self) -> list[walk.Scope]:
        """Every scope of the model as it is now, outer ones before what they hold."""
        return [scope for scope in self._scopes.values() if scope.owner is None or scope.owner.graph is not None]

    def scope(self, node: ir.Node) -> walk.Scope:
        """The scope that holds ``node``."""
        assert node.graph is not None
        return self._scopes[node.graph]

    def holders(self, node: ir.Node) -> list[ir.Node]:
        """``node`` and the nodes in whose subgraphs it lies, outwards."""
        found: list[ir.Node] = []
        inner: ir.Node | None = node
        while inner is not None:
            found.append(inner)
            inner = self.scope(inner).owner
        return found

    def opset(self, node: ir.Node) -> int:
        """The version of the operator set that defines ``node``; 0 if its domain is not imported."""
        return self.scope(node).opset.get(node.domain, 0)

    def constant(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The tensor ``value`` always holds, or ``None``. See :func:`graphopt.analysis.constants.constant`."""
        return constants.constant(value)

    def array(self, value: ir.Value | None, max_elements: int | None = None) -> npt.NDArray[Any] | None:
        """Contents of a constant as an array, or ``None``."""
        return constants.array(value, max_elements)

    def scalar(self, value: ir.Value | None) -> float | int | bool | None:
        """The number a one-element constant holds, or ``None``."""
        return constants.scalar(value)

    def ints(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Contents of a small constant integer tensor of rank 0 or 1, or ``None``."""
        contents = constants.array(value, max_elements=4096)
        if contents is None or contents.dtype.kind not in "iu" or contents.ndim > 1:
            return None
        return tuple(int(number) for number in contents.reshape(-1))

    def only_reader(self, value: ir.Value, reader: ir.Node) -> bool:
        """Whether ``reader`` reads ``value`` once and nothing else does, so that ``value`` may go away."""
        if len(value._uses) != 1 or value.is_graph_output():  # not uses(), which copies
            return False
        return next(iter(value._uses)).node is reader

    def producer(self, value: ir.Value | None, *op_types: str, reader: ir.Node | None = None) -> ir.Node | None:
        """The node of ONNX's own domain that computes ``value``, if its type is among ``op_types``.

        Args:
            value: The value.
            op_types: Accepted operator types; any if none is given.
            reader: If given, the producer counts only if ``reader`` alone reads the value and lies in the same graph.
        """
        node = value.producer() if value is not None else None
        if value is None or node is None or node.domain or (op_types and node.op_type not in op_types):
            return None
        if reader is not None and (node.graph is not reader.graph or not self.only_reader(value, reader)):
            return None
        for attribute in node._attributes.data.values():  # a plain loop: few things are asked more often
            if attribute.is_ref():
                return None
        return node

    def new_constant(
        self,
        near: ir.Node,
        contents: npt.NDArray[Any] | ir.TensorProtocol,
        name: str | None = None,
        *,
        as_node: bool = False,
    ) -> ir.Value:
        """A new constant visible to ``near``: an initializer of its graph, a Constant node inside functions.

        Args:
            near: The node that will read it, or before which it is needed.
            contents: The tensor.
            name: What to call it, made unique.
            as_node: Make a Constant node wherever it is, as a graph output needs.
        """
        graph = near.graph
        assert graph is not None
        name = self.names.fresh(name or f"{near.name or near.op_type}_constant")
        tensor = (
            constants.tensor(np.asarray(contents), name) if isinstance(contents, np.ndarray | np.generic) else contents
        )
        tensor.name = name
        value = edit.constant_value(name, tensor)
        if as_node or self._scopes[graph].function is not None:
            node = ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)}, name=name)
            graph.insert_before(near, node)
            node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, value.shape, value.type
            return node.outputs[0]
        graph.register_initializer(value)
        return value

    def adopt(self, nodes: Sequence[ir.Node]) -> None:
        """Registers the subgraphs of nodes that are new, or moved, so that :meth:`scope` knows them.

        A domain that is new to the model is imported at version 1, the only one that ONNX Runtime's own has.
        """
        for node in nodes:
            outer = self.scope(node)
            if node.domain and node.domain not in outer.opset:
                owner = outer.function if outer.function is not None else self.model
                owner.opset_imports[node.domain] = 1
            for graph in walk.subgraphs(node):
                for scope in walk.within(walk.Scope(graph, outer.opset, outer.function, node)):
                    self._scopes[scope.graph] = scope

    def note(self, name: str, miss: Miss) -> None:
        """Keeps a miss of pass ``name`` for the explanation, if one was asked for."""
        if not self.explain:
            return
        self.misses.setdefault(name, collections.Counter())[miss.reason] += 1
        self.examples.setdefault((name, miss.reason), miss.node.name or miss.node.op_type)

    def replace(self, stand_ins: Mapping[ir.Value, ir.Value]) -> list[ir.Node]:
        """For whole-graph passes: redirects the readers of each key to its value and copies what is known of it.

        Returns:
            The nodes that read something else now.
        """
        touched: list[ir.Node] = []
        shapes = self.shapes_or_none
        for old, new in stand_ins.items():
            if shapes is not None and new.producer() is not None:
                shapes.assume(new, like=old)
            touched.extend(edit.redirect(old, new))
        return touched
