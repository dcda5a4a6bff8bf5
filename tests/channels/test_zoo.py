"""The channel graph on every architecture of the zoo: what is removed, that it is all that could be, and exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx
import pytest
from zoo.architecture import export
from zoo.catalogue import ARCHITECTURES, CASES, Case
from zoo.checks import choose, distance, feeds, parameters, run

from graphopt import channels, proto
from graphopt.channels import ChannelGraph

SHORT = {"swin-hf-dynamo": ("node_as_strided", "it is indexed at run time")}
"""Where less than nine tenths of what is possible goes, the node that stands in the way, and why."""

_QUICK = {
    "resnet-basic", "densenet", "shufflenet-v2", "groupnorm", "c2f", "vit-fused-3hd", "llama", "swin", "lstm-last-step",
}  # fmt: skip
"""Of torch's slower exporter the default suite tries these."""


def _cases() -> list[object]:
    return [
        pytest.param(
            case,
            id=str(case),
            marks=[pytest.mark.slow] if case.exporter == "dynamo" and case.architecture.name not in _QUICK else [],
        )
        for case in CASES
    ]


@functools.lru_cache(maxsize=1)
def _graph(case: Case) -> tuple[onnx.ModelProto, ChannelGraph]:
    model = export(case.architecture, case.exporter)
    return model, channels.analyze(proto.from_proto(model))


def test_the_zoo_is_large() -> None:
    assert len({architecture.name for architecture in ARCHITECTURES}) == len(ARCHITECTURES) >= 137
    assert len(CASES) >= 230
    assert len(SHORT) <= 0.05 * len(CASES)


@pytest.mark.parametrize("case", _cases())
def test_half_of_each_group_goes(case: Case, record_property: Callable[[str, object], None]) -> None:
    model, graph = _graph(case)
    units = choose(graph, 0, 0.5)
    pruned = proto.to_proto(channels.remove(graph, units, check=False))
    onnx.checker.check_model(pruned)
    inputs = feeds(model)
    masked = run(proto.to_proto(channels.mask(graph, units)), inputs)
    assert distance(run(pruned, inputs), masked) <= 1e-5
    # Not because nothing happened: the masked model does something else than the original.
    assert not units or distance(masked, run(model, inputs)) > 1e-4
    before, after = parameters(model), parameters(pruned)
    by_hand = parameters(export(case.architecture, case.exporter, 0.5))
    reached = (before - after) / (before - by_hand) if before != by_hand else 1.0
    record_property("figures", {"zoo: pruned and equal": 1, "zoo: nine tenths reached": int(reached >= 0.9)})
    if str(case) in SHORT:
        assert reached < 0.9, "it is not short any more: take it off the list"
        assert SHORT[str(case)] in {(one.node.name, one.reason) for one in graph.frozen if one.node is not None}
    else:
        assert reached >= 0.9, [(frozen.name, frozen.reason) for frozen in graph.frozen]


@pytest.mark.parametrize("case", _cases())
def test_any_choice_equals_the_masked_model(case: Case, record_property: Callable[[str, object], None]) -> None:
    model, graph = _graph(case)
    inputs = feeds(model)
    worst = 0.0
    for seed in range(1, 6):
        units = choose(graph, seed)
        pruned = run(proto.to_proto(channels.remove(graph, units, check=False)), inputs)
        masked = run(proto.to_proto(channels.mask(graph, units)), inputs)
        worst = max(worst, distance(pruned, masked))
    assert worst <= 1e-5
    record_property("figures", {"zoo: random choices equal": 5})
    # Statistics over a pruned axis are the only thing that makes removal differ from plain zeroing.
    assert any(not group.exact for group in graph.groups) == case.architecture.norms


@pytest.mark.parametrize("name", ["vit-fused-3hd", "llama", "multihead-attention", "attention-op"])
def test_lanes_of_heads_can_go_instead(name: str) -> None:
    architecture = next(one for one in ARCHITECTURES if one.name == name)
    model = export(architecture, architecture.exporters[0])
    graph = channels.analyze(proto.from_proto(model), granularity="head-dim")
    inputs = feeds(model)
    for seed in range(3):
        units = choose(graph, seed)
        pruned = run(proto.to_proto(channels.remove(graph, units, check=False)), inputs)
        assert distance(pruned, run(proto.to_proto(channels.mask(graph, units)), inputs)) <= 1e-5
    assert not any(group.heads for group in graph.groups)
    assert any(group.heads for group in channels.analyze(proto.from_proto(model)).groups)
