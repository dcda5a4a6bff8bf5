"""The driver: worklist, names, interface, scopes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from harness import lines, parse, run

from graphopt import proto
from graphopt.errors import UsageError
from graphopt.pipeline import registry
from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.pipeline.runner import run as run_passes
from graphopt.rewrite.match import Match, Miss
from graphopt.verify import structure


@dataclasses.dataclass(frozen=True)
class ReluToClip(RulePass):
    """Relu becomes Max with a zero: a rewrite with a new constant."""

    name = "relu-to-max"
    safety = Safety.EXACT
    ops = ("Relu",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        return Match(node, build=lambda builder: [builder.op("Max", [node.inputs[0], builder.constant(ZERO, "zero")])])


@dataclasses.dataclass(frozen=True)
class DoubleNegation(RulePass):
    """Neg of Neg goes away."""

    name = "double-negation"
    safety = Safety.EXACT
    ops = ("Neg",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        inner = context.producer(node.inputs[0], "Neg")
        return Match(node, forward=(inner.inputs[0],)) if inner is not None else None


@dataclasses.dataclass(frozen=True)
class Count(RulePass):
    """Counts how often it is asked; never fires."""

    asked: ClassVar[list[ir.Node]] = []
    name = "count"
    safety = Safety.EXACT
    ops: ClassVar[tuple[str, ...]] = ("Neg", "Relu", "Max", "Exp")

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        self.asked.append(node)
        return Miss("it only counts", node)


ZERO = np.zeros((), np.float32)


def rewrite(model: ir.Model, *passes: RulePass) -> Context:
    context = Context(model, explain=True)
    run_passes(model, passes, context, check=structure.check)
    return context


def test_new_nodes_and_constants_take_the_place_of_a_graph_output() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { y = Relu(x) }")
    rewrite(model, ReluToClip())
    assert lines(model) == ["y = Max(x, zero)"]
    assert model.graph.outputs[0].shape == ir.Shape(["N"])


def test_chain_collapses_in_one_run() -> None:
    chain = "\n".join(f"v{i + 1} = Neg(v{i})" for i in range(1001))
    model = parse(f"agraph (float[N] v0) => (float[N] y) {{ {chain}\n y = Exp(v1001) }}")
    rewrite(model, DoubleNegation())
    assert [node.op_type for node in model.graph] == ["Neg", "Exp"]


def test_output_fed_by_an_input_keeps_its_node() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { a = Neg(x)\n y = Neg(a) }")
    context = rewrite(model, DoubleNegation())
    assert lines(model) == ["a = Neg(x)", "y = Neg(a)"]
    assert list(context.misses["double-negation"]) == ["it computes a graph output that cannot be renamed away"]


def test_output_takes_over_the_name_of_a_value_read_elsewhere() -> None:
    text = "agraph (float[N] x) => (float[N] y, float[N] z) { e = Exp(x)\n a = Neg(e)\n y = Neg(a)\n z = Relu(e) }"
    model = parse(text)
    rewrite(model, DoubleNegation())
    assert lines(model) == ["y = Exp(x)", "z = Relu(y)"]


def test_the_same_value_is_never_two_outputs() -> None:
    text = "agraph (float[N] x) => (float[N] e, float[N] y) { e = Exp(x)\n a = Neg(e)\n y = Neg(a) }"
    model = parse(text)
    rewrite(model, DoubleNegation())
    assert [value.name for value in model.graph.outputs] == ["e", "y"]
    feeds = {"x": np.ones(2, np.float32)}
    first, second = run(model, feeds)
    assert (first == second).all()


def test_subgraph_and_function_bodies_are_rewritten() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (bool c, float[N] x) => (float[N] y) {
        t = If (c) <
            then_branch = g1 () => (float[N] a) { a = Relu (x) },
            else_branch = g2 () => (float[N] b) { b = own.twice (x) }
        >
        y = Identity (t)
    }
    <domain: "own", opset_import: ["" : 21]>
    twice (v) => (w) { u = Relu (v)
        w = Add (u, u) }"""
    model = parse(text)
    rewrite(model, ReluToClip())
    branch = next(iter(model.graph)).attributes["then_branch"].as_graph()
    assert lines(branch) == ["a = Max(x, zero)"]
    assert [line.partition(" = ")[2] for line in lines(next(iter(model.functions.values())))] == [
        "Constant()",
        "Max(v, zero_1)",
        "Add(u, u)",
    ]


def test_function_attribute_references_are_left_alone() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N] x) => (float[N] y) { y = own.f <alpha = 0.5> (x) }
    <domain: "own", opset_import: ["" : 21]>
    f <alpha> (v) => (w) { w = LeakyRelu <alpha : float = @alpha> (v) }"""

    @dataclasses.dataclass(frozen=True)
    class Leaky(Count):
        ops = ("LeakyRelu",)

    Count.asked.clear()
    rewrite(parse(text), Leaky())
    assert not Count.asked


def test_passes_that_undo_each_other_are_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class There(RulePass):
        name = "there"
        safety = Safety.EXACT
        ops = ("Relu",)

        def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
            return Match(node, build=lambda builder: [builder.op("Neg", node.inputs)])

    @dataclasses.dataclass(frozen=True)
    class Back(RulePass):
        name = "back"
        safety = Safety.EXACT
        ops = ("Neg",)

        def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
            return Match(node, build=lambda builder: [builder.op("Relu", node.inputs)])

    with pytest.raises(UsageError, match="keep undoing what was done") as caught:
        rewrite(parse("agraph (float[N] x) => (float[N] y) { y = Relu(x) }"), There(), Back())
    assert "'there'" in caught.value.message
    assert "'back'" in caught.value.message


@pytest.mark.parametrize("length", [100, 1000])
def test_every_node_is_asked_a_constant_number_of_times(length: int) -> None:
    chain = "\n".join(f"v{i + 1} = {'Relu' if i % 2 else 'Exp'}(v{i})" for i in range(length))
    model = parse(f"agraph (float[N] v0) => (float[N] y) {{ {chain}\n y = Exp(v{length}) }}")
    Count.asked.clear()
    rewrite(model, Count(), ReluToClip())
    assert len(Count.asked) <= 3 * (length + 1)


def test_a_rule_is_asked_only_where_the_model_has_what_it_needs() -> None:
    @dataclasses.dataclass(frozen=True)
    class AfterMax(Count):
        ops = ("Exp",)
        needs = frozenset({"Max"})

    text = "agraph (float[N] x) => (float[N] y) { a = Exp(x)\n r = Relu(a)\n y = Exp(r) }"
    Count.asked.clear()
    rewrite(parse(text), AfterMax())
    assert not Count.asked
    rewrite(parse(text), AfterMax(), ReluToClip())  # which brings a Max
    assert "y" in [node.outputs[0].name for node in Count.asked]


def test_metadata_and_documentation_survive() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { y = Relu(x) }")
    node = model.graph[0]
    node.name, node.doc_string = "act", "rectifies"
    node.metadata_props["source"] = "line 7"
    rewrite(model, ReluToClip())
    after = model.graph[0]
    assert (after.name, after.doc_string, after.metadata_props["source"]) == ("act", "rectifies", "line 7")


def test_what_a_file_says_of_a_value_stays_with_its_name() -> None:
    model = proto.to_proto(
        parse(
            "agraph (float[N] x) => (float[N] y) { a = Neg (x)  h = Neg (a)  r = Relu (h)  b = Neg (r)  c = Neg (b) "
            " y = Identity (c) }"
        )
    )
    for name in ("r", "y"):
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="x")
    model.graph.output[0].metadata_props.add(key="unit", value="metre")
    model.graph.output[0].doc_string = "the result"
    given = proto.from_proto(model)
    run_passes(given, [*registry.resolve(["eliminate-identity"]), DoubleNegation(), ReluToClip()], Context(given))
    assert lines(given) == ["y = Max(x, zero)"]
    after = proto.to_proto(given).graph
    assert [annotation.tensor_name for annotation in after.quantization_annotation] == ["y"]
    assert [(entry.key, entry.value) for entry in after.output[0].metadata_props] == [("unit", "metre")]
    assert after.output[0].doc_string == "the result"
