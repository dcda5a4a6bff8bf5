"""eliminate-repeated-heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse, unchanged

NAME = "eliminate-repeated-heads"
SIZES = {"B": 2, "L": 5, "S": 7}
REPEAT = "u = Unsqueeze(k, two) e = Expand(u, wide) r = Reshape(e, joined) "
TURN = "t = Transpose<perm=[0,1,3,2]>(r) "
INTS = {
    "two": [2],
    "wide": [1, 1, 3, 1, 1],
    "times": [1, 1, 3, 1, 1],
    "five": [0, 2, 1, -1, 4],
    "joined": [0, 6, -1, 4],
    "other": [0, 2, -1, 4],
    "wrong": [1, 1, 1, 3, 1],
}
KEYS = REPEAT + TURN
Y = {"scores": "[B,6,L,S]", "mixed": "[B,6,L,4]"}


def model(
    body: str,
    *,
    operands: str = "float[B,6,L,4] q, float[B,2,S,4] k",
    y: str = Y["scores"],
    outputs: str = "",
    opset: int = 20,
    **values: Any,
) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    known: dict[str, Any] = {name: np.array(one) for name, one in INTS.items()}
    known |= {"c": np.array(0.5, np.float32), "lanes": np.full(4, 0.5, np.float32), **values}
    kind = operands.partition("[")[0]
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    text = f"{header} agraph ({operands}) => ({kind}{y} y{outputs}) {{ {body} }}"
    return parse(text, {name: one for name, one in known.items() if name in words})


SPELLINGS = {
    "expand": KEYS + "y = MatMul(q, t)",
    "tile": KEYS.replace("Expand(u, wide)", "Tile(u, times)") + "y = MatMul(q, t)",
    "reshape": KEYS.replace("Unsqueeze(k, two)", "Reshape(k, five)") + "y = MatMul(q, t)",
    "scaled after": KEYS + "s = MatMul(q, t) y = Mul(s, c)",
    "scaled after, number first": KEYS + "s = MatMul(q, t) y = Mul(c, s)",
    "divided": KEYS + "s = MatMul(q, t) y = Div(s, c)",
    "scaled keys": KEYS + "z = Mul(t, c) y = MatMul(q, z)",
    "scaled keys, number first": KEYS + "z = Mul(c, t) y = MatMul(q, z)",
    "scaled before": REPEAT + "z = Div(r, c) t = Transpose<perm=[0,1,3,2]>(z) y = MatMul(q, t)",
}
VALUES = REPEAT + "y = MatMul(p, r)"


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_keys(body: str) -> None:
    found = fires(NAME, model(body), count=1, sizes=SIZES)
    assert not {"Expand", "Tile", "Unsqueeze"} & {node.op_type for node in found.graph}


def test_the_scale_stays_at_the_product() -> None:
    """Where a runtime takes it in."""
    found = fires(NAME, model(SPELLINGS["scaled after"]), count=1, sizes=SIZES)
    assert [node.op_type for node in found.graph][-4:] == ["MatMul", "Mul", "Concat", "Reshape"]


def test_values() -> None:
    before = model(VALUES, operands="float[B,6,L,S] p, float[B,2,S,4] k", y=Y["mixed"])
    fires(NAME, before, count=1, sizes=SIZES)


def test_the_whole_attention() -> None:
    body = KEYS + "s = MatMul(q, t) d = Mul(s, c) a = Add(d, m) p = Softmax<axis=-1>(a) "
    body += "g = Unsqueeze(v, two) h = Expand(g, wide) w = Reshape(h, joined) y = MatMul(p, w)"
    operands = "float[B,6,L,4] q, float[B,2,S,4] k, float[B,2,S,4] v, float[B,1,L,S] m"
    found = fires(NAME, model(body, operands=operands, y=Y["mixed"]), count=2, sizes=SIZES)
    assert "Expand" not in {node.op_type for node in found.graph}


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_static_lengths(opset: int) -> None:
    operands = "float[B,6,5,4] q, float[B,2,7,4] k"
    body = KEYS.replace("Unsqueeze(k, two)", "Unsqueeze<axes=[2]>(k)") if opset < 13 else KEYS
    found = fires(NAME, model(body + "y = MatMul(q, t)", operands=operands, y="[B,6,5,7]", opset=opset), count=1)
    assert [node.op_type for node in found.graph] == ["Transpose", "Reshape", "MatMul", "Reshape"]


@pytest.mark.parametrize("sizes", [{"B": 0, "L": 5}, {"B": 2, "L": 0}])
def test_sizes_of_zero(sizes: dict[str, int]) -> None:
    """The Reshape of the original takes no empty batch where it has a -1."""
    body = KEYS.replace("joined", "full") + "y = MatMul(q, t)"
    operands = "float[B,6,L,4] q, float[B,2,7,4] k"
    before = model(body, operands=operands, y="[B,6,L,7]", full=np.array([0, 6, 7, 4]))
    fires(NAME, before, count=1, sizes=sizes)


@pytest.mark.parametrize("kind", ["float16", "float", "double"])
def test_types(kind: str) -> None:
    before = model(KEYS + "y = MatMul(q, t)", operands=f"{kind}[B,6,L,4] q, {kind}[B,2,S,4] k")
    if kind == "double":
        assert misses(NAME, before) == ["the type is not known to be float32 or of half precision"]
    else:
        fires(NAME, before, count=1, sizes=SIZES)


def test_an_old_operator_set() -> None:
    before = model(KEYS + "y = MatMul(q, t)", opset=14)
    assert misses(NAME, before) == ["the length is not static, and Shape has no start and end before opset 15"]


@pytest.mark.parametrize("inner", ["e", "r", "t"])
def test_repeated_heads_that_are_read_elsewhere_or_put_out(inner: str) -> None:
    body = KEYS + "y = MatMul(q, t)"
    shape = "[B,2,3,S,4]" if inner == "e" else "[B,6,S,4]" if inner == "r" else "[B,6,4,S]"
    unchanged(NAME, model(body, outputs=f", float{shape} {inner}"))
    unchanged(NAME, model(f"{body} z = Neg({inner})", outputs=f", float{shape} z"))


def test_a_shape_is_no_other_reader() -> None:
    """Else this would depend on when the shapes are found out."""
    body = KEYS + "y = MatMul(q, t) z = Shape(t)"
    operands = "float[B,6,L,4] q, float[B,2,S,4] k"
    header = f'<ir_version: 10, opset_import: ["" : 20]> agraph ({operands})'
    text = f"{header} => (float{Y['scores']} y, int64[4] z) {{ {body} }}"
    fires(NAME, parse(text, {name: np.array(INTS[name]) for name in ("two", "wide", "joined")}), count=1, sizes=SIZES)


@pytest.mark.parametrize(
    "body",
    [
        KEYS.replace("wide", "wrong").replace("u = Unsqueeze(k, two)", "u = Unsqueeze(k, three)"),
        KEYS.replace("joined", "flat6"),
        KEYS.replace("[0,1,3,2]", "[0,1,2,3]"),
        KEYS.replace("t = Transpose", "z = Mul(r, lanes) t = Transpose").replace("(r) ", "(z) "),
        KEYS.replace("t = Transpose<perm=[0,1,3,2]>(r)", "z = Add(r, c) t = Transpose<perm=[0,1,3,2]>(z)"),
    ],
)
def test_other_formulas(body: str) -> None:
    shapes: dict[str, Any] = {"three": np.array([3]), "flat6": np.array([0, 3, -1, 4])}
    operands = "float[B,6,L,4] q, float[B,2,4,4] k"
    if "flat6" in body:
        operands = operands.replace("6,L", "3,L")
    unchanged(NAME, model(body + "y = MatMul(q, t)", operands=operands, y="[B,H,L,4]", **shapes))


def test_heads_that_a_branch_reads() -> None:
    text = f"""agraph (float[B,6,L,4] q, float[B,2,S,4] k, float{Y["scores"]} x, bool c) => (float{Y["scores"]} z) {{
        {KEYS}
        z = If (c) <then_branch = g1 () => (float{Y["scores"]} y) {{ y = MatMul(q, t) }},
                    else_branch = g2 () => (float{Y["scores"]} w) {{ w = Neg(x) }}>
    }}"""
    unchanged(NAME, parse(text, {name: np.array(INTS[name]) for name in ("two", "wide", "joined")}))


def test_inside_a_branch() -> None:
    text = f"""agraph (float[B,6,L,4] q, float[B,2,S,4] k, float{Y["scores"]} x, bool c) => (float{Y["scores"]} z) {{
        z = If (c) <then_branch = g1 () => (float{Y["scores"]} y) {{ {KEYS} y = MatMul(q, t) }},
                    else_branch = g2 () => (float{Y["scores"]} w) {{ w = Neg(x) }}>
    }}"""
    before = parse(text, {name: np.array(INTS[name]) for name in ("two", "wide", "joined")})
    found = fires(NAME, before, count=1, sizes=SIZES)
    assert "Expand" not in {node.op_type for node in found.graph[0].attributes["then_branch"].as_graph()}


def test_heads_repeated_in_turns() -> None:
    """0 1 0 1 0 1, not 0 0 0 1 1 1: other queries share them."""
    body = KEYS.replace("Unsqueeze(k, two)", "Unsqueeze(k, one)").replace("wide", "turns") + "y = MatMul(q, t)"
    unchanged(NAME, model(body, one=np.array([1]), turns=np.array([1, 3, 1, 1, 1])))


def test_queries_of_another_batch() -> None:
    before = model(KEYS + "y = MatMul(q, t)", operands="float[1,6,L,4] q, float[B,2,S,4] k")
    assert misses(NAME, before) == ["queries, keys and values are not known to have the same batch and heads"]


def test_as_many_heads_as_before() -> None:
    body = KEYS.replace("wide", "once").replace("joined", "other") + "y = MatMul(q, t)"
    operands = "float[B,2,L,4] q, float[B,2,S,4] k"
    fires(NAME, model(body, operands=operands, y="[B,2,L,S]", once=np.ones(5, np.int64)), count=1, sizes=SIZES)
