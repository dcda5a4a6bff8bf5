"""fuse-multi-head-attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import feeds, fires, lines, misses, parse, run, unchanged

import graphopt
from graphopt.pipeline.base import Target

NAME = "fuse-multi-head-attention"
CPU = Target.ORT_CPU
NUMBERS = {"scale": 0.5, "root": 0.5**0.5, "two": 2.0, "minus": -0.5, "one": 1.0}
OPERANDS = "float[B,L,3,4] q, float[B,S,3,4] k, float[B,S,3,6] v"
HEADS = "a = Transpose<perm=[0,2,1,3]>(q) t = Transpose<perm=[0,2,3,1]>(k) b = Transpose<perm=[0,2,1,3]>(v) "
REST = " p = Softmax<axis=-1>(c) o = MatMul(p, b) y = Transpose<perm=[0,2,1,3]>(o)"


def model(
    body: str, *, opset: int = 20, operands: str = OPERANDS, outputs: str = "", y: str = "[B,L,3,6]", **numbers: Any
) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    values = {name: np.asarray(one, np.float32) for name, one in {**NUMBERS, **numbers}.items() if name in words}
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    kind = "float16" if "float16" in operands else "float"
    return parse(f"{header} agraph ({operands}) => ({kind}{y} y{outputs}) {{ {body} }}", values)


SPELLINGS = {
    "scores": "s = MatMul(a, t) c = Mul(s, scale)",
    "bert": "s = MatMul(a, t) c = Div(s, two)",
    "queries": "h = Mul(scale, a) c = MatMul(h, t)",
    "both": "h = Mul(a, root) g = Mul(t, root) c = MatMul(h, g)",
}


@pytest.mark.parametrize("opset", [11, 14, 20, 23])
@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, opset: int) -> None:
    found = fires(NAME, model(HEADS + body + REST, opset=opset), count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    assert [node.op_type for node in found.graph] == ["Reshape"] * 3 + ["MultiHeadAttention", "Reshape"]
    attention = found.graph[3]
    assert found.graph.opset_imports["com.microsoft"] == 1
    assert attention.attributes["num_heads"].as_int() == 3
    assert attention.attributes["scale"].as_float() == pytest.approx(0.5, rel=1e-6)


def test_without_a_scale_and_with_sizes_of_zero() -> None:
    before = model(HEADS + "c = MatMul(a, t)" + REST)
    for sizes in ({"B": 0, "L": 5, "S": 7}, {"B": 2, "L": 0, "S": 7}):
        found = fires(NAME, before, count=1, target=CPU, sizes=sizes)
        assert found.graph[3].attributes["scale"].as_float() == 1.0


def test_the_reshapes_go_with_those_of_the_layers() -> None:
    body = "q4 = Reshape(x, to4) a = Transpose<perm=[0,2,1,3]>(q4) t = Transpose<perm=[0,2,3,1]>(q4) c = MatMul(a, t)"
    body += " p = Softmax<axis=-1>(c) o = MatMul(p, a) z = Transpose<perm=[0,2,1,3]>(o) y = Reshape(z, to3)"
    values = {"to4": np.array([0, 0, 3, 4]), "to3": np.array([0, 0, 12])}
    before = parse(f"agraph (float[B,S,12] x) => (float[B,S,12] y) {{ {body} }}", values)
    passes = [NAME, "merge-reshapes", "eliminate-reshape"]
    result = graphopt.optimize(before, passes=passes, target="ort-cpu")
    assert lines(result) == ["y = com.microsoft::MultiHeadAttention<num_heads=3, scale=1.0>(x, x, x)"]


MASKED = HEADS + "s = MatMul(a, t) d = Mul(s, scale) "


@pytest.mark.parametrize("mask", ["[L,S]", "[1,L,S]", "[3,L,S]", "[B,1,L,S]", "[B,3,L,S]", "[1,1,L,S]"])
@pytest.mark.parametrize("add", ["Add(d, m)", "Add(m, d)"])
def test_mask(add: str, mask: str) -> None:
    before = model(f"{MASKED} c = {add} {REST}", operands=f"{OPERANDS}, float{mask} m")
    found = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    assert not {"Add", "Expand", "Softmax"} & {node.op_type for node in found.graph}


@pytest.mark.parametrize("mask", ["[B,1,1,S]", "[1,S]", "[L,1]", "[S]", "[3,1,S]", "[1,1,1,1]"])
def test_a_mask_that_is_expanded(mask: str) -> None:
    before = model(f"{MASKED} c = Add(d, m) {REST}", operands=f"{OPERANDS}, float{mask} m")
    found = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    assert sum(node.op_type == "Expand" for node in found.graph) == 1
    before = model(f"{MASKED} c = Add(d, m) {REST}", operands=f"{OPERANDS}, float{mask} m", opset=14)
    assert misses(NAME, before, CPU) == ["a mask must be expanded, which takes opset 15"]


def test_a_mask_that_is_expanded_to_static_lengths() -> None:
    operands = OPERANDS.replace("L", "5").replace("S", "7") + ", float[B,1,1,7] m"
    before = model(f"{MASKED} c = Add(d, m) {REST}", operands=operands, y="[B,5,3,6]")
    assert "Shape" not in {node.op_type for node in fires(NAME, before, count=1, target=CPU, sizes={"B": 2}).graph}


def test_two_masks() -> None:
    body = f"{MASKED} e = Add(d, m) c = Add(n, e) {REST}"
    for one, other in (("[1,3,L,S]", "[B,1,L,S]"), ("[1,3,L,S]", "[B,1,1,S]"), ("[L,1]", "[S]")):
        before = model(body, operands=f"{OPERANDS}, float{one} m, float{other} n")
        found = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
        assert sum(node.op_type == "Add" for node in found.graph) == 1


def test_a_row_that_is_masked_out() -> None:
    before = model(f"{MASKED} c = Add(d, m) {REST}", operands=f"{OPERANDS}, float[L,S] m")
    after = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    inputs = feeds(before, 0, {"B": 2, "L": 5, "S": 7})
    inputs["m"][1] = -np.inf
    inputs["m"][2, 3:] = -np.inf
    (expected,), (actual,) = run(before, inputs), run(after, inputs)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_keys_that_are_turned_twice() -> None:
    body = HEADS.replace(
        "t = Transpose<perm=[0,2,3,1]>(k)", "f = Transpose<perm=[0,2,1,3]>(k) t = Transpose<perm=[0,1,3,2]>(f)"
    )
    found = fires(NAME, model(body + "c = MatMul(a, t)" + REST), count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    assert [node.op_type for node in found.graph] == ["Reshape"] * 3 + ["MultiHeadAttention", "Reshape"]


FUSED = "w = Transpose<perm=[2,0,3,1,4]>(x) "
GATHERS = "a = Gather(w, i0) k = Gather(w, i1) b = Gather(w, i2) "
PARTS = "q1, k1, v1 = Split<axis=0>(w, ones) a = Squeeze(q1, zero) k = Squeeze(k1, zero) b = Squeeze(v1, zero) "
AFTER = "t = Transpose<perm=[0,1,3,2]>(k) c = MatMul(a, t)" + REST


def fused(taking: str, *, x: str = "[B,L,3,2,4]", y: str = "[B,L,2,4]", turn: str = FUSED) -> ir.Model:
    body = turn + taking + AFTER
    known: dict[str, Any] = {"i0": 0, "i1": 1, "i2": 2, "i3": -1, "zero": [0], "ones": [1, 1, 1], "row": [0]}
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    values = {name: np.array(one) for name, one in known.items() if name in words}
    return parse(f"agraph (float{x} x) => (float{y} y) {{ {body} }}", values)


@pytest.mark.parametrize("taking", [GATHERS, PARTS], ids=["gathers", "parts"])
def test_queries_keys_and_values_side_by_side(taking: str) -> None:
    for sizes in ({"B": 2, "L": 5}, {"B": 0, "L": 5}, {"B": 2, "L": 0}):
        found = fires(NAME, fused(taking), count=1, target=CPU, sizes=sizes)
        assert not {"Transpose", "Gather", "Split"} & {node.op_type for node in found.graph}
    assert sum(node.op_type == "Slice" for node in found.graph) == 3


def test_a_block_with_one_projection() -> None:
    """As timm's vision transformers have it: what is left is one operator."""
    random = np.random.default_rng(0)
    body = "d = MatMul(x, weight) e = Add(d, bias) r = Reshape(e, apart) " + FUSED.replace("(x)", "(r)") + GATHERS
    body += AFTER.replace("y = ", "h = ") + " y = Reshape(h, joined)"
    values = {
        "weight": random.standard_normal((8, 24)).astype(np.float32),
        "bias": random.standard_normal(24).astype(np.float32),
        "joined": np.array([0, 5, 8]),
        "apart": np.array([0, 5, 3, 2, 4]),
        **{f"i{one}": np.array(one) for one in range(3)},
    }
    before = parse(f"agraph (float[B,5,8] x) => (float[B,5,8] y) {{ {body} }}", values)
    result, report = graphopt.optimize(before, target="ort-cpu", strict=True, with_report=True)
    assert [node.op_type for node in result.graph] == ["Attention"]
    assert report.status == "proven"


@pytest.mark.parametrize(
    ("taking", "options"),
    [
        (GATHERS.replace("(w, i0)", "(w, i3)"), {}),
        (GATHERS, {"turn": FUSED.replace("[2,0,3,1,4]", "[3,0,2,1,4]"), "x": "[B,L,2,3,4]"}),
        (GATHERS, {"turn": FUSED.replace("[2,0,3,1,4]", "[2,0,1,3,4]"), "x": "[B,2,3,L,4]", "y": "[B,L,2,4]"}),
        (GATHERS, {"x": "[B,L,P,2,4]"}),
        ("g = Gather(w, row) a = Squeeze(g, zero) k = Gather(w, i1) b = Gather(w, i2) ", {}),
    ],
)
def test_other_ways_to_take_the_queries(taking: str, options: dict[str, str]) -> None:
    reason = ["the queries' heads are not brought to the front by a Transpose"]
    assert misses(NAME, fused(taking, **options), CPU) == reason


def test_a_cache() -> None:
    body = "a = Transpose<perm=[0,2,1,3]>(q) n = Transpose<perm=[0,2,1,3]>(k) r = Concat<axis=2>(past, n) "
    body += "t = Transpose<perm=[0,1,3,2]>(r) c = MatMul(a, t) p = Softmax<axis=-1>(c) o = MatMul(p, r) "
    body += "y = Transpose<perm=[0,2,1,3]>(o)"
    operands = "float[B,L,3,4] q, float[B,L,3,4] k, float[B,3,P,4] past"
    before = model(body, operands=operands, outputs=", float[B,3,T,4] r", y="[B,L,3,4]")
    for past in (0, 3):
        found = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "P": past})
        attention = next(node for node in found.graph if node.domain)
        assert [value.name for value in attention.inputs if value is not None][1:] == ["r", "r"]


def test_a_cache_and_a_mask_to_expand() -> None:
    body = "a = Transpose<perm=[0,2,1,3]>(q) t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(a, t) c = Add(s, m) "
    body += "p = Softmax<axis=-1>(c) o = MatMul(p, v) y = Transpose<perm=[0,2,1,3]>(o)"
    operands = "float[B,L,3,4] q, float[B,3,S,4] k, float[B,3,S,4] v, float[B,1,1,S] m"
    before = model(body, operands=operands, y="[B,L,3,4]")
    fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})


def test_values_alone_have_their_heads_in_front() -> None:
    """The operator wants keys and values alike."""
    body = (
        HEADS.replace("b = Transpose<perm=[0,2,1,3]>(v) ", "") + "c = MatMul(a, t)" + REST.replace("(p, b)", "(p, v)")
    )
    operands = OPERANDS.replace("[B,S,3,6] v", "[B,3,S,6] v")
    reason = ["keys and values have their heads in different places, or of different sizes"]
    assert misses(NAME, model(body, operands=operands), CPU) == reason
    body = body.replace("[0,2,3,1]", "[0,1,3,2]")
    operands = operands.replace("[B,S,3,4] k", "[B,3,S,4] k")
    assert misses(NAME, model(body, operands=operands), CPU) == reason


def test_the_target_decides() -> None:
    before = model(HEADS + SPELLINGS["scores"] + REST)
    reason = ["the target has no kernel for it"]
    assert misses(NAME, before) == reason
    fires(NAME, before, count=1, target=Target.ORT_CUDA)
    half = model(HEADS + "c = MatMul(a, t)" + REST, operands=OPERANDS.replace("float", "float16"))
    assert misses(NAME, half, CPU) == reason
    assert "com.microsoft" not in graphopt.optimize(before, validate=False).graph.opset_imports


@pytest.mark.parametrize("mask", ["[B,1,L,S]", "[A,1,L,S]"])
def test_a_mask_that_makes_the_result_larger(mask: str) -> None:
    operands = OPERANDS.replace("B", "1") + f", float{mask} m"
    before = model(f"{MASKED} c = Add(d, m) {REST}", operands=operands)
    assert misses(NAME, before, CPU) == ["a mask makes the result larger"]


@pytest.mark.parametrize("inner", ["s", "d", "c", "p", "o"])
def test_an_inner_result_is_read_elsewhere_or_put_out(inner: str) -> None:
    body = f"{MASKED} c = Add(d, m) {REST}"
    operands = f"{OPERANDS}, float[L,S] m"
    shape = "[B,3,L,6]" if inner == "o" else "[B,3,L,S]"
    for text, outputs in ((f"{body} z = Neg({inner})", f", float{shape} z"), (body, f", float{shape} {inner}")):
        before = model(text, operands=operands, outputs=outputs)
        assert misses(NAME, before, CPU) == ["an inner result is read elsewhere"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = MatMul(a, t) c = Mul(s, minus)", "the scale is not one positive number"),
        ("s = MatMul(a, t) c = Mul(s, lanes)", "the Softmax is not of a product"),
        ("s = MatMul(a, t) d = Add(s, one) c = Mul(d, scale)", "the Softmax is not of a product"),
        ("s = MatMul(a, t) c = Add(s, one)", "a mask is not known to have one to four axes"),
    ],
)
def test_other_formulas(body: str, reason: str) -> None:
    assert misses(NAME, model(HEADS + body + REST, lanes=np.ones((3, 1, 1))), CPU) == [reason]


def test_another_axis() -> None:
    body = HEADS + SPELLINGS["scores"]
    for axis in ("<axis=2>", "<axis=1>"):
        before = model(body + REST.replace("<axis=-1>", axis))
        assert misses(NAME, before, CPU) == ["the Softmax is not over the last axis"]
    old = model(body + REST.replace("<axis=-1>", ""), opset=12)  # 1 by default, and all that follow it
    assert misses(NAME, old, CPU) == ["the Softmax is not over the last axis"]
    fires(NAME, model(body + REST.replace("<axis=-1>", "")), count=1, target=CPU)


def test_other_transposes() -> None:
    unchanged(NAME, model(HEADS + SPELLINGS["scores"] + REST.replace("y = Transpose<perm=[0,2,1,3]>", "y = Identity"),
                          y="[B,3,L,6]"), CPU)  # fmt: skip
    front = "t = Transpose<perm=[0,2,3,1]>(k) b = Transpose<perm=[0,2,1,3]>(v) c = MatMul(q, t)" + REST
    assert misses(NAME, model(front, operands=OPERANDS.replace("[B,L,3,4] q", "[B,3,L,4] q")), CPU) == [
        "the queries' heads are not brought to the front by a Transpose"
    ]


@pytest.mark.parametrize(
    ("operands", "reason"),
    [
        (OPERANDS.replace("[B,S,3,4] k", "[B,S,1,4] k"), "the same batch and heads"),
        (OPERANDS.replace("[B,L,3,4] q", "[1,L,3,4] q"), "the same batch and heads"),
        (OPERANDS.replace("3,", "H,"), "not static"),
        (OPERANDS.replace(",6]", ",W]"), "not static"),
    ],
)
def test_operands_of_other_shapes(operands: str, reason: str) -> None:
    (found,) = misses(NAME, model(HEADS + SPELLINGS["scores"] + REST, operands=operands, y="[B,L,H2,W2]"), CPU)
    assert reason in found


def test_metadata_survives() -> None:
    before = model(HEADS + SPELLINGS["scores"] + REST)
    before.graph[-1].name, before.graph[-1].doc_string = "heads", "kept"
    last = fires(NAME, before, count=1, target=CPU).graph[-1]
    assert (last.name, last.doc_string) == ("heads", "kept")


def test_inside_a_branch() -> None:
    body = HEADS + "c = MatMul(a, t)" + REST
    text = f"""agraph (bool u, {OPERANDS}) => (float[B,L,3,6] z) {{
        z = If (u) <then_branch = g1 () => (float[B,L,3,6] y) {{ {body} }},
                    else_branch = g2 () => (float[B,L,3,6] r) {{ r = Identity (w) }}>
    }}"""
    before = parse(text.replace("(bool u,", "(bool u, float[B,L,3,6] w,"))
    result = fires(NAME, before, count=1, target=CPU, sizes={"B": 2, "L": 5, "S": 7})
    inner = result.graph[0].attributes["then_branch"].as_graph()
    assert sum(node.op_type == "MultiHeadAttention" for node in inner) == 1


def test_an_inner_result_that_a_branch_reads() -> None:
    text = f"""agraph (bool u, {OPERANDS}) => (float[B,L,3,6] y, float[A,B,C,D] z) {{ {HEADS} c = MatMul(a, t) {REST}
        z = If (u) <then_branch = g1 () => (float[A,B,C,D] e) {{ e = Neg (p) }},
                    else_branch = g2 () => (float[A,B,C,D] f) {{ f = Neg (a) }}>
    }}"""
    assert misses(NAME, parse(text), CPU) == ["an inner result is read elsewhere"]
