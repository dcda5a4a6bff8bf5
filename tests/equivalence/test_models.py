"""Every real model: loads, stays valid and equal, never grows, keeps its interface, and saves the same bytes twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from bench.peers import count_nodes, nodes_of
from equivalence import zoo
from equivalence.compare import difference, outputs

import graphopt

ENTRIES = zoo.entries()
EVERY = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


def _interface(path: Path) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
    model = onnx.load(path, load_external_data=False)
    weights = {one.name for one in model.graph.initializer}
    return (
        [(one.name, one.type.SerializeToString()) for one in model.graph.input if one.name not in weights],
        [(one.name, one.type.SerializeToString()) for one in model.graph.output],
    )


def _expected(entry: zoo.Entry, seed: int) -> list[Any]:
    return outputs(str(entry.path), entry.feeds(seed))


@EVERY
def test_stays_equal(entry: zoo.Entry, tmp_path: Path) -> None:
    model, report = graphopt.optimize(entry.path, validate=False, with_report=True)
    result = tmp_path / "result.onnx"
    graphopt.save(model, result)
    onnx.checker.check_model(str(result))
    assert nodes_of(result) <= nodes_of(entry.path)
    assert report.after.nodes <= report.before.nodes
    assert _interface(result) == _interface(entry.path)
    for seed in range(2):
        found = difference(_expected(entry, seed), outputs(str(result), entry.feeds(seed)), exact=False, slack=10)
        assert not found


@EVERY
def test_exact_passes_change_no_bit(entry: zoo.Entry, tmp_path: Path) -> None:
    result = tmp_path / "result.onnx"
    graphopt.save(graphopt.optimize(entry.path, ["exact"], validate=False), result)
    found = difference(_expected(entry, 0), outputs(str(result), entry.feeds(0)), exact=True)
    assert not found


@EVERY
def test_external_data_stays_equal(entry: zoo.Entry, tmp_path: Path) -> None:
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    graphopt.save(graphopt.load(entry.path), source, external_data=True)
    assert not difference(_expected(entry, 0), outputs(str(source), entry.feeds(0)), exact=True)
    graphopt.save(graphopt.optimize(source, validate=False), result)
    found = difference(_expected(entry, 0), outputs(str(result), entry.feeds(0)), exact=False, slack=10)
    assert not found


@EVERY
def test_same_model_same_bytes(entry: zoo.Entry, tmp_path: Path) -> None:
    written = []
    for name in ("one.onnx", "two.onnx"):
        graphopt.save(graphopt.optimize(entry.path, validate=False), tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@EVERY
def test_second_run_finds_nothing(entry: zoo.Entry) -> None:
    once = graphopt.optimize(entry.path, validate=False)
    _, report = graphopt.optimize(once, validate=False, with_report=True)
    assert not report.changed, [one for one in report.passes if one.count]


@EVERY
def test_is_proven(entry: zoo.Entry) -> None:
    _, report = graphopt.optimize(entry.path, input_shapes=entry.shapes, with_report=True)
    assert report.status == "proven"
    assert not report.dropped


def test_nodes_are_counted_in_every_scope() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[2] x, bool c) => (float[2] y) {
        k = Constant <value_float = 1.0> ()
        y = If (c) <then_branch = a () => (float[2] p) { p = Add (x, k) },
                    else_branch = b () => (float[2] q) { r = Abs (x) q = Neg (r) }>
    }"""
    assert count_nodes(onnx.parser.parse_model(text).graph.node) == 4
