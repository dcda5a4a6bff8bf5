"""fuse-rotary-embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

from graphopt.pipeline.base import Target

NAME = "fuse-rotary-embedding"
CPU = Target.ORT_CPU
SIZES = {"B": 2, "S": 5}
ANGLES = "f = Concat<axis=-1>(g, g) c = Cos(f) s = Sin(f) "
FRONT = "c4 = Unsqueeze(c, one) s4 = Unsqueeze(s, one) "
LOW = "a = Slice(x, zero, half, last) "
HIGH = "b = Slice(x, half, end, last) "
TURN = "n = Neg(b) r = Concat<axis=-1>(n, a) "
SUM = "u = Mul(x, c4) v = Mul(r, s4) y = Add(u, v)"
BODY = ANGLES + FRONT + LOW + HIGH + TURN + SUM
INTS = {
    "one": [1],
    "two": [2],
    "zero": [0],
    "half": [4],
    "end": [2**63 - 1],
    "last": [-1],
    "sizes": [4, 4],
    "minus": [-4],
}


def model(
    body: str,
    *,
    opset: int = 20,
    x: str = "[B,3,S,8]",
    g: str = "[1,S,4]",
    kind: str = "float",
    outputs: str = "",
    **values: Any,
) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    known = {**{name: np.array(one) for name, one in INTS.items()}, **values}
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    text = f"{header} agraph ({kind}{x} x, {kind}{g} g) => ({kind}{x} y{outputs}) {{ {body} }}"
    return parse(text, {name: one for name, one in known.items() if name in words})


def operators(found: ir.Model) -> list[str]:
    return [node.op_type for node in found.graph if node.op_type not in ("Concat", "Cos", "Sin", "Unsqueeze")]


SPLIT = "a, b = Split<axis=-1>(x, sizes) "
SPELLINGS = {
    "slices": BODY,
    "sum the other way": BODY.replace("Add(u, v)", "Add(v, u)"),
    "products the other way": BODY.replace("Mul(x, c4)", "Mul(c4, x)").replace("Mul(r, s4)", "Mul(s4, r)"),
    "split": ANGLES + FRONT + SPLIT + TURN + SUM,
    "from the end": BODY.replace("Slice(x, half, end", "Slice(x, minus, end"),
    "scaled": BODY.replace("c = Cos(f)", "c0 = Cos(f) c = Mul(c0, k)").replace(
        "s = Sin(f)", "s0 = Sin(f) s = Mul(k, s0)"
    ),
    "cast": BODY.replace("c = Cos(f)", "c0 = Cos(f) c = Cast<to=1>(c0)"),
}


@pytest.mark.parametrize("opset", [13, 20, 23])
@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, opset: int) -> None:
    before = model(body, opset=opset, k=np.array(1.5, np.float32))
    found = fires(NAME, before, count=1, target=CPU, sizes=SIZES)
    assert found.graph[-1].domain == "com.microsoft"
    assert not {"Add", "Neg", "Split"} & {node.op_type for node in found.graph}


def test_with_sizes_of_zero() -> None:
    for sizes in ({"B": 0, "S": 5}, {"B": 2, "S": 0}):
        fires(NAME, model(BODY), count=1, target=CPU, sizes=sizes)


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_types(kind: str) -> None:
    fires(NAME, model(BODY, kind=kind), count=1, target=CPU, sizes=SIZES)
    fires(NAME, model(BODY, kind=kind), count=1, target=Target.ORT_CUDA, sizes=SIZES)


def test_doubles() -> None:
    assert misses(NAME, model(BODY, kind="double"), CPU) == ["the target has no kernel for it"]


def test_heads_that_a_transpose_brings_to_the_front() -> None:
    """The Transpose moves behind, where an attention may take it in."""
    body = BODY.replace("(x, ", "(h, ")
    before = parse(
        f"""agraph (float[B,S,3,8] x, float[1,S,4] g) => (float[B,3,S,8] y) {{
            h = Transpose<perm=[0,2,1,3]>(x) {body} }}""",
        {name: np.array(one) for name, one in INTS.items() if name not in ("two", "sizes", "minus")},
    )
    found = fires(NAME, before, count=1, target=CPU, sizes=SIZES)
    assert [node.op_type for node in found.graph][-4:] == ["Reshape", "RotaryEmbedding", "Reshape", "Transpose"]


def test_heads_behind() -> None:
    body = BODY.replace("one)", "two)")
    found = fires(NAME, model(body, x="[B,S,3,8]"), count=1, target=CPU, sizes=SIZES)
    assert [node.op_type for node in found.graph][-3:] == ["Reshape", "RotaryEmbedding", "Reshape"]
    found = fires(NAME, model(body, x="[B,S,H,8]"), count=1, target=CPU, sizes={**SIZES, "H": 3})
    assert [node.op_type for node in found.graph][-3:] == ["Transpose", "RotaryEmbedding", "Transpose"]


def test_constant_angles() -> None:
    half = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    row = np.concatenate([half, half], 1)
    body = (LOW + HIGH + TURN + SUM).replace("c4", "cos").replace("s4", "sin")
    before = model(body + " z = Neg(g)", x="[B,3,5,8]", outputs=", float[1,S,4] z", cos=row, sin=row)
    found = fires(NAME, before, count=1, target=CPU, sizes=SIZES)
    assert "Slice" not in operators(found)
    row = row.copy()
    row[2, 6] += 1
    before = model(body + " z = Neg(g)", x="[B,3,5,8]", outputs=", float[1,S,4] z", cos=row, sin=row)
    assert misses(NAME, before, CPU) == ["cosines and sines are not known to repeat their first half"]


def test_rows_of_a_table() -> None:
    half = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    rows = "c = Gather(table, at) s = Gather(other, at) "
    body = rows + FRONT + LOW + HIGH + TURN + SUM + " z = Neg(g)"
    values: dict[str, Any] = {"at": np.array([[3, 1, 4, 0, 8]]), "table": np.concatenate([half, half], 1)}
    options: dict[str, Any] = {"x": "[B,3,5,8]", "outputs": ", float[1,S,4] z"}
    before = model(body, **options, **values, other=values["table"] + 1)
    fires(NAME, before, count=1, target=CPU, sizes=SIZES)
    before = model(body, **options, **values, other=np.concatenate([half, half + 1], 1))
    assert misses(NAME, before, CPU) == ["cosines and sines are not known to repeat their first half"]


@pytest.mark.parametrize("target", [CPU, Target.PORTABLE])
@pytest.mark.parametrize("behind", [False, True])
def test_angles_for_each_sample(target: Target, behind: bool) -> None:
    body, x = (BODY.replace("one)", "two)"), "[B,S,3,8]") if behind else (BODY, "[B,3,S,8]")
    for sizes in (SIZES, {"B": 1, "S": 5}, {"B": 0, "S": 5}, {"B": 2, "S": 0}):
        found = fires(NAME, model(body, g="[B,S,4]", x=x, opset=23), count=1, target=target, sizes=sizes)
        assert "Expand" not in operators(found)


def test_angles_for_each_sample_that_are_too_open() -> None:
    before = model(BODY, g="[B,S,4]", opset=14)
    assert misses(NAME, before, CPU) == ["samples have positions of their own, which takes opset 15"]
    before = model(BODY, g="[B,S,4]", x="[B,H,S,8]")
    assert misses(NAME, before, CPU) == ["samples have positions of their own, and the number of heads is not static"]


def test_angles_of_which_only_some_are_for_each_sample() -> None:
    body = BODY.replace("s = Sin(f)", "s0 = Sin(f) s = ReduceMean<keepdims=1>(s0, zero)")
    assert misses(NAME, model(body, g="[B,S,4]"), CPU) == ["cosines and sines do not have one row for each position"]


@pytest.mark.parametrize("body", [BODY, BODY.replace("one)", "two)")], ids=["front", "behind"])
def test_the_portable_target(body: str) -> None:
    x = "[B,3,S,8]" if body == BODY else "[B,S,3,8]"
    found = fires(NAME, model(body, opset=23, x=x), count=1, sizes=SIZES)
    assert not any(node.domain for node in found.graph)
    assert "RotaryEmbedding" in operators(found)
    assert misses(NAME, model(body, opset=22, x=x)) == ["RotaryEmbedding came with opset 23"]
    assert misses(NAME, model(body, opset=23, x=x, kind="float16")) == ["the type is not known to be float32"]


@pytest.mark.parametrize("inner", ["a", "b", "n", "r", "u", "v"])
def test_an_inner_result_is_read_elsewhere_or_put_out(inner: str) -> None:
    shape = "[B,3,S,4]" if inner in "abn" else "[B,3,S,8]"
    reason = ["an inner result is read elsewhere"]
    assert misses(NAME, model(BODY, outputs=f", float{shape} {inner}"), CPU) == reason
    assert misses(NAME, model(f"{BODY} z = Neg({inner})", outputs=f", float{shape} z"), CPU) == reason


def test_angles_that_do_not_repeat() -> None:
    body = BODY.replace("Concat<axis=-1>(g, g)", "Concat<axis=-1>(g, m) ").replace("f = ", "m = Neg(g) f = ")
    assert misses(NAME, model(body), CPU) == ["cosines and sines are not known to repeat their first half"]
    body = BODY.replace(ANGLES, "e = Concat<axis=-1>(g, g) f = Transpose<perm=[0,2,1]>(e) c = Cos(f) s = Sin(f) ")
    assert misses(NAME, model(body, x="[B,3,8,8]", g="[1,8,4]"), CPU) == [
        "cosines and sines are not known to repeat their first half"
    ]


@pytest.mark.parametrize("g", ["[1,1,4]", "[3,S,4]", "[N,S,4]"])
def test_angles_of_other_shapes(g: str) -> None:
    reason = ["cosines and sines do not have one row for each position"]
    assert misses(NAME, model(BODY, g=g), CPU) == reason


def test_angles_of_heads() -> None:
    body = BODY.replace(FRONT, "c4 = Identity(c) s4 = Identity(s) ")
    assert misses(NAME, model(body, g="[1,3,S,4]"), CPU) == ["cosines and sines do not have one row for each position"]


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("Concat<axis=-1>(n, a)", "Concat<axis=-1>(a, n)"),
        BODY.replace("n = Neg(b)", "n = Neg(a)").replace("(n, a)", "(n, b)"),
        BODY.replace("n = Neg(b)", "n = Abs(b)"),
        BODY.replace("Slice(x, half, end, last)", "Slice(x, minus, end, last, two)").replace("(n, a)", "(n, n)"),
        BODY.replace("u = Mul(x, c4)", "u = Mul(g4, c4)").replace("u =", "g4 = Neg(x) u ="),
    ],
)
def test_other_formulas(body: str) -> None:
    unchanged(NAME, model(body), CPU)


def test_three_axes() -> None:
    body = (LOW + HIGH + TURN + SUM).replace("c4", "c").replace("s4", "s")
    assert misses(NAME, model(ANGLES + body, x="[B,S,8]"), CPU) == ["what is turned is not known to have four axes"]


def test_metadata_survives() -> None:
    before = model(BODY)
    before.graph[-1].name, before.graph[-1].doc_string = "turn", "kept"
    last = fires(NAME, before, count=1, target=CPU, sizes=SIZES).graph[-1]
    assert (last.name, last.doc_string) == ("turn", "kept")
    assert lines(before)[-1] == "y = Add(u, v)"
