"""Residual blocks: which sums are blocks, what dropping one leaves, how they are measured and chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import feeds, lines, parse, run

from graphopt import walk
from graphopt.errors import ModelError, UsageError
from graphopt.pruning.depth.blocks import Block, find, saving_of
from graphopt.pruning.depth.choice import choose
from graphopt.pruning.depth.dropping import drop, gated, zeroed
from graphopt.pruning.depth.scores import influence

RANDOM = np.random.default_rng(0)


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: (RANDOM.standard_normal(shape) / 4).astype(np.float32) for name, shape in shapes.items()}


def mlps(count: int = 3, size: int = 8) -> ir.Model:
    """``count`` blocks ``h = h + MatMul(Tanh(MatMul(h, a)), b)``, and a last layer."""
    body = "".join(
        f"u{i} = MatMul (h{i}, a{i})  t{i} = Tanh (u{i})  f{i} = MatMul (t{i}, b{i})  h{i + 1} = Add (h{i}, f{i})\n"
        for i in range(count)
    )
    text = f"agraph (float[N,{size}] x) => (float[N,4] y) {{ h0 = Relu (x)\n{body} y = MatMul (h{count}, w) }}"
    shapes = {f"{letter}{i}": (size, size) for i in range(count) for letter in "ab"}
    return parse(text, weights(**shapes, w=(size, 4)))


def names(model: ir.Model) -> list[str]:
    return [block.name for block in find(model)]


def assert_drops(model: ir.Model, blocks: list[Block], sizes: dict[str, int] | None = None) -> ir.Model:
    """Dropping equals zeroing, differs from the original, leaves nothing unused and the caller's model alone."""
    before = lines(model)
    result = drop(model, blocks, check=False)
    assert lines(model) == before
    inputs = feeds(model, sizes=sizes)
    masked, dropped = run(zeroed(model, blocks), inputs), run(result, inputs)
    for one, other, original in zip(masked, dropped, run(model, inputs), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
        assert np.abs(one - original).max() > 1e-4
    assert all(value.uses() or value.is_graph_output() for value in result.graph.initializers.values())
    assert all(any(o.uses() or o.is_graph_output() for o in node.outputs) for node in walk.nodes(result))
    assert [value.name for value in result.graph.outputs] == [value.name for value in model.graph.outputs]
    return result


def test_blocks_of_a_perceptron() -> None:
    model = mlps()
    blocks = find(model)
    assert [block.name for block in blocks] == ["h1", "h2", "h3"]
    assert [node.op_type for node in blocks[0].nodes] == ["MatMul", "Tanh", "MatMul"]
    assert (blocks[1].input.name, blocks[1].output.name) == ("h1", "h2")
    assert blocks[0].saving == (128, 512, 128)
    result = assert_drops(model, [blocks[1]])
    assert [node.op_type for node in result.graph].count("MatMul") == 5
    assert names(result) == ["h1", "h3"]
    assert lines(assert_drops(model, blocks)) == ["h0 = Relu(x)", "y = MatMul(h0, w)"]
    drop(model, blocks)  # with its own check


def test_names_are_distinct_whatever_nodes_are_called() -> None:
    model = mlps()
    first, _, third = [node for node in model.graph if node.op_type == "Add"]
    first.name, third.name = "h2", "h1"  # as the outputs of others; the second has no name
    assert names(model) == ["h1", "h2", "h3"]


def test_projection_shortcut_is_none_and_identity_is() -> None:
    model = parse(
        """agraph (float[N,3,8,8] x) => (float[N,4,8,8] y) {
        p = Conv (x, wp)  a = Conv<pads=[1,1,1,1]> (x, wa)  s = Add (p, a)  r = Relu (s)
        b = Conv<pads=[1,1,1,1]> (r, wb)  q = Relu (b)  c = Conv<pads=[1,1,1,1]> (q, wb2)  t = Add (c, r)  y = Relu (t)
        }""",
        weights(wp=(4, 3, 1, 1), wa=(4, 3, 3, 3), wb=(4, 4, 3, 3), wb2=(4, 4, 3, 3)),
    )
    blocks = find(model)
    assert [block.name for block in blocks] == ["t"]
    assert blocks[0].saving == (288, 1152, 288 * 64)
    assert [line.split(" ")[0] for line in lines(assert_drops(model, blocks))] == ["p", "a", "s", "r", "y"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Add (x, w)",  # a bias
        "c = Mul (x, k)  y = Add (x, c)",  # neither weights nor products
        "p = Pow (x, k)  c = Mul (p, k)  i = Add (x, c)  t = Tanh (i)  y = Mul (x, t)",  # inside a GELU
        "a = MatMul (x, m)  b = MatMul (x, n)  y = Add (a, b)",  # two projections
        "a = MatMul (x, m)  c = Add (x, a)  z = Tanh (a)  y = Mul (c, z)",  # read elsewhere
        "s = Shape (x)  e = Expand (k, s)  a = MatMul (e, m)  y = Add (x, a)",  # depends on the shape alone
        "a = MatMul (x, v)  y = Add (x, a)",  # (N,1) spreads, x keeps its shape: the one that is a block
    ],
)
def test_what_is_no_block(body: str) -> None:
    held = weights(w=(8,), m=(8, 8), n=(8, 8), v=(8, 1)) | {"k": np.array(0.5, np.float32)}
    model = parse(f"agraph (float[N,8] x) => (float[N,8] y) {{ {body} }}", held)
    assert bool(find(model)) == ("v)" in body)


def test_sum_that_is_larger_than_its_input_is_none() -> None:
    text = "agraph (float[1,8] x) => (float[8,8] y) { t = Transpose (x)  a = MatMul (t, m)  y = Add (x, a) }"
    assert not find(parse(text, weights(m=(1, 8))))


def test_what_lies_inside_and_is_an_output_keeps_the_block() -> None:
    text = """agraph (float[N,8] x) => (float[N,8] y, float[N,8] key) {
        key = MatMul (x, a)  s = Softmax (key)  f = MatMul (s, b)  y = Add (x, f) }"""
    assert not find(parse(text, weights(a=(8, 8), b=(8, 8))))


def test_output_of_the_model_keeps_its_name() -> None:
    text = "agraph (float[N,8] x) => (float[N,8] y) { f = MatMul (x, a)  y = Add (f, x) }"
    model = parse(text, weights(a=(8, 8)))
    model.graph[-1].outputs[0].metadata_props["who"] = "me"
    result = assert_drops(model, find(model))
    assert lines(result) == ["y = Identity(x)"]
    assert result.graph.outputs[0].metadata_props == {"who": "me"}


def test_masks_and_shapes_are_side_inputs() -> None:
    model = parse(
        """agraph (float[N,S,8] x, float[N,S] mask) => (float[N,S,8] y) {
        s = Shape (x)  e = Relu (x)  m = Unsqueeze (mask, two)  k = Mul (m, scale)  a = MatMul (e, wa)
        g = Mul (a, k)  f = Reshape (g, s)  y0 = Add (e, f)  t = Tanh (y0)  y = Reshape (t, s) }""",
        weights(wa=(8, 8), scale=(8,)) | {"two": np.array([2])},
    )
    (block,) = find(model)
    assert {node.op_type for node in block.nodes} == {"Unsqueeze", "Mul", "MatMul", "Reshape"}
    result = assert_drops(model, [block])
    assert [value.name for value in result.graph.inputs] == ["x", "mask"]


def test_norm_last() -> None:
    text = """agraph (float[N,8] x) => (float[N,8] y) {
        a = MatMul (x, w)  f = Add (a, b)  s = Add (f, x)  y = LayerNormalization (s, g, h) }"""
    model = parse(text, weights(w=(8, 8), b=(8,), g=(8,), h=(8,)))
    assert lines(assert_drops(model, find(model))) == ["y = LayerNormalization(x, g, h)"]


def test_three_terms_that_share_a_norm_go_together() -> None:
    model = parse(
        """agraph (float[N,8] x) => (float[N,8] y) {
        n = LayerNormalization (x, g)  a = MatMul (n, wa)  b = MatMul (n, wb)
        s = Add (x, a)  t = Add (s, b)  y = Tanh (t) }""",
        weights(g=(8,), wa=(8, 8), wb=(8, 8)),
    )
    (block,) = find(model)
    assert (block.name, block.input.name, len(block.sums)) == ("t", "x", 2)
    assert lines(assert_drops(model, [block])) == ["y = Tanh(x)"]


def test_three_terms_of_their_own_go_apart() -> None:
    model = parse(
        """agraph (float[N,8] x) => (float[N,8] y) {
        a = MatMul (x, wa)  b = MatMul (x, wb)  s = Add (x, a)  t = Add (s, b)  y = Tanh (t) }""",
        weights(wa=(8, 8), wb=(8, 8)),
    )
    first, second = find(model)
    assert "b = MatMul(x, wb)" in lines(assert_drops(model, [first]))
    assert "a = MatMul(x, wa)" in lines(assert_drops(model, [second]))
    assert lines(assert_drops(model, [second, first])) == ["y = Tanh(x)"]


NESTED = """agraph (float[N,8] x) => (float[N,8] y) {
    a = MatMul (x, w0)  b = MatMul (a, w1)  c = Add (a, b)  d = MatMul (c, w2)  e = Add (x, d)  y = Tanh (e) }"""


def test_outer_block_covers_the_inner() -> None:
    model = parse(NESTED, weights(w0=(8, 8), w1=(8, 8), w2=(8, 8)))
    inner, outer = find(model)
    assert outer.covers(inner)
    assert not inner.covers(outer)
    assert outer.saving.parameters == 192
    assert lines(assert_drops(model, [inner, outer])) == lines(assert_drops(model, [outer])) == ["y = Tanh(x)"]
    assert choose([inner, outer], [0.5, 0.1], count=2) == [outer]
    assert choose([inner, outer], [0.5, 0.1], count=1) == [inner]  # the outer one counts for two


def test_weight_that_others_share_is_no_saving() -> None:
    text = """agraph (float[N,8] x) => (float[N,8] y) {
        a = MatMul (x, w)  b = Add (x, a)  t = Tanh (b)  c = MatMul (t, w)  d = Add (t, c)  y = Tanh (d) }"""
    model = parse(text, weights(w=(8, 8)))
    first, second = find(model)
    assert first.saving == (0, 0, 64)
    assert saving_of([first, second]) == (64, 256, 128)
    assert "w" in assert_drops(model, [first]).graph.initializers


def test_values_that_a_subgraph_reads() -> None:
    text = """agraph (float[N,8] x, bool c) => (float[N,8] y) {
        a = MatMul (x, w)
        f = If (c) <then_branch = yes () => (float[N,8] p) { p = Tanh (a) },
                    else_branch = no () => (float[N,8] q) { q = MatMul (x, v) }>
        s = Add (x, f)  y = Tanh (s) }"""
    model = parse(text, weights(w=(8, 8), v=(8, 8)))
    (block,) = find(model)
    assert [node.op_type for node in block.nodes] == ["MatMul", "If"]
    assert lines(assert_drops(model, [block])) == ["y = Tanh(x)"]
    read = parse(text.replace("Tanh (s) }", "If (c) <then_branch = a1 () => (float[N,8] p1) { p1 = Add (s, a) }, "
                              "else_branch = a2 () => (float[N,8] p2) { p2 = Tanh (s) }> }"),
                 weights(w=(8, 8), v=(8, 8)))  # fmt: skip
    assert not find(read)


SKIP = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
agraph (float[N,S,8] x) => (float[N,S,8] y) {
    e = Tanh (x)  a = MatMul (e, wa)
    n, o1, o2, s = com.microsoft.KIND <epsilon: float = 1e-5> (e, a, gBIASES)
    b = MatMul (n, wb)  m = com.microsoft.KIND <epsilon: float = 1e-5> (s, b, g)  y = Tanh (m)
}"""


@pytest.mark.parametrize(
    ("kind", "biases"),
    [("SkipLayerNormalization", ", h, c"), ("SkipLayerNormalization", ""), ("SkipSimplifiedLayerNormalization", ", c")],
)
def test_norms_that_add(kind: str, biases: str) -> None:
    text = SKIP.replace("KIND", kind).replace("BIASES", biases)
    model = parse(text, weights(wa=(8, 8), wb=(8, 8), g=(8,), h=(8,), c=(8,)))
    for name in {"h", "c"} - set(biases):
        del model.graph.initializers[name]
    first, second = find(model)
    assert (first.input.name, second.input.name) == ("e", "s")
    for chosen in ([first], [second], [first, second]):
        result = assert_drops(model, chosen)
        assert sum(node.op_type == kind for node in result.graph) == 2 - len(chosen)
    batch = feeds(model)
    cosines = influence(model, [first, second], [batch])
    assert all(0.001 < one < 1.5 for one in cosines)


def test_blocks_of_another_model() -> None:
    with pytest.raises(UsageError, match="another model"):
        drop(mlps(), find(mlps()))


def test_old_models_list_initializers_as_inputs() -> None:
    model = mlps(2)
    model.ir_version = 3
    model.graph.inputs.extend(model.graph.initializers.values())
    blocks = find(model)
    assert [block.saving.parameters for block in blocks] == [128, 128]
    result = drop(model, blocks[:1], check=False)
    assert [value.name for value in result.graph.inputs] == ["x"]
    assert sorted(result.graph.initializers) == ["a1", "b1", "w"]


# -- how they are measured ---------------------------------------------------------------------------------------------


def three() -> tuple[ir.Model, list[Block]]:
    """The middle block does almost nothing."""
    model = mlps()
    held = model.graph.initializers["b1"]
    assert held.const_value is not None
    held.const_value = ir.tensor(held.const_value.numpy() * np.float32(0.01), name="b1")
    return model, find(model)


def batches(model: ir.Model, count: int = 3) -> Iterator[dict[str, Any]]:
    yield from (feeds(model, seed, {"N": 5}) for seed in range(count))


def by_hand(model: ir.Model, batch: dict[str, Any]) -> dict[str, Any]:
    copy = model.clone()
    copy.graph.outputs.extend(node.outputs[0] for node in copy.graph if node.outputs[0] not in copy.graph.outputs)
    for value in copy.graph.outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    return dict(zip([value.name or "" for value in copy.graph.outputs], run(copy, batch), strict=True))


def test_influence_by_hand() -> None:
    model, blocks = three()
    got = influence(model, blocks, batches(model), threads=1)
    changes = influence(model, blocks, batches(model), measure="change")
    values = [by_hand(model, batch) for batch in batches(model)]
    for index in range(3):
        x, y = (np.concatenate([one[f"h{at}"] for one in values]).astype(np.float64) for at in (index, index + 1))
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert got[index] == pytest.approx(1 - cosine.mean(), rel=1e-3, abs=1e-6)
        assert changes[index] == pytest.approx(((y - x) ** 2).sum() / (y**2).sum(), rel=1e-3)
    assert got[1] < 0.01 * min(got[0], got[2])


def test_output_error_by_hand() -> None:
    model, blocks = three()
    got = influence(model, blocks, batches(model), measure="output")
    whole = np.concatenate([run(model, batch)[0] for batch in batches(model)])
    for block, score in zip(blocks, got, strict=True):
        less = drop(model, [block], check=False)
        part = np.concatenate([run(less, batch)[0] for batch in batches(model)])
        assert score == pytest.approx(((part - whole) ** 2).mean() / whole.var(), rel=1e-3)
    assert got.index(min(got)) == 1


def test_influence_without_a_block_is_that_of_the_smaller_model() -> None:
    model, blocks = three()
    rest = [blocks[0], blocks[2]]
    smaller = drop(model, [blocks[1]], check=False)
    for measure in ("cosine", "change", "output"):
        got = influence(model, rest, batches(model), measure=measure, dropped=[blocks[1]])
        want = influence(smaller, find(smaller), batches(model), measure=measure)
        assert got == pytest.approx(want, rel=1e-4)


def test_channels_are_the_vector() -> None:
    """A block that scales each channel alike at all places: no angle along channels, whatever the map looks like."""
    text = "agraph (float[N,4,6,6] x) => (float[N,4,6,6] y) { f = Conv (x, w)  s = Add (x, f)  y = Tanh (s) }"
    model = parse(text, {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)})
    assert influence(model, find(model), [feeds(model)]) == pytest.approx([0], abs=1e-6)
    last = parse("agraph (float[2,6,6,4] x) => (float[2,6,6,4] y) { f = MatMul (x, w)  s = Add (x, f)  y = Tanh (s) }",
                 {"w": np.diag([0, 1, 2, 3]).astype(np.float32)})  # fmt: skip
    x = feeds(last)["x"].astype(np.float64).reshape(-1, 4)
    y = x * np.array([1, 2, 3, 4])
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert influence(last, find(last), [feeds(last)]) == pytest.approx([1 - cosine.mean()], rel=1e-4)


def test_half_precision() -> None:
    text = "agraph (float16[N,8] x) => (float16[N,8] y) { f = MatMul (x, a)  s = Add (f, x)  y = Tanh (s) }"
    model = parse(text, {"a": (RANDOM.standard_normal((8, 8)) / 4).astype(np.float16)})
    blocks = find(model)
    drop(model, blocks)
    assert 0 < influence(model, blocks, [feeds(model)])[0] < 1
    assert influence(model, blocks, [feeds(model)], measure="output")[0] > 0


def test_every_gate_open_changes_no_bit() -> None:
    model, blocks = three()
    copy, gates, _ = gated(model, blocks)
    batch = feeds(model)
    ones = {name: np.array(1, np.float32) for name in gates}
    np.testing.assert_array_equal(run(copy, batch | ones)[0], run(model, batch)[0])


def test_mistakes_in_measuring() -> None:
    model, blocks = three()
    with pytest.raises(UsageError, match="no batch"):
        influence(model, blocks, [])
    with pytest.raises(UsageError, match="no measure 'angle'"):
        influence(model, blocks, [], measure="angle")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="batch"):
        influence(model, blocks, [{"x": np.zeros((2, 3), np.float32)}])
    assert influence(model, [], []) == []


# -- how they are chosen -----------------------------------------------------------------------------------------------


def test_choose_by_count_fraction_and_goal() -> None:
    blocks = find(mlps(4))
    scores = [0.4, 0.1, 0.3, math.nan]
    assert choose(blocks, scores, count=2) == [blocks[1], blocks[2]]
    assert choose(blocks, scores, fraction=0.49) == [blocks[1]]
    assert choose(blocks, scores, count=0) == []
    total = 4 * 128 + 32
    assert choose(blocks, scores, goal={"macs": (total - 128) / total}) == [blocks[1]]
    assert choose(blocks, scores, goal=f"params={total - 2 * 128}") == [blocks[1], blocks[2]]
    assert choose(blocks, scores, count=4) == blocks
    with pytest.raises(UsageError, match="does not reach"):
        choose(blocks, scores, goal={"bytes": 0.01})
    for wrong in ({"count": 5}, {"fraction": 1.5}, {}, {"count": 1, "fraction": 0.1}, {"goal": {"latency": 0.5}}):
        with pytest.raises(UsageError):
            choose(blocks, scores, **wrong)
    with pytest.raises(UsageError, match="function"):
        choose(blocks, scores, count=1, iterative=True)


def test_iterative_choice_asks_again() -> None:
    blocks = find(mlps(3))
    asked: list[tuple[list[str], list[str]]] = []

    def scores(left: Any, dropped: Any) -> list[float]:
        asked.append(([one.name for one in left], [one.name for one in dropped]))
        table = {"h1": 0.1, "h2": 0.2, "h3": 0.3} if not dropped else {"h2": 0.9, "h3": 0.3}
        return [table[one.name] for one in left]

    assert choose(blocks, scores, count=2, iterative=True) == [blocks[0], blocks[2]]
    assert asked[:2] == [(["h1", "h2", "h3"], []), (["h2", "h3"], ["h1"])]
    assert choose(blocks, scores, count=2) == [blocks[0], blocks[1]]
