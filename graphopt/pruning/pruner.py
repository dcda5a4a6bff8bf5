"""``prune``: rank, allocate, remove, prove, reconstruct."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphopt import collector, walk
from graphopt.analysis.cost import costs
from graphopt.channels.analysis import analyze, prove
from graphopt.channels.atoms import Mask
from graphopt.channels.slicing import carve
from graphopt.channels.workpiece import Workpiece
from graphopt.errors import EnvironmentProblem, UsageError
from graphopt.interop.kinds import Source
from graphopt.names import label
from graphopt.pipeline.report import Summary
from graphopt.pruning import allocation, fidelity, sensitivity
from graphopt.pruning.calibration import Calibration
from graphopt.pruning.expense import Expense
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance import Evidence, Gradients, Ranking, criterion
from graphopt.pruning.layers import find_layers
from graphopt.pruning.plan import Plan, Settings, digest_of, digest_of_weights
from graphopt.pruning.reconstruction import Refit, reconstruct
from graphopt.pruning.report import GroupOutcome, PruneReport, Size
from graphopt.pruning.rundirectory import RunDirectory
from graphopt.pruning.targets import Target

if TYPE_CHECKING:
    from graphopt.pruning.latency.table import LatencyTable

__all__ = ["prune"]

Progress = Callable[[str, float | None], None]
Ranker = Callable[[Evidence], list[Ranking]]

_SHOWN = 3  # names in a note
_DIFFERENTIATED = ("taylor", "fisher")


def prune(
    source: Any,
    goal: Any = None,
    calibration: Any = None,
    *,
    importance: str | Ranker = "obs",
    ranking: str = "global",
    granularity: str = "heads",
    groups: Iterable[str] = (),
    exclude: Iterable[str] = (),
    keep: float = 0.1,
    multiple: int | None = None,
    reconstruct: bool = True,
    polish: int = 0,
    optimize: bool = True,
    samples: int | None = None,
    batch: int = 64,
    preprocess: str = "",
    plan: Plan | str | Path | None = None,
    allow_interface: Iterable[str] = (),
    latency_table: LatencyTable | str | Path | None = None,
    latency_batch: int = 1,
    gradients: Gradients | None = None,
    check: bool = True,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    run_directory: str | Path | None = None,
    allow_loss: bool = False,
    progress: Progress | None = None,
    with_report: bool = False,
) -> Any:
    """Makes a model smaller by taking out what matters least, and lets what is left make up for it.

    Channels, heads and hidden units go physically. What goes is proven to equal a mask of zeros; what is left is
    refitted on calibration inputs, without labels, so that it computes what the original computed.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or an ``onnx_graphsurgeon.Graph``; never changed.
        goal: ``{"macs": 0.5}`` or ``"macs=0.5"``: shares of the original, or numbers above 1. Also ``params``,
            ``bytes`` and ``latency``, and several at once.
        calibration: Inputs: whatever :func:`graphopt.datasets.bind` takes, as a path, arrays by name, or feeds.
        importance: A name of :data:`graphopt.pruning.importance.CRITERIA`, or a function that ranks.
        ranking: One of :data:`graphopt.pruning.allocation.RANKINGS`.
        granularity: Where an axis is heads times lanes: ``heads``, or ``head-dim``.
        groups: Shell patterns of the groups to prune, by the name of the group or of a node; all if empty.
        exclude: Shell patterns of groups to leave alone.
        keep: Share of each group that stays whatever happens.
        multiple: Kept channels are multiples of it, even in small groups. If ``None`` it is measured where latency is a
            goal; else it is 8, and small groups may keep any number.
        reconstruct: Refit what is left.
        polish: Epochs of training, end to end, to give what the original gives; no labels either. Worth it where there
            are many calibration inputs: up to 65,536 are taken, and 1 GiB. Needs the extra ``distill`` (PyTorch).
        optimize: Run the default passes first, so that what they fold need not be reconstructed.
        samples: Calibration samples to draw: at most 2,048, and 256 MiB, if ``None``.
        batch: Samples of one run.
        preprocess: What to do to the calibration data, see :func:`graphopt.datasets.open_dataset`.
        plan: Carry out this decision instead of making one; its settings replace those given here.
        allow_interface: Shell patterns of inputs and outputs that may shrink, such as the caches of a decoder.
        latency_table: One that was measured before, or a file of one; a file that is not there yet is written with
            what is measured. Without one it is measured now, where latency is a goal.
        latency_batch: Samples of the run whose latency is the goal.
        gradients: Who differentiates, for the importance ``taylor`` and ``fisher``; PyTorch if ``None``.
        check: Prove in ONNX Runtime that removal equals masking.
        seed: Of samples, positions and whatever is random: same seed, same bytes.
        provider: Execution provider of calibration and latency.
        threads: Intra-op threads of both; ``None`` leaves it to ONNX Runtime.
        run_directory: A folder that keeps what was worked out, so that an interrupted run goes on from there.
        allow_loss: Accept that a graphsurgeon graph cannot hold all of the model.
        progress: Called with the name of each step and the share of it that is done.
        with_report: Return ``(model, report)``.

    Returns:
        The pruned model, of the kind that came in (a path gives an ``onnx_ir.Model``).

    Raises:
        UsageError: Options that make no sense, or a plan of another model.
        ModelError: The model or the data cannot be read, or do not fit each other.
        Infeasible: The goal cannot be reached; the error says how far it goes.
        NotEquivalent: Removal does not equal masking (a bug), or the result is not finite.
        LimitReached: The proof ran out of time or memory.
        EnvironmentProblem: The provider is missing, or PyTorch where it is needed.
    """
    if (goal is None) == (plan is None):
        raise UsageError(
            "there is no goal" if goal is None else "a plan has its goal already",
            hint='Give goal={"macs": 0.5}, or a plan.',
        )
    wanted = None if goal is None else Goal.of(goal)
    _check_numbers(keep, multiple, polish, seed, threads)
    given = plan if plan is None or isinstance(plan, Plan) else Plan.load(plan)
    settings = Settings(
        importance if isinstance(importance, str) else "",
        ranking,
        granularity,
        _patterns(allow_interface),
        optimize,
        reconstruct,
        polish,
        samples or 0,
        batch,
        seed,
        provider,
        threads,
    )
    if isinstance(importance, str):
        ranker: Ranker = criterion(importance).rank
    else:
        ranker = importance
    job = _Job(
        Source.of(source, allow_loss=allow_loss),
        given.settings if given is not None else settings,
        progress or (lambda step, share: None),
        RunDirectory.of(run_directory),
        check=check,
    )
    job.load(calibration, preprocess)
    if given is not None:
        chosen = job.follow(given)
    else:
        assert wanted is not None
        rankings = job.rank(ranker, gradients)
        limits = {"groups": _patterns(groups), "exclude": _patterns(exclude), "keep": keep}
        target = job.target(wanted, latency_table, latency_batch)
        chosen = job.allocate(rankings, target, multiple, limits)
    reached = Goal.of(given.goal) if given is not None else wanted
    assert reached is not None
    result = job.carry_out(chosen, reached)
    report = job.report(chosen, str(reached), given)
    return (job.origin.give_back(result), report) if with_report else job.origin.give_back(result)


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What goes."""

    units: Sequence[int]
    rankings: Sequence[Ranking]
    speedup: Any = None


class _Job:
    """One pruning, step by step."""

    def __init__(
        self, origin: Source, settings: Settings, progress: Progress, directory: RunDirectory, *, check: bool
    ) -> None:
        self.origin = origin
        self._settings = settings
        self._progress = progress
        self._directory = directory
        self._check = check
        self._notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._proof = "unverified"
        self._refits: list[Refit] = []
        self._result: ir.Model | None = None

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._progress(step, None)
        start = time.perf_counter()
        yield
        self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start

    @property
    def _running(self) -> dict[str, Any]:
        return {"provider": self._settings.provider, "threads": self._settings.threads}

    # -- what there is -----------------------------------------------------------------------------------------------

    def load(self, calibration: Any, preprocess: str) -> None:
        """Reads the model and the data, and finds the channels."""
        with self._timed("load"):
            original = model = self.origin.read()
        if self._settings.optimize:
            model = self._optimized(model)
        with self._timed("data"):
            settings = self._settings
            self._data = Calibration.of(
                calibration,
                model,
                samples=settings.samples,
                preprocess=preprocess,
                seed=settings.seed,
                train=settings.polish > 0,
            )
            self._notes += self._data.notes
            self._settings = dataclasses.replace(settings, samples=settings.samples or len(self._data.fitted))
            self._before = self._size(original)
            self._batches = list(self._data.fitted.batches(settings.batch))
        with self._timed("analyze"):
            self._graph = analyze(
                model,
                granularity=self._settings.granularity,
                allow_interface=self._settings.allow_interface,
            )
        if self._directory.keeps:
            self._directory.open(
                f"{digest_of(model)} {digest_of_weights(model)}", self._data.fitted.digest, self._settings
            )

    def _optimized(self, model: ir.Model) -> ir.Model:
        from graphopt.optimizer import optimize

        with self._timed("optimize"):
            result, report = optimize(model, validate=self._check, with_report=True)
        self._notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        found: ir.Model = result
        return found

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one run of one sample, or of as few as the model takes."""
        feeds = next(iter(self._data.fitted.batches(1)))
        return {name: tuple(array.shape) for name, array in feeds.items() if hasattr(array, "shape")}

    # -- what goes ---------------------------------------------------------------------------------------------------

    def rank(self, ranker: Ranker, gradients: Gradients | None) -> list[Ranking]:
        """Ranks the units of every group."""
        settings = self._settings
        if gradients is None and settings.importance in _DIFFERENTIATED:
            gradients = _with_torch("gradients").gradients
        with self._timed("rank"):
            evidence = Evidence(
                self._graph,
                self._batches,
                seed=settings.seed,
                gradients=gradients,
                progress=self._progress,
                **self._running,
            )
            # What a function of the caller's gave is not kept: the next run may bring another function.
            kept = self._directory if settings.importance else RunDirectory(None)
            rankings = kept.rankings(self._graph, lambda: ranker(evidence))
            if settings.ranking == "sensitivity":
                rankings = sensitivity.measured(evidence, rankings)
        return rankings

    def target(self, goal: Goal, table: Any, batch: int) -> Target:
        """What a removal leaves of what the goal limits."""
        with self._timed("target"):
            feeds = next(iter(self._data.fitted.batches(batch)))
            save = self._directory.save_latency_table
            if isinstance(table, str | Path) and not Path(table).exists():
                table, save = None, functools.partial(_save_table, Path(table))
            return Target(
                self._graph,
                goal,
                Expense(self._graph, self._shapes),
                feeds,
                table=table if table is not None else self._directory.latency_table(),
                save=save,
                seed=self._settings.seed,
                progress=self._progress,
                **self._running,
            )

    def allocate(
        self, rankings: Sequence[Ranking], target: Target, multiple: int | None, limits: Mapping[str, Any]
    ) -> _Choice:
        """Chooses units so that the target is met."""
        with self._timed("allocate"), target:
            # Who names a multiple, or milliseconds, wants speed; others may keep any size that is good.
            strict = multiple is not None or target.is_measured
            candidates = allocation.candidates(
                self._graph,
                rankings,
                multiple=multiple if multiple is not None else target.multiple,
                choices=2 if strict else allocation.FINEST,
                **limits,
            )

            levels: list[int] = []

            def choose(cost: allocation.Cost) -> Mask:
                levels[:] = allocation.allocate(self._graph, candidates, cost, self._settings.ranking)
                return allocation.gone(self._graph, candidates, levels)

            speedup = target.meet(choose)
        units = [one.ranking.order[:level] for one, level in zip(candidates, levels, strict=True)]
        return _Choice(np.concatenate(units).tolist(), [one.ranking for one in candidates], speedup)

    def follow(self, plan: Plan) -> _Choice:
        """Chooses what a plan says."""
        if self._data.fitted.digest != plan.data and not self._data.is_synthetic:
            self._notes.append("the calibration inputs are others than those of the plan")
        return _Choice(plan.units(self._graph), [])

    # -- doing it ----------------------------------------------------------------------------------------------------

    def carry_out(self, choice: _Choice, goal: Goal) -> ir.Model:
        """Removes, proves, and refits."""
        graph = self._graph
        gone = graph.gone(choice.units)
        with self._timed("remove"), collector.paused():
            workpiece = Workpiece(graph.model)
            carve(graph, gone, workpiece)
            workpiece.remove_orphans()
        if self._check and gone.any():
            with self._timed("prove"):
                verdict = prove(graph, gone, workpiece.model, seed=self._settings.seed)
            self._proof = "proven" if verdict.status == "equal" else verdict.status
        if self._settings.reconstruct and gone.any():
            with self._timed("reconstruct"):
                self._refits = reconstruct(
                    graph,
                    gone,
                    workpiece,
                    self._batches,
                    seed=self._settings.seed,
                    progress=self._progress,
                    store=self._directory.fits(gone),
                    new_biases=not {"params", "bytes"} & set(goal.limits),
                    **self._running,
                )
        self._result = workpiece.model
        if self._settings.polish and gone.any():
            with self._timed("polish"):
                self._result = self._polished(workpiece.model)
        return self._result

    def _polished(self, pruned: ir.Model) -> ir.Model:
        """Trained to give what the original gives, on as many inputs as there are."""
        if self._data.is_synthetic:
            self._notes.append("nothing was polished: that needs real inputs")
            return pruned
        settings = self._settings
        polished: ir.Model = _with_torch("polish").polish(
            pruned,
            self._graph.model,
            list(self._data.trained.batches(settings.batch)),
            epochs=settings.polish,
            seed=settings.seed,
            batch=settings.batch,
            progress=self._progress,
            **self._running,
        )
        return polished

    def report(self, choice: _Choice, goal: str, plan: Plan | None) -> PruneReport:
        """Counts and compares."""
        assert self._result is not None
        with self._timed("compare"):
            held_out = list(self._data.held_out.batches(self._settings.batch))
            found = fidelity.compare(
                self._graph.model, self._result, held_out, self._data.held_out.labels, **self._running
            )
        self._note_refits()
        removed = set(choice.units)
        if plan is None:
            plan = self._plan(removed, goal)
        ranked = {ranking.group.index: ranking for ranking in choice.rankings}
        outcomes = []
        for group in self._graph.groups:
            kept = sum(unit.index not in removed for unit in group.units)
            if group.index in ranked or kept < len(group.units):
                harm = ranked[group.index].harm.tolist() if group.index in ranked else []
                outcomes.append(GroupOutcome(group.name, len(group.units), kept, tuple(harm), group.heads))
        return PruneReport(
            goal,
            self._before,
            self._size(self._result),
            outcomes,
            self._refits,
            self._proof,
            found,
            choice.speedup,
            plan,
            self._notes,
            self._seconds,
        )

    def _note_refits(self) -> None:
        """Says what was not reconstructed."""
        few = [one.layer for one in self._refits if not one.rows]
        if few:
            self._notes.append(f"too few calibration samples (or too large numbers) to refit {_some(few)}")
        nested = [
            label(node)
            for node in self._graph.model.graph
            if any(True for graph in walk.subgraphs(node) for _ in find_layers(graph))
        ]
        if nested and self._settings.reconstruct:
            self._notes.append(f"layers in the bodies of {_some(nested)} are not refitted")

    def _plan(self, removed: set[int], goal: str) -> Plan:
        places = {
            group.name: [place for place, unit in enumerate(group.units) if unit.index in removed]
            for group in self._graph.groups
        }
        taken = {name: own for name, own in places.items() if own}
        sizes = {group.name: len(group.units) for group in self._graph.groups if group.name in taken}
        digest = "" if self._data.is_synthetic else self._data.fitted.digest
        return Plan(digest_of(self._graph.model), goal, self._settings, digest, taken, sizes)

    def _size(self, model: ir.Model) -> Size:
        from graphopt.analysis.parameters import parameters

        shapes = {value.name for value in model.graph.inputs}
        counted = costs(model, input_shapes={name: one for name, one in self._shapes.items() if name in shapes})
        summary = Summary.of(model)
        return Size(counted.macs, parameters(model), summary.weight_bytes, summary.nodes)


def _check_numbers(keep: float, multiple: int | None, polish: int, seed: int, threads: int | None) -> None:
    """That options are numbers that make sense; the others are checked where they are used."""
    if not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise UsageError(f"keep={keep!r} is no share", hint="Give a number from 0 to 1.")
    for name, number, least in (
        ("multiple", multiple, 1),
        ("threads", threads, 1),
        ("seed", seed, 0),
        ("polish", polish, 0),
    ):
        if number is not None and (not isinstance(number, int) or number < least):
            raise UsageError(f"{name}={number!r} makes no sense", hint=f"Give a whole number from {least} on.")


def _patterns(given: Iterable[str]) -> tuple[str, ...]:
    """Patterns as a tuple; a string is one."""
    return (given,) if isinstance(given, str) else tuple(given)


def _save_table(path: Path, table: LatencyTable) -> None:
    table.save(path)


def _with_torch(name: str) -> Any:
    """A module of the torch bridge.

    Raises:
        EnvironmentProblem: PyTorch is not installed.
    """
    try:
        return importlib.import_module(f"graphopt.torch.{name}")
    except ImportError as error:
        if error.name != "torch":
            raise
        raise EnvironmentProblem(
            "this needs PyTorch, which is not installed", hint="pip install 'graphopt[distill]'"
        ) from error


def _some(names: Sequence[str]) -> str:
    """A few of many names."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
