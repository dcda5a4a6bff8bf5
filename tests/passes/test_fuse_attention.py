"""fuse-attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bench import torch_networks
from harness import fires, lines, misses, parse

import graphopt
from graphopt import proto

NAME = "fuse-attention"
NUMBERS = {"scale": 0.5, "root": 0.5**0.5, "eight": 2.0, "minus": -0.5}
HEADER = '<ir_version: 11, opset_import: ["" : {opset}]>'
OPERANDS = "float[B,3,L,4] q, float[B,S,3,4] k, float[B,3,S,6] v"
TURN = "t = Transpose<perm=[0,2,3,1]>(k) "


def model(body: str, *, opset: int = 23, operands: str = OPERANDS, outputs: str = "", **numbers: Any) -> Any:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    values = {name: np.asarray(one, np.float32) for name, one in {**NUMBERS, **numbers}.items() if name in words}
    header = HEADER.format(opset=opset)
    return parse(f"{header} agraph ({operands}) => (float[B,3,L,6] y{outputs}) {{ {body} }}", values)


SPELLINGS = {
    "bert": "s = MatMul(q, t) d = Div(s, eight) p = Softmax(d) y = MatMul(p, v)",
    "scores": "s = MatMul(q, t) d = Mul(scale, s) p = Softmax<axis=3>(d) y = MatMul(p, v)",
    "queries": "h = Mul(q, scale) s = MatMul(h, t) p = Softmax(s) y = MatMul(p, v)",
    "both": "h = Mul(q, root) g = Mul(t, root) s = MatMul(h, g) p = Softmax(s) y = MatMul(p, v)",
}
AFTER = ["n = Transpose<perm=(0, 2, 1, 3)>(k)", "y = Attention<scale=0.5>(q, n, v)"]


def shape_of(found: Any) -> list[str]:
    """The lines, whatever the transposed keys are called."""
    name = next((node.outputs[0].name for node in found.graph if node.op_type == "Transpose"), None) or "?"
    return [line.replace(f"{name} =", "n =").replace(f", {name}, ", ", n, ") for line in lines(found)]


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str) -> None:
    found = fires(NAME, model(TURN + body), count=1)
    assert shape_of(found)[0] == AFTER[0]
    (scale,) = (node.attributes["scale"].as_float() for node in found.graph if node.op_type == "Attention")
    assert scale == pytest.approx(0.5, rel=1e-6)


def test_keys_that_were_turned_for_this_only() -> None:
    body = "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)"
    operands = OPERANDS.replace("[B,S,3,4] k", "[B,3,S,4] k")
    fires(NAME, model(body, operands=operands), ["y = Attention<scale=1.0>(q, k, v)"])


@pytest.mark.parametrize("mask", ["[L,S]", "[1,L,S]", "[3,L,S]", "[B,1,L,S]", "[B,3,L,S]", "[1,1,L,S]"])
@pytest.mark.parametrize("add", ["Add(d, m)", "Add(m, d)"])
def test_mask(add: str, mask: str) -> None:
    body = TURN + f"s = MatMul(q, t) d = Mul(s, scale) a = {add} p = Softmax(a) y = MatMul(p, v)"
    found = fires(NAME, model(body, operands=f"{OPERANDS}, float{mask} m"), count=1, sizes={"B": 2, "L": 5, "S": 7})
    assert shape_of(found)[-1] == "y = Attention<scale=0.5>(q, n, v, m)"


@pytest.mark.parametrize("mask", ["[B,1,1,S]", "[1,S]", "[L,1]", "[S]", "[1]", "[B,1,S,L]"])
def test_a_mask_that_broadcasts_over_the_scores(mask: str) -> None:
    """The operator would fill a short last axis up with minus infinity."""
    body = TURN + "s = MatMul(q, t) a = Add(s, m) p = Softmax(a) y = MatMul(p, v)"
    assert misses(NAME, model(body, operands=f"{OPERANDS}, float{mask} m")) == [
        "the mask does not have the last two axes of the scores"
    ]


def test_a_mask_that_makes_the_result_larger() -> None:
    body = TURN + "s = MatMul(q, t) a = Add(s, m) p = Softmax(a) y = MatMul(p, v)"
    operands = OPERANDS.replace("B", "1") + ", float[B,1,L,S] m"
    assert misses(NAME, model(body, operands=operands)) == ["the mask does not have the last two axes of the scores"]


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_exported(exporter: str) -> None:
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (one.transpose(1, 2) for one in x.reshape(*x.shape[:2], 3, 2, 4).unbind(2))
            return torch_networks.softmax_attention(q, k, v)

    opset = 23 if exporter == "dynamo" else 20
    exported = torch_networks.export(Network(), torch.randn(2, 5, 24), exporter=exporter, opset=opset)
    exported.opset_import[0].version = 23  # nothing of what is in here has changed since 20
    passes = ["hoist-constants", "fold-constants", "fold-shapes", "eliminate-identity", "convert-div-to-mul"]
    prepared = graphopt.optimize(proto.from_proto(exported), passes=passes, validate=False)
    found = fires(NAME, prepared, count=1)
    assert {"Softmax", "MatMul"}.isdisjoint(node.op_type for node in found.graph)


def test_before_opset_23() -> None:
    assert misses(NAME, model(TURN + SPELLINGS["bert"], opset=22)) == ["Attention came with opset 23"]


@pytest.mark.parametrize("inner", ["s", "d", "p"])
def test_an_inner_result_is_read_elsewhere_or_put_out(inner: str) -> None:
    for body, outputs in (
        (SPELLINGS["bert"] + f" z = Neg({inner})", ", float[B,3,L,S] z"),
        (SPELLINGS["bert"], f", float[B,3,L,S] {inner}"),
    ):
        assert misses(NAME, model(TURN + body, outputs=outputs)) == ["an inner result is read elsewhere"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = MatMul(q, t) p = Softmax<axis=2>(s) y = MatMul(p, v)", "the Softmax is not over the last axis"),
        ("s = MatMul(q, t) d = Mul(s, minus) p = Softmax(d) y = MatMul(p, v)", "the scale is not one positive number"),
        (
            "s = MatMul(q, t) d = Mul(s, lanes) p = Softmax(d) y = MatMul(p, v)",
            "the Softmax is not of a product",
        ),
    ],
)
def test_other_formulas(body: str, reason: str) -> None:
    assert misses(NAME, model(TURN + body, lanes=np.ones((3, 1, 1)))) == [reason]


def test_keys_that_nothing_turned() -> None:
    body = "s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v)"
    operands = OPERANDS.replace("[B,S,3,4] k", "[B,3,4,S] k")
    assert misses(NAME, model(body, operands=operands)) == ["the keys are not transposed"]


@pytest.mark.parametrize(
    "operands",
    [
        "float[B,3,L,4] q, float[B,S,1,4] k, float[B,3,S,6] v",
        "float[1,3,L,4] q, float[B,S,3,4] k, float[B,3,S,6] v",
        "float[B,3,L,4] q, float[B,S,3,4] k, float[S,6] v",
    ],
)
def test_operands_that_broadcast(operands: str) -> None:
    assert misses(NAME, model(TURN + SPELLINGS["bert"], operands=operands)) == [
        "queries, keys and values are not known to have the same batch and heads"
    ]
