"""convert-float16."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from equivalence import backend, cases
from equivalence.compare import difference, outputs
from harness import apply, feeds, lines, parse, run
from onnx import numpy_helper

import graphopt
from graphopt import proto
from graphopt.errors import UsageError
from graphopt.pipeline.base import Context
from graphopt.verify.facts import Facts

RANDOM = np.random.default_rng(0)
Array = npt.NDArray[Any]
HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def single(numbers: Any) -> Array:
    return np.asarray(numbers, np.float32)


def f32(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(
    body: str, x: str = "float[N,4] x", y: str = "float[N,4] y", functions: str = "", opset: int = 21, **weights: Any
) -> ir.Model:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]>'
    held = {name: np.asarray(contents) for name, contents in weights.items()}
    return parse(f"{header} agraph ({x}) => ({y}) {{ {body} }} {functions}", held)


def converts(
    before: ir.Model,
    after: list[str] | None = None,
    *,
    spec: str = "convert-float16",
    given: dict[str, Array] | None = None,
    within: float = 5e-3,
) -> ir.Model:
    """Asserts that the result is valid, has the same interface and gives nearly the same, and a second run is idle."""
    result, stats, context = apply(before, spec)
    name = spec.partition(":")[0]
    assert stats.counts[name], context.misses
    if after is not None:
        assert lines(result) == after
    message = proto.to_proto(result)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(message, check_type=True, strict_mode=True))
    if "keep-io" not in spec:
        assert [value.type for value in result.graph.inputs] == [value.type for value in before.graph.inputs]
        assert [value.type for value in result.graph.outputs] == [value.type for value in before.graph.outputs]
        assert not apply(result, spec)[1].counts, "not idempotent"
    assert [value.name for value in result.graph.outputs] == [value.name for value in before.graph.outputs]
    names = [value.name for node in ir.traversal.RecursiveGraphIterator(result.graph) for value in node.outputs]
    assert len(set(names)) == len(names)
    inputs = given or feeds(before)
    casted = {value.name: value.dtype for value in result.graph.inputs}
    fed = {key: item.astype(kind.numpy()) for key, item in inputs.items() if (kind := casted[key]) is not None}
    for wanted, found in zip(run(before, inputs), run(result, fed), strict=True):
        if isinstance(wanted, list):
            assert len(wanted) == len(found)
            continue
        scale = float(np.abs(wanted).max(initial=0)) if wanted.size else 0.0
        np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=within, atol=within * scale)
    return result


def kinds(result: ir.Model, op_type: str) -> list[ir.DataType | None]:
    """The types of what the nodes of an operator read first."""
    shapes = Context(result).shapes
    nodes = [node for node in ir.traversal.RecursiveGraphIterator(result.graph) if node.op_type == op_type]
    return [shapes.dtype(value) for node in nodes if (value := node.inputs[0]) is not None]


def weight(result: ir.Model, name: str) -> Array:
    tensor = result.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_weights_and_what_is_computed() -> None:
    before = model("t = MatMul (x, w) y = Relu (t)", w=f32(4, 4))
    result = converts(
        before,
        [
            "x_float16 = Cast<to=10>(x)",
            "t = MatMul(x_float16, w)",
            "y_float = Relu(t)",
            "y = Cast<to=1>(y_float)",
        ],
    )
    assert weight(result, "w").dtype == np.float16
    assert [node.outputs[0].dtype for node in result.graph] == [HALF, HALF, HALF, SINGLE]
    assert weight(before, "w").dtype == np.float32, "the original is as it was"


def test_the_interface_on_request() -> None:
    before = model("t = MatMul (x, w) y = Relu (t)", w=f32(4, 4))
    result = converts(before, ["t = MatMul(x, w)", "y = Relu(t)"], spec="convert-float16:keep-io=no")
    assert (result.graph.inputs[0].dtype, result.graph.outputs[0].dtype) == (HALF, HALF)
    proven, report = graphopt.optimize(before, ["convert-float16:keep-io=no"], with_report=True)
    assert (report.status, report.dropped) == ("proven", [])
    assert proven.graph.inputs[0].dtype == HALF


def test_a_convolutional_network() -> None:
    body = """c = Conv <pads = [1,1,1,1]> (x, w, b) n = BatchNormalization (c, s, b, b, v) r = Relu (n)
        p = GlobalAveragePool (r) f = Flatten (p) y = Gemm (f, g, h)"""
    weights: dict[str, Any] = {
        "w": f32(8, 3, 3, 3),
        "b": f32(8),
        "s": f32(8),
        "v": np.abs(f32(8)),
        "g": f32(8, 5),
        "h": f32(5),
    }
    result = converts(model(body, "float[2,3,8,8] x", "float[2,5] y", **weights))
    assert len([node for node in result.graph if node.op_type == "Cast"]) == 2
    assert {weight(result, name).dtype.name for name in weights} == {"float16"}


def test_branches_and_bodies() -> None:
    body = """t = Relu (x) y = If (c) <
        then_branch = g1 () => (float[N,4] a) { a = MatMul (t, w) },
        else_branch = g2 () => (float[N,4] b) { p = Exp (x) b = Neg (p) }>"""
    for condition in (True, False):
        given = {"x": f32(3, 4), "c": np.array(condition)}
        result = converts(model(body, "float[N,4] x, bool c", w=f32(4, 4)), given=given)
        assert kinds(result, "MatMul") == [HALF]
        assert kinds(result, "Exp") == [SINGLE]
    body = """y, z = Loop (n, , x) <body = g (int64 i, bool k, float[N,4] s) => (bool l, float[N,4] t, float[N,4] o) {
        l = Identity (k) f = Cast <to = 1> (i) u = Add (s, f) o = MatMul (u, w) t = Exp (s) }>"""
    result = converts(
        model(body, "float[N,4] x", "float[N,4] y, float[M,N,4] z", n=np.array(2, np.int64), w=f32(4, 4)),
        given={"x": -np.abs(f32(3, 4))},
    )
    loop = next(node for node in result.graph if node.op_type == "Loop")
    assert [value.dtype for value in loop.outputs] == [HALF, HALF]
    assert [value.dtype for value in loop.attributes["body"].as_graph().inputs[2:]] == [HALF]
    body = """t, y = Scan <num_scan_inputs = 1, body = g (float[4] s, float[4] v) => (float[4] a, float[4] o) {
        a = Add (s, v) o = Mul (a, v) }> (z, x)"""
    converts(model(body, "float[4] z, float[N,4] x", "float[4] t, float[N,4] y"))


def test_a_branch_that_gives_what_is_outside() -> None:
    body = """t = Exp (x) y = If (c) <
        then_branch = g1 () => (float[N,4] a) { a = Identity (t) },
        else_branch = g2 () => (float[N,4] b) { b = Neg (x) }>"""
    converts(model(body, "float[N,4] x, bool c"), given={"x": f32(3, 4), "c": np.array(True)})


def test_functions_are_inlined_first() -> None:
    f = '<domain: "local", opset_import: ["" : 21]> f (a) => (b) { c = Relu (a) b = Neg (c) }'
    assert kinds(converts(model("y = local.f (x)", functions=f)), "Neg") == [HALF]


def test_other_domains_keep_float32() -> None:
    header = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
    text = f"{header} agraph (float[N,4] x) => (float[N,4] y) {{ t = Relu (x) g = com.microsoft.Gelu (t) y = Neg (g) }}"
    result, _, context = apply(parse(text), "convert-float16")
    assert kinds(result, "Gelu") == [SINGLE]
    assert kinds(result, "Neg") == [HALF]
    assert list(context.misses["convert-float16"]) == ["nothing is known about its types"]
    run(result, {"x": f32(3, 4)})


def test_a_weight_of_both_kinds_of_readers() -> None:
    result = converts(model("p = Pow (x, w) m = Mul (x, w) y = Add (p, m)", w=np.full((4,), 2, np.float32)))
    assert weight(result, "w").dtype == np.float32
    assert weight(result, "w_float16").dtype == np.float16


def test_an_initializer_that_callers_may_override() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> agraph (float[N,4] x, float[4] w) => (float[N,4] y)
        <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }"""
    before = parse(text)
    result = converts(before, given={"x": f32(3, 4)})
    assert result.graph.inputs[1].dtype == SINGLE
    given = {"x": f32(3, 4), "w": f32(4)}
    np.testing.assert_allclose(run(result, given)[0], run(before, given)[0], rtol=5e-3, atol=5e-3)
    result = converts(before, spec="convert-float16:keep-io=no", given={"x": f32(3, 4)})
    assert result.graph.inputs[1].dtype == HALF
    assert weight(result, "w").dtype == np.float16


def test_casts() -> None:
    body = "d = Cast <to = 11> (x) e = Exp (d) f = Cast <to = 1> (e) g = Cast <to = 1> (i) y = Add (f, g)"
    result = converts(model(body, "float[N,4] x, int64[N,4] i"))
    assert kinds(result, "Exp") == [ir.DataType.DOUBLE]
    assert [node.attributes.get_int("to") for node in result.graph if node.op_type == "Cast"] == [11, 10, 10, 1]


def test_a_cast_like() -> None:
    converts(model("e = CastLike (i, x) n = Relu (x) y = Add (e, n)", "float[N,4] x, int64[N,4] i"))


def test_scales_of_a_resize_stay() -> None:
    body = 'y = Resize <mode = "linear"> (x, r, s)'
    scales = np.array([1, 1, 2, 3], np.float32)
    result = converts(
        model(body, "float[1,2,3,4] x", "float[a,b,c,d] y", r=np.zeros(0, np.float32), s=scales), within=1e-2
    )
    assert weight(result, "s").dtype == np.float32
    body = """h = Shape (x) f = Cast <to = 1> (h) g = Div (f, two) s = Cast <to = 7> (g) y = Resize (x, , , s)"""
    before = model(body, "float[1,1,H,1] x", "float[a,b,c,d] y", two=single([1, 1, 3, 1]))
    result = converts(before, given={"x": f32(1, 1, 6153, 1)})
    assert kinds(result, "Div") == [SINGLE]
    assert run(result, {"x": f32(1, 1, 6153, 1)})[0].shape == (1, 1, 2051, 1)


def test_old_resizes() -> None:
    scales = np.array([1, 1, 2, 3], np.float32)
    converts(model("y = Upsample (x, s)", "float[1,2,3,4] x", "float[a,b,c,d] y", opset=9, s=scales))
    converts(model("y = Resize (x, s)", "float[1,2,3,4] x", "float[a,b,c,d] y", opset=10, s=scales))


@pytest.mark.parametrize("fill", [-1e9, -1e38, float(np.finfo(np.float32).min), -65520.0])
@pytest.mark.parametrize(
    "mask",
    [
        "m = Cast <to = 1> (k) n = Sub (one, m) b = Mul (n, fill) s = Add (x, b)",
        "c = Cast <to = 9> (k) s = Where (c, x, fill)",
        "c = Cast <to = 1> (k) n = Sub (c, one) b = Mul (n, most) s = Add (x, b)",
    ],
)
def test_fills_of_masks_stay_finite(mask: str, fill: float) -> None:
    held: dict[str, Any] = {"one": 1, "fill": fill, "most": -fill}
    used: dict[str, Any] = {name: single(number) for name, number in held.items() if name in re.findall(r"\w+", mask)}
    before = model(f"{mask} y = Softmax (s)", "float[N,4] x, int64[N,4] k", **used)
    given = {"x": f32(2, 4) - single(40), "k": np.array([[1, 0, 1, 0], [1, 1, 1, 1]])}
    result = converts(before, given=given, within=2e-2)
    assert {node.op_type for node in result.graph if node.outputs[0].dtype == SINGLE} == {"Cast"}
    for name in used:
        assert np.isfinite(weight(result, name)).all()


def test_a_filled_tensor() -> None:
    body = "h = Shape (x) f = ConstantOfShape <value = float[1] {-1e30}> (h) c = Cast <to = 9> (k) y = Where (c, x, f)"
    given = {"x": f32(3, 4), "k": np.ones((3, 4), np.int64)}
    assert kinds(converts(model(body, "float[N,4] x, int64[N,4] k"), given=given), "ConstantOfShape") == [
        ir.DataType.INT64
    ]
    converts(model("h = Shape (x) f = ConstantOfShape (h) y = Add (x, f)"))


def test_a_large_number_that_fits() -> None:
    assert weight(converts(model("y = Add (x, w)", w=single(40000))), "w") == 40000


def test_bounds() -> None:
    held: dict[str, Any] = {"low": single(-1e30), "high": single(1e6)}
    result = converts(model("y = Clip (x, low, high)", **held), given={"x": single([[60000, 1, 2, -60000]])})
    assert [float(weight(result, name)) for name in ("low", "high")] == [-65504, 65504]


@pytest.mark.parametrize(
    ("body", "held"),
    [
        ("t = Mul (r, w) y = Tanh (t)", single(1e6)),
        ("t = Mul (r, w) y = Tanh (t)", single(1e-9)),
        ("t = Div (r, w) y = Tanh (t)", single(1e6)),
        ("t = MatMul (r, w) y = Tanh (t)", np.full((4, 4), 70000, np.float32)),
    ],
)
def test_factors_and_weights_that_do_not_fit_keep_their_nodes(body: str, held: Array) -> None:
    result = converts(model(f"r = Neg (x) {body}", w=held), given={"x": np.full((3, 4), 1e-5, np.float32)})
    assert kinds(result, "Neg") == [HALF]
    assert kinds(result, body.split()[2]) == [SINGLE]
    assert weight(result, "w").dtype == np.float32


def test_an_infinite_constant_stays_infinite() -> None:
    body = "c = Cast <to = 9> (k) s = Where (c, x, w) y = Softmax (s)"
    result = converts(
        model(body, "float[N,4] x, int64[N,4] k", w=single("-inf")),
        given={"x": f32(1, 4), "k": np.array([[1, 0, 1, 1]])},
    )
    assert weight(result, "w") == -np.inf


def test_small_numbers_do_not_vanish() -> None:
    result = converts(
        model("a = Abs (x) s = Add (a, e) y = Div (x, s)", e=single(1e-12)),
        given={"x": single([[0, 1, 2, -3]])},
    )
    assert weight(result, "e") == np.float16(2**-24)
    large = np.full((64, 4), 1e-12, np.float32)
    given = {"x": f32(3, 64)}
    result = converts(model("m = MatMul (x, w) y = Add (m, o)", "float[N,64] x", w=large, o=f32(4)), given=given)
    assert not weight(result, "w").any()


def test_a_sum_of_squares_keeps_its_range() -> None:
    body = "m = ReduceMean (x, a) d = Sub (x, m) q = Mul (d, d) v = ReduceMean (q, a) s = Sqrt (v) y = Div (d, s)"
    given = {"x": single([[300, -300, 600, -900]])}
    assert kinds(converts(model(body, a=np.array([-1])), given=given), "Mul") == [SINGLE]
    body = body.replace("Mul (d, d)", "Pow (d, t)")
    converts(model(body, a=np.array([-1]), t=single(2)), given=given)


def test_counting_and_chance_keep_their_digits() -> None:
    body = "r = Range (zero, n, one) s = Add (x, r) y = Neg (s)"
    held: dict[str, Any] = {"zero": single(0), "one": single(1)}
    result = converts(
        model(body, "float[N] x, float n", "float[M] y", **held), given={"x": f32(4), "n": np.array(4, np.float32)}
    )
    assert kinds(result, "Range") == [SINGLE]
    ones = np.ones((3000, 1), np.float32)
    before = model("t = Relu (x) c = CumSum (t, a) y = Neg (c)", "float[N,1] x", "float[N,1] y", a=np.array(0))
    result = converts(before, given={"x": ones}, within=1e-3)
    assert kinds(result, "CumSum") == [SINGLE]
    body = "r = RandomNormal <shape = [3, 4], seed = 1.0> () s = Add (x, r) y = Neg (s)"
    converts(model(body))


def test_positions_keep_their_digits() -> None:
    body = "p = Cast <to = 1> (i) a = Mul (p, w) s = Sin (a) y = Add (x, s)"
    held = single([1, 0.1, 0.01, 0.001])
    given = {"x": f32(1, 4), "i": np.array([[40001]])}
    result = converts(model(body, "float[N,4] x, int64[N,1] i", w=held), given=given, within=2e-3)
    assert kinds(result, "Mul") == [SINGLE]


def test_what_moves_what_is_kept_is_kept() -> None:
    body = "e = Sin (x) t = Transpose (e) r = Reshape (t, s) f = Cos (r) y = Neg (f)"
    result = converts(model(body, "float[3,4] x", "float[2,6] y", s=np.array([2, 6])))
    assert kinds(result, "Transpose") == kinds(result, "Reshape") == [SINGLE]
    assert len([node for node in result.graph if node.op_type == "Cast"]) == 2


def test_sequences_keep_float32() -> None:
    body = "r = Relu (x) q = SequenceConstruct (r, x) n = SequenceAt (q, i) y = Neg (n)"
    result = converts(model(body, i=np.array(1)))
    assert kinds(result, "Relu") == [HALF]
    assert kinds(result, "SequenceConstruct") == [SINGLE]
    converts(model("r = Relu (x) y = SequenceConstruct (r, x)", y="seq(float[N,4]) y"))


def test_quantization_keeps_float32() -> None:
    body = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) m = MatMul (d, w) y = Relu (m)"
    result = converts(model(body, s=single(0.01), z=np.uint8(128), w=f32(4, 4)))
    assert weight(result, "s").dtype == np.float32
    assert kinds(result, "MatMul") == [HALF]


def test_outputs_in_the_middle() -> None:
    before = model(
        "y = Relu (x) e = Exp (y) z = MatMul (y, w)", y="float[N,4] y, float[N,4] e, float[N,4] z", w=f32(4, 4)
    )
    result = converts(before)
    assert [value.dtype for value in result.graph.outputs] == [SINGLE] * 3
    converts(before, spec="convert-float16:keep-io=no")


def test_outputs_that_are_inputs_or_weights() -> None:
    before = model("y = Relu (x) z = Exp (y)", y="float[N,4] y, float[4] w, float[N,4] x", w=f32(4))
    converts(before)
    result = converts(before, spec="convert-float16:keep-io=no")
    assert [value.dtype for value in result.graph.outputs] == [HALF] * 3


def test_results_whose_type_is_an_attribute() -> None:
    body = "n, m, v = LayerNormalization (x, s) d = Sub (x, m) y = Mul (n, d)"
    result = converts(model(body, s=f32(4)), within=1e-2)
    assert kinds(result, "LayerNormalization") == [HALF]


def test_names_that_keep_float32() -> None:
    before = model("[first] t = MatMul (x, w) [second] u = MatMul (t, w) y = Relu (u)", w=f32(4, 4))
    result = converts(before, spec="convert-float16:keep=sec*+Relu")
    assert kinds(result, "MatMul") == [HALF, SINGLE]
    assert kinds(result, "Relu") == [SINGLE]
    with pytest.raises(UsageError, match=r"no node and no operator is called 'third\*'"):
        apply(before, "convert-float16:keep=third*")


def test_the_optimizer_proves_it() -> None:
    before = model("t = MatMul (x, w) y = Relu (t)", w=f32(4, 4))
    result, report = graphopt.optimize(before, ["convert-float16", "default"], with_report=True)
    assert (report.status, report.dropped) == ("proven", [])
    assert kinds(result, "MatMul") == [HALF]


def test_the_original_is_what_it_must_equal() -> None:
    before = model("t = MatMul (x, w) y = Relu (t)", w=f32(4, 4))
    reference = apply(before, "convert-float16")[1].references["convert-float16"]
    assert reference is not None
    assert lines(reference) == lines(before)
    assert (Facts.of(before, {}).precision, Facts.of(reference, {}).precision) == ("float32", "float16")


def test_what_overflows_keeps_float32() -> None:
    """Half a million is no number in float16, and no constant says so; nor does ONNX Runtime's CPU provider."""
    before = model(
        "t = MatMul (x, w) u = MatMul (t, w) v = Tanh (u) y = MatMul (v, w)", w=np.full((4, 4), 400, np.float32)
    )
    result = converts(before, within=2e-2)
    assert kinds(result, "MatMul") == [HALF, SINGLE, HALF]
    assert kinds(result, "Tanh") == [SINGLE]


def test_nothing_runs_unless_it_is_wanted() -> None:
    before = model("t = MatMul (x, w) y = MatMul (t, w)", w=np.full((4, 4), 400, np.float32))
    assert kinds(apply(before, "convert-float16")[0], "MatMul") == [HALF, SINGLE]
    assert kinds(apply(before, "convert-float16:measure=no")[0], "MatMul") == [HALF, HALF]


def test_calibration_data_say_how_large_numbers_get(tmp_path: Path) -> None:
    before = model("t = MatMul (x, w) y = Tanh (t)", w=np.full((4, 4), 4, np.float32))
    np.savez(tmp_path / "data.npz", x=np.full((32, 4), 10000, np.float32))
    assert kinds(apply(before, "convert-float16")[0], "MatMul") == [HALF]
    assert not apply(before, f"convert-float16:calibration={tmp_path / 'data.npz'}")[1].counts


def test_what_is_not_close_is_dropped() -> None:
    """The difference of two large numbers is small."""
    held: dict[str, Any] = {"w": single([[1024.3]] * 4), "v": single([[1024.2]] * 4)}
    before = model("t = MatMul (x, w) u = MatMul (x, v) y = Sub (t, u)", y="float[N,1] y", **held)
    result, report = graphopt.optimize(before, ["convert-float16"], with_report=True)
    assert "did not leave what it claims" in report.dropped[0].reason
    assert lines(result) == lines(before)


def test_large_weights_stay_outside(tmp_path: Path) -> None:
    body = "t = MatMul (x, w) y = MatMul (t, v)"
    before = model(body, "float[N,1024] x", "float[N,1024] y", w=f32(1024, 1024) / 32, v=f32(1024, 1024) / 32)
    graphopt.save(before, tmp_path / "a.onnx", external_data=True)
    result, report = graphopt.optimize(tmp_path / "a.onnx", ["convert-float16"], with_report=True)
    assert (report.status, report.dropped) == ("proven", [])
    graphopt.save(result, tmp_path / "b.onnx")
    sizes = [sum(path.stat().st_size for path in tmp_path.glob(f"{name}.onnx*")) for name in "ab"]
    assert 0.49 < sizes[1] / sizes[0] < 0.52
    stored = onnx.load(tmp_path / "b.onnx").graph.initializer
    for tensor in stored:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), weight(before, tensor.name).astype(np.float16))


def test_a_tail_keeps_its_type() -> None:
    shipped = Path(__file__).parents[2] / "models" / "logreg_iris.onnx"
    with pytest.raises(UsageError, match="the outputs come from a ZipMap"):
        graphopt.optimize(shipped, ["convert-float16:keep-io=no"])
    assert graphopt.optimize(shipped, ["convert-float16"], with_report=True)[1].status == "proven"


@pytest.mark.parametrize("name", ["silero_vad", "thai_deepcut", "magika"])
def test_real_models(name: str) -> None:
    shipped = Path(__file__).parents[2] / "models" / f"{name}.onnx"
    _, report = graphopt.optimize(shipped, ["convert-float16"], with_report=True)
    assert (report.status, report.dropped) == ("proven", [])
    assert 0.5 < report.after.weight_bytes / report.before.weight_bytes < 0.56


def _onnx_cases(seed: int, count: int) -> None:
    """Converts cases of onnx's own: the results are valid, run, and are close, whatever the operator."""
    converted = 0
    for case in cases.sample(count, seed):
        status, expected = backend.reference(case)
        changed, report = graphopt.optimize(case.model, ["convert-float16"], validate=False, with_report=True)
        if status != "ran" or not report.changed:
            continue
        converted += 1
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(changed, check_type=True, strict_mode=True))
        found = outputs(changed.SerializeToString(), case.feeds)
        assert not difference(expected, found, exact=False, at_least=1e-2), case.name
    assert converted > count // 4


def test_a_sample_of_onnx_cases() -> None:
    _onnx_cases(1, 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_onnx_cases() -> None:
    _onnx_cases(0, len(cases.collect()))


def test_nothing_to_do() -> None:
    result, stats, _ = apply(model("y = Add (x, x)", "int64[N] x", "int64[N] y"), "convert-float16")
    assert not stats.counts
    assert lines(result) == ["y = Add(x, x)"]
    assert not apply(model("y = Exp (x)"), "convert-float16")[1].counts
