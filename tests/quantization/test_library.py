"""Talking to ``onnxruntime.quantization``: through messages in memory, without a trace."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from quantization.examples import convolutional, perceptron, weights

from graphopt import proto
from graphopt.analysis import constants
from graphopt.errors import ModelError
from graphopt.interop.messages import whole
from graphopt.quantization import library
from graphopt.quantization.normalizing import normalize

RANGES = dict.fromkeys(("x", "a", "b", "c", "d", "e", "scores"), (-1.0, 1.0))


def test_a_whole_message_is_the_message_of_the_model() -> None:
    model = perceptron()
    large = constants.tensor(np.random.default_rng(0).standard_normal((1 << 19, 1)).astype(np.float32), "w9")
    model.graph.initializers["w3"].const_value = large
    assert large.nbytes > 1 << 20, "beyond what is kept in the serialized model"
    message = whole(model)
    assert message == proto.to_proto(model)
    assert not any(tensor.external_data for tensor in message.graph.initializer)


def test_names_stay() -> None:
    model = convolutional()
    normalize(model)
    names = {name for name in (node.name for node in model.graph) if name}
    ranges = {value.name or "": (-1.0, 1.0) for node in model.graph for value in (*node.inputs, *node.outputs) if value}
    found = library.static(model, names, ranges)
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert [value.name for value in found.graph.outputs] == ["scores"]
    assert {"stem", "body", "sum", "pool", "depthwise", "up", "head"} <= {node.name for node in found.graph}
    values = [value.name for node in found.graph for value in node.outputs] + list(found.graph.initializers)
    assert len(values) == len(set(values))
    assert not any("@" in (name or "") for name in values)
    assert {"x_scale", "x_zero_point", "k1_quantized"} <= set(found.graph.initializers)
    assert "onnx.infer" not in found.metadata_props
    assert found.producer_name == model.producer_name


def test_metadata_survive() -> None:
    model = perceptron()
    normalize(model)
    model.metadata_props["author"] = "somebody"
    model.metadata_props["onnx.infer"] = "something else"
    model.doc_string = "a doc"
    model.producer_name = "a producer"
    found = library.static(model, ["first", "head"], RANGES)
    assert dict(found.metadata_props) == {"author": "somebody", "onnx.infer": "something else"}
    assert (found.doc_string, found.producer_name) == ("a doc", "a producer")
    assert model.metadata_props["onnx.infer"] == "something else"


def test_complaints_are_explained() -> None:
    model = perceptron()
    normalize(model)
    with pytest.raises(ModelError, match=r"onnxruntime\.quantization cannot quantize the model: ValueError"):
        library.static(model, ["second"], {})
    assert logging.getLogger().manager.disable == logging.NOTSET


def test_biases_become_32_bits() -> None:
    model = perceptron(b2=weights({"b2": (40,)}, 3)["b2"])
    normalize(model)
    found = proto.to_proto(library.static(model, ["second"], RANGES))
    held = {one.name: onnx.numpy_helper.to_array(one) for one in found.graph.initializer}
    scaled = [name for name, array in held.items() if array.dtype == np.int32 and array.shape == (40,) and array.any()]
    assert len(scaled) == 1
    meant = held[scaled[0]] * held[f"{scaled[0]}_scale"]
    assert np.allclose(meant, weights({"b2": (40,)}, 3)["b2"], atol=1e-4)
