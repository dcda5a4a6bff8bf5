"""Masks in one session, against models that are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.channels.masking import cover
from graphopt.compression.judging import Judge
from graphopt.compression.samples import draw
from graphopt.compression.sensitivity import _Instrumented, sensitivities
from graphopt.compression.workspace import Workspace
from graphopt.pruning.importance import Evidence, criterion


@pytest.fixture(scope="module")
def judge(digits: Path) -> Judge:
    model = graphopt.load(digits / "model.onnx")
    drawn = draw(digits / "train.npz", digits / "test.npz", model)
    from graphopt.compression.gates import Limits

    return Judge.of(digits / "model.onnx", model, drawn.choose, Limits())


def test_a_mask_gives_the_score_of_the_masked_model(digits: Path, judge: Judge, tmp_path: Path) -> None:
    graph = graphopt.channels.analyze(graphopt.load(digits / "model.onnx"))
    session = _Instrumented(graph, judge, np.arange(len(judge.samples)), provider="cpu", threads=1)
    assert session.score(np.zeros(0, np.int64)) == pytest.approx(judge.base)
    random = np.random.default_rng(0)
    scores = set()
    for group in graph.groups:
        units = random.permutation([unit.index for unit in group.units])[: len(group.units) // 2]
        graphopt.save(cover(graph, graph.gone_units(units)), tmp_path / "masked.onnx")
        expected = judge.metric.score(judge.outputs(tmp_path / "masked.onnx"), judge.truth)
        assert session.score(units) == pytest.approx(expected, abs=1e-6)
        scores.add(expected)
    assert len(scores) > 1
    assert min(scores) < judge.base


def test_scores_are_kept(digits: Path, judge: Judge, tmp_path: Path) -> None:
    graph = graphopt.channels.analyze(graphopt.load(digits / "model.onnx"))
    rankings = criterion("l2").rank(Evidence(graph, list(judge.samples.batches(64))[:1]))
    given = (graph, rankings, judge, Workspace(tmp_path))
    first = sensitivities(*given, macs=10**6, progress=lambda step, share: None)
    assert [one.group for one in first] == [one.group.name for one in rankings]
    assert all(one.scores[0][0] == 0.0 for one in first)
    assert all(one.scores[0][1] == pytest.approx(judge.base) for one in first)
    assert max(one.harm for one in first) > 0.01

    def refuse(step: str, share: float | None) -> None:
        raise AssertionError(step)

    assert sensitivities(*given, macs=10**6, progress=refuse) == first
