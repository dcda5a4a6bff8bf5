"""One pruning, step by step: what is there, what goes, and doing it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphopt import collector, walk
from graphopt.analysis.constants import FLOAT_TYPES
from graphopt.channels.analysis import analyze, prove
from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.slicing import carve
from graphopt.channels.workpiece import Workpiece
from graphopt.errors import EnvironmentProblem
from graphopt.interop.kinds import Source
from graphopt.names import label
from graphopt.pruning import allocation, fidelity, schedule, sensitivity
from graphopt.pruning.allocation import Allocation, Candidate
from graphopt.pruning.calibration import Calibration
from graphopt.pruning.depth.blocks import Block, find
from graphopt.pruning.depth.choice import by_worth, named
from graphopt.pruning.depth.dropping import drop_in_place, zero_in_place
from graphopt.pruning.depth.scores import Measure, influence
from graphopt.pruning.expense import Expense
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance import Criterion, Evidence, Gradients, Ranking
from graphopt.pruning.layers import find_layers
from graphopt.pruning.plan import Plan, Settings, digest_of, digest_of_weights
from graphopt.pruning.reconstruction import Refit, reconstruct
from graphopt.pruning.report import GroupOutcome, PruneReport, Size
from graphopt.pruning.rundirectory import RunDirectory
from graphopt.pruning.targets import Target

if TYPE_CHECKING:
    from graphopt.pruning.latency.table import LatencyTable

__all__ = ["Choice", "Job", "Progress"]

Progress = Callable[[str, float | None], None]

_SHOWN = 3  # names in a note
_DIFFERENTIATED = ("taylor", "fisher", "hessian")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What goes; among which groups and sizes it was chosen; and the speedup that was measured, if any was."""

    units: Sequence[int]
    candidates: Sequence[Candidate]
    speedup: Any = None
    blocks: Sequence[Block] = ()


class Job:
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

    def load(self, calibration: Any, preprocess: str, batch: int = 1) -> None:
        """Reads the model and the data, and finds the channels; memory is that of a run of ``batch`` samples."""
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
            self._run = self._shapes_of(batch)
            self._before = Size.of(original, self._shapes, self._run)
            self._batches = list(self._data.fitted.batches(settings.batch))
        with self._timed("analyze"):
            self._graph = self._analyzed(model)
        if self._directory.keeps:
            self._directory.open(
                f"{digest_of(model)} {digest_of_weights(model)}", self._data.fitted.digest, self._settings
            )

    def _analyzed(self, model: ir.Model) -> ChannelGraph:
        settings = self._settings
        return analyze(model, granularity=settings.granularity, allow_interface=settings.allow_interface)

    def _optimized(self, model: ir.Model) -> ir.Model:
        from graphopt.optimizer import optimize

        with self._timed("optimize"):
            result, report = optimize(model, validate=self._check, with_report=True)
        self._notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        found: ir.Model = result
        return found

    @property
    def graph(self) -> ChannelGraph:
        """The channels of the model, once it was loaded."""
        return self._graph

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one run of one sample, or of as few as the model takes."""
        return self._shapes_of(1)

    def _shapes_of(self, batch: int) -> dict[str, tuple[int, ...]]:
        feeds = next(iter(self._data.fitted.batches(batch)))
        return {name: tuple(array.shape) for name, array in feeds.items() if hasattr(array, "shape")}

    # -- what goes ---------------------------------------------------------------------------------------------------

    def choose(
        self,
        criterion: Criterion,
        gradients: Gradients | None,
        target: Target,
        multiple: int | None,
        limits: Mapping[str, Any],
    ) -> Choice:
        """Chooses units so that the target is met, in as many steps as the settings say."""
        settings = self._settings
        if gradients is None and settings.importance in _DIFFERENTIATED:
            gradients = _with_torch("gradients").gradients
        # Who names a multiple, or milliseconds, wants speed; others may keep any size that is good.
        strict = multiple is not None or target.is_measured

        def allocated(rankings: Sequence[Ranking]) -> Allocation:
            candidates = allocation.candidates(
                self._graph,
                rankings,
                multiple=multiple or target.multiple,
                choices=2 if strict else allocation.FINEST,
                **limits,
            )
            return Allocation(self._graph, candidates, settings.ranking)

        evidence = self._evidence(self._graph, gradients)
        rankings = self._rank(criterion, evidence)
        with target:
            for step in range(1, settings.steps):
                with self._timed("allocate"):
                    found = allocated(rankings)
                    gone = found.choose(target.toward(step / settings.steps))
                later = self._rank(criterion, self._evidence(self._without(gone), gradients), gone)
                rankings = schedule.carried_over(rankings, later, found.units)
            with self._timed("allocate"):
                found = allocated(rankings)
                speedup = target.meet(found.choose)
        units = found.units if criterion.refine is None else self._refined(criterion.refine, evidence, found.units)
        return Choice(units, found.candidates, speedup)

    def _evidence(self, graph: ChannelGraph, gradients: Gradients | None) -> Evidence:
        return Evidence(
            graph,
            self._batches,
            seed=self._settings.seed,
            gradients=gradients,
            progress=self._progress,
            **self._running,
        )

    def _rank(self, criterion: Criterion, evidence: Evidence, gone: Mask | None = None) -> list[Ranking]:
        """Ranks the units of every group, after the removal of ``gone``."""
        with self._timed("rank"):
            # What a function of the caller's gave is not kept: the next run may bring another function.
            kept = self._directory if self._settings.importance else RunDirectory(None)
            rankings = kept.rankings(evidence.graph, lambda: criterion.rank(evidence), gone)
            if self._settings.ranking == "sensitivity":
                rankings = sensitivity.measured(evidence, rankings)
        return rankings

    def _refined(
        self, refine: Callable[[Evidence, Sequence[int]], list[int]], evidence: Evidence, units: Sequence[int]
    ) -> list[int]:
        """As many units of each group that had better go."""
        kept = self._directory.fits(self._graph.gone(units))
        found = kept.load("swaps")
        if found is not None:
            return [int(unit) for unit in found["units"]]
        with self._timed("rank"):
            better = refine(evidence, units)
        kept.save("swaps", {"units": np.array(better, np.int64)})
        return better

    def _without(self, gone: Mask) -> ChannelGraph:
        """The channels of what is left, refitted."""
        workpiece = self._carved(gone)
        self._reconstructed(workpiece, gone)
        with self._timed("analyze"):
            return self._analyzed(workpiece.model)

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
                Expense(self._graph, self._shapes, self._shapes_of(batch)),
                feeds,
                table=table if table is not None else self._directory.latency_table(),
                save=save,
                seed=self._settings.seed,
                progress=self._progress,
                **self._running,
            )

    def follow(self, plan: Plan) -> Choice:
        """Chooses what a plan says."""
        if self._data.fitted.digest != plan.data and not self._data.is_synthetic:
            self._notes.append("the calibration inputs are others than those of the plan")
        return Choice(plan.units(self._graph), [], blocks=named(self._graph.model, plan.blocks))

    def blocks_by_worth(self) -> list[Block]:
        """The residual blocks, those first that the model misses least for what they cost."""
        model = self._graph.model
        blocks = find(model, input_shapes=self._shapes)
        kept = self._directory.load("blocks")
        if kept is None or len(kept["harm"]) != len(blocks):
            with self._timed("blocks"):
                is_float = any(value.dtype in FLOAT_TYPES for value in model.graph.outputs)
                measure: Measure = "output" if is_float else "cosine"
                harm = influence(model, blocks, self._batches[:1], measure=measure, **self._running)
            kept = {"harm": np.array(harm)}
            self._directory.save("blocks", kept)
        return by_worth(blocks, kept["harm"].tolist())

    # -- doing it ----------------------------------------------------------------------------------------------------

    def carry_out(self, choice: Choice, goal: Goal) -> ir.Model:
        """Removes, proves, and refits."""
        gone, blocks = self._graph.gone(choice.units), choice.blocks
        workpiece = self._carved(gone, blocks)
        if self._check and (gone.any() or blocks):
            with self._timed("prove"):
                verdict = prove(
                    self._graph,
                    gone,
                    workpiece.model,
                    lambda masked: zero_in_place(blocks, masked.node, masked.names),
                    seed=self._settings.seed,
                )
            self._proof = "proven" if verdict.status == "equal" else verdict.status
        new_biases = not {"params", "bytes"} & set(goal.limits)
        self._refits = self._reconstructed(workpiece, gone, blocks, new_biases=new_biases)
        self._result = workpiece.model
        if self._settings.polish and (gone.any() or blocks):
            with self._timed("polish"):
                self._result = self._polished(workpiece.model)
        return self._result

    def _carved(self, gone: Mask, blocks: Sequence[Block] = ()) -> Workpiece:
        """The model without them."""
        with self._timed("remove"), collector.paused():
            workpiece = Workpiece(self._graph.model)
            carve(self._graph, gone, workpiece)
            workpiece.remove_orphans()
            if blocks:
                drop_in_place(workpiece.model, blocks, workpiece.node, workpiece.names)
        return workpiece

    def _reconstructed(
        self, workpiece: Workpiece, gone: Mask, blocks: Sequence[Block] = (), *, new_biases: bool = True
    ) -> list[Refit]:
        """Refits what is left, if it is to be refitted."""
        if not self._settings.reconstruct or not (gone.any() or blocks):
            return []
        with self._timed("reconstruct"):
            return reconstruct(
                self._graph,
                gone,
                workpiece,
                self._batches,
                seed=self._settings.seed,
                progress=self._progress,
                store=self._directory.fits(gone, [block.name for block in blocks]),
                new_biases=new_biases,
                blocks=blocks,
                **self._running,
            )

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

    def report(self, choice: Choice, goal: str, plan: Plan | None) -> PruneReport:
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
            plan = self.plan(removed, goal)
        ranked = {one.group.index: one.ranking for one in choice.candidates}
        outcomes = []
        for group in self._graph.groups:
            kept = sum(unit.index not in removed for unit in group.units)
            if group.index in ranked or kept < len(group.units):
                harm = ranked[group.index].harm.tolist() if group.index in ranked else []
                outcomes.append(GroupOutcome(group.name, len(group.units), kept, tuple(harm), group.heads))
        return PruneReport(
            goal,
            self._before,
            Size.of(self._result, self._shapes, self._run),
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

    def plan(self, units: Collection[int], goal: str, blocks: Iterable[Block] = ()) -> Plan:
        """The decision to remove units and blocks, as what can be kept."""
        removed = set(units)
        places = {
            group.name: [place for place, unit in enumerate(group.units) if unit.index in removed]
            for group in self._graph.groups
        }
        taken = {name: own for name, own in places.items() if own}
        sizes = {group.name: len(group.units) for group in self._graph.groups if group.name in taken}
        digest = "" if self._data.is_synthetic else self._data.fitted.digest
        names = tuple(block.name for block in blocks)
        return Plan(digest_of(self._graph.model), goal, self._settings, digest, taken, sizes, names)


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
