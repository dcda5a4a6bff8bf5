"""Compressions from end to end, on digits."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import graphopt
from graphopt.compression import evidence, executors
from graphopt.compression.choosing import Chooser
from graphopt.compression.compressor import _save_arrays
from graphopt.compression.gates import Audit, Limits
from graphopt.compression.judging import Judge
from graphopt.compression.report import CompressionReport
from graphopt.compression.trial import Outcome, Trial, run
from graphopt.errors import Harmful, Infeasible, LimitReached, ModelError, UsageError
from graphopt.human import byte_size, energy
from graphopt.lock import exclusive
from graphopt.pruning.plan import Plan
from graphopt.reporting.markdown import markdown
from graphopt.reporting.page import page

QUICK: dict[str, Any] = {"skip": ["distill", "quantize", "sensitivity", "refine"], "threads": 1}


def compress(digits: Path, **options: Any) -> tuple[Any, CompressionReport]:
    given = {"evaluation": digits / "test.npz", "with_report": True, **QUICK, **options}
    result: tuple[Any, CompressionReport] = graphopt.compress(digits / "model.onnx", digits / "train.npz", **given)
    return result


def contents(model: Any, folder: Path) -> bytes:
    graphopt.save(model, folder / "saved.onnx")
    return (folder / "saved.onnx").read_bytes()


@pytest.fixture(scope="module")
def table(digits: Path) -> Path:
    """What the plain compression to half the multiply-accumulates measures."""
    compress(digits, goal="macs=0.5", latency_table=digits / "table.json")
    return digits / "table.json"


def test_meets_the_goal_and_says_how_good_it_is(digits: Path) -> None:
    model, report = compress(digits, goal={"macs": 0.5}, max_drop=2)
    assert report.is_met
    assert report.after.macs / report.before.macs <= 0.5
    accuracy = report.audit.checks[0]
    assert accuracy.before > 0.93
    assert accuracy.harm <= 2
    onnx.checker.check_model(graphopt.proto.to_proto(model), full_check=True)


def test_quantizes_where_that_meets_the_goal(digits: Path) -> None:
    _, report = compress(digits, goal="bytes=0.35", skip=["distill", "sensitivity", "refine"], max_drop=2)
    assert report.is_met
    assert report.point.variant.precision == "int8"
    assert report.after.bytes / report.before.bytes <= 0.35


def test_memory_of_a_batch_comes_down_to_the_goal(digits: Path) -> None:
    """With a large batch the tensors count, not the weights; the report shows it wherever it shows sizes."""
    _, report = compress(digits, goal="memory=0.6", batch=100)
    assert report.is_met
    assert report.after.memory <= 0.6 * report.before.memory
    assert any(0.5 < one.left["memory"] <= 0.6 for one in report.choice.points)  # what is predicted is what is left
    assert report.before.memory - report.before.bytes > 100 * 16 * 64 * 4
    data = report.to_dict()
    assert data["before"]["memory"] == report.before.memory
    (chosen,) = (one for one in data["points"] if one["chosen"])
    assert chosen["memory"] == data["after"]["memory"] == report.after.memory
    assert data["limits"] == {"memory": 0.6}
    told = byte_size(report.after.memory)
    stream = io.StringIO()
    Console(file=stream, width=140).print(report)
    assert any(line.startswith("memory") and told in line for line in stream.getvalue().splitlines())
    assert f"| Memory of a run | {told} |" in markdown(data)
    assert told in page(data)


def test_energy_is_reported_where_counters_are(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"skip": ["distill", "quantize", "prune"]}
    reads = itertools.count(0, 3_000)
    monkeypatch.setattr(evidence, "opened", lambda: (lambda: next(reads), "package-0"))
    _, report = compress(digits, goal="macs=1", **options)
    data = report.to_dict()
    before, after = data["before"]["energy_mj"], data["after"]["energy_mj"]
    assert min(before, after) > 0
    assert [note for note in report.notes if "energy" in note] == [
        "energy is that of package-0, whatever else ran meanwhile included"
    ]
    stream = io.StringIO()
    Console(file=stream, width=140).print(report)
    assert any(line.startswith("energy ") and energy(after) in line for line in stream.getvalue().splitlines())
    assert f"| Energy of a run | {energy(after)} |" in markdown(data)
    monkeypatch.setattr(evidence, "opened", lambda: (None, "nothing is counted"))
    _, report = compress(digits, goal="macs=1", **options)
    assert report.to_dict()["after"]["energy_mj"] is None
    assert [note for note in report.notes if "energy" in note] == ["energy is not measured: nothing is counted"]
    assert "Energy of a run" not in markdown(report.to_dict())


def test_a_goal_in_milliseconds_is_one_of_what_was_measured(digits: Path, table: Path, tmp_path: Path) -> None:
    """As shares, 0.9 would be infeasible without pruning; of 0.4 ms, 0.9 ms is met already, and 0.2 ms is not."""
    measured = tmp_path / "table.json"
    measured.write_text(json.dumps(json.loads(table.read_text()) | {"milliseconds": 0.4}))
    options: dict[str, Any] = {"skip": ["distill", "quantize", "prune"], "latency_table": measured}
    _, report = compress(digits, goal="latency=0.9ms", **options)
    assert report.is_met
    assert report.milliseconds == 0.4
    assert report.limits == {"latency": 2.25}
    assert report.to_dict()["goal"] == report.settings.goal == "latency=0.9ms"
    with pytest.raises(Infeasible):
        compress(digits, goal="latency=0.2ms", **options)


def test_a_goal_beyond_the_original_is_met_by_what_is_slower_too(digits: Path, table: Path, tmp_path: Path) -> None:
    """And nothing is removed for it: of all channels, none has to go."""
    measured = tmp_path / "table.json"
    kept = json.loads(table.read_text())
    measured.write_text(json.dumps(kept | {"milliseconds": 0.4, "models": dict.fromkeys(kept["models"], 1.5)}))
    _, report = compress(digits, goal="latency=1s,memory=1GB", latency_table=measured)
    assert report.is_met
    assert [one.variant.way for one in report.choice.points] == [0]


@pytest.mark.parametrize(("precision", "share"), [("int8-weights", 0.95), ("float16", 0.55)])
def test_other_precisions_can_be_asked_for(precision: str, share: float, digits: Path) -> None:
    options: dict[str, Any] = {"skip": ["distill", "prune"], "precisions": [precision], "max_drop": 2}
    _, report = compress(digits, goal={"bytes": share}, **options)
    assert report.is_met
    assert report.point.variant.precision == precision


def test_distils_what_was_pruned(digits: Path) -> None:
    options = {"skip": ["quantize", "sensitivity", "refine"], "epochs": 2, "goal": "macs=0.03"}
    _, trained = compress(digits, **options)
    assert trained.point.variant.trained
    assert len(trained.history) == 2
    raw = next(one for one in trained.choice.points if one.variant.way == trained.point.variant.way and one.lost >= 0)
    assert trained.point.score >= raw.score


def test_distils_with_the_rounding_in_place_when_asked(digits: Path, tmp_path: Path) -> None:
    options = {"skip": ["sensitivity", "refine"], "epochs": 1, "goal": "bytes=0.1", "precisions": ["int8"]}
    folder = tmp_path / "run"
    _, report = compress(digits, **options, quantization_aware=True, best_effort=True, run_directory=folder)
    trained = [one.variant for one in report.choice.points if one.variant.trained]
    assert trained
    assert all((folder / "aware" / one.cut).is_dir() for one in trained)
    after = json.loads((folder / f"aware/{trained[0].cut}-report.json").read_text())
    assert after["off_by_one"] is not None


def test_tunes_the_distillation_when_asked(digits: Path, tmp_path: Path) -> None:
    options = {"skip": ["quantize", "sensitivity", "refine"], "epochs": 2, "tune": 2, "run_directory": tmp_path / "run"}
    _, report = compress(digits, goal="macs=0.3", **options)
    found = json.loads((tmp_path / "run" / "tuned.json").read_text())
    assert 1e-4 <= found["learning_rate"] <= 1e-2
    assert found["loss"].startswith("kd:temperature=")
    assert 0 < found["score"] <= 1
    assert any(stage.name == "tune" and found["loss"] in stage.decision for stage in report.stages)


def test_infeasible_says_how_far_it_goes(digits: Path) -> None:
    with pytest.raises(Infeasible, match=r"infeasible: .*best that can be had") as caught:
        compress(digits, goal="macs=0.001", keep=0.5)
    assert "x as fast" in caught.value.message


def test_too_much_harm_is_infeasible(digits: Path) -> None:
    with pytest.raises(Infeasible, match="too much harm"):
        compress(digits, goal="macs=0.02", max_drop=0.1)


def test_best_effort_gives_the_best_without_an_error(digits: Path) -> None:
    _, report = compress(digits, goal="macs=0.001", keep=0.5, best_effort=True)
    assert not report.is_met
    assert report.choice.point is None
    assert report.after.macs < report.before.macs


def test_a_gate_that_fails_on_the_last_samples_is_harm(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = Judge.audit, list[Judge]()

    def lenient(judge: Judge, path: Path) -> Audit:
        """The samples to choose by let everything pass; those to judge by do not."""
        seen.append(judge)
        chooses = judge.samples is seen[0].samples
        return real(dataclasses.replace(judge, limits=Limits()) if chooses else judge, path)

    monkeypatch.setattr(Judge, "audit", lenient)
    with pytest.raises(Harmful, match="harmful: accuracy") as caught:
        compress(digits, goal="macs=0.05", max_drop=0.01)
    assert caught.value.exit_code == 10


def test_gates_on_classes_are_judged(digits: Path) -> None:
    with pytest.raises(Infeasible, match="worst class"):
        compress(digits, goal="macs=0.05", class_drop=0.5)


def test_slices_come_from_a_column(digits: Path) -> None:
    options: dict[str, Any] = {"evaluation": digits / "test-sliced.npz", "slices": ["pen"], **QUICK}
    _, report = graphopt.compress(
        digits / "model.onnx", digits / "train-sliced.npz", goal="macs=0.5", slice_drop=5, with_report=True, **options
    )
    assert {part.name for part in report.audit.slices["pen"]} == {"thick", "thin"}
    with pytest.raises(UsageError, match="no column 'pen' of slices"):
        compress(digits, goal="macs=0.5", slices=["pen"], slice_drop=5)


def test_without_labels_agreement_is_judged(digits: Path) -> None:
    x, test = (np.load(digits / name)["x"] for name in ("train.npz", "test.npz"))
    _, report = graphopt.compress(
        digits / "model.onnx", {"x": x}, evaluation={"x": test}, goal="macs=0.5", with_report=True, **QUICK
    )
    assert report.audit.metric == "agreement"
    assert 0.9 < report.audit.checks[0].after < 1
    assert any("no labels" in note for note in report.notes)


def test_without_data_says_that_nothing_is_promised(digits: Path) -> None:
    _, report = graphopt.compress(digits / "model.onnx", goal="macs=0.7", with_report=True, **QUICK)
    assert any("nobody can say" in note for note in report.notes)
    with pytest.raises(UsageError, match="nobody can say what the drop is"):
        graphopt.compress(digits / "model.onnx", goal="macs=0.7", max_drop=1, **QUICK)


def test_same_table_same_bytes(digits: Path, table: Path, tmp_path: Path) -> None:
    first, _ = compress(digits, goal="macs=0.5", latency_table=table)
    before = table.read_bytes()
    again, _ = compress(digits, goal="macs=0.5", latency_table=table)
    assert contents(first, tmp_path) == contents(again, tmp_path)
    assert table.read_bytes() == before


def test_processes_give_what_one_process_gives(digits: Path, table: Path, tmp_path: Path) -> None:
    alone, _ = compress(digits, goal="macs=0.5", latency_table=table)
    beside, _ = compress(digits, goal="macs=0.5", latency_table=table, executor="processes", workers=2)
    assert contents(alone, tmp_path) == contents(beside, tmp_path)


def test_a_table_of_something_else_is_refused(digits: Path, table: Path) -> None:
    with pytest.raises(UsageError, match="threads is 1, not 2"):
        compress(digits, goal="macs=0.5", latency_table=table, threads=2)
    (digits / "damaged.json").write_text("{}")
    with pytest.raises(ModelError, match="no latency table"):
        compress(digits, goal="macs=0.5", latency_table=digits / "damaged.json")


def test_a_run_goes_on_from_its_folder(digits: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    first, _ = compress(digits, goal="macs=0.5", latency_table=table, run_directory=folder)
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.onnx")}
    again, _ = compress(digits, goal="macs=0.5", latency_table=table, run_directory=folder)
    assert made == {path: path.stat().st_mtime_ns for path in folder.rglob("*.onnx")}
    assert contents(first, tmp_path) == contents(again, tmp_path)
    with pytest.raises(UsageError, match="keeps another run, of other settings"):
        compress(digits, goal="macs=0.4", run_directory=folder)


def test_damaged_files_of_a_run_are_made_again(digits: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first, _ = compress(digits, goal="macs=0.5", latency_table=table, run_directory=folder)
    for path in (*folder.rglob("*.onnx"), *folder.glob("variants/*.json")):
        path.write_bytes(path.read_bytes()[:100])
    again, _ = compress(digits, goal="macs=0.5", latency_table=table, run_directory=folder)
    assert contents(first, tmp_path) == contents(again, tmp_path)


def test_two_runs_in_one_folder_refuse(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with exclusive(folder / "lock"), pytest.raises(LimitReached, match="is at work on it"):
        compress(digits, goal="macs=0.5", run_directory=folder)


def test_a_strange_folder_is_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="not empty"):
        compress(digits, goal="macs=0.5", run_directory=tmp_path)


def _in_a_process(folder: Path, table: Path, run: Path) -> None:
    compress(folder, goal="macs=0.5", latency_table=table, run_directory=run)


@pytest.mark.parametrize("file", ["optimized.onnx", "pruning/rankings.npz", "plans/*.json", "pruned/*.onnx"])
def test_killed_at_any_stage_goes_on_to_the_same_bytes(file: str, digits: Path, table: Path, tmp_path: Path) -> None:
    whole, _ = compress(digits, goal="macs=0.5", latency_table=table)
    run = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=_in_a_process, args=(digits, table, run))
    process.start()
    deadline = time.monotonic() + 120
    while process.is_alive() and not list(run.glob(file)) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert list(run.glob(file))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again, _ = compress(digits, goal="macs=0.5", latency_table=table, run_directory=run)
    assert contents(whole, tmp_path) == contents(again, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither a goal nor a limit"),
        ({"max_drop": "much"}, "max-drop=much is no drop"),
        ({"max_drop": -1}, "max-drop=-1 is no drop"),
        ({"goal": "speed=2"}, "a goal cannot limit 'speed'"),
        ({"goal": "macs=0.5", "skip": ["everything"]}, "no stage 'everything'"),
        ({"goal": "macs=0.5", "precisions": ["int3"]}, "no precision 'int3'"),
        ({"goal": "macs=0.5", "metric": "beauty"}, "no metric 'beauty'"),
        ({"goal": "macs=0.5", "output": "z"}, "no output 'z'"),
        ({"goal": "macs=0.5", "executor": "moon"}, "no executor 'moon'"),
        ({"goal": "macs=0.5", "class_drop": -1}, "limit of class-drop=-1"),
        ({"goal": "macs=0.5", "class_drop": "1"}, "limit of class-drop=1 is none"),
        ({"goal": "macs=0.5", "keep": float("nan")}, "keep=nan is no share"),
        ({"goal": "macs=0.5", "learning_rate": float("nan")}, "learning rate of nan"),
        ({"goal": "macs=0.5", "batch": 0}, "batch cannot be 0"),
        ({"goal": "macs=0.5", "threads": 0}, "threads cannot be 0"),
        ({"goal": "macs=0.5", "workers": 0}, "workers cannot be 0"),
        ({"goal": "macs=0.5", "metric": len}, "a metric cannot be"),
        ({"goal": "macs=0.5", "precisions": ["int8"]}, "no precision int8 without quantization"),
        ({"goal": "macs=0.5", "slice_drop": 1}, "slice-drop needs labels and slices"),
        ({"goal": "macs=0.5", "skip": [], "loss": "luck"}, "no loss 'luck'"),
        ({"goal": "macs=0.5", "skip": [], "augment": "luck"}, "no augmentation 'luck'"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], message: str, digits: Path) -> None:
    with pytest.raises(UsageError, match=message):
        compress(digits, **options)


def test_a_model_without_channels_is_only_quantized(digits: Path, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,1,8,8] x) => (float[N,64] y) { y = Flatten (x) }'
    )
    onnx.save(model, tmp_path / "flat.onnx")
    x = np.load(digits / "train.npz")["x"]
    with pytest.raises(Infeasible, match="nothing comes down to the goal"):
        graphopt.compress(tmp_path / "flat.onnx", {"x": x}, goal="latency=0.5", **QUICK)


def test_the_report_is_plain_data(digits: Path) -> None:
    _, report = compress(digits, goal="macs=0.5", max_drop=2, skip=["distill", "quantize", "refine"])
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["verdict"]["met"] is True
    assert sum(point["chosen"] for point in data["points"]) == 1
    assert any(point["on_front"] for point in data["points"])
    assert len(data["classes"]) == 10
    assert {group["name"] for group in data["groups"] if group["sensitivity"]}
    assert data["provenance"]["seed"] == 0


def test_metadata_say_where_the_result_comes_from(digits: Path) -> None:
    model, report = compress(digits, goal="macs=0.5")
    kept = json.loads(model.metadata_props["graphopt.compress"])
    assert kept["original"] == report.provenance["original sha256"]
    assert kept["goal"] == "macs=0.5"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A local cluster of two workers."""
    ray = pytest.importorskip("ray", reason="the extra graphopt[scale] is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_gives_what_one_process_gives(digits: Path, table: Path, cluster: Any, tmp_path: Path) -> None:
    alone, _ = compress(digits, goal="macs=0.5", latency_table=table)
    beside, _ = compress(digits, goal="macs=0.5", latency_table=table, executor="ray", run_directory=tmp_path / "run")
    assert contents(alone, tmp_path) == contents(beside, tmp_path)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_survived(
    digits: Path, table: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = compress(digits, goal="macs=0.5", latency_table=table)
    mark = tmp_path / "killed"

    def dying(asked: Trial) -> list[Outcome]:
        """Takes its own process down in the middle of the first trial that prunes."""
        if asked.variants[0].way > 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return run(asked)

    monkeypatch.setattr(executors, "run", dying)
    beside, _ = compress(digits, goal="macs=0.5", latency_table=table, executor="ray", run_directory=tmp_path / "run")
    assert mark.exists()
    assert contents(alone, tmp_path) == contents(beside, tmp_path)


def test_a_folder_of_another_model_in_memory_is_refused(digits: Path, tmp_path: Path) -> None:
    train = dict(np.load(digits / "train.npz"))
    options: dict[str, Any] = {"goal": "macs=0.5", "run_directory": tmp_path / "run", **QUICK}
    model = onnx.load(digits / "model.onnx")
    first = graphopt.compress(model, train, **options)
    assert graphopt.compress(model, train, **options) == first
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].raw_data = (2 * weight).astype(np.float32).tobytes()
    with pytest.raises(UsageError, match="keeps another run: its model differs"):
        graphopt.compress(model, train, **options)


def test_a_graphsurgeon_graph_comes_back_as_one(digits: Path) -> None:
    gs = pytest.importorskip("onnx_graphsurgeon")
    graph = gs.import_onnx(onnx.load(digits / "model.onnx"))
    found = graphopt.compress(graph, dict(np.load(digits / "train.npz")), goal="macs=0.5", **QUICK)
    assert isinstance(found, gs.Graph)
    assert graph.tensors()["w1"].shape == [16, 1, 3, 3]


def test_an_original_that_gives_nan_is_told(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Log (x) }'
    )
    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    with pytest.raises(ModelError, match=r"the model gives NaN as 'y' for .* samples"):
        graphopt.compress(model, {"x": x}, goal="macs=0.5", **QUICK)


@pytest.mark.parametrize("text", ["", "{}"])
@pytest.mark.parametrize("name", ["latency.json", "variants/0.000-float32.json"])
def test_files_of_a_run_that_hold_something_else_are_made_again(
    name: str, text: str, digits: Path, tmp_path: Path
) -> None:
    run_directory = tmp_path / "run"
    _, first = compress(digits, goal="macs=0.5", run_directory=run_directory)
    (run_directory / name).write_text(text, "utf-8")
    _, again = compress(digits, goal="macs=0.5", run_directory=run_directory)
    assert again.after == first.after
    assert len((run_directory / name).read_text("utf-8")) > 2


def test_a_table_of_no_time_is_none(digits: Path, table: Path, tmp_path: Path) -> None:
    content = json.loads(table.read_text("utf-8"))
    content["models"] = dict.fromkeys(content["models"], 0)
    (tmp_path / "table.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match="is no latency table"):
        compress(digits, goal="macs=0.5", latency_table=tmp_path / "table.json")


def test_an_input_may_be_called_file(tmp_path: Path) -> None:
    _save_arrays(tmp_path / "data.npz", {"file": np.arange(3), "a/b": np.ones((2, 2))})
    kept = np.load(tmp_path / "data.npz")
    assert sorted(kept) == ["a/b", "file"]
    assert kept["file"].tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="'y' holds Python objects"):
        _save_arrays(tmp_path / "data.npz", {"y": np.array(["a"], object)})
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_run_and_in_silence(told: signal.Signals, digits: Path, tmp_path: Path) -> None:
    words = ["compress", digits / "model.onnx", "--data", digits / "train.npz", "--goal", "macs=0.5", "--threads", "1"]
    words += ["--skip", "distill,sensitivity,refine", "--executor", "processes", "-q", "-o", tmp_path / "out.onnx"]
    with subprocess.Popen(
        [sys.executable, "-m", "graphopt", *map(str, words)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        deadline = time.monotonic() + 120
        while not (workers := _workers(children)) and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert workers
        if told == signal.SIGINT:
            os.killpg(started.pid, told)
            _, said = started.communicate(timeout=60)
            assert (started.returncode, said.strip()) == (130, "interrupted")
        else:
            started.kill()
            started.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(_is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_alive, workers))


def _workers(children: Path) -> list[int]:
    found = [int(word) for word in children.read_text("ascii").split()] if children.exists() else []
    return [one for one in found if "spawn_main" in Path(f"/proc/{one}/cmdline").read_text("ascii", "replace")]


def _is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text("ascii", "replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_of_more_samples_than_there_are_is_noted(digits: Path) -> None:
    _, report = compress(digits, goal="macs=0.5", batch=5000)
    assert any("there are no 5,000 samples for a run" in note for note in report.notes)


def test_single_steps_are_built_like_any_other_variant(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    skip = ["distill", "quantize", "sensitivity"]
    _, report = compress(digits, goal="macs=0.5", skip=skip, run_directory=folder)
    stepped = [one for one in report.choice.points if one.variant.sizes]
    assert stepped
    plan = Plan.load(folder / "plans" / f"{stepped[0].variant.cut}.json")
    assert {plan.sizes[name] - len(gone) for name, gone in plan.removed.items()} >= {
        kept for group, kept in stepped[0].variant.sizes if kept < max(plan.sizes.values())
    }
    assert (folder / "pruned" / f"{stepped[0].variant.cut}.onnx").exists()


def test_residual_blocks_go_where_channels_must_stay(tmp_path: Path) -> None:
    """The shipped network of digits has two; one of them has channels that are excluded."""
    options: dict[str, Any] = {
        "evaluation": "digits:split=test",
        "goal": "macs=0.55",
        "keep": 0.9,
        "exclude": ["/3/*"],
        "samples": 128,
        **QUICK,
    }
    digits = Path(__file__).parents[2] / "models" / "digits.onnx"
    folder = tmp_path / "run"
    found, report = graphopt.compress(digits, "digits:split=train", with_report=True, run_directory=folder, **options)
    variant = report.point.variant
    assert variant.blocks == 1
    assert Plan.load(folder / "plans" / f"{variant.cut}.json").blocks == ("/4/Add",)
    assert "residual blocks that were dropped: /4/Add" in report.notes
    assert report.kept["/4/body/body.0/Conv"] == (48, 0)
    assert not [node.name for node in found.graph if "/4/" in node.name]  # nor the Relu after it, which is one of two
    with pytest.raises(Infeasible):
        graphopt.compress(digits, "digits:split=train", **options | {"skip": [*QUICK["skip"], "depth"]})


def test_where_all_channels_are_excluded_it_quantizes(digits: Path) -> None:
    skip = ["distill", "sensitivity", "refine"]
    _, report = compress(digits, goal="bytes=0.5", exclude=["*"], skip=skip)
    assert report.point.variant.precision == "int8"
    assert "no channels can be removed: exclude holds all of them" in report.notes


def test_layers_that_are_slower_in_integers_stay_float(digits: Path, tmp_path: Path) -> None:
    """Which ones is measured once, and kept with the other latencies."""
    file, folder = tmp_path / "table.json", tmp_path / "run"
    skip = ["distill", "prune", "sensitivity"]
    compress(digits, goal="bytes=0.6", skip=skip, latency_table=file)
    measured = json.loads(file.read_text())
    assert isinstance(measured["floats"], list)
    _, told = graphopt.quantize(digits / "model.onnx", digits / "train.npz", time=False, with_report=True)
    second = [one.name for one in told.layers if one.operator == "Conv"][1]  # the nodes have no names of their own
    file.write_text(json.dumps(measured | {"floats": [second, "gone"]}))
    _, report = compress(digits, goal="bytes=0.6", skip=skip, latency_table=file, run_directory=folder)
    assert "2 layers stay float" in next(one.decision for one in report.stages if one.name == "measure")
    nodes = onnx.load(folder / "variants" / "0.000-int8.onnx").graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    convs = [made.get(node.input[1]) for node in nodes if node.op_type == "Conv"]
    assert convs == ["DequantizeLinear", None, "DequantizeLinear"]


def test_what_leads_to_the_same_is_built_once(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the way, the same goes here."""
    plan = Chooser.plan
    monkeypatch.setattr(Chooser, "plan", lambda own, variant: plan(own, dataclasses.replace(variant, way=0.5)))
    folder = tmp_path / "run"
    _, report = compress(digits, goal="macs=0.3", run_directory=folder, best_effort=True)
    first, *twins = [one for one in report.choice.points if not one.variant.is_whole]
    assert twins
    for one in twins:
        assert one.twin == first.variant
        assert not (folder / "pruned" / f"{one.variant.cut}.onnx").exists()
        assert (one.left, one.score) == (first.left, first.score)
    assert (folder / "pruned" / f"{first.variant.cut}.onnx").exists()
