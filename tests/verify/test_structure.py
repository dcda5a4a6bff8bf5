"""The structure check finds each way in which a rewrite can leave a graph in pieces, and names the node."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from harness import calls, parse

from graphopt.errors import ModelError
from graphopt.verify import structure

CHAIN = "agraph (float[4] x) => (float[4] y) { a = Relu(x) b = Neg(a) y = Abs(b) }"
BRANCH = """
agraph (float[4] x, bool c) => (float[4] y) {
    a = Relu(x)
    y = If (c) <
        then_branch = then () => (float[4] t) { t = Neg(a) },
        else_branch = other () => (float[4] e) { e = Abs(a) }
    >
}
"""
FUNCTION = """
<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
agraph (float[4] x) => (float[4] y) { y = local.f(x) }
<domain: "local", opset_import: ["" : 21]>
f (p) => (q) { m = Relu(p) q = Neg(m) }
"""


def _node(model: ir.Model, op_type: str) -> ir.Node:
    graphs = [*model.graphs(), *(function.graph for function in model.functions.values())]
    return next(node for graph in graphs for node in graph if node.op_type == op_type)


@pytest.mark.parametrize("text", [CHAIN, BRANCH, FUNCTION])
def test_sound_models_pass(text: str) -> None:
    structure.check(parse(text))


def test_dangling_input() -> None:
    model = parse(CHAIN)
    _node(model, "Neg").replace_input_with(0, ir.Value(name="ghost"))
    with pytest.raises(ModelError, match=r"Neg node.* uses 'ghost', which nothing in its graph makes"):
        structure.check(model)


def test_removed_producer() -> None:
    model = parse(CHAIN)
    model.graph.remove(_node(model, "Neg"), safe=False)
    with pytest.raises(ModelError, match=r"Abs node.* uses 'b'"):
        structure.check(model)


def test_wrong_order() -> None:
    model = parse(CHAIN)
    node = _node(model, "Relu")
    model.graph.remove(node, safe=False)
    model.graph.append(node)
    with pytest.raises(ModelError, match=r"Neg node.* uses 'a' before .*Relu.* makes it"):
        structure.check(model)


def test_cycle() -> None:
    model = parse(CHAIN)
    _node(model, "Relu").replace_input_with(0, _node(model, "Neg").outputs[0])
    with pytest.raises(ModelError, match="cycle") as caught:
        structure.check(model)
    assert "Relu" in caught.value.message


def test_name_assigned_twice() -> None:
    model = parse(CHAIN)
    _node(model, "Neg").outputs[0].name = "a"
    with pytest.raises(ModelError, match=r"Neg node.* assigns 'a' a second time"):
        structure.check(model)


def test_name_of_an_input_assigned() -> None:
    model = parse(CHAIN)
    _node(model, "Neg").outputs[0].name = "x"
    with pytest.raises(ModelError, match="'x' a second time"):
        structure.check(model)


def test_twin_of_the_right_name() -> None:
    model = parse(CHAIN)
    _node(model, "Neg").replace_input_with(0, ir.Value(name="a"))
    with pytest.raises(ModelError, match="another value named 'a'"):
        structure.check(model)


def test_graph_output_nobody_makes() -> None:
    model = parse(CHAIN)
    model.graph.outputs[0] = ir.Value(name="nobody")
    with pytest.raises(ModelError, match="a graph output uses 'nobody'"):
        structure.check(model)


def test_initializer_without_value() -> None:
    model = parse(CHAIN)
    model.graph.initializers["w"] = ir.Value(name="w")
    with pytest.raises(ModelError, match="'w' has no value"):
        structure.check(model)


def test_subgraph_is_checked_and_named() -> None:
    model = parse(BRANCH)
    _node(model, "Neg").replace_input_with(0, ir.Value(name="ghost"))
    with pytest.raises(ModelError, match=r"If node.*subgraph 'then'.*Neg node.* 'ghost'"):
        structure.check(model)


def test_capture_of_what_comes_later() -> None:
    model = parse(BRANCH)
    node = _node(model, "Relu")
    model.graph.remove(node, safe=False)
    model.graph.append(node)
    with pytest.raises(ModelError, match="'a'"):
        structure.check(model)


def test_name_of_the_outer_graph_assigned_in_a_subgraph() -> None:
    model = parse(BRANCH)
    _node(model, "Neg").outputs[0].name = "a"
    with pytest.raises(ModelError, match="second time"):
        structure.check(model)


def test_function_body_is_checked_and_named() -> None:
    model = parse(FUNCTION)
    _node(model, "Neg").replace_input_with(0, ir.Value(name="ghost"))
    with pytest.raises(ModelError, match=r"function 'f'.*Neg node.* 'ghost'"):
        structure.check(model)


def test_function_body_does_not_see_the_graph() -> None:
    model = parse(FUNCTION)
    _node(model, "Neg").replace_input_with(0, model.graph.inputs[0])
    with pytest.raises(ModelError, match="'x'"):
        structure.check(model)


def test_work_is_linear_in_the_subgraphs() -> None:
    def work(count: int) -> int:
        branches = "\n".join(
            f"y{i} = If (c) <then_branch = t{i} () => (float[4] u{i}) {{ u{i} = Neg(x) }},"
            f" else_branch = e{i} () => (float[4] v{i}) {{ v{i} = Abs(x) }}>"
            for i in range(count)
        )
        model = parse(f"agraph (float[4] x, bool c) => (float[4] y{count - 1}) {{ {branches} }}")
        return calls(lambda: structure.check(model))

    assert work(1000) < 12 * work(100)
