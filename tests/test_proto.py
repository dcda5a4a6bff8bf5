"""What goes through ``onnx_ir`` and back is what came; what is no valid model is a ModelError."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from harness import calls
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases

from graphopt import proto
from graphopt.errors import ModelError
from graphopt.proto import constructors, objects, wire
from graphopt.proto.tensors import BufferTensor

MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.onnx"))


def canonical(model: onnx.ModelProto) -> bytes:
    """The bytes without what says nothing: order of attributes, fields at their default, redundant value_info."""
    model = copy.deepcopy(model)
    clear_defaults(model, "doc_string", "producer_name", "producer_version", "domain", "model_version")
    for opset in model.opset_import:
        clear_defaults(opset, "domain")
    canonical_graph(model.graph)
    for function in model.functions:
        canonical_nodes(function.node)
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded


def canonical_graph(graph: onnx.GraphProto) -> None:
    clear_defaults(graph, "doc_string")
    canonical_nodes(graph.node)
    for tensor in graph.initializer:
        clear_defaults(tensor, "data_location", "doc_string")
    described = {tensor.name for tensor in graph.initializer} | {info.name for info in graph.output}
    replace(graph.value_info, sorted((i for i in graph.value_info if i.name not in described), key=lambda i: i.name))


def canonical_nodes(nodes: Any) -> None:
    for node in nodes:
        clear_defaults(node, "doc_string", "name", "domain", "overload")
        while node.output and not node.output[-1]:
            node.output.pop()
        for attribute in node.attribute:
            clear_defaults(attribute, "doc_string")
            if attribute.HasField("t"):
                clear_defaults(attribute.t, "data_location", "doc_string")
            if attribute.HasField("g"):
                canonical_graph(attribute.g)
        replace(node.attribute, sorted(node.attribute, key=lambda a: a.name))


def clear_defaults(message: Any, *fields: str) -> None:
    for field in fields:
        if not getattr(message, field):
            message.ClearField(field)


def replace(container: Any, items: list[Any]) -> None:
    copies = [copy.deepcopy(item) for item in items]
    del container[:]
    container.extend(copies)


def round_trip(model: onnx.ModelProto) -> onnx.ModelProto:
    return proto.to_proto(proto.from_proto(model))


def model_of(nodes: list[onnx.NodeProto], **graph: Any) -> onnx.ModelProto:
    """A model x -> y; ``graph`` overrides inputs, outputs and initializer."""
    fields: dict[str, Any] = {"inputs": [value("x")], "outputs": [value("y")], "initializer": []} | graph
    made = helper.make_graph(nodes, "g", fields.pop("inputs"), fields.pop("outputs"), fields.pop("initializer"))
    for name, items in fields.items():
        getattr(made, name).extend(items)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def value(name: str, shape: tuple[int | str, ...] = (2, 3), dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def relu(source: str = "x", target: str = "y", name: str = "n") -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name=name)


# Round trips


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_survive(path: Path) -> None:
    original = onnx.load(path)
    assert canonical(proto.to_proto(proto.from_bytes(path.read_bytes()))) == canonical(original)


def test_backend_node_cases_survive() -> None:
    with np.errstate(all="ignore"):
        cases = {case.name: case.model for case in collect_testcases(None) if case.model is not None}
    assert len(cases) > 1500
    sample = list(cases.items())[::5]
    assert [name for name, model in sample if canonical(round_trip(model)) != canonical(model)] == []


@pytest.mark.parametrize("path", MODELS[:6], ids=lambda path: path.stem)
def test_objects_equal_those_of_onnx_ir(path: Path) -> None:
    if path.stem == "logreg_iris":
        pytest.skip("onnx_ir cannot hold it")
    assert describe(proto.from_bytes(path.read_bytes())) == describe(ir.load(path))


def describe(model: ir.Model) -> list[Any]:
    """Everything that passes look at, in order."""
    seen: list[Any] = [dict(model.opset_imports), model.ir_version, model.producer_name]
    for graph in model.graphs():
        seen += [graph.name, len(graph), [v.name for v in graph.inputs], [v.name for v in graph.outputs]]
        for item in graph.initializers.values():
            tensor = item.const_value
            assert tensor is not None
            seen.append((item.name, item.shape, item.type, tensor.dtype, tensor.shape, tensor.tobytes()))
            seen.append((item.is_initializer(), item.is_graph_input(), len(item.uses()), item.graph is graph))
        for node in graph:
            assert node.graph is graph
            seen.append((node.name, node.op_type, node.domain, node.overload, node.doc_string))
            seen.append([v and v.name for v in node.inputs])
            for output in node.outputs:
                assert output.producer() is node
                uses = [(use.node.name, use.idx) for use in output.uses()]
                seen.append((output.name, output.shape, output.type, output.index(), uses, output.is_graph_output()))
            for attribute in node.attributes.values():
                content = attribute.value
                if attribute.type == ir.AttributeType.TENSOR:
                    content = content.tobytes()
                elif attribute.type == ir.AttributeType.GRAPH:
                    content = None
                seen.append((attribute.name, attribute.type, content))
    return seen


def test_constructors_build_the_same_as_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert objects.KNOWN_LAYOUT, "this onnx_ir lays its objects out anew: look at graphopt/proto/objects.py"
    data = next(path for path in MODELS if path.stem == "light_squeezenet").read_bytes()
    fast = describe(proto.from_bytes(data))
    for name in constructors.__all__:
        monkeypatch.setattr(objects, name, getattr(constructors, name))
    monkeypatch.setattr("graphopt.proto.decode._attr", constructors.attr)
    assert describe(proto.from_bytes(data)) == fast


@pytest.mark.parametrize("dtype", sorted(set(map(int, ir.DataType)) - {0, 8}), ids=lambda n: ir.DataType(n).name)
def test_every_element_type_survives(dtype: int) -> None:
    bits = ir.DataType(dtype).bitwidth
    raw = np.arange(1, 1 + 32 * bits // 8, dtype=np.uint8).tobytes()
    if bits == 6:
        raw = bytes(24)
    tensor = TensorProto(name="w", data_type=dtype, dims=[4, 8], raw_data=raw)
    model = model_of([relu()], initializer=[tensor])
    loaded = proto.from_proto(model)
    held = loaded.graph.initializers["w"].const_value
    assert held is not None
    assert held.dtype == dtype
    assert held.tobytes() == raw
    assert held.numpy().shape == (4, 8)
    assert held.numpy().tobytes() == ir.serde.TensorProtoTensor(tensor).numpy().tobytes()
    assert proto.to_proto(loaded).graph.initializer[0] == tensor


def test_typed_fields_survive_as_they_are() -> None:
    tensors = [
        TensorProto(name="f", data_type=TensorProto.FLOAT, dims=[2], float_data=[1, 2]),
        TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[1000], float_data=range(1000)),
        TensorProto(name="d", data_type=TensorProto.DOUBLE, dims=[400], double_data=range(400)),
        TensorProto(name="c", data_type=TensorProto.COMPLEX64, dims=[1], float_data=[1, 2]),
        TensorProto(name="i", data_type=TensorProto.INT64, dims=[], int64_data=[7]),
        TensorProto(name="h", data_type=TensorProto.FLOAT16, dims=[2], int32_data=[1, 2]),
        TensorProto(name="n", data_type=TensorProto.INT4, dims=[3], int32_data=[1, 2]),
        TensorProto(name="u", data_type=TensorProto.UINT32, dims=[1], uint64_data=[9]),
        TensorProto(name="s", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"\xff"]),
        TensorProto(name="e", data_type=TensorProto.FLOAT, dims=[0, 3]),
    ]
    model = model_of([relu()], initializer=tensors)
    loaded = proto.from_proto(model)
    assert list(proto.to_proto(loaded).graph.initializer) == tensors
    big = loaded.graph.initializers["big"].const_value
    assert big is not None
    np.testing.assert_array_equal(big.numpy(), np.arange(1000, dtype=np.float32))


def test_everything_rare_survives() -> None:
    model = rare_model()
    assert canonical(round_trip(model)) == canonical(model)


def rare_model() -> onnx.ModelProto:
    """Functions, references, metadata, sparse, optional and sequence types, annotations, training, devices."""
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sp", TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("", TensorProto.INT64, [2], [0, 3]),
        [2, 3],
    )
    nodes = [
        helper.make_node("Thing", ["x"], ["t"], name="call", domain="local", alpha=0.5),
        helper.make_node("Add", ["t", "sp"], ["y"], name="add", doc_string="why"),
        helper.make_node("SequenceEmpty", [], ["seq"], name="seq", dtype=TensorProto.FLOAT),
        helper.make_node("Optional", ["x"], ["opt"], name="opt", type=value("", ("N",)).type),
        helper.make_node("Constant", [], ["c"], name="strings", value_strings=["a", "ä"]),
        helper.make_node("Constant", [], ["k"], name="sparse", sparse_value=sparse),
        helper.make_node(
            "Custom", ["x", "", "k"], ["", "z"], domain="my.ops", blob=b"\xff\x00", fs=[1.5, float("inf")]
        ),
    ]
    outputs = [
        value("y", ("N", "M + 1")),
        helper.make_tensor_sequence_value_info("seq", TensorProto.FLOAT, [None, 3]),
        helper.make_value_info("opt", helper.make_optional_type_proto(value("", ("N",)).type)),
    ]
    model = model_of(nodes, inputs=[value("x", ("N", 3))], outputs=outputs, value_info=[value("t", (2, 3))])
    graph = model.graph
    graph.sparse_initializer.append(sparse)
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.input[0].type.denotation = "TENSOR"
    graph.input[0].doc_string = "the input"
    for holder in (model, graph, graph.node[1], graph.value_info[0]):
        holder.metadata_props.add(key="k", value="v")
    annotation = graph.quantization_annotation.add(tensor_name="t")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="sp")
    body = [helper.make_node("Elu", ["a"], ["b"], name="inner")]
    body[0].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha")
    function = helper.make_function(
        "local", "Thing", ["a"], ["b"], body, [helper.make_opsetid("", 18)], [], [helper.make_attribute("alpha", 1.0)]
    )
    function.attribute.append("plain")
    function.value_info.append(value("b"))
    function.doc_string = "a function"
    function.metadata_props.add(key="k", value="v")
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.ir_version = 11
    model.training_info.add().algorithm.name = "sgd"
    model.configuration.add(name="two", num_devices=2, device=["a", "b"])
    model.graph.node[1].device_configurations.add(configuration_id="two", pipeline_stage=1)
    return model


def test_fields_of_a_newer_onnx_survive() -> None:
    """Unknown fields of the model, a graph, node, attribute, tensor and value come back where they were."""
    model = model_of([helper.make_node("Elu", ["x"], ["y"], alpha=2.0)])
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[1], raw_data=bytes(4)))
    future = wire.varint(900 << 3 | 2) + wire.varint(15) + b"from the future"
    graph = model.graph
    for message in (graph.node[0].attribute[0], graph.node[0], graph.initializer[0], graph.input[0], graph, model):
        message.MergeFromString(future)
    assert model.SerializeToString().count(b"from the future") == 6
    again = round_trip(model)
    assert again == model
    assert again.SerializeToString().count(b"from the future") == 6


def test_ir_3_keeps_initializers_among_the_inputs() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], range(6))
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])], inputs=[value("x"), value("w")], initializer=[weight]
    )
    model.ir_version = 3
    loaded = proto.from_proto(model)
    assert [v.name for v in loaded.graph.inputs] == ["x", "w"]
    assert loaded.graph.inputs[1].is_initializer()
    assert canonical(proto.to_proto(loaded)) == canonical(model)


def test_no_nodes_and_a_newer_opset() -> None:
    model = model_of([], inputs=[value("x")], outputs=[value("x")])
    model.opset_import[0].version = 9999
    assert canonical(round_trip(model)) == canonical(model)


def test_types_are_not_shared_between_values() -> None:
    """Assigning a dtype changes the type in place: it must not reach other values."""
    model = model_of([relu("x", "a", "n1"), relu("a", "y", "n2")], value_info=[value("a")])
    loaded = proto.from_proto(model)
    loaded.graph.inputs[0].dtype = ir.DataType.DOUBLE
    assert [v.dtype for node in loaded.graph for v in node.outputs] == [ir.DataType.FLOAT] * 2


def test_the_message_is_neither_changed_nor_kept() -> None:
    model = rare_model()
    before = model.SerializeToString(deterministic=True)
    loaded = proto.from_proto(model)
    for node in loaded.graph:
        node.name = f"renamed_{node.name}"
    assert model.SerializeToString(deterministic=True) == before
    model.graph.node[0].name = "changed"
    assert loaded.graph.node(0).name == "renamed_call"


def test_garbage_collection_is_as_before() -> None:
    model = model_of([relu()])
    gc.disable()
    try:
        proto.to_proto(proto.from_proto(model))
        assert not gc.isenabled()
    finally:
        gc.enable()
    proto.to_proto(proto.from_proto(model))
    assert gc.isenabled()


def test_a_tensor_tied_to_two_names_keeps_both() -> None:
    weight = TensorProto(name="w", data_type=TensorProto.INT64, dims=[2], int64_data=[1, 2])
    loaded = proto.from_proto(model_of([relu()], initializer=[weight]))
    tied = ir.Value(name="v", const_value=loaded.graph.initializers["w"].const_value)
    loaded.graph.initializers.add(tied)
    assert [tensor.name for tensor in proto.to_proto(loaded).graph.initializer] == ["w", "v"]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.float16, np.uint8])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (40, 50)])
def test_new_tensors_are_written(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    loaded = proto.from_proto(model_of([relu()]))
    loaded.graph.initializers.add(ir.Value(name="w", const_value=ir.tensor(array)))
    loaded.graph.initializers.add(ir.Value(name="t", const_value=ir.tensor(np.asfortranarray(array.T))))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.to_proto(loaded).graph.initializer}
    assert tensors["w"].dtype == dtype
    np.testing.assert_array_equal(tensors["w"], array)
    np.testing.assert_array_equal(tensors["t"], array.T)


# Order


def test_unsorted_nodes_are_sorted() -> None:
    inner = helper.make_graph([relu("late", "out", "inner")], "then", [], [value("out")])
    nodes = [
        relu("b", "y", "last"),
        helper.make_node("If", ["c"], ["b"], name="if", then_branch=inner, else_branch=inner),
        relu("x", "late", "first"),
        helper.make_node("Constant", [], ["c"], name="const", value=helper.make_tensor("", TensorProto.BOOL, [], [1])),
    ]
    loaded = proto.from_proto(model_of(nodes))
    assert [node.name for node in loaded.graph] == ["first", "const", "if", "last"]
    branch = loaded.graph.node("if").attributes["then_branch"].as_graph()
    assert branch.node(0).inputs[0] is loaded.graph.node("first").outputs[0]


def test_sorted_nodes_keep_their_order() -> None:
    nodes = [relu("x", f"v{i}", f"n{i}") for i in range(9)]
    model = model_of([*nodes, relu("v0", "y")])
    assert [node.name for node in proto.from_proto(model).graph] == [node.name for node in model.graph.node]


# What must be refused


def test_cycle_names_a_node_on_it() -> None:
    nodes = [relu("y", "z", "after"), relu("b", "a", "one"), relu("a", "b", "two"), relu("b", "y", "exit")]
    with pytest.raises(ModelError, match=r"cycle through node '(one|two)'"):
        proto.from_proto(model_of(nodes))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (model_of([relu("nope")]), "node 'n' .Relu. uses 'nope'"),
        (model_of([relu(), relu("x", "y", "again")]), "'y' is defined twice.*node 'again'"),
        (model_of([relu("x", "x")]), "'x' is defined twice"),
        (model_of([relu()], outputs=[value("q")]), "output 'q'.*produced by nothing"),
        (model_of([relu()], inputs=[value("x"), value("x")]), "'x' is defined twice"),
        (model_of([relu()], initializer=[helper.make_tensor("w", 1, [1], [1.0])] * 2), "initializers of the same name"),
        (model_of([relu()], initializer=[TensorProto(name="w", data_type=1, dims=[-1])]), "'w'.*negative"),
        (
            model_of([relu()], initializer=[TensorProto(name="w", data_type=1, dims=[1 << 40] * 3, raw_data=b"1234")]),
            "'w'.*needs",
        ),
        (
            model_of([relu()], initializer=[TensorProto(name="w", data_type=1, dims=[3], float_data=[1])]),
            "'w'.*needs 3",
        ),
        (model_of([relu()], initializer=[TensorProto(name="w", data_type=1, dims=[3])]), "'w'.*needs 3.*has 0"),
        (model_of([relu()], initializer=[TensorProto(name="w", data_type=99, dims=[1], raw_data=b"1")]), "'w'.*type"),
        (
            model_of(
                [relu()], initializer=[TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)]
            ),
            "'w'.*folder",
        ),
        (model_of([relu()], inputs=[value("x", dtype=77)]), "77"),
        (model_of([onnx.NodeProto(op_type="A", attribute=[onnx.AttributeProto(name="odd")])]), "'odd'.*no known type"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_invalid_models_are_refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        proto.from_proto(model)


def test_typed_data_for_another_type_are_refused() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.INT64, dims=[500], float_data=range(1000))
    with pytest.raises(ModelError, match="'w'"):
        proto.from_proto(model_of([relu()], initializer=[tensor]))


def test_names_that_are_no_text_are_refused() -> None:
    data = model_of([relu("x", "y", "NAME")]).SerializeToString().replace(b"NAME", b"\xff\xfe\xfd\xfc")
    with pytest.raises(ModelError, match="UTF-8"):
        proto.from_bytes(data)


@pytest.mark.parametrize("depth", [20, 40, 5000])
def test_deep_nesting_is_refused(depth: int) -> None:
    graph = relu().SerializeToString()
    for _ in range(depth):
        attribute = wire.text(1, "then_branch") + wire.number(20, 5) + wire.record(6, wire.record(1, graph))
        graph = wire.text(1, "c") + wire.text(4, "If") + wire.record(5, attribute)
    with pytest.raises(ModelError):
        proto.from_bytes(wire.number(1, 8) + wire.record(7, wire.record(1, graph)))


@pytest.mark.parametrize("path", [p for p in MODELS if p.stat().st_size < 300_000], ids=lambda path: path.stem)
def test_truncated_and_mutated_bytes_never_escape(path: Path) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(data), 15):
        with pytest.raises(ModelError):
            proto.from_bytes(data[:cut])
    for _ in range(15):
        mutated = bytearray(data)
        for at in rng.integers(0, len(data), 5):
            mutated[at] = rng.integers(256)
        try:
            proto.to_buffers(proto.from_bytes(bytes(mutated)))
        except ModelError:
            continue


# Maps


def zipmap_model() -> onnx.ModelProto:
    """x -> Relu -> scores -> ZipMap -> maps; and Relu -> y."""
    classes = helper.make_node(
        "ZipMap", ["scores"], ["maps"], name="zip", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
    )
    maps = onnx.ValueInfoProto(name="maps")
    kind = maps.type.sequence_type.elem_type.map_type
    kind.key_type = TensorProto.INT64
    kind.value_type.tensor_type.elem_type = TensorProto.FLOAT
    model = model_of([relu("x", "scores"), classes, relu("scores", "y", "n2")], outputs=[maps, value("y")])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return model


def test_zipmap_tail_comes_back() -> None:
    model = zipmap_model()
    loaded = proto.from_proto(model)
    assert [v.name for v in loaded.graph.outputs] == ["y", "scores"]
    assert [node.op_type for node in loaded.graph] == ["Relu", "Relu"]
    again = proto.to_proto(loaded)
    assert sorted(node.name for node in again.graph.node) == ["n", "n2", "zip"]
    assert list(again.graph.output) == list(model.graph.output)
    onnx.checker.check_model(again)
    assert onnx.ModelProto.FromString(proto.to_session_bytes(loaded)[0]) == again


def test_zipmap_tail_without_its_feed_is_an_error() -> None:
    loaded = proto.from_proto(zipmap_model())
    loaded.graph.outputs.pop()
    with pytest.raises(ModelError, match="scores"):
        proto.to_proto(loaded)


def test_a_new_value_must_not_take_a_name_of_the_tail() -> None:
    loaded = proto.from_proto(zipmap_model())
    loaded.graph.append(ir.node("Relu", [loaded.graph.inputs[0]], outputs=[ir.Value(name="maps")]))
    with pytest.raises(ModelError, match="maps"):
        proto.to_proto(loaded)


def test_map_inputs_are_refused() -> None:
    model = zipmap_model()
    model.graph.input.append(model.graph.output[0])
    model.graph.input[-1].name = "dictionary"
    with pytest.raises(ModelError, match=r"dictionary.*map"):
        proto.from_proto(model)


# Sessions


def test_session_bytes_leave_big_weights_where_they_are() -> None:
    big = helper.make_tensor("big", TensorProto.FLOAT, [512, 1024], bytes(4 << 19), raw=True)
    small = helper.make_tensor("small", TensorProto.FLOAT, [8], range(8))
    model = model_of([relu()], initializer=[big, small])
    for padding in range(4):  # somewhere among these the data are aligned
        model.producer_name = "x" * padding
        loaded = proto.from_proto(model)
        held = loaded.graph.initializers["big"].const_value
        assert isinstance(held, BufferTensor)
        data, arrays = proto.to_session_bytes(loaded)
        assert list(arrays) == ["big"]
        assert arrays["big"].flags.aligned
        assert np.shares_memory(arrays["big"], held.numpy()) == held.numpy().flags.aligned
        if held.numpy().flags.aligned:
            break
    else:
        pytest.fail("never aligned")
    assert len(data) < 1000
    written = onnx.ModelProto.FromString(data).graph.initializer
    assert [tensor.data_location for tensor in written] == [TensorProto.EXTERNAL, TensorProto.DEFAULT]


# Speed


def test_work_is_linear() -> None:
    """Ten times the nodes take about ten times the calls, where a quadratic step would take a hundred times."""

    def work(count: int) -> int:
        nodes = [relu(f"v{i}" if i else "x", f"v{i + 1}", f"n{i}") for i in range(count)]
        data = model_of([*nodes, relu(f"v{count}", "y")]).SerializeToString()
        return calls(lambda: proto.to_buffers(proto.from_bytes(data)))

    assert work(10_000) < 12 * work(1_000)
