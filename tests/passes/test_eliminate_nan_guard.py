"""eliminate-nan-guard."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import feeds, fires, lines, misses, parse, run, unchanged

import graphopt

NAME = "eliminate-nan-guard"
SMALLEST = float(np.finfo(np.float32).min)
PRODUCT = "s = MatMul(q, k) "
GUARD = " p = Softmax<axis=-1>(c) n = IsNaN(p) y = Where(n, zero, p)"
REASON = ["what is added to the product is not known to be finite"]


def model(body: str, *, kind: str = "float", extra: str = "", outputs: str = "", **values: Any) -> ir.Model:
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    known = {"zero": 0.0, "root": 0.5, "low": -1e4 if kind == "float16" else SMALLEST, **values}
    used = {name: np.asarray(one, dtype) for name, one in known.items() if name in words}
    used |= {
        name: np.array(one) for name, one in (("ax", [1]), ("to", [2, 1, 5, 5]), ("keep", [0] * 4)) if name in words
    }
    text = f"agraph ({kind}[2,3,5,4] q, {kind}[2,3,4,5] k{extra}) => ({kind}[2,3,5,5] y{outputs}) {{ {body} }}"
    return parse(text, used)


SEEN = ", bool[2,1,5,5] seen"
MASK = "m = Where(seen, zero, low) "
SPELLINGS = {
    "none": ("c = MatMul(q, k)", ""),
    "scaled": (f"{PRODUCT} c = Div(s, root)", ""),
    "mask": (f"{PRODUCT} {MASK} c = Add(s, m)", SEEN),
    "mask, scaled": (f"{PRODUCT} d = Mul(root, s) {MASK} c = Add(m, d)", SEEN),
    "two masks": (f"{PRODUCT} {MASK} d = Add(s, m) c = Add(d, more)", SEEN),
    "unsqueezed": (f"{PRODUCT} o = Where(seen, zero, low) m = Unsqueeze(o, ax) c = Add(s, m)", ", bool[2,5,5] seen"),
    "expanded": (f"{PRODUCT} o = Where(seen, zero, low) m = Expand(o, to) c = Add(s, m)", ", bool[1,1,5,5] seen"),
    "reshaped": (f"t = Reshape(q, keep) s = MatMul(t, k) d = Reshape(s, keep) {MASK} c = Add(d, m)", SEEN),
    "cast": (f"{PRODUCT} m = Cast<to=1>(seen) c = Add(s, m)", SEEN),
}


@pytest.mark.parametrize(("body", "extra"), SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, extra: str) -> None:
    before = model(body + GUARD, extra=extra, more=np.ones((5, 5)))
    found = fires(NAME, before, count=1)
    assert not {"IsNaN"} & {node.op_type for node in found.graph}
    assert found.graph[-1].op_type == "Softmax"


@pytest.mark.parametrize("low", [-np.inf, np.inf, np.nan])
def test_a_mask_that_is_not_finite(low: float) -> None:
    assert misses(NAME, model(f"{PRODUCT} {MASK} c = Add(s, m) {GUARD}", extra=SEEN, low=low)) == REASON
    table = np.zeros((5, 5))
    table[1] = low
    assert misses(NAME, model(f"{PRODUCT} c = Add(s, table) {GUARD}", table=table)) == REASON


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        (f"{PRODUCT} c = Add(s, m)", ", float[2,1,5,5] m"),
        (f"{PRODUCT} c = Mul(s, m)", ", float[2,1,5,5] m"),
        (f"{PRODUCT} c = Div(s, zero)", ""),
        (f"{PRODUCT} m = Log(u) c = Add(s, m)", ", float[2,1,5,5] u"),
        (f"{PRODUCT} c = Where(seen, s, low)", SEEN),
        ("c = Add(u, u)", ", float[2,3,5,5] u"),
    ],
)
def test_what_may_be_infinite(body: str, extra: str) -> None:
    assert misses(NAME, model(body + GUARD, extra=extra)) == REASON


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_types(kind: str) -> None:
    assert misses(NAME, model(f"c = MatMul(q, k) {GUARD}", kind=kind)) == ["the type is not known to be float32"]


@pytest.mark.parametrize(
    "guard",
    [
        GUARD.replace("Where(n, zero, p)", "Where(n, p, zero)"),
        GUARD.replace("Where(n, zero, p)", "Where(n, root, p)"),
        GUARD.replace("IsNaN(p)", "IsNaN(c)"),
        GUARD.replace("IsNaN(p)", "IsInf(p)"),
        GUARD.replace("Where(n, zero, p)", "Where(n, wide, p)"),
    ],
)
def test_other_guards(guard: str) -> None:
    unchanged(NAME, model(f"c = MatMul(q, k) {guard}", wide=np.zeros((1, 1, 1, 1, 1))))


def test_the_softmax_may_be_read_elsewhere() -> None:
    before = model(f"c = MatMul(q, k) {GUARD} z = Neg(p)", outputs=", float[2,3,5,5] z")
    assert [node.op_type for node in fires(NAME, before, count=1).graph] == ["MatMul", "Softmax", "Neg"]


def test_the_softmax_is_an_output_itself() -> None:
    before = model(f"c = MatMul(q, k) {GUARD}", outputs=", float[2,3,5,5] p")
    unchanged(NAME, before)


INFINITE = f"{PRODUCT} {MASK} c = Add(s, m) p = Softmax<axis=-1>(c) n = IsNaN(p) g = Where(n, zero, p) "
VALUES = f"{SEEN}, float[2,3,5,6] v"


def attention(body: str, *, y: str = "[2,3,5,6]", extra: str = VALUES, outputs: str = "", **values: Any) -> ir.Model:
    before = model(body, extra=extra, outputs=outputs, **{"low": -np.inf, **values})
    before.graph.outputs[0].shape = ir.Shape([int(size) for size in y[1:-1].split(",")])
    return before


def hide_rows(before: ir.Model) -> dict[str, Any]:
    inputs = feeds(before)
    inputs["seen"][:] = True
    inputs["seen"][0, 0, 1] = False
    inputs["seen"][1, 0, 2, 3:] = False
    return inputs


def same(before: ir.Model, after: ir.Model) -> None:
    inputs = hide_rows(before)
    for expected, actual in zip(run(before, inputs), run(after, inputs), strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_moves_behind_the_product() -> None:
    before = attention(INFINITE + "y = MatMul(g, v)")
    after = fires(NAME, before, count=1)
    assert [node.op_type for node in after.graph][-4:] == ["Softmax", "MatMul", "IsNaN", "Where"]
    same(before, after)


def test_moves_behind_the_transpose() -> None:
    before = attention(INFINITE + "o = MatMul(g, v) y = Transpose<perm=[0,2,1,3]>(o)", y="[2,5,3,6]")
    after = fires(NAME, before, count=2)
    assert [node.op_type for node in after.graph][-4:] == ["MatMul", "Transpose", "IsNaN", "Where"]
    same(before, after)


def test_lets_an_attention_be_put_together() -> None:
    body = "q4 = Transpose<perm=[0,2,1,3]>(q) k4 = Transpose<perm=[0,2,3,1]>(k) s = MatMul(q4, k4) "
    body += "m = Where(seen, zero, low) c = Add(s, m) p = Softmax<axis=-1>(c) n = IsNaN(p) g = Where(n, zero, p) "
    body += "v4 = Transpose<perm=[0,2,1,3]>(v) o = MatMul(g, v4) y = Transpose<perm=[0,2,1,3]>(o)"
    operands = "float[2,5,3,4] q, float[2,5,3,4] k, float[2,5,3,6] v, bool[2,1,5,5] seen"
    numbers = {"zero": np.array(0, np.float32), "low": np.array(-np.inf, np.float32)}
    before = parse(f"agraph ({operands}) => (float[2,5,3,6] y) {{ {body} }}", numbers)
    after = graphopt.optimize(before, target="ort-cpu", strict=True)
    assert {"Attention", "MultiHeadAttention"} & {node.op_type for node in after.graph}, lines(after)
    assert "Softmax" not in {node.op_type for node in after.graph}
    same(before, after)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (INFINITE + "y = MatMul(g, v) z = Neg(g)", ", float[2,3,5,5] z"),
        (INFINITE + "y = MatMul(g, v)", ", float[2,3,5,5] g"),
        (INFINITE.replace("axis=-1", "axis=2") + "y = MatMul(g, v)", ""),
        (INFINITE.replace("axis=-1", "axis=1") + "y = MatMul(g, v)", ""),
        (INFINITE + "y = MatMul(v, g)", ""),
    ],
)
def test_stays(body: str, outputs: str) -> None:
    turned = "MatMul(v, g)" in body
    before = attention(body, outputs=outputs, extra=VALUES.replace("5,6", "6,5") if turned else VALUES,
                       y="[2,3,6,5]" if turned else "[2,3,5,6]")  # fmt: skip
    assert misses(NAME, before) == REASON


def test_stays_before_a_vector() -> None:
    before = attention(INFINITE + "y = MatMul(g, v)", extra=f"{SEEN}, float[5] v", y="[2,3,5]")
    assert misses(NAME, before) == REASON
