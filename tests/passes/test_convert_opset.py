"""convert-opset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import apply, feeds, fires, lines, parse, run, unchanged

import graphopt
from graphopt.errors import ModelError, UsageError
from graphopt.proto import versions
from graphopt.proto.tensors import ComputedTensor

RANDOM = np.random.default_rng(0)
TAIL = '<domain: "local", opset_import: ["" : {opset}]>'


def model(
    body: str, opset: int, x: str = "float[2,4,6,8] x", y: str = "float[a,b,c,d] y", *functions: str, **weights: Any
) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]>'
    held = {name: np.asarray(contents) for name, contents in weights.items()}
    return parse(f"{header} agraph ({x}) => ({y}) {{ {body} }} {' '.join(functions)}", held)


def f32(*shape: int) -> npt.NDArray[np.float32]:
    return RANDOM.random(shape, np.float32) + np.float32(0.5)


SCALES = np.array([1, 1, 2, 3], np.float32)
SMALLER = np.array([1, 1, 0.5, 0.25], np.float32)

CASES: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "softmax last": ("y = Softmax <axis = 3> (x)", 11, {}),
    "softmax default": ("y = Softmax (x)", 11, {}),
    "softmax negative": ("y = Softmax <axis = -2> (x)", 11, {}),
    "logsoftmax": ("y = LogSoftmax <axis = 2> (x)", 12, {}),
    "hardmax default": ("y = Hardmax (x)", 11, {}),
    "hardmax last": ("y = Hardmax <axis = 3> (x)", 11, {}),
    "hardmax negative": ("y = Hardmax <axis = -1> (x)", 11, {}),
    "resize nearest up": ("y = Resize (x, s)", 10, {"s": SCALES}),
    "resize nearest down": ("y = Resize (x, s)", 10, {"s": SMALLER}),
    "resize linear": ('y = Resize <mode = "linear"> (x, s)', 10, {"s": SCALES}),
    "upsample 7": ("y = Upsample <scales = [1.0, 1.0, 2.0, 3.0]> (x)", 7, {}),
    "upsample 9": ('y = Upsample <mode = "linear"> (x, s)', 9, {"s": SCALES}),
    "group norm": ("y = GroupNormalization <num_groups = 2> (x, a, b)", 18, {"a": f32(2), "b": f32(2)}),
    "reduce mean": ("y = ReduceMean <axes = [1, -1]> (x)", 13, {}),
    "reduce sum": ("y = ReduceSum <axes = [2]> (x)", 9, {}),
    "reduce all": ("y = ReduceMax (x)", 11, {}),
    "clip": ("y = Clip <min = -0.5, max = 0.25> (x)", 7, {}),
    "clip one side": ("y = Clip <max = 0.25> (x)", 10, {}),
    "pad": ('y = Pad <mode = "constant", pads = [0,0,1,2,0,0,3,0], value = 2.5> (x)', 10, {}),
    "pad reflect": ('y = Pad <mode = "reflect", pads = [0,0,1,2,0,0,3,0]> (x)', 10, {}),
    "slice": ("y = Slice <axes = [1, 3], starts = [1, -5], ends = [3, 100]> (x)", 9, {}),
    "split sizes": ("a, b = Split <axis = 1, split = [1, 3]> (x) c = Exp (a) y = Mul (b, c)", 11, {}),
    "split even": ("a, b = Split <axis = 1> (x) y = Mul (b, a)", 13, {}),
    "squeeze": ("a = Unsqueeze <axes = [0, 2]> (x) b = Exp (a) y = Squeeze <axes = [0, 2]> (b)", 11, {}),
    "topk": ("y, i = TopK <axis = 2, k = 3> (x)", 9, {}),
    "dropout": ("y, m = Dropout <ratio = 0.3> (x)", 9, {}),
    "batch norm": ("y = BatchNormalization (x, a, b, c, d)", 7, {"a": f32(4), "b": f32(4), "c": f32(4), "d": f32(4)}),
    "scatter": (
        "y = Scatter <axis = 1> (x, i, u)",
        10,
        {"i": np.ones((2, 1, 6, 8), np.int64), "u": f32(2, 1, 6, 8)},
    ),
    "grid sample": ('y = GridSample <mode = "bicubic"> (x, g)', 16, {"g": f32(2, 3, 5, 2) - np.float32(1)}),
    "lp pool": ("y = LpPool <kernel_shape = [2, 2]> (x)", 11, {}),
    "cast": ("a = Cast <to = 11> (x) y = Cast <to = 1> (a)", 9, {}),
}


@pytest.mark.parametrize("to", [21, 25])
@pytest.mark.parametrize(("body", "opset", "weights"), CASES.values(), ids=CASES)
def test_each_operator_does_the_same(body: str, opset: int, weights: Mapping[str, Any], to: int) -> None:
    result = fires(f"convert-opset:to={to}", model(body, opset, **weights))
    assert result.opset_imports[""] == to
    assert result.ir_version == versions.least_ir_version(to)


def test_coordinates_outside_stay_where_they_were() -> None:
    boxes = np.array([[1, 1, 4, 3], [0, 2, 5, 5]], np.float32)
    body = "y = RoiAlign <output_height = 2, output_width = 2> (x, r, b)"
    result = fires("convert-opset", model(body, 10, r=boxes, b=np.array([0, 1], np.int64)))
    assert "output_half_pixel" in lines(result)[0]


def test_a_transform() -> None:
    result = fires("convert-opset", model("y = DFT <axis = 2> (x)", 17, "float[2,4,6,1] x"))
    assert lines(result)[0].startswith("y = DFT(x, , ")


def test_recurrent_layers() -> None:
    body = "y, h = GRU <hidden_size = 3> (x, w, r)"
    fires("convert-opset", model(body, 9, "float[5,2,4] x", w=f32(1, 9, 4), r=f32(1, 9, 3)))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("y = Clip <min = 0.25> (x)", "float16"),
        ("y = Pad <pads = [0, 1], value = 2.5> (x)", "float16"),
        ("y = Pad <pads = [0, 1], value = 2.5> (x)", "double"),
    ],
)
def test_numbers_that_become_operands_have_the_type_of_the_others(body: str, kind: str) -> None:
    """onnx's converter writes float32."""
    fires("convert-opset", model(body, 10, f"{kind}[4] x", f"{kind}[n] y"))


def test_the_rank_may_be_unknown() -> None:
    body = "s = Reshape (x, t) y = Softmax <axis = 1> (s)"
    before = model(body, 11, "float[2,3,4] x, int64[r] t", "float y")
    result, stats, _ = apply(before, "convert-opset")
    assert stats.counts["convert-opset"] == 1
    inputs: dict[str, npt.NDArray[Any]] = {"x": f32(2, 3, 4), "t": np.array([2, 3, 2, 2], np.int64)}
    np.testing.assert_allclose(run(result, inputs)[0], run(before, inputs)[0], rtol=1e-6)


def test_branches_and_bodies() -> None:
    branch = """y = If (c) <
        then_branch = g1 () => (t) { t = ReduceMean <axes = [1]> (x) },
        else_branch = g2 () => (e) { u = Unsqueeze <axes = [0]> (x) s = Squeeze <axes = [0]> (u) e = Softmax (s) }>"""
    result = fires("convert-opset:to=20", model(branch, 11, "float[N,4] x, bool c", "float[a,b] y"))
    kinds = [node.op_type for node in ir.traversal.RecursiveGraphIterator(result.graph)]
    assert kinds == ["If", "ReduceMean", "Unsqueeze", "Squeeze", "Softmax"]
    loop = """y = Loop (n, , x) <body = g (int64 i, bool c, float[N,4] s) => (bool k, float[N,4] t) {
        k = Identity (c) m = ReduceSum <axes = [1]> (s) t = Clip <max = 3.0> (m2) m2 = Add (s, m) }>"""
    loop = loop.replace("t = Clip <max = 3.0> (m2) m2 = Add (s, m)", "m2 = Add (s, m) t = Clip <max = 3.0> (m2)")
    fires("convert-opset", model(loop, 9, "float[N,4] x", "float[N,4] y", n=np.array(3, np.int64)))


@pytest.mark.parametrize("directions", ["", ", directions = [1]"])
def test_a_scan_over_a_batch(directions: str) -> None:
    body = f"""t, y = Scan <num_scan_inputs = 1{directions},
        body = g (float[2] s, float[2] v) => (float[2] t, float[2] o) {{ t = Add (s, v) o = Clip <max = 1.0> (t) }}>
        ( , z, x)"""
    before = model(body, 8, "float[3,2] z, float[3,5,2] x", "float[3,2] t, float[3,5,2] y")
    result = fires("convert-opset", before)
    assert [node.op_type for node in ir.traversal.RecursiveGraphIterator(result.graph)] == [
        "Scan",
        "Scan",
        "Add",
        "Clip",
    ]


def test_an_upsample_enlarges_whatever_its_scales() -> None:
    before = model("y = Upsample (x, s)", 9, "float[1,2,3,4] x, float[4] s")
    result, _, _ = apply(before, "convert-opset")
    inputs = {"x": f32(1, 2, 3, 4), "s": SCALES}
    np.testing.assert_array_equal(run(result, inputs)[0], run(before, inputs)[0])


def test_functions_are_converted_too() -> None:
    f = TAIL.format(opset=12) + " f (a) => (b) { c = ReduceSum <axes = [1]> (a) b = Clip (c) }"
    newer = TAIL.format(opset=22) + " g (a) => (b) { b = Relu (a) }"
    before = model("a = local.f (x) y = local.g (a)", 12, "float[N,4] x", "float[N,1] y", f, newer)
    result = fires("convert-opset", before)
    one, other = result.functions.values()
    assert one.opset_imports[""] == 21
    assert other.opset_imports[""] == 22
    assert [node.op_type for node in one] == ["Constant", "ReduceSum", "Clip"]


def test_attributes_of_a_call() -> None:
    f = TAIL.format(opset=12) + " f <k> (a) => (b) { b = LeakyRelu <alpha: float = @k> (a) }"
    before = model("y = local.f <k = 0.3> (x)", 12, "float[N,4] x", "float[N,4] y", f)
    assert "alpha=@k" in lines(next(iter(fires("convert-opset", before).functions.values())))[0]
    f = TAIL.format(opset=12) + " f <k> (a) => (b) { b = ReduceSum <axes: ints = @k> (a) }"
    with pytest.raises(ModelError, match=r"ReduceSum 'b' cannot be converted .* those of a call of its function"):
        apply(model("y = local.f <k = [1]> (x)", 12, "float[N,4] x", "float[N,1] y", f), "convert-opset")


def test_names_and_metadata_stay() -> None:
    before = model("[first] t = ReduceMean <axes = [1]> (x) y = Relu (t)", 13, "float[N,4] x", "float[N,1] y")
    before.graph[0].metadata_props["scope"] = "layer.0"
    before.graph[0].doc_string = "why"
    result = fires("convert-opset", before)
    mean = result.graph[0]
    assert (mean.name, mean.outputs[0].name, mean.doc_string) == ("first", "t", "why")
    assert mean.metadata_props == {"scope": "layer.0"}


class Unread(ComputedTensor):
    """4 GB that nobody must ask for."""

    def numpy(self) -> npt.NDArray[Any]:
        raise AssertionError("a weight was read")


def test_no_weight_is_read() -> None:
    body = "a = ReduceSum <axes = [1], keepdims = 0> (x) y = MatMul (a, w)"
    before = model(body, 11, "float[N,4,32768] x", "float[N,M] y", w=f32(1, 1))
    weight = Unread(ir.DataType.FLOAT, ir.Shape([32768, 32768]), "w")
    before.graph.initializers["w"].const_value = weight
    before.graph.initializers["w"].shape = weight.shape
    result = graphopt.optimize(before, ["convert-opset"], validate=False)
    assert result.opset_imports[""] == 21
    assert result.graph.initializers["w"].const_value is weight


def test_nothing_to_do() -> None:
    unchanged("convert-opset", model("y = Relu (x)", 21))
    unchanged("convert-opset", model("y = Relu (x)", 22))
    f = '<domain: "local", opset_import: ["other" : 1]> f (a) => (b) { b = other.F (a) }'
    header = '<ir_version: 8, opset_import: ["local" : 1, "other" : 1]>'
    unchanged("convert-opset", parse(f"{header} g (float[2] x) => (float[2] y) {{ y = local.f (x) }} {f}"))


def test_versions_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="for operator set 22, and convert-opset cannot take it back to 21"):
        apply(model("y = Relu (x)", 22), "convert-opset:to=21")
    with pytest.raises(UsageError, match="knows no operator set 999"):
        apply(model("y = Relu (x)", 13), "convert-opset:to=999")


REFUSED = {
    "Resize 'up' .* from operator set 10 to 21: which neighbour": ("[up] y = Resize (x, s)", 10, "float[4] s"),
    "Resize 'y' .* no coordinate_transformation_mode": (
        'y = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, , s)',
        11,
        "float[4] s",
    ),
    "Dropout 'y' .* its mask": ("y, m = Dropout (x) w = Exp (m)", 9, "float z"),
    "BatchNormalization 'y' .* it trains": (
        "y, m, v, p, q = BatchNormalization (x, s, s, s, s)",
        9,
        "float[4] s",
    ),
    "BatchNormalization 'y' .* spatial must": ("y = BatchNormalization <spatial = 0> (x, s, s, s, s)", 7, "float s"),
    "Scan 'y' .* lengths of its sequences": (
        """y = Scan <num_scan_inputs = 1, body = g (float[2] s, float[2] v) => (float[2] t) { t = Add (s, v) }>
        (n, z, z)""",
        8,
        "float[3,5,2] z, int64[3] n",
    ),
    "GroupNormalization 'y' .* number of its channels": (
        "z = Reshape (x, t) y = GroupNormalization <num_groups = 2> (z, s, s)",
        18,
        "float[2] s, int64[4] t",
    ),
    "Nonsense 'y' .* operator set 9 has no such operator": ("y = Nonsense (x)", 9, "float s"),
}


@pytest.mark.parametrize(("message", "case"), REFUSED.items(), ids=[case[0] for case in REFUSED.values()])
def test_what_has_no_equivalent_is_refused_by_name(message: str, case: tuple[str, int, str]) -> None:
    body, opset, more = case
    with pytest.raises(ModelError, match=message):
        apply(model(body, opset, f"float[1,4,6,8] x, {more}"), "convert-opset")


def test_the_optimizer_proves_it_and_fusions_follow() -> None:
    """Each needs an operator that the model's own operator set does not have."""
    gelu = "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)"
    norm = """u = ReduceMean <axes = [-1]> (x) d = Sub (x, u) q = Pow (d, two) v = ReduceMean <axes = [-1]> (q)
        w = Add (v, eps) s = Sqrt (w) n = Div (d, s) g = Mul (n, scale) y = Add (g, bias)"""
    rms = """q = Pow (x, two) v = ReduceMean <axes = [-1]> (q) w = Add (v, eps) s = Sqrt (w) n = Div (x, s)
        y = Mul (n, scale)"""
    attention = """k = Transpose <perm = [0,1,3,2]> (x) s = MatMul (x, k) t = Mul (s, half)
        p = Softmax <axis = -1> (t) y = MatMul (p, x)"""
    numbers: dict[str, Any] = {"half": 0.5, "root": 2**0.5, "one": 1, "two": 2, "eps": 1e-5}
    numbers |= {"scale": f32(8), "bias": f32(8)}
    for body, name, to, fused in (
        (gelu, "fuse-gelu", 20, "Gelu"),
        (norm, "fuse-layer-norm", 17, "LayerNormalization"),
        (rms, "fuse-rms-norm", 23, "RMSNormalization"),
        (attention, "fuse-attention", 23, "Attention"),
    ):
        held: dict[str, Any] = {key: np.float32(one) for key, one in numbers.items() if key in body}
        before = model(body, 13, **held)
        alone = graphopt.optimize(before, [name], validate=False)
        assert fused not in [node.op_type for node in alone.graph]
        result, report = graphopt.optimize(before, [f"convert-opset:to={to}", name], with_report=True)
        assert report.status == "proven", report.dropped
        assert not report.dropped
        assert [node.op_type for node in result.graph] == [fused]


@pytest.mark.parametrize("name", ["light_shufflenet", "ppocrv2_cls", "ppocrv6_det_tiny", "silero_vad", "caustic_painn"])
def test_real_models(name: str) -> None:
    path = Path(__file__).parents[2] / "models" / f"{name}.onnx"
    result, report = graphopt.optimize(path, ["convert-opset:to=22"], with_report=True)
    assert (report.status, report.dropped) == ("proven", [])
    assert result.opset_imports[""] == 22
    assert report.after.weight_bytes <= report.before.weight_bytes + 4096


def test_inputs_differ_from_seed_to_seed() -> None:
    """What the other tests rely on."""
    one, other = feeds(model("y = Relu (x)", 13), 0), feeds(model("y = Relu (x)", 13), 1)
    assert (one["x"] != other["x"]).any()
