"""The whole benchmark, on small models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt.errors import EnvironmentProblem, ModelError, UsageError

TEXT = "g (float[N,64] x) => (float[N,64] y) {y = MatMul(x, w)}"
WEIGHTS = {"w": np.ones((64, 64), np.float32)}
CHAIN = "g (float[N,64] x) => (float[N,64] y) {" + "".join(f"v{i + 1} = MatMul({'x' if not i else f'v{i}'}, w) "
                                                            for i in range(40)) + "y = Relu(v40)}"  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for name, text in (("long", CHAIN), ("short", TEXT)):
        found.append(tmp_path / f"{name}.onnx")
        graphopt.save(parse(text, WEIGHTS), found[-1])
    return found


def test_faster_model_is_found_faster(paths: list[Path]) -> None:
    seen: list[tuple[str, float]] = []
    table = graphopt.bench(
        paths, batch=256, threads=1, min_time=0.1, progress=lambda what, done: seen.append((what, done))
    )
    long, short = table.rows
    assert (long.name, short.name) == ("long", "short")
    assert long.speedup is None
    assert short.speedup is not None
    assert short.speedup.low is not None
    assert short.speedup.low > 3
    assert short.throughput == pytest.approx(256e3 / short.latency.mean)
    assert (long.nodes, short.nodes) == (41, 1)
    assert long.parameters == 64 * 64
    assert table.settings.shapes == {"x": [256, 64]}
    assert "short is " in table.verdict
    assert "x faster than long" in table.verdict
    assert {what for what, _ in seen} >= {"opening long", "opening short", "timing"}
    assert [done for _, done in seen] == sorted(done for _, done in seen)


def test_json_is_complete(paths: list[Path]) -> None:
    table = graphopt.bench(paths, runs=6, warmup=1, threads=1, shapes={"x": (2, 64)}, seed=7, io_binding=True)
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["schema"] == "graphopt.bench/1"
    assert [model["runs"] for model in plain["models"]] == [6, 6]
    assert set(plain["models"][0]["latency_ms"]) == {"p50", "p90", "p99", "min", "mean", "std"}
    assert plain["models"][0]["path"] == str(paths[0])
    assert plain["models"][0]["file_bytes"] == paths[0].stat().st_size
    assert set(plain["models"][1]["speedup"]) == {"value", "low", "high", "confidence"}
    settings = plain["settings"]
    assert (settings["provider"], settings["threads"], settings["seed"]) == ("CPUExecutionProvider", 1, 7)
    assert settings["io_binding"] is True
    assert settings["shapes"] == {"x": [2, 64]}
    assert {"onnxruntime", "graphopt", "processor", "cores"} <= set(plain["environment"])


def test_models_in_memory_and_of_map_output(models: Path) -> None:
    table = graphopt.bench([parse(TEXT, WEIGHTS), models / "logreg_iris.onnx"], runs=2, warmup=1)
    assert [row.path for row in table.rows] == [None, models / "logreg_iris.onnx"]
    assert "too few rounds" in table.verdict


def test_feeds_are_tried_until_one_runs(tmp_path: Path) -> None:
    # the first guess for a length is no multiple of 3 * 64
    model = parse("g (float[1,length] x) => (float[1,A,192] y) {y = Reshape(x, s)}", {"s": np.array([1, -1, 192])})
    table = graphopt.bench([model], runs=1, warmup=1)
    assert table.settings.shapes["x"][1] % 192 == 0


def test_feeds_that_never_run_say_what_to_do(tmp_path: Path) -> None:
    model = parse("g (float[N] x) => (float[A] y) {y = Reshape(x, s)}", {"s": np.array([-1, 10007])})
    with pytest.raises(ModelError, match="cannot run the model") as raised:
        graphopt.bench([model], runs=1)
    assert "--input-shape" in raised.value.hint


@pytest.mark.parametrize("options", [{"runs": 0}, {"threads": 0}, {"batch": -1}, {"max_time": 0.0}, {"min_time": -1.0}])
def test_senseless_options_are_usage_errors(paths: list[Path], options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        graphopt.bench(paths, **options)  # type: ignore[arg-type]


def test_no_models_or_a_bare_path_are_usage_errors(paths: list[Path]) -> None:
    with pytest.raises(UsageError, match="no model"):
        graphopt.bench([])
    with pytest.raises(UsageError, match="list of models"):
        graphopt.bench(str(paths[0]))


def test_missing_provider_is_an_environment_problem(paths: list[Path]) -> None:
    with pytest.raises(EnvironmentProblem):
        graphopt.bench(paths, provider="NoSuchExecutionProvider")
