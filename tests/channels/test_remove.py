"""``analyze``, ``remove`` and ``mask``: kinds of models, shared and nested weights, sizes in constants, errors."""

from __future__ import annotations

import math
from pathlib import Path

import harness
import numpy as np
import onnx
import onnx_graphsurgeon
import onnx_ir as ir
import pytest
from zoo.checks import choose, distance, feeds, run

import graphopt
from graphopt import channels, proto
from graphopt.channels import analysis, slicing
from graphopt.errors import ModelError, NotEquivalent, UsageError

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def mlp() -> ir.Model:
    return harness.parse(
        "agraph (float[N,6] x) => (float[N,5] y) { h = Gemm<transB=1>(x, a, b)  r = Relu(h)  y = MatMul(r, c) }",
        {"a": floats(8, 6), "b": floats(8), "c": floats(8, 5)},
    )


def shape(model: ir.Model, name: str) -> list[int]:
    return list(model.graph.initializers[name].shape.numpy())  # type: ignore[union-attr]


def weight(model: ir.Model, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def check(model: ir.Model, seeds: int = 4) -> channels.ChannelGraph:
    """Random removals of all groups equal the masked model."""
    graph = channels.analyze(model)
    data = proto.to_proto(graph.model)
    for seed in range(seeds):
        units = choose(graph, seed)
        pruned, masked = channels.remove(graph, units, check=False), channels.mask(graph, units)
        onnx.checker.check_model(proto.to_proto(pruned))
        assert distance(run(proto.to_proto(pruned), feeds(data)), run(proto.to_proto(masked), feeds(data))) <= 1e-5
    return graph


def test_a_unit_is_a_slice_of_every_tensor() -> None:
    model = mlp()
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert [len(group.units), group.exact, group.heads] == [8, True, False]
    assert {tuple(member) for member in group.units[3].members} == {
        ("a", 0, (3,)),
        ("b", 0, (3,)),
        ("c", 0, (3,)),
    }
    assert group.units[3].saving.parameters == 6 + 1 + 5
    values = [weight(model, name) for name in "abc"]
    weights = group.units[3].weights
    np.testing.assert_array_equal(
        np.concatenate([one.ravel() for one in weights]), np.concatenate([one[3].ravel() for one in values])
    )
    assert [(one.size, one.reason) for one in graph.frozen] == [
        (6, "it is part of the model's input"),
        (5, "it is part of the model's output"),
    ]
    smaller = channels.remove(model, [group.units[3], group.units[0]])
    assert [shape(smaller, name) for name in "abc"] == [[6, 6], [6], [6, 5]]
    assert [shape(model, name) for name in "abc"] == [[8, 6], [8], [8, 5]], "the original is not changed"
    kept = weight(model, "a")[[1, 2, 4, 5, 6, 7]]
    np.testing.assert_array_equal(weight(smaller, "a"), kept)


def test_the_kind_that_came_in_comes_out(tmp_path: Path) -> None:
    model = mlp()
    path = tmp_path / "with space.onnx"
    graphopt.save(model, path)
    kinds = [
        (model, ir.Model),
        (path, ir.Model),
        (str(path), ir.Model),
        (proto.to_proto(model), onnx.ModelProto),
        (onnx_graphsurgeon.import_onnx(proto.to_proto(model)), onnx_graphsurgeon.Graph),
    ]
    for source, kind in kinds:
        graph = channels.analyze(source)
        assert isinstance(channels.remove(source, graph.units[:2]), kind)
        assert isinstance(channels.mask(graph, graph.units[:2]), kind)


def test_a_result_can_be_analysed_and_pruned_again(tmp_path: Path) -> None:
    model = mlp()
    for left in (7, 6, 5):
        graph = channels.analyze(model)
        model = channels.remove(graph, graph.units[:1])
        assert shape(model, "a") == [left, 6]
    graphopt.save(model, tmp_path / "m.onnx")
    assert shape(graphopt.load(tmp_path / "m.onnx"), "c") == [5, 5]


def test_wrong_units_are_refused() -> None:
    model = mlp()
    graph = channels.analyze(model)
    with pytest.raises(UsageError, match="nothing would be left of 'a'"):
        channels.remove(graph, graph.units)
    with pytest.raises(UsageError, match="another model"):
        channels.remove(mlp(), graph.units[:1])
    with pytest.raises(UsageError, match="no unit of this graph"):
        channels.remove(channels.analyze(model), graph.units[:1])
    with pytest.raises(UsageError, match="granularity"):
        channels.analyze(model, granularity="hats")
    with pytest.raises(ModelError):
        channels.analyze("there is no such file.onnx")


def test_nothing_to_remove_changes_nothing() -> None:
    model = mlp()
    assert harness.lines(channels.remove(model, [])) == harness.lines(model)


def test_a_wrong_result_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    graph = channels.analyze(model)

    def wrong(graph: channels.ChannelGraph, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> ir.Model:
        return slicing.cut(graph, np.roll(gone, 1))

    monkeypatch.setattr(analysis, "cut", wrong)
    with pytest.raises(NotEquivalent, match="differs from the masked one"):
        channels.remove(graph, graph.units[2:4])


def test_equal_biases_stored_once_do_not_tie_layers() -> None:
    model = harness.parse(
        """agraph (float[N,6] x) => (float[N,5] y) {
            a = Gemm(x, wa, zero)  b = Relu(a)  c = Gemm(b, wb, zero)  d = Relu(c)  y = MatMul(d, wc) }""",
        {"wa": floats(6, 8), "wb": floats(8, 8), "wc": floats(8, 5), "zero": floats(8)},
    )
    graph = check(model)
    assert [len(group.units) for group in graph.groups] == [8, 8]
    smaller = channels.remove(graph, [*graph.groups[0].units[:2], *graph.groups[1].units[5:]])
    assert [shape(smaller, name) for name in ("wa", "wb", "wc")] == [[6, 6], [6, 5], [5, 5]]
    vectors = [shape(smaller, name) for name in smaller.graph.initializers if name.startswith("zero")]
    assert sorted(vectors) == [[5], [6]]


def test_a_weight_used_twice_is_tied() -> None:
    model = harness.parse(
        """agraph (float[N,4,6] x) => (float[N,4,5] y) {
            a = MatMul(x, w)  t = Transpose<perm=[1,0]>(w)  b = Relu(a)  c = MatMul(b, t)  d = MatMul(c, w)
            e = Tanh(d)  y = MatMul(e, o) }""",
        {"w": floats(6, 8), "o": floats(8, 5)},
    )
    (group,) = check(model).groups
    assert len(group.units) == 8


def test_numbers_computed_from_a_pruned_size_stay() -> None:
    """The square root of the head size scales the scores; a Reshape takes its target from shapes, too."""
    model = harness.parse(
        """agraph (float[N,S,6] x) => (float[N,S,5] y) {
            q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
            shape = Shape(q)  size = Gather<axis=0>(shape, last)  wide = Cast<to=1>(size)  root = Sqrt(wide)
            t = Transpose<perm=[0,2,1]>(k)  s = MatMul(q, t)  c = Div(s, root)  p = Softmax<axis=-1>(c)
            m = MatMul(p, v)  n = Shape(m)  f = Reshape(m, n)  y = MatMul(f, wo) }""",
        {"wq": floats(6, 8), "wk": floats(6, 8), "wv": floats(6, 4), "wo": floats(4, 5), "last": np.array(2)},
    )
    graph = check(model)
    assert sorted(len(group.units) for group in graph.groups) == [4, 8]


@pytest.mark.parametrize("dims", ["N,4,6", "2,4,6"])
def test_targets_are_corrected(dims: str) -> None:
    model = harness.parse(
        f"""agraph (float[{dims}] x) => (float[{dims.replace("6", "5")}] y) {{
            h = MatMul(x, w)  a = Reshape(h, four)  b = Transpose<perm=[0,2,1,3]>(a)  c = Expand(b, five)
            d = ReduceSum<keepdims=0>(c, zero)  e = Transpose<perm=[0,2,1,3]>(d)  f = Reshape(e, three)
            y = MatMul(f, o) }}""",
        {
            "w": floats(6, 12),
            "o": floats(12, 5),
            "four": np.array([0, 4, 3, 4]),
            "five": np.array([2, 1, 3, 4, 4]),
            "zero": np.array([0]),
            "three": np.array([-1, 4, 12]),
        },
    )
    graph = check(model)
    assert len(graph.groups) == 1


def test_branches_capture_what_is_pruned() -> None:
    model = harness.parse(
        """agraph (float[N,6] x, bool c) => (float[N,5] y) {
            h = MatMul(x, w)
            b = If(c) <then_branch = yes () => (float[N,8] t) { t = Relu(h) },
                       else_branch = no () => (float[N,8] e) { e = Mul(h, s) }>
            y = MatMul(b, o) }""",
        {"w": floats(6, 8), "o": floats(8, 5), "s": floats(8)},
    )
    (group,) = check(model).groups
    assert {member.tensor for member in group.units[0].members} == {"w", "o", "s"}


def test_functions_are_opened() -> None:
    model = harness.parse(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        agraph (float[N,6] x) => (float[N,5] y) { h = MatMul(x, w)  r = local.double(h)  y = MatMul(r, o) }
        <opset_import: ["" : 21], domain: "local"> double (a) => (b) { b = Add(a, a) }""",
        {"w": floats(6, 8), "o": floats(8, 5)},
    )
    (group,) = check(model).groups
    assert len(group.units) == 8


def test_what_a_caller_may_override_is_frozen() -> None:
    model = harness.parse(
        "agraph (float[N,6] x, float[6,8] w) => (float[N,5] y) { h = MatMul(x, w)  y = MatMul(h, o) }",
        {"w": floats(6, 8), "o": floats(8, 5)},
    )
    graph = channels.analyze(model)
    assert not graph.groups
    assert any(one.reason in ("the caller may override it", "it is part of the model's input") for one in graph.frozen)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("Softmax<axis=-1>(h)", "Softmax looks along it"),
        ('Einsum<equation="ij->ij">(h)', ""),
        ("Det2(h)", "has no rule"),
        ("CumSum(h, one)", "summed along"),
        ("Trilu(h)", "a triangle"),
        ("LRN<size=3>(h)", "LRN mixes"),
        ("Log(h)", "not finite"),
    ],
)
def test_what_freezes_says_why(between: str, reason: str) -> None:
    custom = between.startswith("Det2")
    header = '<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>' if custom else ""
    call = "mine." + between if custom else between
    model = harness.parse(
        f"{header} agraph (float[N,6] x) => (float[N,5] y) {{ h = MatMul(x, w)  z = {call}  y = MatMul(z, o) }}",
        {"w": floats(6, 8), "o": floats(8, 5), "one": np.array(1)},
    )
    graph = channels.analyze(model)
    if not reason:
        assert len(graph.groups) == 1
        return
    assert not graph.groups
    assert any(reason in one.reason for one in graph.frozen), [one.reason for one in graph.frozen]


def test_each_segment_keeps_one() -> None:
    model = harness.parse(
        """agraph (float[N,6] x) => (float[N,5] y) {
            h = MatMul(x, w)  a, b = Split<axis=1>(h, sizes)  c = MatMul(a, o)  d = MatMul(b, p)  y = Add(c, d) }""",
        {"w": floats(6, 8), "o": floats(2, 5), "p": floats(6, 5), "sizes": np.array([2, 6])},
    )
    graph = check(model)
    assert sorted(len(segment) for group in graph.groups for segment in group.segments) == [2, 6]
    first = next(group for group in graph.groups if len(group.units) == 2)
    with pytest.raises(UsageError, match="nothing would be left"):
        channels.remove(graph, first.units)
    smaller = channels.remove(graph, [first.units[0], *graph.groups[1].units[:3]])
    assert [shape(smaller, name) for name in "wop"] == [[6, 4], [1, 5], [3, 5]]


def test_metadata_and_names_survive() -> None:
    model = mlp()
    model.metadata_props["team"] = "vision"
    next(iter(model.graph)).metadata_props["origin"] = "layer.0"
    model.graph.initializers["a"].doc_string = "weights"
    smaller = channels.remove(model, channels.analyze(model).units[:2])
    assert smaller.metadata_props == {"team": "vision"}
    assert next(iter(smaller.graph)).metadata_props == {"origin": "layer.0"}
    assert smaller.graph.initializers["a"].doc_string == "weights"
    assert [value.name for value in smaller.graph.inputs] == ["x"]


def test_declared_shapes_follow() -> None:
    model = mlp()
    hidden = next(iter(model.graph)).outputs[0]
    hidden.shape, hidden.type = ir.Shape(["N", 8]), ir.TensorType(ir.DataType.FLOAT)
    smaller = channels.remove(model, channels.analyze(model).units[:3])
    assert next(iter(smaller.graph)).outputs[0].shape == ir.Shape(["N", 5])


def test_rms_norm_is_corrected() -> None:
    model = harness.parse(
        """agraph (float[N,6] x) => (float[N,5] y) {
            h = MatMul(x, w)  n = RMSNormalization<axis=-1, epsilon=0.01>(h, g)  y = MatMul(n, o) }""".replace(
            "agraph", '<ir_version: 11, opset_import: ["" : 23]> agraph'
        ),
        {"w": floats(6, 8), "g": floats(8), "o": floats(8, 5)},
    )
    graph = check(model)
    assert graph.groups[0].exact
    smaller = channels.remove(graph, graph.units[:4])
    norm = next(node for node in smaller.graph if node.op_type == "RMSNormalization")
    assert math.isclose(norm.attributes["epsilon"].as_float(), 0.02, rel_tol=1e-6)


def test_layer_norm_takes_its_statistics_over_what_is_left() -> None:
    model = harness.parse(
        """agraph (float[N,6] x) => (float[N,5] y) {
            h = MatMul(x, w)  n = LayerNormalization<axis=-1>(h, g, b)  y = MatMul(n, o) }""",
        {"w": floats(6, 8), "g": floats(8), "b": floats(8), "o": floats(8, 5)},
    )
    (group,) = check(model).groups
    assert not group.exact
    assert [node.op_type for node in group.statistics] == ["LayerNormalization"]


CACHED = """<ir_version: 10, opset_import: ["" : 21]> agraph
    (float[N,S,6] x, float[N,2,P,4] past_k, float[N,2,P,4] past_v)
    => (float[N,S,5] y, float[N,2,T,4] present_k, float[N,2,T,4] present_v) {
        q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        qa = Reshape(q, heads)  ka = Reshape(k, heads)  va = Reshape(v, heads)
        qh = Transpose<perm=[0,2,1,3]>(qa)  kh = Transpose<perm=[0,2,1,3]>(ka)  vh = Transpose<perm=[0,2,1,3]>(va)
        present_k = Concat<axis=2>(past_k, kh)  present_v = Concat<axis=2>(past_v, vh)
        kt = Transpose<perm=[0,1,3,2]>(present_k)  s = MatMul(qh, kt)  p = Softmax<axis=-1>(s)
        m = MatMul(p, present_v)  t = Transpose<perm=[0,2,1,3]>(m)  j = Reshape(t, joined)  y = MatMul(j, wo) }"""


def test_caches_shrink_only_where_that_is_allowed() -> None:
    weights = {name: floats(6, 8) for name in ("wq", "wk", "wv")}
    weights |= {"wo": floats(8, 5), "heads": np.array([0, 0, 2, 4]), "joined": np.array([0, 0, 8])}
    model = harness.parse(CACHED, weights)
    assert not channels.analyze(model).groups
    graph = channels.analyze(model, allow_interface=["past_*", "present_?"])
    (group,) = graph.groups
    assert group.heads
    smaller = channels.remove(graph, group.units[:1])  # checks itself
    assert [value.shape[1] for value in smaller.graph.inputs[1:]] == [1, 1]
    assert [value.shape[1] for value in smaller.graph.outputs[1:]] == [1, 1]
    assert [value.name for value in smaller.graph.outputs] == ["y", "present_k", "present_v"]
    onnx.checker.check_model(proto.to_proto(smaller), full_check=True)
    lanes = channels.analyze(model, granularity="head-dim", allow_interface=["p*"])
    for seed in range(3):
        channels.remove(lanes, choose(lanes, seed))


def test_a_wrong_result_is_seen_through_a_narrower_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    graph = channels.analyze(model, allow_interface=["x", "y"])
    assert sorted(len(group.units) for group in graph.groups) == [5, 6, 8]
    units = choose(graph, 3, 0.5)
    smaller = channels.remove(graph, units)
    assert [value.shape for value in smaller.graph.inputs] == [ir.Shape(["N", 3])]
    monkeypatch.setattr(analysis, "cut", lambda graph, gone: slicing.cut(graph, np.roll(gone, 1)))
    with pytest.raises(NotEquivalent):
        channels.remove(graph, units)


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no input or output matches 'past_\\*'"):
        channels.analyze(mlp(), allow_interface=["past_*"])


def test_groups_that_cut_across_other_factors_keep_their_number() -> None:
    """A shuffle leaves (3, 2, 2) of 12 channels; two groups of six then lose the same lanes of each pair."""
    model = harness.parse(
        """agraph (float[N,3,4,4] x) => (float[N,5] y) {
            h = Conv(x, w)  a = Reshape(h, six)  b = Transpose<perm=[0,3,2,1,4,5]>(a)  c = Reshape(b, four)
            g = GroupNormalization<num_groups=2, epsilon=0.1>(c, s, t)  p = GlobalAveragePool(g)  f = Flatten(p)
            y = MatMul(f, o) }""",
        {
            "w": floats(12, 3, 1, 1),
            "six": np.array([0, 2, 2, 3, 4, 4]),
            "four": np.array([0, 12, 4, 4]),
            "s": floats(12),
            "t": floats(12),
            "o": floats(12, 5),
        },
    )
    graph = channels.analyze(model)
    for unit in graph.units:
        smaller = channels.remove(graph, [unit])  # checks itself
        norm = next(node for node in smaller.graph if node.op_type == "GroupNormalization")
        assert norm.attributes["num_groups"].as_int() == 2
    assert graph.units
