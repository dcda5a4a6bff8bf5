"""One compression, stage by stage; each leaves its result in the folder of the run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx_ir as ir

from graphopt import io
from graphopt.compression import evidence, executors
from graphopt.compression.checking import check_limits, check_training, identity
from graphopt.compression.choosing import Chooser
from graphopt.compression.clock import Clock, opened_table
from graphopt.compression.context import Context
from graphopt.compression.evaluating import Evaluator, write_plan
from graphopt.compression.judging import AGREEMENT, FIDELITY
from graphopt.compression.points import Point, Variant
from graphopt.compression.report import CompressionReport, Stage
from graphopt.compression.search import HOPELESS, Choice, Search
from graphopt.compression.sensitivity import Sensitivity, sensitivities
from graphopt.compression.tuning import tuned
from graphopt.pruning.allocation import matching
from graphopt.pruning.goal import Goal
from graphopt.pruning.plan import Plan
from graphopt.pruning.report import Size

__all__ = ["Job"]

_RECOVERED: Final = 10  # times as much as is allowed may be lost before training


class Job:
    """One compression.

    Args:
        context: The folder, the model, the data and the settings.
        progress: Called with the name of each step and the share of it that is done.
        executor: Where trials run.
        workers: How many at once.
        table: A file of latencies to read, and to write what is measured to.
    """

    def __init__(
        self,
        context: Context,
        progress: Callable[[str, float | None], None],
        *,
        executor: str,
        workers: int,
        table: Path | None,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._workspace = context.workspace
        self._progress = progress
        self._executor = executor, workers
        self._table_file = table
        self._stages: dict[str, Stage] = {}
        self._sensitivity: Sequence[Sensitivity] = ()
        self._harm: Mapping[str, tuple[float, ...]] = {}
        self.notes: list[str] = []

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[Stage]:
        self._progress(name, None)
        stage = self._stages.setdefault(name, Stage(name))
        start = time.perf_counter()
        yield stage
        stage.seconds += time.perf_counter() - start

    # -- before the search -------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the data, judges the original, and optimizes it.

        Raises:
            UsageError: The folder is of another run, or something that was asked for needs other data.
            ModelError: Model and data do not fit.
        """
        context, settings = self._context, self._settings
        with self._stage("load") as stage:
            drawn = context.drawn
            self.notes += drawn.notes
            judge = context.chooser
            check_limits(context)
            check_training(context)
            self._workspace.claim(identity(context))
            stage.decision = (
                f"{len(drawn.train):,} samples to learn from, {drawn.fitted:,} of them to refit with, "
                f"{len(drawn.choose):,} to choose by, {len(drawn.final):,} to judge by"
            )
            if judge.metric in (AGREEMENT, FIDELITY) and not drawn.is_synthetic:
                self.notes.append(f"the data have no labels: {judge.metric.name} with the original is judged instead")
        with self._stage("optimize") as stage:
            self._workspace.model("optimized", self._optimized)
            before, after = self.before, context.size(io.load(context.optimized))
            stage.decision = f"{before.nodes:,} nodes became {after.nodes:,}"
            stage.skipped = "optimize" in settings.skip

    def _optimized(self) -> ir.Model:
        import graphopt

        if "optimize" in self._settings.skip:
            return io.load(self._context.original)
        found, report = graphopt.optimize(self._context.original, with_report=True)
        self.notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        model: ir.Model = found
        return model

    @functools.cached_property
    def before(self) -> Size:
        """What the original costs."""
        return self._context.size(self._context.model)

    # -- the search --------------------------------------------------------------------------------------------------

    def search(self) -> Choice:
        """Finds the variant to take.

        Raises:
            Infeasible: There is no latency or count to bring down.
        """
        settings = self._settings
        context = self._context
        with contextlib.ExitStack() as opened:
            self._table = opened_table(context, self._table_file)
            clock = opened.enter_context(self._opened_clock())
            with self._stage("measure") as stage:
                share = clock.share(context.optimized)
                stage.decision = f"{self._table.milliseconds:.3g} ms a run; optimized {share:.2f} of that"
                self._measure_layers(stage)
            self._limits = self._shares()
            self._chooser = self._opened_chooser(opened)
            self._measure_sensitivity()
            self._tune()
            run = opened.enter_context(executors.opened(self._executor[0], context, self._executor[1]))
            evaluate = Evaluator(
                context,
                self.before,
                chooser=self._chooser,
                clock=clock,
                run=run,
                progress=self._progress,
                note=self.notes.append,
            )
            search = Search(
                evaluate,
                self._limits,
                settings.precisions,
                prune=self._chooser is not None,
                train="distill" not in settings.skip and not context.drawn.is_synthetic,
                blocks=0 if self._chooser is None else len(self._chooser.blocks),
                look=None if self._chooser is None or "refine" in settings.skip else self._chooser.steps,
                hopeless=self._hopeless(),
                say=self._say,
            )
            with self._stage("search") as stage:
                choice = search.run()
                stage.decision = choice.reason
            if self._chooser is not None:
                self._harm = self._chooser.harm()
        return choice

    def _measure_layers(self, stage: Stage) -> None:
        """Finds the layers that stay float in int8."""
        if "int8" not in self._settings.precisions:
            return
        if self._table.floats is None:
            self._progress("layers in int8", None)
            self._table.floats = self._context.slow_layers()
            self._table.keep()
        if self._table.floats:
            stage.decision += f"; {len(self._table.floats)} layers stay float in int8, slower in it or far off"

    def _hopeless(self) -> float:
        """The share of the score from which training is not expected to come back within the drop.

        After a quick refit, one epoch brought back three quarters to nine tenths of what was lost
        (``tests/bench/distillation/recovery.py``).
        """
        limits, judge = self._settings.limits, self._context.chooser
        scale = 100 if judge.metric.is_share else 1
        allowed = [] if limits.relative_drop is None else [limits.relative_drop]
        if limits.drop is not None:
            allowed.append(limits.drop / scale / max(abs(judge.base), 1e-9))
        return min([HOPELESS, *(_RECOVERED * one for one in allowed)])

    def _say(self, text: str) -> None:
        self._progress(text, None)

    def _opened_clock(self) -> Clock:
        settings, drawn = self._settings, self._context.drawn
        if settings.batch > (there := len(drawn.choose)):
            self.notes.append(f"there are no {settings.batch:,} samples for a run: latency is that of {there:,}")
        return Clock(
            self._context.original,
            next(drawn.choose.batches(settings.batch)),
            self._table,
            provider=settings.provider,
            threads=settings.threads,
            seed=settings.seed,
        )

    def _opened_chooser(self, opened: contextlib.ExitStack) -> Chooser | None:
        """What says which channels go; ``None`` if none may or can."""
        if "prune" in self._settings.skip:
            return None
        with self._stage("rank"):
            chooser = opened.enter_context(
                Chooser(
                    self._context.optimized,
                    self._context.drawn.fit.dataset,
                    self._limits,
                    self._settings,
                    self._workspace.folder / "pruning",
                    self._table,
                    self._progress,
                )
            )
        held = matching(chooser.graph, self._settings.exclude) if chooser.graph.groups else ()
        if len(held) < len(chooser.graph.groups):
            return chooser
        why = "exclude holds all of them" if held else "'graphopt inspect --groups' says what holds them"
        self.notes.append(f"no channels can be removed: {why}")
        return None

    def _shares(self) -> dict[str, float]:
        """The goal, as shares of the original."""
        if not self._settings.goal:
            return {}
        before = dataclasses.asdict(self.before) | {"latency": self._table.milliseconds}
        limits = Goal.of(self._settings.goal).limits
        return {name: limit.share(before[name]) for name, limit in limits.items()}

    def _measure_sensitivity(self) -> None:
        if "sensitivity" in self._settings.skip or self._chooser is None:
            return
        with self._stage("sensitivity") as stage:
            self._sensitivity = sensitivities(
                self._chooser.graph,
                self._chooser.rankings(),
                self._context.chooser,
                self._workspace,
                macs=self.before.macs,
                progress=self._progress,
                provider=self._settings.provider,
                threads=self._settings.threads,
            )
            if self._sensitivity:
                worst = max(self._sensitivity, key=lambda one: one.harm)
                stage.decision = f"{worst.group} matters most: {worst.told}"

    def _tune(self) -> None:
        """Settles how to distil, on what is pruned as far as is predicted to be needed."""
        settings = self._settings
        if not settings.tune or self._chooser is None or self._context.drawn.is_synthetic:
            return
        with self._stage("tune") as stage:
            whole = Variant(1.0, "float32")
            write_plan(self._chooser.plan(whole)[0], self._workspace, whole)
            found = tuned(self._context, 1.0, settings.tune, self._progress)
            stage.decision = f"learning rate {found['learning_rate']:.2g}, loss {found['loss']}"

    # -- the verdict -------------------------------------------------------------------------------------------------

    def finish(self, choice: Choice) -> tuple[Path, CompressionReport]:
        """Judges what was chosen on the samples that nothing was chosen by.

        Returns:
            The file of the result, or of the best that can be had; and the report.
        """
        context = self._context
        point = choice.point or choice.best
        assert point is not None
        path = context.variant(point.built)
        with self._stage("judge") as stage:
            judge = context.referee
            audit = judge.audit(path)
            stage.decision = "all gates passed" if audit.passed else f"failed: {audit.failed[0].name}"
            millijoules, note = evidence.energy(context, path)
            self.notes += [note] if note else []
        report = CompressionReport(
            title=context.original.name,
            choice=choice,
            point=point,
            limits=self._limits,
            settings=self._settings,
            audit=audit,
            is_better=judge.metric.is_better,
            is_share=judge.metric.is_share,
            before=self.before,
            after=context.size(io.load(path)),
            milliseconds=self._table.milliseconds,
            millijoules=millijoules,
            ops=(evidence.operators(context.model), evidence.operators(io.load(path))),
            stages=list(self._stages.values()),
            harm=self._harm,
            kept=self._kept(point),
            sensitivity=self._sensitivity,
            layers=evidence.layers(context, path),
            flips=evidence.flips(judge, audit, path),
            history=evidence.history(context, point.built),
            notes=self.notes,
            provenance=evidence.provenance(context, path),
        )
        return path, report

    def _kept(self, point: Point) -> dict[str, tuple[int, int]]:
        """By group, how many units there were and how many are left."""
        if self._chooser is None:
            return {}
        removed: Mapping[str, Sequence[int]] = {}
        dropped: set[ir.Node] = set()
        if not point.variant.is_whole:
            plan = Plan.load(self._context.plan(point.variant))
            removed = plan.removed
            dropped = {node for block in self._chooser.blocks[: point.variant.blocks] for node in block.nodes}
            if plan.blocks:
                self.notes.append(f"residual blocks that were dropped: {', '.join(plan.blocks)}")
        return {
            group.name: (
                len(group.units),
                0 if dropped.issuperset(group.nodes) else len(group.units) - len(removed.get(group.name, ())),
            )
            for group in self._chooser.graph.groups
        }
