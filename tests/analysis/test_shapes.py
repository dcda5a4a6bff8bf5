"""Shape analysis on graphs written by hand: exporters' shape chains, control flow, scopes, and the memo."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.analysis.dims import Dim, evaluate, symbol
from graphopt.analysis.shape_rules.movement import slice_extent
from graphopt.analysis.shapes import Shapes

B, S, N, H, W = (symbol(name) for name in "BSNHW")


def _values(model: ir.Model) -> dict[str, ir.Value]:
    found: dict[str, ir.Value] = {}
    for graph in [model.graph, *model.graph.subgraphs(), *[function.graph for function in model.functions.values()]]:
        for value in [*graph.inputs, *[output for node in graph for output in node.outputs]]:
            found[value.name or ""] = value
    return found


def _shapes(
    text: str, **weights: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> tuple[Shapes, dict[str, ir.Value]]:
    model = parse(text, weights)
    return Shapes(model), _values(model)


def _ints(*items: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(items, np.int64)


def test_attention_block_as_torch_exports_it() -> None:
    shapes, values = _shapes(
        """agraph (float[B,S,768] x, float[768,768] w) => (float[B,S,768] y) {
            shape = Shape(x)
            batch = Gather(shape, i0)
            length = Gather(shape, i1)
            batch1 = Unsqueeze(batch, axis0)
            length1 = Unsqueeze(length, axis0)
            target = Concat<axis = 0>(batch1, length1, heads, width)
            q = MatMul(x, w)
            q4 = Reshape(q, target)
            qt = Transpose<perm = [0, 2, 1, 3]>(q4)
            kt = Transpose<perm = [0, 2, 3, 1]>(q4)
            scores = MatMul(qt, kt)
            weights = Softmax(scores)
            mixed = MatMul(weights, qt)
            back = Transpose<perm = [0, 2, 1, 3]>(mixed)
            flat_target = Concat<axis = 0>(batch1, length1, minus)
            flat = Reshape(back, flat_target)
            y = Add(flat, x)
        }""",
        i0=np.array(0, np.int64),
        i1=np.array(1, np.int64),
        axis0=_ints(0),
        heads=_ints(12),
        width=_ints(64),
        minus=_ints(-1),
    )
    assert shapes.data(values["target"]) == (B, S, 12, 64)
    assert shapes.of(values["batch"]) == ()
    assert shapes.data(values["batch"]) == (B,)
    assert shapes.of(values["scores"]) == (B, 12, S, S)
    assert shapes.of(values["flat"]) == (B, S, 768)
    assert shapes.is_same_shape(values["flat"], values["x"])
    assert not shapes.is_same_shape(values["scores"], values["x"])


def test_patch_embedding_with_class_token() -> None:
    shapes, values = _shapes(
        """agraph (float[B,3,H,W] x, float[192,3,16,16] w, float[1,1,192] token) => (float[B,N,192] y) {
            patches = Conv<strides = [16, 16]>(x, w)
            dims = Shape(patches)
            front = Slice(dims, start, two)
            target = Concat<axis = 0>(front, minus)
            flat = Reshape(patches, target)
            tokens = Transpose<perm = [0, 2, 1]>(flat)
            batch = Gather(dims, start)
            wanted = Concat<axis = 0>(batch, minus, minus)
            ones = ConstantOfShape<value = int64[1] {1}>(three)
            negative = Mul(ones, minus)
            is_free = Equal(wanted, negative)
            expanded = Where(is_free, ones, wanted)
            class = Expand(token, expanded)
            y = Concat<axis = 1>(class, tokens)
        }""",
        start=_ints(0),
        two=_ints(2),
        three=_ints(3),
        minus=_ints(-1),
    )
    grid = (H // 16) * (W // 16)
    assert shapes.of(values["tokens"]) == (B, grid, 192)
    assert shapes.data(values["expanded"]) == (B, 1, 1)
    assert shapes.of(values["y"]) == (B, grid + 1, 192)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("pads = [1, 1, 1, 1], strides = [2, 2]", ((H + 1) // 2, (W + 1) // 2)),
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', ((H + 1) // 2, (W + 1) // 2)),
        ('auto_pad = "VALID"', (H - 2, W - 2)),
        ("dilations = [2, 3], pads = [2, 3, 2, 3]", (H, W)),
    ],
)
def test_convolution_extents(attributes: str, expected: tuple[Dim, ...]) -> None:
    shapes, values = _shapes(
        f"agraph (float[N,8,H,W] x, float[4,8,3,3] w) => (float[N,4,a,b] y) {{ y = Conv<{attributes}>(x, w) }}"
    )
    assert shapes.of(values["y"]) == (N, 4, *expected)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 2**63 - 1, 1), S),
        ((0, 2**31 - 1, 2), (S + 1) // 2),
        ((-1, -(2**63) + 1, -1), S),
        ((0, 0, 1), 0),
        ((5, 3, 1), 0),
    ],
)
def test_slices_of_a_symbolic_axis(bounds: tuple[int, int, int], expected: Dim) -> None:
    start, end, step = [_ints(bound) for bound in bounds]
    shapes, values = _shapes(
        "agraph (float[S,4] x) => (float[a,4] y) { y = Slice(x, start, end, axes, step) }",
        start=start,
        end=end,
        step=step,
        axes=_ints(0),
    )
    assert shapes.of(values["y"]) == (expected, 4)


_BOUNDS = st.one_of(st.integers(-12, 12), st.sampled_from([2**31 - 1, 2**63 - 1, -(2**31), -(2**63)]))


@settings(max_examples=800, deadline=None)
@given(st.integers(0, 10), _BOUNDS, _BOUNDS, st.integers(-4, 4).filter(bool))
def test_slice_extents_are_those_of_the_operator(extent: int, start: int, end: int, step: int) -> None:
    # the clamping rules of ONNX Slice, in plain integers; a far end backwards means different things to runtimes
    first, last = (bound + extent if bound < 0 else bound for bound in (start, end))
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    expected = max(0, -((min(max(first, 0), high) - min(max(last, low), high)) // step))
    for taken in (slice_extent(S, start, end, step), slice_extent(extent, start, end, step)):
        if step < 0 and end >= 2**31 - 1:
            assert taken is None
        else:
            assert taken is not None
            assert evaluate(taken, {"S": extent}) == expected


def test_a_slice_of_a_cache_that_may_be_empty_keeps_that_case() -> None:
    shapes, values = _shapes(
        "agraph (float[S,4] x) => (float[a,4] y) { y = Slice(x, one, far) }", one=_ints(1), far=_ints(2**31 - 1)
    )
    assert shapes.of(values["y"]) != (S - 1, 4)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ((0, -1), (N, 12)),
        ((-1, 4), (3 * N, 4)),
        ((0, 0, 2, 2), (N, 3, 2, 2)),
        ((-1,), (12 * N,)),
    ],
)
def test_reshape_targets(target: tuple[int, ...], expected: tuple[Dim, ...]) -> None:
    shapes, values = _shapes(
        "agraph (float[N,3,4] x) => (float[a] y) { y = Reshape(x, target) }", target=_ints(*target)
    )
    assert shapes.of(values["y"]) == expected


def test_a_reshape_target_that_may_be_minus_one_is_not_believed() -> None:
    shapes, values = _shapes("agraph (float[N,4] x, int64[2] t) => (float[a,b] y) { y = Reshape(x, t) }")
    target, shape = shapes.data(values["t"]), shapes.of(values["y"])
    assert target is not None
    assert shape is not None
    assert not set(target) & set(shape)


def test_unnamed_dims_are_all_different_and_named_ones_equal() -> None:
    shapes, values = _shapes("agraph (float[B,?] x, float[B,?] y) => (float[B,c] z) { z = Add(x, y) u = Relu(z) }")
    x, y = shapes.of(values["x"]), shapes.of(values["y"])
    assert x is not None
    assert y is not None
    assert x[0] == y[0] == B
    assert x[1] != y[1]
    assert shapes.is_same_shape(values["z"], values["u"])
    assert not shapes.is_same_shape(values["z"], values["x"])


def test_branches_are_joined() -> None:
    shapes, values = _shapes(
        """agraph (float[N,4] x, bool c) => (float[a,b] y) {
            y = If(c) <
                then_branch = t () => (float[a,4] p) { p = Relu(x) },
                else_branch = e () => (float[a,b] q) { q = Concat<axis = 1>(x, x) }
            >
        }"""
    )
    shape = shapes.of(values["y"])
    assert shape is not None
    assert shape[0] == N
    assert shape[1] not in (4, 8)
    assert shapes.dtype(values["y"]) == ir.DataType.FLOAT


IF = """agraph (float[N,4] x, bool c) => (float[A,B] y) {
    t = If (c) <
        then_branch = g1 () => (float[N,4] a) { a = Relu (x) },
        else_branch = g2 () => (float[N,4,1] b) { b = Unsqueeze (x, two) }
    >
    s = Shape (t)
    n = Size (s)
    m = Neg (t)
    y = Relu (m)
}"""


def test_a_branch_that_is_known_to_be_taken() -> None:
    shapes, values = _shapes(
        IF.replace(", bool c", "").replace("t = If", "c = Equal (z, two) t = If"), two=_ints(2), z=_ints(3)
    )
    assert shapes.of(values["t"]) == (N, 4, 1)
    assert shapes.data(values["n"]) == (3,)


def test_what_would_be_known() -> None:
    shapes, values = _shapes(IF, two=_ints(2))
    assert shapes.of(values["m"]) is None
    for branch, rank in (("a", 2), ("b", 3)):
        supposed = shapes.supposing({values["t"]: values[branch]}, lambda node: [node])
        assert supposed.rank(values["m"]) == rank
        assert supposed.data(values["n"]) == (rank,)
        assert supposed.of(values["x"]) == (N, 4)
    assert shapes.of(values["m"]) is None
    assert not shapes.gains(values["t"], values["m"])
    assert shapes.gains(values["a"], values["t"])
    shapes.assume(values["t"], like=values["b"])
    assert shapes.of(values["m"]) is None
    shapes.forget_after([values["m"], values["s"]], lambda node: [node])
    assert shapes.of(values["m"]) == (N, 4, 1)
    assert shapes.data(values["n"]) == (3,)


def test_symbols_of_a_loop_body_stay_inside() -> None:
    shapes, values = _shapes(
        """agraph (float[N,4] x, int64 n, bool c) => (float[N,4] y, float[a,b] grown, float[t,N,4] all) {
            y, grown, all = Loop(n, c, x, x) <
                body = b (int64 i, bool go, float[N,4] u, float[M,4] v)
                    => (bool go2, float[N,4] u2, float[K,4] v2, float[N,4] s) {
                    go2 = Identity(go)
                    u2 = Relu(u)
                    v2 = Concat<axis = 0>(v, x)
                    s = Relu(x)
                }
            >
        }"""
    )
    grown, stacked = shapes.of(values["grown"]), shapes.of(values["all"])
    assert grown is not None
    assert stacked is not None
    assert grown[1] == 4
    assert grown[0] != N
    assert stacked[1:] == (N, 4)
    inner, outer = shapes.of(values["u"]), shapes.of(values["x"])
    assert inner != outer  # the body's N is its own


def test_declared_types_count_only_where_nothing_better_is_known() -> None:
    shapes, values = _shapes(
        """<ir_version: 10, opset_import: ["" : 21, "custom" : 1]>
        agraph (float[N,4] x) => (float[N,9] z) <float[N,7] y, float[1,4] r> {
            y = custom.Mystery(x)
            r = Relu(x)
            z = Relu(y)
        }"""
    )
    assert shapes.of(values["y"]) == (N, 7)
    assert shapes.of(values["z"]) == (N, 7)
    assert shapes.of(values["r"]) == (N, 4)


def test_a_function_body_knows_neither_its_inputs_nor_its_attributes() -> None:
    shapes, values = _shapes(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        agraph (float[N,4] x) => (float[a,b] y) { y = local.F<k = 1>(x) }
        <domain: "local", opset_import: ["" : 21]>
        F <k> (u) => (v) {
            c = Constant<value = int64[1] {3}>()
            t = Flatten<axis: int = @k>(u)
            v = Expand(t, c)
        }"""
    )
    assert shapes.of(values["u"]) is None
    assert shapes.of(values["t"]) is None
    assert shapes.data(values["c"]) == (3,)
    assert shapes.rank(values["y"]) == 2  # as the output is declared


def test_an_overridable_initializer_is_no_constant() -> None:
    model = parse("agraph (float[N,6] x, int64[2] t) => (float[a,b] y) { y = Reshape(x, t) }", {"t": _ints(2, 3)})
    values = _values(model)
    assert values["t"].is_initializer()
    assert values["t"].is_graph_input()
    shape = Shapes(model).of(values["y"])
    assert shape is not None
    assert all(not isinstance(dim, int) for dim in shape)
    model.ir_version = 3  # before version 4 such an initializer was a constant
    assert Shapes(model).of(values["y"]) == (2, 3)


def test_a_long_chain_and_a_cycle_end() -> None:
    x = ir.Value(name="x", shape=ir.Shape(["N", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, last = [], x
    for _ in range(100_000):
        nodes.append(ir.Node("", "Relu", [last]))
        last = nodes[-1].outputs[0]
    graph = ir.Graph([x], [last], nodes=nodes, opset_imports={"": 21})
    shapes = Shapes(ir.Model(graph, ir_version=10))
    assert shapes.of(last) == (N, 4)

    first = ir.Node("", "Relu", [None])
    second = ir.Node("", "Relu", [first.outputs[0]])
    first.replace_input_with(0, second.outputs[0])
    cyclic = ir.Graph([], [second.outputs[0]], nodes=[first, second], opset_imports={"": 21})
    assert Shapes(ir.Model(cyclic, ir_version=10)).of(second.outputs[0]) is None


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose<perm = [5, 1]>(x)",
        "y = Concat<axis = 9>(x, x)",
        "y = Conv(x, x)",
        "y = Slice(x, x, x, x)",
        "y = MaxPool(x)",
        'y = Einsum<equation = "ab,bc->ad">(x, x)',
        "y = Squeeze<axes = [7]>(x)",
        "y = Split(x)",
        "y = Resize(x)",
        "y = Gemm(x)",
        "y = If(x)",
        "y = Loop(x)",
        "y = NoSuchOperator(x)",
        "y = LSTM(x, x, x)",
        "y = Div(x)",
    ],
)
def test_malformed_nodes_are_merely_unknown(body: str) -> None:
    shapes, values = _shapes(f"agraph (float[N,4] x) => (float y) {{ {body} z = Relu(y) }}")
    shapes.of(values["z"])
    assert shapes.data(values["z"]) is None


def test_rewrites_keep_the_memo_and_can_pass_knowledge_on() -> None:
    model = parse("agraph (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Relu(a) }")
    shapes, values = Shapes(model), _values(model)
    assert shapes.of(values["y"]) == (N, 4)
    stranger = ir.Node("custom", "Mystery", [values["x"]]).outputs[0]
    assert shapes.of(stranger) is None
    shapes.assume(stranger, like=values["y"])
    assert shapes.of(stranger) == (N, 4)
    shapes.forget([stranger])
    assert shapes.of(stranger) is None
    fresh = ir.Node("", "Transpose", [values["a"]]).outputs[0]
    assert shapes.of(fresh) == (4, N)


CONTRIB = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'


def test_attention_of_onnx_runtime() -> None:
    shapes, values = _shapes(
        f"""{CONTRIB} agraph (float[B,S,64] q, float[B,H,64] k, float[B,H,32] v, float[B,4,H,16] c, float[64,192] w)
        => (float[X,Y,Z] i) {{
            a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)
            b, d, e = com.microsoft.MultiHeadAttention <num_heads = 4> (q, c, c)
            f = com.microsoft.Attention <num_heads = 4> (q, w)
            g = com.microsoft.Attention <num_heads = 4, qkv_hidden_sizes = [64, 64, 32]> (q, w)
            h = com.microsoft.MultiHeadAttention <num_heads = 4> (q)
            i = com.microsoft.RotaryEmbedding (q, k, v, w)
        }}"""
    )
    expected = {"a": (B, S, 32), "b": (B, S, 64), "f": (B, S, 64), "g": (B, S, 32), "i": (B, S, 64)}
    for name, shape in expected.items():
        assert shapes.of(values[name]) == shape
        assert shapes.dtype(values[name]) is ir.DataType.FLOAT
    assert shapes.of(values["d"]) is None
    assert shapes.of(values["h"]) is None
