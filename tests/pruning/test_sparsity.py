"""Zeros in weights: patterns, methods against brute force, what is left alone and why, and what the report says."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import lines, parse, run
from rich.console import Console

from graphopt import proto
from graphopt.errors import UsageError
from graphopt.pruning.layers import Layer, find_layers
from graphopt.pruning.sparsity import Pattern, Report, sparsify, statistics
from graphopt.pruning.sparsity.settings import Method
from graphopt.pruning.sparsity.sizes import encoded_bytes
from graphopt.pruning.sparsity.sparsegpt import inverse_factor, sparsegpt
from graphopt.pruning.sparsity.statistics import output_shape
from graphopt.pruning.sparsity.support import refit
from graphopt.pruning.sparsity.thresholds import Threshold

Array = npt.NDArray[Any]
METHODS: tuple[Method, ...] = ("magnitude", "wanda", "sparsegpt")


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def correlated(rows: int, columns: int, seed: int = 0) -> Array:
    """Rows whose columns go together, as activations do."""
    return normal(rows, columns, seed=seed) @ normal(columns, columns, seed=seed + 1) + 1


def weight(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.asarray(tensor.numpy())


def matrices(model: ir.Model) -> list[Array]:
    return [layer.matrix() for layer in find_layers(model.graph)]


def network(kind: str = "float", numpy: Any = np.float32) -> ir.Model:
    """A stem, a convolution, a grouped one, a depthwise one, and a head."""
    held = {
        "s": normal(8, 3, 3, 3) / 5,
        "a": normal(16, 8, 3, 3) / 8,
        "ab": normal(16),
        "g": normal(16, 8, 3, 3, seed=1) / 8,
        "d": normal(16, 1, 3, 3) / 3,
        "h": normal(16, 64) / 4,
    }
    text = f"""agraph ({kind}[N,3,8,8] x) => ({kind}[N,64] y) {{
        [stem] c0 = Conv <pads=[1,1,1,1]> (x, s)  r0 = Relu (c0)
        [conv] c1 = Conv <strides=[2,2], pads=[1,1,1,1]> (r0, a, ab)  r1 = Relu (c1)
        [grouped] c2 = Conv <group=2, pads=[1,1,1,1]> (r1, g)  r2 = Relu (c2)
        [depthwise] c3 = Conv <group=16, pads=[1,1,1,1]> (r2, d)
        p = GlobalAveragePool (c3)  f = Flatten (p)
        [head] y = MatMul (f, h) }}"""
    return parse(text, {name: array.astype(numpy) for name, array in held.items()})


def images(count: int = 40) -> dict[str, Array]:
    return {"x": np.cumsum(normal(count, 3, 8, 8), axis=3) / 3}


def linear(held: dict[str, Array], text: str, kind: str = "float") -> ir.Model:
    return parse(f"agraph ({kind}[N,16] x) => ({kind}[N,16] y) {{ {text} }}", held)


# -- patterns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown", "sparsity"),
    [("2:4", "2:4", 0.5), ("1of4", "1:4", 0.75), (" 50 %", "50%", 0.5), ("0.3", "30%", 0.3), (0.625, "62.5%", 0.625)],
)
def test_patterns_are_read(text: str | float, shown: str, sparsity: float) -> None:
    pattern = Pattern.parse(text)
    assert (str(pattern), pattern.sparsity) == (shown, sparsity)
    assert Pattern.parse(pattern) is pattern


@pytest.mark.parametrize("text", ["", "half", "50", "4:4", "0:4", "5:4", "2:4:8", "100%", "0.0", "1.0", "-0.5", "nan"])
def test_nonsense_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        sparsify(network(), pattern=text)


def test_ties_and_exact_counts() -> None:
    scores = np.array([[1, 1, 1, 1], [3, 1, 2, 1]], np.float32)
    assert Pattern.parse("50%").keep(scores).tolist() == [[False, False, True, True], [True, False, True, False]]
    assert Pattern.parse("1:2").keep(scores).tolist() == [[False, True, False, True], [True, False, True, False]]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_one_threshold_for_all_weights_is_exact(sparsity: float) -> None:
    arrays = [normal(7, 11), np.round(normal(5, 40), 1), 1e-3 * normal(30)]
    threshold = Threshold(lambda: arrays, sparsity)
    kept = np.concatenate([threshold.keep(array).reshape(-1) for array in arrays])
    everything = np.abs(np.concatenate([array.reshape(-1) for array in arrays]))
    assert (~kept).sum() == round(sparsity * everything.size)
    assert everything[~kept].max() <= everything[kept].min()


# -- methods -----------------------------------------------------------------------------------------------------------


def test_the_factor_is_that_of_the_inverse() -> None:
    x = correlated(200, 12)
    products = x.T @ x / 200
    factor = inverse_factor(products)
    damped = products.astype(np.float64) + 0.01 * np.diag(products).mean() * np.eye(12)
    assert (np.tril(factor, -1) == 0).all()
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(damped), rtol=1e-6, atol=1e-9)


def test_sparsegpt_does_what_the_paper_says() -> None:
    """One column after the other, each time with the inverse of what is left of H, computed anew."""
    x, dense = correlated(300, 8, seed=3), normal(5, 8)
    products = (x.T @ x / 300).astype(np.float64)
    found, keep = sparsegpt(dense, products, Pattern.parse("2:4"))
    damped = products + 0.01 * np.diag(products).mean() * np.eye(8)
    expected = dense.astype(np.float64)
    for row in range(5):
        for column in range(8):
            rest = np.arange(column, 8)
            if column % 4 == 0:
                inner = [np.linalg.inv(damped[at:, at:])[0, 0] for at in range(column, column + 4)]
                scores = expected[row, column : column + 4] ** 2 / np.array(inner)
                gone = column + np.argsort(scores, kind="stable")[:2]
            if column in gone:
                inverse = np.linalg.inv(damped[np.ix_(rest, rest)])
                expected[row, rest] -= expected[row, column] / inverse[0, 0] * inverse[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ((found != 0) == keep).all()


def test_blocks_change_nothing_but_the_mask() -> None:
    """300 columns are three blocks; N:M chooses within four, so that blocks make no difference."""
    x, dense = correlated(900, 300) / 20, normal(4, 300)
    products = (x.T @ x / 900).astype(np.float64)
    found, keep = sparsegpt(dense, products, Pattern.parse("2:4"))
    factor = inverse_factor(products)
    expected = dense.astype(np.float64)
    for column in range(300):
        error = np.where(keep[:, column], 0, expected[:, column]) / factor[column, column]
        expected -= error[:, None] * np.where(np.arange(300) >= column, factor[column], 0)
    np.testing.assert_allclose(found, np.where(keep, expected, 0), atol=1e-7)
    share, places = sparsegpt(dense, products, Pattern.parse("75%"))
    assert (share == 0).sum() == (~places).sum() == 900


def test_refit_is_least_squares_on_the_support() -> None:
    x, dense = correlated(400, 16), normal(6, 16)
    products = (x.T @ x / 400).astype(np.float64)
    keep = normal(6, 16, seed=5) > 0
    found = refit(dense, np.where(keep, dense, 0), keep, products)
    damped = products + 0.01 * np.diag(products).mean() * np.eye(16)
    for row in range(6):
        own = keep[row]
        expected = np.linalg.solve(damped[np.ix_(own, own)], damped[own] @ dense[row].astype(np.float64))
        np.testing.assert_allclose(found[row, own], expected, rtol=1e-3, atol=1e-3)
        assert (found[row, ~own] == 0).all()


def test_wanda_compares_within_an_output() -> None:
    held = {"w": normal(16, 16) * np.linspace(0.1, 5, 16, dtype=np.float32)}  # some outputs are much smaller
    x = normal(500, 16) * np.linspace(0.2, 4, 16, dtype=np.float32)
    result = sparsify(
        linear(held, "y = MatMul (x, w)"),
        pattern="50%", method="wanda", calibration={"x": x}, samples=500, smallest=0, reconstruct=False,
    )  # fmt: skip
    scores = np.abs(held["w"]) * np.sqrt(np.square(x[np.arange(500) % 5 != 4]).mean(0))[:, None]
    expected = scores >= np.sort(scores, axis=0)[8]
    assert (expected == (weight(result, "w") != 0)).all()
    assert (weight(result, "w")[expected] == held["w"][expected]).all()


def test_magnitudes_need_no_data_and_run_nothing() -> None:
    held = {"w": normal(16, 16)}
    model = linear(held, "u = nowhere.Unknown (x)  y = MatMul (u, w)")
    model.opset_imports["nowhere"] = 1
    model.graph[0].domain = "nowhere"
    options: dict[str, Any] = {"method": "magnitude", "reconstruct": False, "smallest": 0}
    result, report = sparsify(model, pattern="25%", with_report=True, **options)
    assert (weight(result, "w") == 0).sum() == 64
    assert (
        np.abs(held["w"][weight(result, "w") == 0]).max() < np.abs(weight(result, "w"))[weight(result, "w") != 0].min()
    )
    assert (report.data, report.samples, report.error, report.layers[0].rows) == ("", 0, None, 0)


def test_global_magnitudes_take_from_where_weights_are_small() -> None:
    held = {"a": normal(16, 16), "b": 0.01 * normal(16, 16, seed=1)}
    model = linear(held, "[a] u = MatMul (x, a)  [b] y = MatMul (u, b)")
    options: dict[str, Any] = {"method": "magnitude", "scope": "global", "reconstruct": False, "smallest": 0}
    result = sparsify(model, pattern="50%", **options)
    assert (weight(result, "a") == 0).sum() + (weight(result, "b") == 0).sum() == 256
    assert (weight(result, "b") == 0).sum() > 240


@pytest.mark.parametrize("pattern", ["2:4", "60%"])
def test_errors_fall_from_method_to_method(pattern: str) -> None:
    x = correlated(600, 16)
    model = linear({"w": normal(16, 16)}, "y = MatMul (x, w)")
    options: dict[str, Any] = {"pattern": pattern, "calibration": {"x": x}, "samples": 600, "smallest": 0}
    errors: dict[tuple[str, bool], float] = {}
    for method, reconstruct in itertools.product(METHODS, (False, True)):
        result, report = sparsify(model, method=method, reconstruct=reconstruct, with_report=True, **options)
        errors[method, reconstruct] = report.error
        held_out = x[np.arange(600) % 5 == 4]
        lost = held_out @ (weight(result, "w") - weight(model, "w"))
        wanted = np.square(held_out @ weight(model, "w")).sum()
        assert report.error == pytest.approx(np.square(lost).sum() / wanted, rel=1e-3)
    assert all(errors[method, True] < errors[method, False] for method in METHODS)
    assert errors["sparsegpt", False] < min(errors["wanda", False], errors["magnitude", False])


def test_later_layers_see_what_sparse_ones_give() -> None:
    x = correlated(400, 16) / 4
    held = {"a": normal(16, 16), "b": normal(16, 16, seed=1)}
    result, report = sparsify(
        linear(held, "[a] u = MatMul (x, a)  [b] y = MatMul (u, b)"),
        pattern="75%", calibration={"x": x}, samples=400, smallest=0, with_report=True,
    )  # fmt: skip
    held_out = x[np.arange(400) % 5 == 4]
    sparse, dense = (
        np.square(u @ (weight(result, "b") - held["b"])).sum() / np.square(u @ held["b"]).sum()
        for u in (held_out @ weight(result, "a"), held_out @ held["a"])
    )
    assert report.layers[1].error == pytest.approx(sparse, rel=1e-3)
    assert report.layers[1].error < 0.9 * dense


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("pattern", ["2:4", "50%"])
def test_a_network_becomes_sparse(method: Any, pattern: str) -> None:
    before = network()
    result, report = sparsify(before, pattern=pattern, method=method, calibration=images(), with_report=True)
    assert lines(result) == lines(before) == lines(network())
    assert all((weight(before, name) != 0).all() for name in ("a", "g", "h"))
    assert [layer.layer for layer in report.layers] == ["conv", "grouped", "head"]
    assert {one.layer: one.reason for one in report.skipped} == {
        "stem": "it has fewer than 512 weights",
        "depthwise": "depthwise: it has one channel in each group",
    }
    for layer in find_layers(result.graph):
        if layer.name in ("conv", "grouped", "head"):
            found = layer.matrix()
            assert (found == 0).mean() == 0.5
            if pattern == "2:4":
                assert ((found.reshape(-1, 4) != 0).sum(1) == 2).all()
    # Four neighbours are channels at one place of the window.
    if pattern == "2:4":
        assert ((weight(result, "a")[:, :4] != 0).sum(1) == 2).all()
    wanted, given = run(before, images(8))[0], run(result, images(8))[0]
    assert 0 < np.square(given - wanted).sum() < 0.1 * np.square(wanted).sum()


def check_zero_bits(array: Array, numpy: Any) -> None:
    assert array.dtype == numpy
    unsigned = array.reshape(-1).view(f"u{np.dtype(numpy).itemsize}")
    assert (unsigned == 0).mean() == 0.5  # all bits: no negative zeros


def test_zeros_are_zeros_in_half_precision() -> None:
    result = sparsify(network("float16", np.float16), calibration={"x": images()["x"].astype(np.float16)})
    for name in ("a", "g", "h"):
        check_zero_bits(weight(result, name), np.float16)


def test_zeros_are_zeros_in_double_precision() -> None:
    held = {"w": normal(16, 16).astype(np.float64)}
    before = linear(held, "y = MatMul (x, w)", "double")
    result = sparsify(before, smallest=0, calibration={"x": normal(64, 16).astype(np.float64)})
    check_zero_bits(weight(result, "w"), np.float64)
    plain = sparsify(before, smallest=0, method="magnitude", reconstruct=False)
    check_zero_bits(weight(plain, "w"), np.float64)
    kept = weight(plain, "w") != 0
    assert (weight(plain, "w")[kept] == held["w"][kept]).all()


def test_bfloat16() -> None:
    held = {"w": normal(16, 16).astype(ml_dtypes.bfloat16)}
    result = sparsify(linear(held, "y = MatMul (x, w)", "bfloat16"), method="magnitude", reconstruct=False, smallest=0)
    assert weight(result, "w").dtype == ml_dtypes.bfloat16
    assert (weight(result, "w") == 0).sum() == 128


def test_the_bias_takes_the_mean() -> None:
    x = normal(400, 16) * 0.1 + 3
    held = {"w": normal(16, 16), "b": normal(16)}
    for text in ("y = Gemm <alpha=0.5, beta=2.0> (x, w, b)", "u = MatMul (x, w)  y = Add (b, u)"):
        before = linear(held, text)
        result, report = sparsify(
            before, pattern="75%", method="magnitude", calibration={"x": x}, samples=400, smallest=0, with_report=True
        )
        assert (weight(result, "b") != held["b"]).any()
        assert (weight(before, "b") == held["b"]).all()
        lost = run(result, {"x": x})[0] - run(before, {"x": x})[0]
        assert np.abs(lost.mean(0)).max() < 0.02
        assert report.error < 0.01
        raw = sparsify(before, pattern="75%", calibration={"x": x}, samples=400, smallest=0, reconstruct=False)
        assert (weight(raw, "b") == held["b"]).all()


def test_a_bias_that_others_read_is_copied() -> None:
    x = normal(100, 16) + 2
    held = {"w": normal(16, 16), "b": normal(16)}
    before = linear(held, "u = MatMul (x, w)  t = Add (u, b)  y = Mul (t, b)")
    result = sparsify(before, calibration={"x": x}, smallest=0)
    assert (weight(result, "b") == held["b"]).all()
    assert lines(result)[1:] == ["t = Add(u, b_1)", "y = Mul(t, b)"]
    onnx.checker.check_model(proto.to_proto(result))


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("strides=[2,1], pads=[1,0,2,1]", (8, 4, 3, 3)),
        ("auto_pad='SAME_UPPER', strides=[2,2]", (8, 4, 3, 2)),
        ("auto_pad='VALID', dilations=[2,1]", (8, 4, 3, 3)),
        ("group=2", (8, 2, 1, 1)),
    ],
)
def test_rows_times_the_matrix_are_the_outputs_of_a_convolution(attributes: str, shape: tuple[int, ...]) -> None:
    quoted = attributes.replace("'", '"')
    model = parse(
        f"agraph (float[N,4,9,10] x) => (float[N,C,H,W] y) {{ y = Conv <{quoted}> (x, w) }}", {"w": normal(*shape)}
    )
    check_rows(model, normal(2, 4, 9, 10))


@pytest.mark.parametrize(
    "attributes", ["strides=[2,3], pads=[1,0,0,1], output_padding=[1,2]", "group=2, dilations=[1,2]"]
)
def test_rows_times_the_matrix_are_the_outputs_of_a_transposed_convolution(attributes: str) -> None:
    model = parse(
        f"agraph (float[N,4,5,6] x) => (float[N,C,H,W] y) {{ y = ConvTranspose <{attributes}> (x, w) }}",
        {"w": normal(4, 3, 3, 2)},
    )
    check_rows(model, normal(2, 4, 5, 6))


def check_rows(model: ir.Model, x: Array) -> None:
    layer: Layer = next(find_layers(model.graph))
    y = run(model, {"x": x})[0]
    assert output_shape(layer, x.shape) == y.shape
    given = layer.rows(x, y.shape) @ layer.matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(given, layer.results(y), atol=1e-4)


def test_shared_weights_become_sparse_once() -> None:
    """The first user sees only the first half of the channels, the second only the other."""
    x = normal(200, 16)
    held = {"w": normal(16, 16), "low": np.repeat([1, 0], 8).astype(np.float32)}
    text = "l = Mul (x, low)  h = Sub (x, l)  [a] u = MatMul (l, w)  [b] v = MatMul (h, w)  y = Add (u, v)"
    result, report = sparsify(
        linear(held, text), method="wanda", pattern="50%", calibration={"x": x}, samples=200, smallest=0,
        with_report=True,
    )  # fmt: skip
    assert [(one.layer, one.note) for one in report.layers] == [("a", "shared with 1 more layers")]
    found = weight(result, "w") != 0
    assert found[:8].any()
    assert found[8:].any()
    assert (found.sum(0) == 8).all()


def test_weights_in_constant_nodes() -> None:
    values = ", ".join(f"{number:.4f}" for number in normal(256).tolist())
    before = linear({}, f"w = Constant <value = float[16,16] {{{values}}}> ()  y = MatMul (x, w)")
    result = sparsify(before, smallest=0, calibration={"x": normal(64, 16)})
    assert (matrices(result)[0] == 0).mean() == 0.5
    assert (matrices(before)[0] != 0).all()


REASONS = {
    "reads the weight too": "u = MatMul (x, w)  y = Add (u, w)",
    "in different ways": "[a] u = MatMul (x, w)  y = Gemm <transB=1> (u, w)",
    "lies in a subgraph": """k = Constant <value = bool {1}> ()
        y = If (k) <then_branch = t () => (float[16,16] m) { m = MatMul (x, w) },
                    else_branch = e () => (float[16,16] n) { n = Identity (x) }>""",
    "no multiple of 5": "y = MatMul (x, w)",
}


@pytest.mark.parametrize("reason", REASONS)
def test_why_a_layer_stays_dense(reason: str) -> None:
    model = parse(f"agraph (float[16,16] x) => (float[16,16] y) {{ {REASONS[reason]} }}", {"w": normal(16, 16)})
    pattern = "2:5" if "5" in reason else "2:4"
    with pytest.raises(UsageError, match="no layer can be made sparse") as caught:
        sparsify(model, smallest=0, pattern=pattern)
    assert reason in caught.value.hint


def test_quantized_weights_are_refused() -> None:
    held: dict[str, Array] = {"q": np.ones((16, 16), np.int8), "s": np.ones((), np.float32)}
    model = linear(held, "w = DequantizeLinear (q, s)  y = MatMul (x, w)")
    with pytest.raises(UsageError, match="quantized") as caught:
        sparsify(model)
    assert "float model" in caught.value.hint


def test_no_layers_and_wrong_names() -> None:
    with pytest.raises(UsageError, match="has no layer"):
        sparsify(linear({}, "y = Relu (x)"))
    with pytest.raises(UsageError, match="no layer is called 'convv'") as caught:
        sparsify(network(), exclude=["convv"])
    assert "conv" in caught.value.hint
    with pytest.raises(UsageError, match="no method"):
        sparsify(network(), method="best")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no scope"):
        sparsify(network(), scope="row")  # type: ignore[arg-type]


def test_names_choose_layers() -> None:
    _, report = sparsify(
        network(), method="magnitude", reconstruct=False, include=["conv", "h*"], exclude=["head"], with_report=True
    )
    assert [one.layer for one in report.layers] == ["conv"]
    assert [(one.layer, one.reason) for one in report.skipped] == [("head", "excluded")]


def test_infinite_inputs_leave_a_layer_dense() -> None:
    model = linear(
        {"w": normal(16, 16), "v": normal(16, 16)}, "[a] u = MatMul (x, w)  e = Log (u)  [b] y = MatMul (e, v)"
    )
    _, report = sparsify(model, smallest=0, calibration={"x": normal(64, 16)}, with_report=True)
    assert [one.layer for one in report.layers] == ["a"]
    assert [(one.layer, one.reason) for one in report.skipped] == [("b", "on the data it reads what is not finite")]


def test_inputs_that_are_all_zero_do_no_harm() -> None:
    model = linear({"w": normal(16, 16)}, "y = MatMul (x, w)")
    for method in ("sparsegpt", "wanda", "magnitude"):
        options: dict[str, Any] = {
            "method": method,
            "smallest": 0,
            "calibration": {"x": np.zeros((64, 16), np.float32)},
        }
        result, report = sparsify(model, with_report=True, **options)
        assert (weight(result, "w") == 0).mean() == 0.5
        assert np.isfinite(weight(result, "w")).all()
        assert report.error == 0


def test_wide_layers_are_fitted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated(400, 16)
    model = linear({"w": normal(16, 16)}, "y = MatMul (x, w)")
    options: dict[str, Any] = {"calibration": {"x": x}, "samples": 400, "smallest": 0, "with_report": True}
    _, whole = sparsify(model, **options)
    monkeypatch.setattr(statistics, "WIDEST", 10)
    result, report = sparsify(model, **options)
    assert report.layers[0].note == "fitted in 2 blocks of at most 10 columns"
    assert ((matrices(result)[0].reshape(-1, 4) != 0).sum(1) == 2).all()
    assert whole.layers[0].error < report.layers[0].error < 1


def test_same_seed_same_bytes_and_the_same_kind() -> None:
    original = proto.to_proto(network())
    content = original.SerializeToString()
    options: dict[str, Any] = {"calibration": images(), "samples": 24}
    first, again, other = (sparsify(original, seed=seed, **options) for seed in (1, 1, 2))
    assert isinstance(first, onnx.ModelProto)
    assert first.SerializeToString() == again.SerializeToString() != other.SerializeToString()
    assert original.SerializeToString() == content


def test_initializers_that_an_old_version_lists_as_inputs() -> None:
    model = proto.to_proto(network())
    model.ir_version = 3
    model.opset_import[0].version = 9
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in model.graph.initializer
    )
    result = sparsify(model, method="magnitude", reconstruct=False)
    assert (onnx.numpy_helper.to_array(next(one for one in result.graph.initializer if one.name == "a")) == 0).any()


# -- reports -----------------------------------------------------------------------------------------------------------


def test_the_report_holds_what_was_measured() -> None:
    before = network()
    result, report = sparsify(before, calibration=images(), with_report=True)
    assert isinstance(report, Report)
    assert report.before is not None
    assert report.after is not None
    for size, model in ((report.before, before), (report.after, result)):
        content = b"".join(proto.to_buffers(model))
        assert size.file == len(content)
        assert size.gzip == pytest.approx(len(gzip.compress(content, 6)), abs=32)
    assert report.after.gzip < 0.75 * report.before.gzip
    assert report.density == 0.5
    layer = report.layers[0]
    assert (layer.elements, layer.bytes, layer.encoded_bytes) == (1152, 4608, 1152 // 8 + 4608 // 2)
    record = json.loads(json.dumps(report.to_dict()))
    assert record["schema"] == "graphopt.sparsity/1"
    assert record["layers"][0]["shape"] == [16, 8, 3, 3]
    assert record["encoded_bytes"] == sum(one.encoded_bytes for one in report.layers)


def test_bitmaps_count_every_bit() -> None:
    assert encoded_bytes(np.array([0, 1, 0, 2, 0, 0, 0, 0, 3], np.float16)) == 2 + 3 * 2
    assert encoded_bytes(np.zeros((0,), np.float32)) == 0


def test_the_report_promises_no_speed() -> None:
    _, report = sparsify(network(), calibration=images(), with_report=True)
    text = io.StringIO()
    Console(file=text, width=110).print(report)
    shown = text.getvalue()
    for part in (
        "2:4 zeros, sparsegpt, refitted",
        "no kernels for sparse weights",
        "50.0% of them not zero",
        "grouped",
    ):
        assert part in shown
    assert "depthwise: it has one channel in each group" in shown
    page = report._repr_html_()
    assert "<table>" in page
    assert "no speed-up is claimed" in page
