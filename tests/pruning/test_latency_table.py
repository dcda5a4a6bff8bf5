"""Tables and predictions, on a meter that needs no clock; and on this machine's."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bench import shapes
from pruning import latency_examples as examples

import graphopt
from graphopt import proto
from graphopt.channels import ChannelGraph
from graphopt.errors import ModelError, SaveError, UsageError
from graphopt.pruning.latency import table as tables
from graphopt.pruning.latency.measure import Stopwatch
from graphopt.pruning.latency.micro import Operator
from graphopt.pruning.latency.predictor import LatencyModel
from graphopt.pruning.latency.sessions import NodeTimes
from graphopt.pruning.latency.table import LatencyTable
from graphopt.verify import feeds

SHAPES = {"x": [2, 7, 32]}


class Counter:
    """A meter that goes by sizes, and remembers what it was asked."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.asked: list[str] = []

    def __call__(self, *arguments: Any, **options: Any) -> Counter:
        return self

    def milliseconds(self, operator: Operator) -> float | None:
        self.asked.append(str(operator))
        return None if operator.op_type == self.refuses else examples.macs_of()(operator)

    def whole(self, model: Any, fed: Mapping[str, Any], seconds: float) -> NodeTimes:
        nodes = {("a", "FusedMatMul"): 8.0, ("b", "SkipLayerNormalization"): 1.0, ("c", "Transpose"): 1.0}
        return NodeTimes(nodes, 0.5, 20.5)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(tables, "Meter", counter)
    monkeypatch.setattr(tables, "preferred_multiple", lambda provider, threads, kind: 8)
    return counter


@pytest.fixture
def graph() -> ChannelGraph:
    return graphopt.channels.analyze(examples.matrices())


def test_nothing_gone_takes_what_was_measured(graph: ChannelGraph, meter: Counter) -> None:
    model = LatencyModel(graph, LatencyTable.measure(graph, SHAPES, threads=1))
    assert model.total(graph.gone([])) == pytest.approx(20.5)
    assert model.full == 20.5


def test_products_shrink_as_measured_and_the_rest_with_its_bytes(graph: ChannelGraph, meter: Counter) -> None:
    model = LatencyModel(graph, LatencyTable.measure(graph, SHAPES, threads=1))
    (inner,) = [group for group in graph.groups if len(group.units) == 64]
    gone = graph.gone(inner.units[:48])
    before, after = model.by_product(graph.gone([])), model.by_product(gone)
    assert sum(before.values()) == pytest.approx(0.8 * 20)
    for name, taken in before.items():
        assert after[name] == pytest.approx(taken / 4 if name in ("up", "down") else taken), name
    # of other nodes only the Relu, which reads and writes 64 lanes, shrinks: it is one of three kinds of bytes
    saved = sum(before.values()) - sum(after.values())
    total = model.total(gone)
    assert 20.5 - saved - 2.0 < total < 20.5 - saved


def test_removing_more_never_takes_longer(graph: ChannelGraph, meter: Counter) -> None:
    model = LatencyModel(graph, LatencyTable.measure(graph, SHAPES, threads=1))
    choice = random.Random(0)
    order = [unit for group in graph.groups for unit in group.units[8 if not group.heads else 1 :]]
    choice.shuffle(order)
    totals = [model.total(graph.gone(order[:count])) for count in range(0, len(order), 8)]
    aligned = [model.total(graph.gone([u for g in graph.groups for u in g.units[k:]])) for k in (4, 3, 2, 1)]
    assert totals[-1] < totals[0]
    assert aligned == sorted(aligned, reverse=True)


def test_an_operator_that_is_refused_goes_by_its_work(graph: ChannelGraph, meter: Counter) -> None:
    meter.refuses = "MatMul"
    with pytest.raises(UsageError, match="empty"):
        LatencyModel(graph, LatencyTable.measure(graph, SHAPES, threads=1))
    meter.refuses = ""
    table = LatencyTable.measure(graph, SHAPES, threads=1)
    missing = [key for key in table.operators if "=float 32x64" in key or "64x32" in key]
    table.operators |= dict.fromkeys(missing)
    (inner,) = [group for group in graph.groups if len(group.units) == 64]
    model = LatencyModel(graph, table)
    before, after = model.by_product(graph.gone([])), model.by_product(graph.gone(inner.units[:32]))
    assert before["up"] > 0
    assert after["up"] == pytest.approx(before["up"] / 2)


def test_operators_alike_are_measured_once(graph: ChannelGraph, meter: Counter) -> None:
    LatencyTable.measure(graph, SHAPES, threads=1)
    assert len(meter.asked) == len(set(meter.asked))
    full = [key for key in meter.asked if "(float 2x7x32, =float 32x32)" in key]
    assert len(full) == 1  # q, k, v and the projection


def test_a_table_is_saved_and_read(graph: ChannelGraph, meter: Counter, tmp_path: Path) -> None:
    table = LatencyTable.measure(graph, SHAPES, threads=1)
    table.save(tmp_path / "latency.json")
    again = LatencyTable.load(tmp_path / "latency.json")
    assert again == table
    assert again.to_json() == table.to_json() == LatencyTable.from_json(table.to_json()).to_json()
    assert json.loads(table.to_json())["schema"] == "graphopt.latency/1"
    assert table.settings.batch == 2
    with pytest.raises(SaveError):
        table.save(tmp_path / "missing" / "latency.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no latency table"),
        ("[]", "no latency table"),
        ('{"schema": "graphopt.latency/0"}', "graphopt.latency/0"),
        ('{"schema": "graphopt.latency/1", "operators": {}}', "no latency table"),
    ],
)
def test_what_is_no_table_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ModelError, match=says):
        LatencyTable.load(tmp_path / "t.json")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        LatencyTable.load(tmp_path / "none.json")


def test_a_table_without_time_is_coarse_and_can_be_continued(graph: ChannelGraph, meter: Counter) -> None:
    table = LatencyTable.measure(graph, SHAPES, threads=1, max_seconds=0)
    first = list(meter.asked)
    assert len(first) == len(table.operators) > 0
    assert LatencyModel(graph, table).total(graph.gone([])) == pytest.approx(20.5)
    meter.asked.clear()
    again = LatencyTable.measure(graph, SHAPES, threads=1, table=LatencyTable.from_json(table.to_json()))
    assert not set(meter.asked) & set(first)
    meter.asked.clear()
    assert again.operators == LatencyTable.measure(graph, SHAPES, threads=1).operators
    meter.asked.clear()
    LatencyTable.measure(graph, SHAPES, threads=1, table=again)
    assert meter.asked == []


@pytest.mark.parametrize(
    ("settings", "machine", "says"),
    [
        ({"threads": 3}, {}, "threads is 3, not 1"),
        ({"seed": 7}, {}, "seed is 7, not 0"),
        ({"model": "0" * 16}, {}, "model is 0000"),
        ({}, {"device": "Abacus"}, "device is Abacus, not"),
        ({}, {"onnxruntime": "0.1"}, "onnxruntime is 0.1, not"),
    ],
)
def test_a_table_of_something_else_says_of_what(
    graph: ChannelGraph, meter: Counter, settings: dict[str, Any], machine: dict[str, Any], says: str
) -> None:
    table = LatencyTable.measure(graph, SHAPES, threads=1)
    other = dataclasses.replace(
        table,
        settings=dataclasses.replace(table.settings, **settings),
        machine={**table.machine, **machine},
    )
    with pytest.raises(UsageError, match=says):
        LatencyTable.measure(graph, SHAPES, threads=1, table=other)
    if machine or "model" in settings:
        with pytest.raises(UsageError, match=says):
            LatencyModel(graph, other)


def test_a_table_of_another_model_is_refused(graph: ChannelGraph, meter: Counter) -> None:
    table = LatencyTable.measure(graph, SHAPES, threads=1)
    with pytest.raises(UsageError, match="of another model"):
        LatencyModel(graphopt.channels.analyze(examples.convolutions()), table)
    with pytest.raises(UsageError, match=r"shapes is .*\[2, 7, 32\]"):
        LatencyTable.measure(graph, {"x": [4, 7, 32]}, threads=1, table=table)


def test_progress_never_goes_back(graph: ChannelGraph, meter: Counter) -> None:
    seen: list[float] = []
    LatencyTable.measure(graph, SHAPES, threads=1, progress=lambda what, fraction: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1


def test_other_providers_have_no_profile(graph: ChannelGraph, meter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "whole", lambda model, fed, seconds: NodeTimes({}, 0.0, 30.0))
    table = LatencyTable.measure(graph, SHAPES, threads=1)
    assert table.whole.shares == {}
    model = LatencyModel(graph, table)
    assert model.total(graph.gone([])) == pytest.approx(30.0)
    monkeypatch.setattr(meter, "whole", lambda model, fed, seconds: NodeTimes({}, 0.0, 1e-3))
    less = LatencyModel(graph, LatencyTable.measure(graph, SHAPES, threads=1))
    assert sum(less.by_product(graph.gone([])).values()) == pytest.approx(1e-3)


@pytest.mark.slow
def test_predictions_come_true() -> None:
    source = proto.from_proto(shapes.resnet50(96, classes=10))
    graph = graphopt.channels.analyze(source)
    table = LatencyTable.measure(graph, threads=1, max_seconds=40)
    model = LatencyModel(graph, table)
    choice = random.Random(1)
    with Stopwatch(source, feeds.generate(source)[0], threads=1, seconds=2) as watch:
        for _ in range(3):
            units = [
                unit
                for group in graph.groups
                for unit in choice.sample(group.units, len(group.units) // 16 * choice.randrange(12))
            ]
            predicted = model.full / model.total(graph.gone(units))
            measured = watch.ratio(graphopt.channels.remove(graph, units, check=False))
            assert predicted == pytest.approx(measured.value, rel=0.2)


def test_a_busy_machine_is_warned_of(graph: ChannelGraph, meter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {("a", "MatMul"): 1.0}
    monkeypatch.setattr(meter, "whole", lambda model, fed, seconds: NodeTimes(nodes, 0.0, 1.0, 0.6))
    with pytest.warns(UserWarning, match="other processes took 40%"):
        LatencyTable.measure(graph, SHAPES, threads=2)
    assert LatencyTable.measure(graph, SHAPES, threads=1).whole.undisturbed == 0.6
