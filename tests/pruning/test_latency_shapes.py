"""The networks that benchmarks are made with have the sizes that are in print."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from bench import shapes

from graphopt import proto, runtime
from graphopt.analysis.cost import costs
from graphopt.analysis.parameters import parameters
from graphopt.verify import feeds

PUBLISHED = [
    (shapes.resnet50, 4.089e9, 25.53e6),
    (shapes.mobilenet_v2, 0.301e9, 3.49e6),
    pytest.param(shapes.vgg16, 15.47e9, 138.36e6, marks=pytest.mark.slow),
    pytest.param(shapes.bert_base, 11.17e9, 108.6e6, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("build", "macs", "weights"), PUBLISHED)
def test_work_and_weights_are_those_in_print(build: Callable[[], onnx.ModelProto], macs: float, weights: float) -> None:
    model = proto.from_proto(build())
    assert costs(model).macs == pytest.approx(macs, rel=2e-3)
    assert parameters(model) == pytest.approx(weights, rel=2e-3)


@pytest.mark.parametrize(
    ("built", "wanted"),
    [
        (lambda: shapes.resnet50(32, classes=7), (2, 7)),
        (lambda: shapes.mobilenet_v2(32, classes=7), (2, 7)),
        (lambda: shapes.bert_base(5, layers=1), (2, 5, 768)),
    ],
)
def test_they_run_in_batches(built: Callable[[], onnx.ModelProto], wanted: tuple[int, ...]) -> None:
    message = built()
    inputs = {
        value.name: [2, *[dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]]
        for value in message.graph.input
    }
    made = feeds.generate(proto.from_proto(message), shapes=inputs)[0]
    (result,) = runtime.open_session(message.SerializeToString()).run(None, made)
    assert result.shape == wanted
    assert 0.01 < abs(result).mean() < 100
