"""What models are called and fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt import proto
from graphopt.benchmark.subjects import check_shapes, file_bytes, fits, labels, load, possible_feeds
from graphopt.errors import ModelError, UsageError


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/m/before.onnx", "/m/after.onnx"], ["before", "after"]),
        (["/m/model.onnx", "/m/model.ort"], ["model.onnx", "model.ort"]),
        (["/a/x/model.onnx", "/b/x/model.onnx"], ["a/x/model.onnx", "b/x/model.onnx"]),
        (["/m/a.onnx", "/m/a.onnx", "/m/b.onnx"], ["a", "a #2", "b"]),
    ],
)
def test_labels_tell_models_apart(paths: list[str], names: list[str]) -> None:
    assert labels([Path(path) for path in paths]) == names


def test_models_in_memory_are_written_for_the_runtime(tmp_path: Path) -> None:
    model = parse("net (float[N,4] x) => (float[N,4] y) {y = Relu(x)}")
    first, second = load([model, model], tmp_path)
    assert first.origin is None
    assert first.path.is_file()
    assert first.path != second.path
    assert (first.name, second.name) == ("0/net.onnx", "1/net.onnx")
    assert model.meta.get("graphopt.path") is None


def test_models_of_other_kinds_are_measured_too(tmp_path: Path) -> None:
    message = proto.to_proto(parse("net (float[N,4] x) => (float[N,4] y) {y = Relu(x)}"))
    (subject,) = load([message], tmp_path)
    assert (subject.origin, subject.path.is_file(), subject.model.graph.name) == (None, True, "net")
    assert graphopt.bench([message], runs=2, warmup=1).rows[0].runs == 2
    given: Any
    for given, words in ((message, "takes a list"), ([7], "a builtins.int is no model")):
        with pytest.raises(UsageError, match=words):
            graphopt.bench(given)


def test_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load([tmp_path / "nowhere.onnx"], tmp_path)


def test_batch_sets_leading_dims_and_their_namesakes(tmp_path: Path) -> None:
    (subject,) = load(
        [parse("g (float[batch,7] x, float[2,batch,3] s, float[5] b) => (float[batch,7] y) {y = Relu(x)}")], tmp_path
    )
    feeds = next(possible_feeds(subject, {}, batch=6, seed=0))
    assert {name: array.shape for name, array in feeds.items()} == {"x": (6, 7), "s": (2, 6, 3), "b": (5,)}


def test_batch_sets_nameless_leading_dims(tmp_path: Path) -> None:
    (subject,) = load([parse("g (float[?,7] x, int64[M] t) => (float[?,7] y) {y = Relu(x)}")], tmp_path)
    feeds = next(possible_feeds(subject, {}, batch=6, seed=0))
    assert [array.shape for array in feeds.values()] == [(6, 7), (6,)]


def test_batch_of_a_static_model_is_a_usage_error(tmp_path: Path) -> None:
    (subject,) = load([parse("g (float[1,7] x) => (float[1,7] y) {y = Relu(x)}")], tmp_path)
    with pytest.raises(UsageError, match="no input has a symbolic leading dimension"):
        next(possible_feeds(subject, {}, batch=6, seed=0))


def test_shape_of_no_input_is_a_usage_error(tmp_path: Path) -> None:
    subjects = load([parse("g (float[N] x) => (float[N] y) {y = Relu(x)}")], tmp_path)
    check_shapes(subjects, {"x": (1,)})
    with pytest.raises(UsageError, match="no model has an input 'z'"):
        check_shapes(subjects, {"z": (1,)})


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("g (float[3,4] x) => (float[3,4] y) {y = Neg(x)}", True),
        ("g (float[M,4] x) => (float[M,4] y) {y = Neg(x)}", True),
        ("g (float[2,4] x) => (float[2,4] y) {y = Neg(x)}", False),
        ("g (float[3,4,1] x) => (float[3,4,1] y) {y = Neg(x)}", False),
        ("g (float16[3,4] x) => (float16[3,4] y) {y = Neg(x)}", False),
        ("g (float[3,4] z) => (float[3,4] y) {y = Neg(z)}", False),
    ],
)
def test_feeds_are_shared_where_they_fit(tmp_path: Path, other: str, expected: bool) -> None:
    donor, subject = load([parse("g (float[N,4] x) => (float[N,4] y) {y = Relu(x)}"), parse(other)], tmp_path)
    assert fits(subject, {"x": np.zeros((3, 4), np.float32)}, donor) is expected


def test_file_size_includes_external_data(tmp_path: Path) -> None:
    model = parse("g (float[4,64] x) => (float[4,32] y) {y = MatMul(x, w)}", {"w": np.ones((64, 32), np.float32)})
    path = tmp_path / "m.onnx"
    graphopt.save(model, path, external_data=True)
    (subject,) = load([path], tmp_path)
    assert path.stat().st_size < 2000
    assert file_bytes(path, subject.model) == sum(file.stat().st_size for file in tmp_path.iterdir()) > 8192
