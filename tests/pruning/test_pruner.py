"""Pruning from end to end: goals are met, what is learnt carries over, the same seed gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import parse, run
from pruning.examples import classifier, inputs

import graphopt
from graphopt import proto
from graphopt.channels.analysis import analyze
from graphopt.channels.slicing import cut
from graphopt.errors import Infeasible, ModelError, UsageError
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance import CRITERIA, Evidence, Ranking
from graphopt.pruning.latency.predictor import LatencyModel
from graphopt.pruning.latency.table import LatencyTable
from graphopt.pruning.report import PruneReport
from graphopt.pruning.schedule import carried_over

Array = npt.NDArray[Any]


def _prune(model: Any, goal: Any = "macs=0.5", x: Array | None = None, **options: Any) -> tuple[Any, PruneReport]:
    data = {"x": inputs(300) if x is None else x}
    options = {"samples": 256, "with_report": True} | options
    result: tuple[Any, PruneReport] = graphopt.prune(model, goal, data, **options)
    return result


def _bytes(model: ir.Model) -> bytes:
    return bytes(proto.to_proto(model).SerializeToString(deterministic=True))


@pytest.mark.parametrize("goal", [{"macs": 0.5}, "params=0.4", "bytes=4000", "macs=0.6,params=0.5"])
def test_goals_are_met(goal: Any) -> None:
    pruned, report = _prune(classifier(), goal)
    assert report.proof == "proven"
    before, after = report.before, report.after
    for part in [goal] if isinstance(goal, str) else [f"macs={goal['macs']}"]:
        for one in part.split(","):
            name, limit = one.split("=")
            bound = float(limit) if float(limit) > 1 else float(limit) * getattr(before, name)
            assert 0.8 * bound <= getattr(after, name) <= bound or len(part.split(",")) > 1
            assert getattr(after, name) <= bound
    assert run(pruned, {"x": inputs(5)})[0].shape == (5, 4)


def test_new_biases_do_not_break_a_goal_of_parameters() -> None:
    text = "agraph (float[N,8] x) => (float[N,8] y) { [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2) }"
    model = parse(text, {"w1": inputs(8, seed=2).repeat(2, axis=1), "w2": inputs(16, seed=3)})
    _, report = _prune(model, "params=0.5")
    assert report.after.params <= 0.5 * report.before.params
    _, report = _prune(model, "macs=0.5")
    assert report.refits[0].rows


def test_reconstruction_brings_the_outputs_back() -> None:
    fresh = inputs(200, seed=9)
    model = classifier(hidden=64)
    wanted = run(model, {"x": fresh})[0]

    def missed(**options: Any) -> float:
        pruned, _ = _prune(model, "macs=0.4", **options)
        return float(np.square(run(pruned, {"x": fresh})[0] - wanted).mean() / wanted.var())

    assert missed() < 0.5 * missed(reconstruct=False)
    assert missed() < missed(importance="random")


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    first, second, other = (_prune(classifier(), importance="random", seed=seed)[0] for seed in (3, 3, 4))
    assert _bytes(first) == _bytes(second) != _bytes(other)


def test_a_plan_is_carried_out_again_to_the_byte(tmp_path: Path) -> None:
    pruned, report = _prune(classifier(), seed=5)
    report.plan.save(tmp_path / "plan.json")
    again = graphopt.prune(classifier(), calibration={"x": inputs(300)}, plan=tmp_path / "plan.json")
    assert _bytes(again) == _bytes(pruned)


def test_choosing_in_steps_ranks_what_is_left_and_replays_in_one(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def rank(evidence: Evidence) -> list[Ranking]:
        seen.append(tuple(len(group.units) for group in evidence.graph.groups))
        return CRITERIA["obs"].rank(evidence)

    pruned, report = _prune(classifier(), "macs=0.3", importance=rank, steps=3)
    assert len(seen) == 3
    assert seen[0] == (32, 32)
    assert sum(seen[0]) > sum(seen[1]) > sum(seen[2])
    assert report.after.macs <= 0.3 * report.before.macs
    again = graphopt.prune(classifier(), calibration={"x": inputs(300)}, plan=report.plan)
    assert _bytes(again) == _bytes(pruned)


def test_steps_go_on_from_a_directory_to_the_same_bytes(tmp_path: Path) -> None:
    whole, _ = _prune(classifier(), "macs=0.3", importance="obs-swap", steps=3)

    class Stop(Exception):
        pass

    def stop(step: str, share: float | None) -> None:
        if step == "compare":
            raise Stop

    with pytest.raises(Stop):
        _prune(classifier(), "macs=0.3", importance="obs-swap", steps=3, run_directory=tmp_path / "run", progress=stop)
    assert len(list((tmp_path / "run").glob("rankings*.npz"))) == 3
    resumed, _ = _prune(classifier(), "macs=0.3", importance="obs-swap", steps=3, run_directory=tmp_path / "run")
    assert _bytes(resumed) == _bytes(whole)


def test_what_is_gone_comes_first_in_a_ranking_that_is_carried_over() -> None:
    graph = analyze(classifier(hidden=4))
    before = CRITERIA["l1"].rank(Evidence(graph))
    gone = [int(unit) for ranking in before for unit in ranking.order[:2]]
    smaller = analyze(cut(graph, graph.gone(gone)))
    later = CRITERIA["l2"].rank(Evidence(smaller))
    for old, new, found in zip(before, later, carried_over(before, later, gone), strict=True):
        left = [unit.index for unit in old.group.units if unit.index not in gone]
        place = {unit.index: number for number, unit in enumerate(new.group.units)}
        assert found.order.tolist() == [*old.order[:2].tolist(), *(left[place[unit]] for unit in new.order.tolist())]
        assert found.harm.tolist() == [0, 0, *new.harm.tolist()]


def test_a_plan_fits_other_weights_of_the_same_structure_only() -> None:
    _, report = _prune(classifier())
    other = graphopt.prune(classifier(seed=1), calibration={"x": inputs(300)}, plan=report.plan)
    assert isinstance(other, ir.Model)
    with pytest.raises(UsageError, match="another model"):
        graphopt.prune(classifier(hidden=24), calibration={"x": inputs(300)}, plan=report.plan)


def test_the_callers_model_stays_and_its_kind_comes_back() -> None:
    model = proto.to_proto(classifier())
    before = model.SerializeToString()
    pruned, _ = _prune(model)
    assert isinstance(pruned, onnx.ModelProto)
    assert model.SerializeToString() == before


def test_an_interrupted_run_goes_on_from_its_directory(tmp_path: Path) -> None:
    whole, _ = _prune(classifier(), run_directory=tmp_path / "other")

    class Stop(Exception):
        pass

    def stop(step: str, share: float | None) -> None:
        if step == "compare":
            raise Stop

    with pytest.raises(Stop):
        _prune(classifier(), run_directory=tmp_path / "run", progress=stop)
    assert list((tmp_path / "run").glob("fit-*.npz"))
    ranked: list[int] = []

    def never(evidence: Evidence) -> list[Ranking]:
        ranked.append(1)
        return CRITERIA["obs"].rank(evidence)

    original = CRITERIA["obs"]
    CRITERIA["obs"] = original._replace(rank=never)
    try:
        resumed, _ = _prune(classifier(), run_directory=tmp_path / "run")
    finally:
        CRITERIA["obs"] = original
    assert not ranked
    assert _bytes(resumed) == _bytes(whole)


def test_a_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    _prune(classifier(), run_directory=tmp_path / "run")
    with pytest.raises(UsageError, match="another run"):
        _prune(classifier(), run_directory=tmp_path / "run", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not empty"):
        _prune(classifier(), run_directory=tmp_path / "mine")


def test_a_run_that_was_killed_before_it_had_begun_is_begun(tmp_path: Path) -> None:
    cut = tmp_path / ".run.json.0.tmp"
    cut.write_text("{")
    _prune(classifier(), run_directory=tmp_path)
    assert (tmp_path / "run.json").is_file()
    assert not cut.exists()


def test_a_goal_out_of_reach_says_how_far_it_goes() -> None:
    with pytest.raises(Infeasible, match=r"macs=0\.01 cannot be reached: 0\.\d+ of the original's is left"):
        _prune(classifier(), "macs=0.01")


def test_without_data_noise_stands_in_and_the_report_warns() -> None:
    pruned, report = graphopt.prune(classifier(), "macs=0.5", samples=64, with_report=True)
    assert any("noise stood in" in note for note in report.notes)
    assert report.plan.data == ""
    assert run(pruned, {"x": inputs(3)})[0].shape == (3, 4)


def test_a_function_of_the_callers_may_rank() -> None:
    def last_first(evidence: Evidence) -> list[Ranking]:
        return evidence.rankings(-np.arange(len(evidence.graph.group_of), dtype=float), comparable=True)

    _, report = _prune(classifier(), importance=last_first, ranking="uniform")
    for name, removed in report.plan.removed.items():
        assert list(removed) == list(range(report.plan.sizes[name] - len(removed), report.plan.sizes[name]))


@pytest.mark.parametrize("ranking", ["uniform", "isomorphic", "sensitivity"])
def test_every_ranking_runs(ranking: str) -> None:
    _, report = _prune(classifier(), ranking=ranking)
    assert report.after.macs <= 0.5 * report.before.macs


def test_labels_give_accuracy_on_samples_that_were_not_fitted() -> None:
    x = inputs(400)
    labels = run(classifier(), {"x": x})[0].argmax(1)
    _, report = graphopt.prune(classifier(), "macs=0.5", {"x": x, "y": labels}, samples=256, with_report=True)
    assert report.fidelity is not None
    assert report.fidelity.accuracy is not None
    assert report.fidelity.accuracy[0] == 1
    assert 0.5 < report.fidelity.accuracy[1] <= 1
    assert report.fidelity.samples == 40


def test_too_few_samples_are_said_to_be_too_few() -> None:
    _, report = _prune(classifier(), x=inputs(3))
    assert any("too few calibration samples" in note for note in report.notes)


@pytest.mark.parametrize("ranking", ["global", "uniform"])
def test_memory_comes_down_to_the_goal_for_the_batch(ranking: str) -> None:
    """Mostly tensors with a large batch, mostly weights with a small one."""
    for batch in (1, 128):
        _, report = _prune(classifier(), "memory=0.6", latency_batch=batch, ranking=ranking)
        assert 0.4 < report.after.memory / report.before.memory <= 0.6
        assert report.to_dict()["after"]["memory"] == report.after.memory
    assert report.before.memory > 5 * report.before.bytes
    number = report.before.memory // 2
    _, report = _prune(classifier(), f"memory={number}B", latency_batch=128)
    assert report.after.memory <= number
    with pytest.raises(Infeasible, match=r"memory=100B cannot be reached: 0\.\d+ of the original's is left"):
        _prune(classifier(), "memory=100B")


def test_a_latency_below_a_millisecond_can_be_the_goal(tmp_path: Path) -> None:
    """The same goal as a share and in milliseconds is met by the same plan, given the same table."""
    table = tmp_path / "latency.json"
    options: dict[str, Any] = {"latency_batch": 64, "latency_table": table, "threads": 1}
    model = classifier(hidden=512)
    _, share = _prune(model, "latency=0.7", **options)
    whole = LatencyModel(graphopt.channels.analyze(model), LatencyTable.load(table)).full
    assert whole < 1
    _, number = _prune(model, f"latency={0.7 * whole:.9f}ms", **options)
    assert number.goal.startswith("latency=0.")
    assert number.goal.endswith("ms")
    assert 0.5 < number.after.macs / share.after.macs < 2
    assert number.plan.goal == number.goal == str(Goal.of(number.plan.goal))


def test_latency_is_measured_and_the_table_serves_again(tmp_path: Path) -> None:
    table = tmp_path / "latency.json"
    options: dict[str, Any] = {"latency_batch": 64, "latency_table": table, "threads": 1}
    model = classifier(hidden=512)
    pruned, report = _prune(model, "latency=0.7", **options)
    assert report.speedup is not None
    assert 1 / report.speedup.value <= 0.7 * 1.1
    assert json.loads(table.read_text())
    assert run(pruned, {"x": inputs(3)})[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"z": inputs(32)}, "z"),
        ({"x": inputs(32)[:, :5]}, "shape"),
        ({"x": inputs(32).astype(np.int64)}, "int64"),
        ({"x": np.where(inputs(32) > 1, np.nan, inputs(32))}, "NaN|finite|nan"),
        ({"x": inputs(0)}, "no samples|none|0"),
    ],
)
def test_data_that_do_not_fit_are_clear_errors(data: dict[str, Array], message: str) -> None:
    with pytest.raises((ModelError, UsageError), match=message):
        graphopt.prune(classifier(), "macs=0.5", data)


def test_a_model_of_which_everything_is_frozen() -> None:
    model = parse("agraph (float[N,8] x) => (float[N,4] y) { y = MatMul (x, w) }", {"w": np.ones((8, 4), np.float32)})
    with pytest.raises(UsageError, match="nothing to prune"):
        _prune(model)


@pytest.mark.parametrize(("goal", "plan"), [(None, None), ("macs=0.5", "plan.json")])
def test_a_goal_or_a_plan_but_not_both(goal: str | None, plan: str | None) -> None:
    with pytest.raises(UsageError):
        graphopt.prune(classifier(), goal, {"x": inputs()}, plan=plan)


def test_polishing_comes_closer_and_is_reproducible() -> None:
    pytest.importorskip("torch")
    fresh = inputs(300, seed=9)
    model = classifier(hidden=64)
    wanted = run(model, {"x": fresh})[0]

    def logs(scores: Array) -> Array:
        shifted = scores - scores.max(1, keepdims=True)
        found: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return found

    def missed(pruned: ir.Model) -> float:
        """The divergence of what the pruned model says from what the original says."""
        ours, theirs = logs(run(pruned, {"x": fresh})[0]), logs(wanted)
        return float((np.exp(theirs) * (theirs - ours)).sum(1).mean())

    plain, polished, again = (
        _prune(model, "macs=0.15", x=inputs(3000), polish=epochs, threads=1)[0] for epochs in (0, 10, 10)
    )
    assert missed(polished) < 0.9 * missed(plain)
    assert _bytes(polished) == _bytes(again)


def test_torch_differentiates_where_nobody_else_does() -> None:
    pytest.importorskip("torch")
    for name in ("taylor", "fisher", "hessian"):
        _, report = _prune(classifier(), importance=name)
        assert report.after.macs <= 0.5 * report.before.macs


def test_noise_is_not_polished_on() -> None:
    _, report = graphopt.prune(classifier(), "macs=0.5", samples=64, polish=1, with_report=True)
    assert any("nothing was polished" in note for note in report.notes)


@pytest.mark.parametrize("scale", [1e15, 1e30])
@pytest.mark.parametrize("importance", ["obs", "wanda"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_huge_inputs_are_ranked_by_something(importance: str, scale: float) -> None:
    _, report = _prune(classifier(), x=inputs(40) * np.float32(scale), importance=importance)
    assert report.after.macs <= 0.5 * report.before.macs


def test_a_model_that_takes_so_many_at_once_needs_no_number_of_samples() -> None:
    text = "agraph (float[8,8] x) => (float[8,4] y) { a = Gemm (x, w1) b = Relu (a) y = Gemm (b, w2) }"
    random = np.random.default_rng(0)
    weights = {"w1": random.standard_normal((8, 32)), "w2": random.standard_normal((32, 4))}
    model = parse(text, {name: array.astype(np.float32) for name, array in weights.items()})
    _, report = _prune(model, x=inputs(50), samples=None)
    assert report.after.macs <= 0.5 * report.before.macs


@pytest.mark.parametrize(
    "options",
    [
        *({"keep": keep} for keep in (-1.0, 2.0, float("nan"), float("inf"), "a")),
        *({"multiple": number} for number in (0, -3, 1.5)),
        {"threads": 0},
        {"seed": -1},
        {"polish": -1},
        {"steps": 0},
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        _prune(classifier(), **options)


def test_a_pattern_may_be_a_string() -> None:
    _, report = _prune(classifier(), groups="first")
    assert [group.name for group in report.groups if group.kept < group.units] == ["first"]


def test_a_directory_of_other_weights_is_refused(tmp_path: Path) -> None:
    _prune(classifier(), run_directory=tmp_path / "run")
    with pytest.raises(UsageError, match="keeps another run"):
        _prune(classifier(seed=1), run_directory=tmp_path / "run")
    (tmp_path / "run" / "run.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="keeps another run"):
        _prune(classifier(), run_directory=tmp_path / "run")


def test_damaged_files_of_a_directory_are_worked_out_again(tmp_path: Path) -> None:
    first, _ = _prune(classifier(), run_directory=tmp_path / "run")
    for number, file in enumerate(sorted((tmp_path / "run").glob("*.npz"))):
        file.write_bytes(file.read_bytes()[: 100 * number])
    again, _ = _prune(classifier(), run_directory=tmp_path / "run")
    assert _bytes(first) == _bytes(again)


def test_rankings_of_a_function_are_not_kept_for_another(tmp_path: Path) -> None:
    forwards, backwards = (
        _prune(
            classifier(),
            importance=lambda evidence, step=step: [
                Ranking(one.group, one.order[::step], np.arange(len(one.order) + 1.0))
                for one in CRITERIA["l2"].rank(evidence)
            ],
            run_directory=tmp_path / "run",
            reconstruct=False,
        )[0]
        for step in (1, -1)
    )
    assert _bytes(forwards) != _bytes(backwards)
