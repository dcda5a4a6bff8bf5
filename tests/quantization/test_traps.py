"""Models with a catch: the result must load, be right, and keep the interface, whatever the scheme."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import parse
from quantization.examples import convolutional, images, perceptron, rows, weights

import graphopt
from graphopt import proto, runtime
from graphopt.quantization import SCHEMES

Array = npt.NDArray[Any]
LIMIT = {"static": 5e-3, "dynamic": 5e-3, "weights-int8": 1e-3, "weights-int4": 5e-2}
OPTIONS: dict[str, Any] = {"time": False, "threads": 1, "max_error": 9.0, "with_report": True}


def quantized(model: ir.Model, scheme: str, feeds: dict[str, Array], *, optimize: bool = True) -> Any:
    """Quantizes, checks the result against the original, and returns it with the report."""
    result, report = graphopt.quantize(model, feeds, scheme=scheme, optimize=optimize, **OPTIONS)
    onnx.checker.check_model(proto.to_proto(result))
    assert [value.name for value in result.graph.inputs] == [value.name for value in model.graph.inputs]
    assert [value.name for value in result.graph.outputs] == [value.name for value in model.graph.outputs]
    few = {name: array[:40] for name, array in feeds.items()}
    theirs = runtime.open_session(model, threads=1).run(None, few)
    ours = runtime.open_session(result, threads=1).run(None, few)
    for a, b in zip(theirs, ours, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            error = np.square(a.astype(np.float64) - b).sum() / max(np.square(a - a.mean()).sum(), 1e-9)
            assert error < LIMIT[scheme]
        else:
            assert (a == b).mean() > 0.8
    return result, report


every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
both_ways = pytest.mark.parametrize("optimize", [True, False])


@every_scheme
@both_ways
def test_weight_that_a_branch_reads_too(scheme: str, optimize: bool) -> None:
    model = parse(
        """agraph (float[N,32] x, bool[1] more) => (float[N,32] y) {
            [outer] a = MatMul (x, w)
            [choice] y = If (more) <
                then_branch = yes () => (float[N,32] t) { [inner] t = MatMul (a, w) },
                else_branch = no () => (float[N,32] e) { e = Identity (a) }
            >
        }""",
        weights({"w": (32, 32)}, 0),
    )
    feeds = {"x": rows(), "more": np.ones((96, 1), np.bool_)}
    _, report = graphopt.quantize(
        model, [{"x": feeds["x"], "more": np.ones(1, np.bool_)}], scheme=scheme, optimize=optimize, **OPTIONS
    )
    assert {layer.name: layer.quantized for layer in report.layers} == {"outer": True, "inner": False}


@every_scheme
def test_weight_that_an_input_may_replace(scheme: str) -> None:
    model = parse(
        "agraph (float[N,32] x, float[32,48] w1) => (float[N,8] y) { [a] h = MatMul (x, w1)  [b] y = MatMul (h, w2) }",
        weights({"w1": (32, 48), "w2": (48, 8)}, 0),
    )
    _, report = quantized(model, scheme, {"x": rows()})
    assert {layer.name: layer.quantized for layer in report.layers} == {"b": True, "a": False}


@every_scheme
@both_ways
def test_odd_names(scheme: str, optimize: bool) -> None:
    message = proto.to_proto(perceptron())
    strange = {name: f'{number}@{name} "ü/:;*?[0]\t#@' for number, name in enumerate(["a", "c", "w1", "b2", "w3", "d"])}
    for node in message.graph.node:
        node.name = "" if node.op_type == "MatMul" else f'{node.name}@ "ü:"'
        node.input[:] = [strange.get(name, name) for name in node.input]
        node.output[:] = [strange.get(name, name) for name in node.output]
    for tensor in message.graph.initializer:
        tensor.name = strange.get(tensor.name, tensor.name)
    _, report = quantized(proto.from_proto(message), scheme, {"x": rows()}, optimize=optimize)
    assert sum(layer.quantized for layer in report.layers) == 3
    assert len({layer.name for layer in report.layers}) == 3


@every_scheme
def test_names_that_quantization_would_give(scheme: str) -> None:
    message = proto.to_proto(perceptron())
    taken = iter(["x_QuantizeLinear_Output", "c_QuantizeLinear_Output", "c_scale", "w1_quantized", "x_zero_point"])
    for place in range(5):
        message.graph.node.add(op_type="Relu", input=["x"], output=[next(taken)], name=f"extra{place}")
        message.graph.output.add(name=message.graph.node[-1].output[0]).type.CopyFrom(message.graph.input[0].type)
    quantized(proto.from_proto(message), scheme, {"x": rows()})


@every_scheme
@both_ways
def test_weights_of_constant_nodes(scheme: str, optimize: bool) -> None:
    message = proto.to_proto(perceptron())
    nodes = [onnx.helper.make_node("Constant", [], [one.name], value=one) for one in message.graph.initializer]
    del message.graph.initializer[:]
    rest = list(message.graph.node)
    del message.graph.node[:]
    message.graph.node.extend([*nodes, *rest])
    _, report = quantized(proto.from_proto(message), scheme, {"x": rows()}, optimize=optimize)
    assert all(layer.quantized for layer in report.layers)
    assert report.after.bytes < 0.5 * report.before.bytes


@every_scheme
@both_ways
def test_shared_weight_and_bias(scheme: str, optimize: bool) -> None:
    model = parse(
        """agraph (float[N,32] x) => (float[N,32] y) {
            [one] a = Gemm (x, w, b)
            [act] c = Tanh (a)
            [two] d = Gemm <alpha = 0.5, beta = 2.0> (c, w, b)
            [three] e = Gemm <transB = 1> (d, w, b)
            y = Sub (e, d)
        }""",
        weights({"w": (32, 32), "b": (32,)}, 0),
    )
    _, report = quantized(model, scheme, {"x": rows()}, optimize=optimize)
    assert sum(layer.quantized for layer in report.layers) == 3


@every_scheme
@pytest.mark.parametrize("bias", ["row", "matrix", "scalar", "computed", "none"])
def test_biases_of_gemm(scheme: str, bias: str) -> None:
    shape = {"row": (1, 24), "matrix": (96, 24), "scalar": (1,)}.get(bias)
    more = "" if bias == "none" else ", b"
    computed = "b = ReduceMean <keepdims = 1> (x)" if bias == "computed" else ""
    model = parse(
        f"agraph (float[N,32] x) => (float[N,24] y) {{ {computed} [g] y = Gemm <beta = 0.5> (x, w{more}) }}",
        weights({"w": (32, 24)} | ({"b": shape} if shape is not None else {}), 0),
    )
    if bias != "matrix":
        quantized(model, scheme, {"x": rows()}, optimize=False)
        return
    result, report = graphopt.quantize(model, [{"x": rows()}], scheme=scheme, optimize=False, **OPTIONS)
    onnx.checker.check_model(proto.to_proto(result))
    assert max(report.fidelity.error.values()) < LIMIT[scheme]


@every_scheme
@both_ways
def test_outputs_that_are_inner_values(scheme: str, optimize: bool) -> None:
    message = proto.to_proto(convolutional())
    for node in message.graph.node:
        if node.op_type in ("Relu", "Add", "MaxPool", "Conv"):
            shape: list[str | int | None] = ["N", 16, "height", "width"]
            message.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape))
    quantized(proto.from_proto(message), scheme, {"x": images()}, optimize=optimize)


@both_ways
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (0.25, 2.0), (-3.0, -0.5)])
def test_clips(low: float, high: float, optimize: bool) -> None:
    model = parse(
        """agraph (float[N,3,12,12] x) => (float[N,8,12,12] y) {
            [one] a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k1)
            b = Clip (a, low, high)
            [two] y = Conv <kernel_shape = [1, 1]> (b, k2)
        }""",
        weights({"k1": (8, 3, 3, 3), "k2": (8, 8, 1, 1)}, 0)
        | {"low": np.array(low, np.float32), "high": np.array(high, np.float32)},
    )
    quantized(model, "static", {"x": images()}, optimize=optimize)


@every_scheme
def test_dead_channels_and_activations(scheme: str) -> None:
    first = np.array(weights({"w": (32, 48)}, 3)["w"])
    first[:, :10] = 0
    bias = np.zeros(48, np.float32)
    model = perceptron(w1=first, b1=bias, w3=np.zeros((40, 8), np.float32))
    result, report = graphopt.quantize(model, {"x": rows()}, scheme=scheme, optimize=False, **OPTIONS)
    (found,) = runtime.open_session(result, threads=1).run(None, {"x": rows()})
    assert abs(found).max() < 1e-9
    assert report.error < 1e-3
    silent = perceptron(b1=np.full(48, -1e4, np.float32))
    quantized(silent, scheme, {"x": rows()}, optimize=False)


@every_scheme
def test_biases_beyond_32_bits(scheme: str) -> None:
    """A bias that is huge beside the products."""
    model = perceptron(b2=np.linspace(-1e6, 1e6, 40, dtype=np.float32), w1=perceptron_weight() * np.float32(1e-3))
    quantized(model, scheme, {"x": rows()})


def perceptron_weight() -> Array:
    value = perceptron().graph.initializers["w1"].const_value
    assert value is not None
    return np.array(value.numpy())


@every_scheme
def test_fixed_batch_and_other_ranks(scheme: str) -> None:
    model = parse(
        """agraph (float[4,10,32] x) => (float[4,10,8] y, int64[4,10] z) {
            [three] a = MatMul (x, w1)
            b = Tanh (a)
            [four] y = MatMul (b, w2)
            z = ArgMax <axis = 2, keepdims = 0> (y)
        }""",
        weights({"w1": (32, 48), "w2": (48, 8)}, 0),
    )
    x = np.random.default_rng(0).standard_normal((64, 10, 32)).astype(np.float32)
    result, report = graphopt.quantize(model, {"x": x}, scheme=scheme, **OPTIONS)
    onnx.checker.check_model(proto.to_proto(result))
    assert all(layer.quantized for layer in report.layers)
    assert report.fidelity.error["y"] < LIMIT[scheme]


def test_one_dimensional_convolutions() -> None:
    model = parse(
        """agraph (float[N,4,50] x) => (float[N,6] y) {
            [one] a = Conv <kernel_shape = [5], strides = [2]> (x, k1)
            b = LeakyRelu (a)
            [two] c = ConvTranspose <kernel_shape = [4], strides = [2], group = 2> (b, k2)
            [three] d = Conv <kernel_shape = [3], dilations = [2]> (c, k3)
            y = ReduceMean <axes = [2], keepdims = 0> (d)
        }""".replace("agraph", '<ir_version: 8, opset_import: ["" : 13]> agraph'),
        weights({"k1": (8, 4, 5), "k2": (8, 3, 4), "k3": (6, 6, 3)}, 0),
    )
    x = np.random.default_rng(0).standard_normal((96, 4, 50)).astype(np.float32)
    _, report = quantized(model, "static", {"x": x})
    assert all(layer.quantized for layer in report.layers)


@every_scheme
def test_embeddings(scheme: str) -> None:
    model = parse(
        """agraph (int64[N,7] ids) => (float[N,8] y) {
            [words] a = Gather (table, ids)
            [mean] b = ReduceMean <keepdims = 0> (a, axes)
            [head] y = MatMul (b, w)
        }""",
        weights({"table": (200, 32), "w": (32, 8)}, 0) | {"axes": np.array([1])},
    )
    ids = np.random.default_rng(0).integers(0, 200, (96, 7))
    _, report = quantized(model, scheme, {"ids": ids})
    assert {layer.name: layer.quantized for layer in report.layers} == {"words": True, "head": True}
    assert report.after.bytes < 0.4 * report.before.bytes
    tied = parse(
        """agraph (int64[N] ids) => (float[N,200] y, float[N,32] z) {
            [words] z = Gather (table, ids)
            [head] y = Gemm <transB = 1> (z, table)
        }""",
        weights({"table": (200, 32)}, 0),
    )
    _, report = quantized(tied, scheme, {"ids": ids[:, 0]})
    assert {layer.name: layer.reason for layer in report.layers if not layer.quantized} == {
        "words": "other operators read its table, too"
    }
    assert next(layer for layer in report.layers if layer.name == "head").quantized


@every_scheme
def test_tails_that_give_maps(scheme: str) -> None:
    """What classical classifiers end in; it is put back at save."""
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
        agraph (float[N,32] x) => (float[N,8] p) {
            [head] s = Gemm (x, w, b)
            p = Softmax (s)
        }"""
    message = proto.to_proto(parse(text, weights({"w": (32, 8), "b": (8,)}, 0)))
    labels = list(range(8))
    message.graph.node.append(
        onnx.helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=labels)
    )
    kind = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(1, []))
    output = message.graph.output[0]
    output.name = "maps"
    output.type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    model = proto.from_proto(message)
    result = graphopt.quantize(model, {"x": rows()}, scheme=scheme, max_error=0.1, time=False, threads=1)
    again = proto.to_proto(result)
    assert [node.op_type for node in again.graph.node][-1] == "ZipMap"
    (found,) = runtime.open_session(again.SerializeToString(), threads=1).run(None, {"x": rows(4)})
    (expected,) = runtime.open_session(message.SerializeToString(), threads=1).run(None, {"x": rows(4)})
    assert max(abs(found[0][label] - expected[0][label]) for label in labels) < 0.05
