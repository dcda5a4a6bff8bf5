"""What is dead in every architecture of the zoo once zeros have pruned it; masks from files; what the search costs."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import apply, calls, parse
from zoo.architecture import export
from zoo.catalogue import CASES, Case
from zoo.checks import distance, feeds, parameters, run

import graphopt
from graphopt import channels, collector, proto
from graphopt.analysis import constants
from graphopt.channels import ChannelGraph, Unit, linker
from graphopt.channels.liveness import dead as liveness
from graphopt.channels.liveness import uniform
from graphopt.channels.records import Place
from graphopt.channels.slicing import constants_of
from graphopt.channels.tensors import MaskedTensor
from graphopt.cli.main import main
from graphopt.errors import ExitCode, ModelError

NAME = "remove-dead-channels"
_QUICK = {
    "attention-op", "c2f", "conv-chain", "densenet", "gru-stacked", "llama", "lstm-bidirectional", "matmul-integer",
    "mobilenet-v2", "qlinear-conv", "resnet-basic", "resnext", "se-conv", "shared-conv", "shufflenet-v2", "t5",
    "unet-transpose", "vgg", "vit-fused-3hd", "weight-norm",
}  # fmt: skip
_PROVEN = {"llama", "lstm", "mobilenet-v2", "resnet-basic", "t5", "vit-separate"}
"""What the quick suite looks at; the others are for the long one."""


def _cases(quick: Collection[str] = _QUICK) -> list[object]:
    return [
        pytest.param(
            case,
            id=str(case),
            marks=[] if case.architecture.name in quick and case.exporter != "dynamo" else [pytest.mark.slow],
        )
        for case in CASES
    ]


def _every_second(graph: ChannelGraph) -> list[Unit]:
    """Of each group without statistics, leaving one in each segment."""
    return _but_one(graph, {unit.index for group in graph.groups for unit in group.units[1::2]})


def _but_one(graph: ChannelGraph, wanted: set[int]) -> list[Unit]:
    """Those of the wanted units that are of groups without statistics, leaving one in each segment."""
    chosen: list[Unit] = []
    for group in graph.groups:
        needed = [set(segment) for segment in group.segments]
        for unit in group.units if group.exact else []:
            if unit.index in wanted and all(segment != {unit.index} for segment in needed):
                for segment in needed:
                    segment.discard(unit.index)
                chosen.append(unit)
    return chosen


@pytest.mark.parametrize("case", _cases())
def test_zeroed_channels_go(case: Case) -> None:
    """All that zeros have pruned, for the same parameters as if it had been removed, with the same result."""
    model = export(case.architecture, case.exporter)
    graph = channels.analyze(model)
    units = _every_second(graph)
    masked: onnx.ModelProto = channels.mask(graph, units)
    removed, stats, _ = apply(proto.from_proto(masked), "deduplicate-initializers", NAME)
    result = proto.to_proto(removed)
    assert stats.counts[NAME] >= (0 if proto.from_proto(masked).functions else len(units))
    assert parameters(result) <= parameters(channels.remove(graph, units, check=False))
    inputs = feeds(model)
    assert distance(run(result, inputs), run(masked, inputs)) <= 1e-5


_ALL_OR_NONE = {"gru-linear-before-reset", "if-branches", "lstm-peepholes", "matmul-integer"}
"""Where zeros on one side of a unit do not always suffice."""


@pytest.mark.parametrize("case", _cases())
def test_units_pruned_in_different_ways(case: Case) -> None:
    """Filters alone, with and without their biases, the columns that read them alone, or both."""
    graph = channels.analyze(proto.from_proto(export(case.architecture, case.exporter)))
    if graph.model.functions:
        return
    ways = _zero_at_random(graph, np.random.default_rng(0))
    enough = (2,) if case.architecture.name in _ALL_OR_NONE else (1, 2, 3)
    least = len(_but_one(graph, set(np.flatnonzero(np.isin(ways, enough)).tolist())))
    assert least or not any(group.exact for group in graph.groups)
    masked = proto.to_proto(graph.model)
    result, stats, _ = apply(proto.from_proto(masked), NAME)
    assert stats.counts[NAME] >= least
    inputs = feeds(masked)
    assert distance(run(proto.to_proto(result), inputs), run(masked, inputs)) <= 1e-5


def _zero_at_random(graph: ChannelGraph, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Zeroes some members of units, in the model that was analysed.

    Returns:
        For each unit which: none, those that read it, all, those that give it, or those of them with several axes.
    """
    ways = random.integers(0, 5, len(graph.units))
    sums = graph.linker.sums
    reads = {(total.node, total.factor, total.factor_axis) for total in sums}
    reads |= {(total.node, total.input, total.axis) for total in sums}
    for value, places in constants_of(graph).items():
        tensor = graph.linker.constant(value)
        assert tensor is not None
        array = tensor.numpy().copy()
        for user, index in value.uses():
            place = Place(user, index, value)
            place = place if place in places else Place(None, 0, value)
            if place not in places or place in graph.linker.kept:
                continue
            zeros = np.broadcast_to(_zero(graph, place, array.ndim), array.shape)
            for axis, one in enumerate(places[place]):
                unit = graph.unit_at(graph.atoms(one))
                way = np.where(unit >= 0, ways[unit], 0)
                if (user, index, axis) in reads:
                    dead = (way == 1) | (way == 2)
                else:
                    dead = (way == 2) | (way == 3) | ((way == 4) & (array.ndim > 1))
                if len(dead) == array.shape[axis]:
                    np.moveaxis(array, axis, 0)[dead] = np.moveaxis(zeros, axis, 0)[dead]
        producer = value.producer()
        if producer is None:
            value.const_value = ir.Tensor(array, name=value.name)
        else:
            producer.attributes["value"] = ir.AttrTensor("value", ir.Tensor(array, name=value.name))
    return ways


def _zero(graph: ChannelGraph, place: Place, rank: int) -> npt.NDArray[Any]:
    """What stands for zero in a constant."""
    point = graph.linker.zero_points.get(place)
    tensor = None if point is None or point.value is None else graph.linker.constant(point.value)
    if point is None or tensor is None:
        return np.zeros((), np.int8)
    points = tensor.numpy()
    return points.reshape([-1 if axis == point.axis else 1 for axis in range(rank)]) if points.ndim else points


def test_axis_of_one_lane_that_only_a_product_has() -> None:
    text = """agraph (float[N,4,1] x) => (float[N,4,3] y) { y = Einsum <equation = "abc,acd->abd"> (x, w) }"""
    assert not channels.analyze(parse(text, {"w": np.ones((1, 1, 3), np.float32)})).groups


@pytest.mark.parametrize("case", _cases(_PROVEN))
def test_default_pipeline_shrinks_them_and_proves_it(case: Case) -> None:
    """To what it makes of the model from which the units were removed by name."""
    model = export(case.architecture, case.exporter)
    graph = channels.analyze(model)
    units = _every_second(graph)
    masked = channels.mask(graph, units)
    result, report = graphopt.optimize(masked, with_report=True)
    assert report.status == "proven"
    assert not report.dropped
    inputs = feeds(model)
    assert distance(run(result, inputs), run(masked, inputs)) <= 1e-5
    pruned = graphopt.optimize(channels.remove(graph, units, check=False), validate=False)
    assert parameters(result) <= parameters(pruned)


# -- masks from files


MODEL = """agraph (float[N,3,8,8] x) => (float[N,5,8,8] y) {
    c = Conv <pads = [1,1,1,1]> (x, w1)
    r = Relu (c)
    y = Conv <pads = [1,1,1,1]> (r, w2)
}"""


def _weights() -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (5, 8, 3, 3)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _model() -> ir.Model:
    return parse(MODEL, _weights())


def _shape(model: ir.Model, name: str) -> Sequence[int]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.shape.numpy()


KEEP = np.array([1, 1, 0, 1, 0, 0, 1, 1])


def _saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "mask.npz", **arrays)
    return path / "mask.npz"


@pytest.mark.parametrize("kind", ["channels", "full", "bool", "json"])
def test_mask_from_a_file(kind: str, tmp_path: Path) -> None:
    full = np.broadcast_to(KEEP[:, None, None, None], (8, 3, 3, 3))
    if kind == "json":
        file = tmp_path / "mask.json"
        file.write_text(json.dumps({"w1": [2, 4, 5]}))
    else:
        file = _saved(tmp_path, w1={"channels": KEEP, "full": full.astype(np.float32), "bool": full != 0}[kind])
    model = _model()
    masked = channels.apply_mask(model, file)
    for untouched, zeros in ((model, False), (masked, True)):
        tensor = untouched.graph.initializers["w1"].const_value
        assert tensor is not None
        assert tensor.numpy()[[2, 4, 5]].any() != zeros
        assert tensor.numpy()[KEEP != 0].all()
    result, report = graphopt.optimize(model, mask=file, with_report=True)
    assert report.status == "proven"
    assert f"compared with the model under the mask {file}" in report.notes
    assert (_shape(result, "w1"), _shape(result, "w2")) == ((5, 3, 3, 3), (5, 5, 3, 3))
    inputs = feeds(proto.to_proto(model))
    expected = run(proto.to_proto(masked), inputs)
    assert distance(run(proto.to_proto(result), inputs), expected) <= 1e-6
    assert distance(run(proto.to_proto(model), inputs), expected) > 0.1


def test_mask_keeps_the_kind_of_the_model(tmp_path: Path) -> None:
    file = _saved(tmp_path, w1=KEEP)
    assert isinstance(channels.apply_mask(proto.to_proto(_model()), file), onnx.ModelProto)
    path = tmp_path / "model.onnx"
    graphopt.save(_model(), path)
    assert isinstance(channels.apply_mask(path, file), ir.Model)


READERS = {
    "y = MatMul (x, w)": ([4, 6], 1),
    "y = MatMul (w, t)": ([6, 4], 0),
    "y = MatMul (w, u)": ([2, 6, 4], 1),
    "y = Gemm (x, w)": ([4, 6], 1),
    "y = Gemm <transB = 1> (x, w)": ([6, 4], 0),
    "y = Gemm (x, v, w)": ([1, 6], 1),
    "y = Gemm <transA = 1> (w, v)": ([4, 6], 1),
    "y = Conv (i, w)": ([6, 4, 1, 1], 0),
    "y = ConvTranspose (i, w)": ([4, 6, 1, 1], 1),
    "k = Transpose <perm = [1,0]> (w) y = MatMul (x, k)": ([6, 4], 0),
    "k = Transpose (w) l = Cast <to = 1> (k) y = Gemm <transB = 1> (x, l)": ([4, 6], 1),
    "y = Gather (w, j)": ([9, 6], 1),
    'y = Einsum <equation = "ab,cb->ac"> (x, w)': ([6, 4], 0),
    "k = Conv (i, v4) y = Add (k, w)": ([6, 1, 1], 0),
    "y, h = GRU <hidden_size = 2> (s, w, r)": ([1, 6, 4], 1),
}
"""Nodes that read a weight, with its shape and the axis of its six output channels."""


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("kind", ["npz", "json"])
@pytest.mark.parametrize("nodes", READERS)
def test_channels_are_those_that_the_operator_gives(nodes: str, kind: str, constant: bool, tmp_path: Path) -> None:
    """Both formats mean the same, of initializers and of Constant nodes."""
    shape, axis = READERS[nodes]
    inputs = "float[3,4] x, float[4,3] t, float[2,4,3] u, float[4,6] v, float[1,4,5,5] i, float[6,4,1,1] v4"
    inputs += ", float[3,2,4] s, float[1,6,2] r, int64[3] j"
    weight = np.random.default_rng(0).random(shape, np.float32) + np.float32(0.1)
    model = parse(f"agraph ({inputs}) => (y) {{ {nodes} }}", {"w": weight})
    if constant:
        _as_constant_node(model.graph, "w")
    keep = np.array([1, 1, 0, 1, 1, 0])
    file = tmp_path / "mask.json"
    file.write_text(json.dumps({"w": [2, 5]}))
    masked = channels.apply_mask(model, file if kind == "json" else _saved(tmp_path, w=keep))
    assert np.array_equal(_held(model, "w"), weight)
    along = keep.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    assert np.array_equal(_held(masked, "w"), weight * along)


def _as_constant_node(graph: ir.Graph, name: str) -> None:
    value = graph.initializers.pop(name)
    node = ir.node("Constant", [], {"value": value.const_value})
    node.outputs[0].name = name
    for user, index in value.uses():
        user.replace_input_with(index, node.outputs[0])
    graph.insert_before(graph[0], node)


def _held(model: ir.Model, name: str) -> npt.NDArray[Any]:
    values = {value.name: value for node in model.graph for value in node.inputs if value is not None}
    tensor = constants.constant(values[name])
    assert tensor is not None
    return tensor.numpy()


def test_constant_nodes_under_a_mask_of_elements(tmp_path: Path) -> None:
    model = parse(
        "agraph (float[N,3] x) => (float[N,3] y) { k = Constant <value_floats = [1.0,2.0,3.0]> () y = Add (x, k) }"
    )
    masked = channels.apply_mask(model, _saved(tmp_path, k=np.array([1, 0, 1])))
    np.testing.assert_array_equal(_held(masked, "k"), [1, 0, 3])


def test_masks_of_channels_copy_no_weights(tmp_path: Path) -> None:
    model = _model()
    masked = channels.apply_mask(model, _saved(tmp_path, w1=KEEP))
    assert isinstance(masked.graph.initializers["w1"].const_value, MaskedTensor)


def test_channels_that_no_axis_is_of(tmp_path: Path) -> None:
    text = """agraph (float[N,4] x, int64[2] i) => (float[N,6] y, float[2,4] z) {
        y = Gemm <transB = 1> (x, w)
        z = Gather (w, i)
    }"""
    model = parse(text, {"w": np.ones((6, 4), np.float32)})
    with pytest.raises(ModelError, match="along which axis"):
        channels.apply_mask(model, _saved(tmp_path, w=np.ones(6)))


def test_names_that_several_weights_have(tmp_path: Path) -> None:
    text = """agraph (float[N,4] x, bool t) => (float[N,6] y) {
        y = If (t) <
            then_branch = one () => (float[N,6] o) <float[4,6] w = {%s}> { o = MatMul (x, w) },
            else_branch = two () => (float[N,6] u) <float[4,6] w = {%s}> { u = MatMul (x, w) }
        >
    }""" % ((", ".join(["1.0"] * 24),) * 2)
    with pytest.raises(ModelError, match=r"2 weights .* are called 'w'"):
        channels.apply_mask(parse(text), _saved(tmp_path, w=np.ones(6)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"w9": KEEP}, "the model has no weight 'w9'"),
        ({"w1": KEEP[:7]}, r"has 7 entries, the weight of shape \[8, 3, 3, 3\] 8 channels"),
        ({"w1": np.ones((3, 8, 3, 3))}, r"has the shape \[3, 8, 3, 3\], the weight \[8, 3, 3, 3\]"),
        ({"w1": np.array(["a"] * 8)}, "not made of numbers"),
        ({"w1": np.full(8, np.nan)}, "not made of numbers"),
    ],
)
def test_bad_arrays(entries: dict[str, npt.NDArray[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        channels.apply_mask(_model(), _saved(tmp_path, **entries))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1, 2]", "is no object"),
        ('{"w1": 3}', "is no list of channel numbers"),
        ('{"w1": [1, true]}', "is no list of channel numbers"),
        ('{"w1": [1.0]}', "is no list of channel numbers"),
        ('{"w1": [8]}', "names channel 8, the weight has 8: 0 to 7"),
        ('{"w1": [-1]}', "names channel -1"),
    ],
)
def test_bad_lists(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mask.json"
    file.write_text(text)
    with pytest.raises(ModelError, match=message):
        channels.apply_mask(_model(), file)


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    for name, message in (("none.npz", "cannot be read"), ("none.json", "cannot be read"), ("a.txt", "an .npz or a")):
        with pytest.raises(ModelError, match=message):
            channels.apply_mask(_model(), tmp_path / name)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ModelError, match="cannot be read"):
        channels.apply_mask(_model(), tmp_path / "bad.npz")


def test_only_floats_have_zeros(tmp_path: Path) -> None:
    text = "agraph (float[N,4] x) => (float[2,4] y) { y = Gather (x, i) }"
    model = parse(text, {"i": np.array([0, 1])})
    with pytest.raises(ModelError, match="only floating-point"):
        channels.apply_mask(model, _saved(tmp_path, i=np.array([1, 0])))


def test_mask_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, result = tmp_path / "model.onnx", tmp_path / "out.onnx"
    graphopt.save(_model(), path)
    mask = _saved(tmp_path, w1=KEEP)
    assert main(["optimize", str(path), str(result), "--mask", str(mask)]) == ExitCode.OK
    assert "under the mask" in " ".join(capsys.readouterr().out.split())
    assert _shape(graphopt.load(result), "w1") == (5, 3, 3, 3)
    mask.write_bytes(b"")
    assert main(["optimize", str(path), str(result), "--mask", str(mask)]) == ExitCode.MODEL


# -- what it costs


def test_uniform_slices() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    array[:, 1] = 7
    np.testing.assert_array_equal(uniform.uniform(array, 1), [np.nan, 7, np.nan])
    np.testing.assert_array_equal(uniform.uniform(array[0, 0], 0), [0, 1, 2, 3])
    array[1, 1, 3] = 8
    assert np.isnan(uniform.uniform(array, 1)).all()
    assert np.isnan(uniform.uniform(np.full((3, 2), np.inf, np.float32), 0)).all()


def test_one_element_that_is_not_zero_keeps_a_large_slice() -> None:
    array = np.zeros((2, 3 << 20), np.float32)
    array[1, 2 << 20] = 1
    np.testing.assert_array_equal(uniform.uniform(array, 0), [0, np.nan])


def test_models_without_zeros_are_not_analysed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("analysed")

    monkeypatch.setattr(linker.Linker, "__init__", never)
    apply(_model(), NAME)
    weights = _weights() | {"b": np.zeros(8, np.float32)}  # biases of zero are common
    apply(parse(MODEL.replace("(x, w1)", "(x, w1, b)"), weights), NAME)
    weights["w1"][3] = 0
    with pytest.raises(AssertionError, match="analysed"):
        apply(parse(MODEL, _weights() | {"w1": weights["w1"]}), NAME)


def _deep(layers: int) -> ir.Model:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((4, 4, 1, 1)).astype(np.float32)
    kernel[:, 3] = kernel[3] = 0
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 4, 2, 2]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21}, name="deep")
    current = x
    for layer in range(layers):
        weight = ir.Value(name=f"w{layer}", const_value=ir.tensor(kernel, name=f"w{layer}"))
        weight.shape, weight.type = ir.Shape(kernel.shape), ir.TensorType(ir.DataType.FLOAT)
        graph.register_initializer(weight)
        for op_type, inputs in (("Conv", [current, weight]), ("Relu", [])):
            node = ir.node(op_type, inputs or [current])
            graph.append(node)
            current = node.outputs[0]
            current.name = f"{op_type}{layer}"
    graph.outputs.append(current)
    current.type, current.shape = x.type, x.shape
    return ir.Model(graph, ir_version=10)


def test_work_is_linear_in_the_nodes() -> None:
    """Four times the nodes; were it quadratic, sixteen times the calls."""

    def work(layers: int) -> int:
        model = _deep(layers)
        return calls(lambda: removed.append(liveness.remove_dead(model)))

    removed: list[int] = []
    assert work(1000) < 5 * work(250)
    assert removed == [999, 249]


@pytest.mark.slow
def test_a_hundred_thousand_nodes() -> None:
    model = _deep(50_000)
    with collector.paused():
        start = time.perf_counter()
        assert liveness.remove_dead(model) == 49_999
        assert time.perf_counter() - start < 120
