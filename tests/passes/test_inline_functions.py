"""inline-functions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "inline-functions"
LOCAL = '<domain: "local", opset_import: ["" : 21, "local" : 1]>'
F = f"{LOCAL} f (a) => (b) {{ c = Exp (a) b = Neg (c) }}"


def model(body: str, *functions: str, x: str = "float[N,4] x", y: str = "float[N,4] y", opset: int = 21) -> ir.Model:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]>'
    return parse(f"{header} agraph ({x}) => ({y}) {{ {body} }} {' '.join(functions)}")


def test_a_call_becomes_its_body() -> None:
    result = fires(NAME, model("a = local.f (x) y = Relu (a)", F))
    assert [line.split(" = ")[1].split("(")[0] for line in lines(result)] == ["Exp", "Neg", "Relu"]
    assert not result.functions


def test_names_stay_unique_and_outputs_keep_theirs() -> None:
    result = fires(NAME, model("a = local.f (x) c = local.f (a) y = Add (a, c)", F))
    names = [output.name for node in result.graph for output in node.outputs]
    assert len(set(names)) == len(names) == 5
    assert names[-1] == "y"


def test_functions_of_functions() -> None:
    g = f"{LOCAL} g (a) => (b) {{ c = local.f (a) d = local.f (c) b = Relu (d) }}"
    result = fires(NAME, model("y = local.g (x)", g, F))
    assert len(result.graph) == 5
    assert not result.functions


@pytest.mark.parametrize(("call", "alpha"), [("local.f <k = 0.3> (x)", "0.3"), ("local.f (x)", "")])
def test_attributes(call: str, alpha: str) -> None:
    f = f"{LOCAL} f <k> (a) => (b) {{ b = LeakyRelu <alpha: float = @k> (a) }}"
    (line,) = lines(fires(NAME, model(f"y = {call}", f)))
    assert line.startswith(f"y = LeakyRelu<alpha={alpha}" if alpha else "y = LeakyRelu(x)")


def test_default_attributes() -> None:
    f = f"{LOCAL} f <k: float = 0.25> (a) => (b) {{ b = LeakyRelu <alpha: float = @k> (a) }}"
    fires(NAME, model("y = local.f (x)", f), ["y = LeakyRelu<alpha=0.25>(x)"])


def test_an_operand_left_out_and_a_result_left_out() -> None:
    f = f"{LOCAL} f (a, low, high) => (b, c) {{ b = Clip (a, low, high) c = Neg (b) }}"
    body = "k = Constant <value_float = 0.5> () y = local.f (x, , k)"
    result = apply(model(body, f), NAME)[0]  # the original is not for ONNX Runtime: it wants the operand
    assert lines(result)[1] == "y = Clip(x, , k)"
    assert not result.functions


def test_an_operand_that_is_a_result() -> None:
    f = f"{LOCAL} f (a) => (b, a) {{ b = Neg (a) }}"
    before = model("y, z = local.f (x)", f, y="float[N,4] y, float[N,4] z")
    assert lines(apply(before, NAME)[0]) == ["y = Neg(x)", "z = Identity(x)"]  # ONNX Runtime rejects the original


BRANCH = f"""{LOCAL} f <k> (a, c) => (b) {{ b = If (c) <
    then_branch = g1 () => (t) {{ s = Exp (a) t = LeakyRelu <alpha: float = @k> (s) }},
    else_branch = g2 () => (e) {{ e = Neg (a) }}> }}"""


def test_branches_in_a_function_and_calls_in_a_branch() -> None:
    body = "s = local.f <k = 0.5> (x, c) y = local.f <k = 0.25> (s, c)"
    result = fires(NAME, model(body, BRANCH, x="float[N,4] x, bool c"))
    names = [output.name for node in ir.traversal.RecursiveGraphIterator(result.graph) for output in node.outputs]
    assert len(set(names)) == len(names) == 8
    body = """y = If (c) <then_branch = g1 () => (t) { t = local.f (x) }, else_branch = g2 () => (e) { e = Neg (x) }>"""
    result = fires(NAME, model(body, F, x="float[N,4] x, bool c"))
    assert len(result.graph[0].attributes["then_branch"].as_graph()) == 2


def test_metadata_of_the_call_goes_to_what_it_becomes() -> None:
    before = model("y = local.f (x)", F)
    before.graph[0].metadata_props["scope"] = "layer.0"
    assert all(node.metadata_props["scope"] == "layer.0" for node in fires(NAME, before).graph)


def test_functions_that_nothing_calls() -> None:
    assert not fires(NAME, model("y = Relu (x)", F), ["y = Relu(x)"]).functions


def test_another_version_of_the_operators() -> None:
    reason = ["the function is written for another version of an operator set"]
    assert misses(NAME, model("y = local.f (x)", F, opset=20)) == reason


def test_a_domain_with_kernels() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = com.microsoft.Gelu (x) }
    <domain: "com.microsoft", opset_import: ["" : 21]> Gelu (a) => (b) { b = Gelu (a) }"""
    assert misses(NAME, parse(text)) == ["runtimes may have a kernel for it"]


def test_functions_that_call_themselves() -> None:
    f = f"{LOCAL} f (a) => (b) {{ c = local.g (a) b = Neg (c) }}"
    g = f"{LOCAL} g (a) => (b) {{ c = local.f (a) b = Neg (c) }}"
    before = model("y = local.f (x)", f, g)
    after, _, context = apply(before, NAME)
    assert lines(after) == lines(before)
    assert len(after.functions) == 2
    assert list(context.misses[NAME]) == ["a function calls itself"]


def test_too_many_nodes() -> None:
    doubling = [f"{LOCAL} f{n} (a) => (b) {{ c = local.f{n - 1} (a) b = local.f{n - 1} (c) }}" for n in range(1, 30)]
    first = f"{LOCAL} f0 (a) => (b) {{ b = Neg (a) }}"
    before = model("y = local.f29 (x)", first, *doubling)
    assert len(apply(before, NAME)[0].functions) == 30
    unchanged(f"{NAME}:max-nodes=1", model("y = local.f (x)", F))


def test_constants_of_a_function_are_there_for_the_caller() -> None:
    f = f"{LOCAL} f (a) => (b) {{ c = Constant <value_float = 2.0> () b = Mul (a, c) }}"
    result, _, _ = apply(
        model("s = local.f (x) y = local.f (s)", f), NAME, "hoist-constants", "deduplicate-initializers"
    )
    assert [one.const_value.numpy() for one in result.graph.initializers.values() if one.const_value] == [np.float32(2)]
