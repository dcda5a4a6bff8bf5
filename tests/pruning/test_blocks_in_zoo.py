"""Residual blocks in architectures as exporters write them: how many there are, and that dropping equals zeroing."""

from __future__ import annotations

import onnx
import pytest
from zoo.architecture import export
from zoo.catalogue import ARCHITECTURES
from zoo.checks import distance, feeds, run

from graphopt import proto
from graphopt.pruning.depth.blocks import find
from graphopt.pruning.depth.dropping import drop, zeroed

BLOCKS = {
    "vgg": 0,
    "densenet": 0,
    "unet-bilinear": 0,
    "resnet-basic": 3,
    "resnet-bottleneck": 2,
    "mobilenet-v2": 2,
    "efficientnet": 2,
    "convnext": 3,
    "mlp-mixer": 4,
    "vit-fused-3hd": 4,
    "swin": 6,
    "bert": 4,
    "gpt2": 4,
    "llama": 4,
    "glu": 4,
}


@pytest.mark.parametrize("exporter", ["legacy", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_architecture(name: str, exporter: str) -> None:
    exported = export(next(one for one in ARCHITECTURES if one.name == name), exporter)
    model = proto.from_proto(exported)
    blocks = find(model)
    assert len(blocks) == BLOCKS[name]
    inputs = feeds(exported)
    original = run(exported, inputs)
    for chosen in [*([block] for block in blocks), blocks][: None if blocks else 0]:
        result = proto.to_proto(drop(model, chosen, check=False))
        onnx.checker.check_model(result)
        masked = run(proto.to_proto(zeroed(model, chosen)), inputs)
        assert distance(run(result, inputs), masked) <= 1e-6
        assert distance(masked, original) > 1e-4
