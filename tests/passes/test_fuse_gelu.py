"""fuse-gelu."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bench import torch_networks
from harness import fires, lines, misses, parse, unchanged

import graphopt
from graphopt import proto

NAME = "fuse-gelu"
HEADER = '<ir_version: 10, opset_import: ["" : {opset}]>\n'
NUMBERS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "minus": -1.0,
    "root": 2**0.5,
    "inverse": 0.5**0.5,
    "k": (2 / np.pi) ** 0.5,
    "c": 0.044715,
    "ck": 0.044715 * (2 / np.pi) ** 0.5,
}


def model(body: str, *, opset: int = 20, kind: str = "float", x: str = "[N,4]", **numbers: Any) -> Any:
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    values = {name: np.asarray(number, dtype) for name, number in {**NUMBERS, **numbers}.items() if name in body}
    return parse(f"{HEADER.format(opset=opset)}agraph ({kind}{x} x) => ({kind}{x} y) {{ {body} }}", values)


ERF = {
    "torch": "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
    "dynamo": "h = Mul(half, x) d = Div(x, root) e = Erf(d) a = Add(one, e) y = Mul(h, a)",
    "tensorflow": "d = Mul(x, inverse) e = Erf(d) a = Add(one, e) h = Mul(half, a) y = Mul(x, h)",
    "divided": "d = Mul(inverse, x) e = Erf(d) a = Add(e, one) m = Mul(a, x) y = Div(m, two)",
    "summed": "d = Div(x, root) e = Erf(d) h = Mul(x, half) m = Mul(h, e) y = Add(m, h)",
    "negated": "d = Div(x, root) e = Erf(d) a = Sub(e, minus) m = Mul(x, a) y = Mul(m, half)",
}
TANH = {
    "torch": "h = Mul(x, half) q = Pow(x, three) p = Mul(q, c) s = Add(x, p) i = Mul(s, k) "
    "t = Tanh(i) a = Add(t, one) y = Mul(h, a)",
    "squares": "q = Mul(x, x) q3 = Mul(q, x) p = Mul(c, q3) s = Add(x, p) i = Mul(k, s) "
    "t = Tanh(i) a = Add(one, t) h = Mul(x, a) y = Mul(h, half)",
    "keras": "i = Mul(x, k) q = Mul(x, x) p = Mul(c, q) r = Add(one, p) j = Mul(i, r) "
    "t = Tanh(j) a = Add(t, one) h = Mul(half, a) y = Mul(x, h)",
    "multiplied out": "q = Pow(x, three) p = Mul(q, ck) i = Mul(x, k) s = Add(i, p) t = Tanh(s) "
    "a = Add(t, one) h = Mul(x, a) y = Div(h, two)",
}


@pytest.mark.parametrize("body", ERF.values(), ids=ERF)
def test_erf(body: str) -> None:
    fires(NAME, model(body), ["y = Gelu(x)"], count=1)


@pytest.mark.parametrize("body", TANH.values(), ids=TANH)
def test_tanh(body: str) -> None:
    fires(NAME, model(body), ["y = Gelu<approximate='tanh'>(x)"], count=1)


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize(
    ("gelu", "kind"), [(torch_networks.gelu_of_erf, "none"), (torch_networks.gelu_of_tanh, "tanh")]
)
def test_exported(gelu: Any, kind: str, exporter: str) -> None:
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = gelu(x)
            return found

    exported = torch_networks.export(Network(), torch.randn(2, 4), exporter=exporter, opset=20)
    (node,) = fires(NAME, folded(exported), count=1).graph
    assert node.op_type == "Gelu"
    assert (node.attributes["approximate"].as_string() if node.attributes else "none") == kind


def folded(exported: Any) -> Any:
    """The dynamo exporter computes some of its constants in the graph."""
    return graphopt.optimize(proto.from_proto(exported), passes=["hoist-constants", "fold-constants"], validate=False)


def test_types() -> None:
    fires(NAME, model(ERF["torch"], kind="float16"), ["y = Gelu(x)"])
    assert misses(NAME, model(TANH["torch"], kind="double")) == [
        "the type is not known to be float32 or of half precision"
    ]


def test_numbers_with_axes_that_x_has_too() -> None:
    fires(NAME, model(ERF["torch"], half=[0.5], one=[[1.0]]), ["y = Gelu(x)"])


def test_a_factor_that_follows_stays() -> None:
    body = ERF["torch"].replace("y =", "g =") + " y = Mul(g, three)"
    assert lines(fires(NAME, model(body), count=1))[-1] == "y = Mul(g, three)"


def test_a_computed_operand_that_is_read_elsewhere_too() -> None:
    body = ERF["torch"].replace("x", "r").replace("y =", "g =")
    fires(NAME, model(f"r = Mul(x, three) {body} y = Add(g, r)"), ["r = Mul(x, three)", "g = Gelu(r)", "y = Add(g, r)"])


def test_inside_a_branch_and_a_function() -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    agraph (float[N,4] x, bool b) => (float[N,4] z) {{
        z = If (b) <
            then_branch = left () => (float[N,4] y) {{ {ERF["torch"]} }},
            else_branch = right () => (float[N,4] r) {{ r = local.block (x) }}
        >
    }}
    <domain: "local", opset_import: ["" : 20]>
    block (x) => (y) {{ y = Relu(x) }}"""
    values = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if name in ERF["torch"]}
    result = fires(NAME, parse(text, values), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["y = Gelu(x)"]


def test_before_opset_20() -> None:
    assert misses(NAME, model(ERF["torch"], opset=19)) == ["Gelu came with opset 20"]


def test_an_argument_of_the_gate_that_is_read_elsewhere() -> None:
    unchanged(NAME, model(ERF["torch"].replace("y =", "g =") + " y = Add(g, d)"))


@pytest.mark.parametrize("inner", ["e", "a", "m"])
def test_an_inner_result_is_read_elsewhere(inner: str) -> None:
    body = ERF["torch"].replace("y =", "g =") + f" y = Add(g, {inner})"
    assert misses(NAME, model(body)) == ["an inner result is read elsewhere"]


@pytest.mark.parametrize("inner", ["d", "e", "a", "m"])
def test_an_inner_result_is_an_output(inner: str) -> None:
    text = f"{HEADER.format(opset=20)}agraph (float[N,4] x) => (float[N,4] y, float[N,4] {inner}) {{ {ERF['torch']} }}"
    values = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if name in ERF["torch"]}
    assert misses(NAME, parse(text, values)) == ["an inner result is read elsewhere"]


@pytest.mark.parametrize("change", [{"root": 1.5}, {"root": 1.4143}])
def test_other_numbers_inside(change: dict[str, Any]) -> None:
    assert misses(NAME, model(ERF["torch"], **change)) == ["the numbers are not those of a Gelu"]


def test_the_fast_approximation_is_another_function() -> None:
    body = "i = Mul(x, k) t = Tanh(i) a = Add(t, one) h = Mul(half, a) y = Mul(x, h)"
    assert misses(NAME, model(body)) == ["the numbers are not those of a Gelu"]


@pytest.mark.parametrize("change", [{"half": 0.4}, {"one": 1.1}, {"half": [0.5, 0.5, 0.5, 0.4]}, {"one": [1, 1, 1, 2]}])
def test_other_numbers_outside(change: dict[str, Any]) -> None:
    unchanged(NAME, model(ERF["torch"], **change))


def test_the_gate_of_another_value() -> None:
    text = f"""{HEADER.format(opset=20)}agraph (float[N,4] x, float[N,4] z) => (float[N,4] y, float[N,4] w) {{
        d = Div(z, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) w = Neg(z)
    }}"""
    values = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if name in ERF["torch"]}
    unchanged(NAME, parse(text, values))


def test_a_number_that_adds_an_axis() -> None:
    text = f"{HEADER.format(opset=20)}agraph (float[4] x) => (float[1,4] y) {{ {ERF['torch']} }}"
    values = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if name in ERF["torch"]}
    values["half"] = np.asarray([[0.5]], np.float32)
    assert misses(NAME, parse(text, values)) == ["a number may give the result more axes"]
