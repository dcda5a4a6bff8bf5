"""One distillation, step by step: what there is, training, and what comes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from graphopt.datasets import Bound, bind, open_dataset
from graphopt.distillation import augmentations
from graphopt.distillation.checkpoint import Checkpoints
from graphopt.distillation.evaluation import Accuracy, Agreement, Metric, Model, evaluate
from graphopt.distillation.history import History, Moment, Progress, Record
from graphopt.distillation.losses import Objective, parse
from graphopt.distillation.losses.tasks import Ce
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader
from graphopt.distillation.rehearsal import rehearse
from graphopt.distillation.report import Contender, DistillReport
from graphopt.distillation.settings import Settings
from graphopt.distillation.staff import Staff, Teaching, some
from graphopt.distillation.student import GraphStudent, Student, is_model, open_student
from graphopt.distillation.teacher import Teacher
from graphopt.distillation.trainer import fit
from graphopt.errors import EnvironmentProblem, NotEquivalent, SaveError, UsageError
from graphopt.interop.kinds import Source
from graphopt.torch.outputs import Kind, kinds

__all__ = ["Job"]

_HELD_OUT = 0.1  # of the samples, where no others are given to judge by
_FEWEST = 20  # samples below which none are held out
_VIEWS = 8
_CALIBRATION = 2048  # samples to prune with
_CLOSE = 1e-3  # of an output's largest magnitude: beyond it the result is not what was trained


class Job:
    """One distillation; a context manager, since it sets torch's threads and may keep teachers' outputs in a
    temporary folder.

    Args:
        settings: How to train.
        teaching: What.
        world: The processes that train together.
        provider: Where.
        threads: Of torch and ONNX Runtime.
        folder: Where the run is kept; None for nowhere.
        progress: Called with the name of each step and the share of it that is done.
        follow: Called by the trainer.
    """

    def __init__(
        self,
        settings: Settings,
        teaching: Teaching,
        world: World,
        *,
        provider: str,
        threads: int | None,
        folder: Path | None,
        progress: Callable[[str, float | None], None],
        follow: Progress | None,
    ) -> None:
        self._settings = settings
        self._teaching = teaching
        self._world = world
        self._provider = provider
        self._threads = threads
        self._folder = folder
        self._progress = progress
        self._follow = follow
        self._device = _device(provider, world)
        self._stack = contextlib.ExitStack()
        self._notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._contenders: list[Contender] = []
        self._history = History([], 0)
        self._scores: Mapping[str, float] = {}
        self._rounds: list[int] = []
        self.report: DistillReport | None = None

    def __enter__(self) -> Job:
        before = torch.get_num_threads()
        self._stack.callback(torch.set_num_threads, before)
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._progress(step, None)
        start = time.perf_counter()
        yield
        self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start

    # -- what there is -----------------------------------------------------------------------------------------------

    def load(
        self,
        teacher: Any,
        student: Any,
        data: Any,
        evaluation: Any,
        *,
        preprocess: str,
        samples: int | None,
        resume: bool,
        dry_run: bool,
    ) -> None:
        """Reads models and data, and asks the teachers, whose answers a dry run does not keep."""
        self._open_folder(resume, dry_run)
        with self._timed("load"):
            self._sources = [Source.of(one) for one in (teacher if isinstance(teacher, list | tuple) else [teacher])]
            if not self._sources:
                raise UsageError("there is no teacher", hint="Name the model to learn from.")
            self._first = self._sources[0].read()
            self._given: Any = self._sources[0] if student is None else student
            if not isinstance(self._given, Source) and is_model(self._given):
                self._given = Source.of(self._given)
        with self._timed("data"):
            self._bind(data, evaluation, preprocess, samples)
        with self._timed("student"):
            graph = self._given.read() if isinstance(self._given, Source) else None
            self._interface = self._first if graph is None else graph
            self._student_kinds = _kinds(self._interface)
            self._objective = self._parsed(self._interface)
            self._student: Student = open_student(
                self._given if graph is None else graph,
                self._first,
                sorted(self._objective.needs.student),
                data=self._train,
                seed=self._settings.seed,
            )
        with self._timed("teacher"):
            self._ask(keeps=not dry_run)

    def _open_folder(self, resume: bool, dry_run: bool) -> None:
        """Makes the folder of the run now, so that no work is lost to one that cannot be written.

        The first round has its folder from the start: what was interrupted before its first checkpoint is a run too.
        """
        if self._folder is None:
            return
        first = self._checkpoints(1)
        if resume and not first.is_dir():
            raise UsageError(f"{self._folder} holds no run to go on with", hint="Leave resume out to start one.")
        if dry_run:
            return
        try:
            first.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=first):
                pass
        except OSError as error:
            raise SaveError(
                f"{self._folder}: the run cannot be kept there: {error.strerror or error}", hint="Name another folder."
            ) from error

    def _checkpoints(self, number: int) -> Path:
        """Where a round, from 1 on, keeps its checkpoints."""
        assert self._folder is not None
        return self._folder / f"round-{number}"

    @functools.cached_property
    def _teachers_folder(self) -> Path:
        """Where the teachers' outputs go: with the run, else where all processes of the machine find them for now."""
        if self._folder is not None:
            return self._folder / "teachers"
        world = self._world
        is_near = world.rank == world.local_rank
        made = ""
        if world.is_first or not is_near:
            made = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="graphopt-"))
        shared = world.share_bytes(bytearray(made.encode()), self._device)
        return Path(shared.decode() if is_near and shared is not None else made)

    def _bind(self, data: Any, evaluation: Any, preprocess: str, samples: int | None) -> None:
        """Fits the data to the first teacher's inputs, and holds some out."""

        def bound(given: Any, most: int | None) -> Bound:
            source = open_dataset(given, preprocess=preprocess) if isinstance(given, str | Path) else given
            return bind(source, self._first, samples=most, seed=self._settings.seed, at_most=True)

        train = bound(data, samples)
        self._train, self._held_out = train, None if evaluation is None else bound(evaluation, None)
        if self._held_out is None and len(train) >= _FEWEST * train.group:
            self._train, self._held_out = train.split(1 - _HELD_OUT, self._settings.seed)
        elif self._held_out is None:
            self._notes.append(f"{len(train)} samples are too few to hold some out: the last epoch is what stays")
        self._notes += self._train.notes

    def _parsed(self, interface: ir.Model) -> Objective:
        """The loss, for a student with the outputs of ``interface``."""
        spec = self._teaching.loss
        if spec is None:
            spec = "kd:temperature=4" + (":weight=0.9+ce:weight=0.1" if self._train.labels is not None else "")
        self._loss = spec
        return parse(
            spec,
            default_student=interface.graph.outputs[0].name or "",
            default_teacher=self._first.graph.outputs[0].name or "",
            student_kinds=_kinds(interface),
            teacher_kinds=_kinds(self._first),
            balance=self._teaching.balance,
            seed=self._settings.seed,
        )

    def _ask(self, *, keeps: bool) -> None:
        """Opens the teachers, and keeps what they say where that pays."""
        needs = self._objective.needs
        for given, what in ((self._train, "to learn from"), (self._held_out, "to judge by")):
            if needs.labels and given is not None and given.labels is None:
                raise UsageError(
                    f"the loss {self._loss} needs labels, and the data {what} have none",
                    hint="Add an array 'y' to the data, or leave labels out: kd:temperature=4.",
                )
        teaching, settings = self._teaching, self._settings
        views = min(_VIEWS, settings.epochs) if teaching.views is None else teaching.views
        augmentation = augmentations.augmentation(teaching.augment, settings.seed, views)
        self._reader = Reader(
            self._train, None, device=self._device, augmentation=augmentation, mask=self._mask(needs.mask)
        )
        self._judge = None
        if self._held_out is not None:
            self._judge = Reader(self._held_out, None, device=self._device, mask=self._mask(needs.mask))
        self._metrics = self._chosen_metrics()
        self._staff = Staff(
            [source.read() for source in self._sources],
            self._objective,
            {metric.teacher for metric in self._metrics if isinstance(metric, Agreement)},
            teaching,
            provider=self._provider,
            threads=self._threads,
            folder=lambda: self._teachers_folder,
            progress=self._progress,
        )
        readers = {"train": self._reader} | ({} if self._judge is None else {"evaluation": self._judge})
        self._staff.teach(readers, settings.epochs, keeps=keeps)
        self._notes += self._staff.notes
        self._identity = {
            "loss": self._loss,
            "balance": teaching.balance,
            "teachers": [teacher.digest for teacher in self._staff.teachers],
            "teacher weights": list(teaching.weights) if isinstance(teaching.weights, Sequence) else None,
            "top-k": teaching.top_k,
            "half": teaching.half,
        }

    def _mask(self, is_wanted: bool) -> str:
        mask = self._teaching.mask
        if mask and mask not in {value.name for value in self._first.graph.inputs}:
            raise UsageError(f"there is no input '{mask}' to tell which tokens count", hint="Name one of the inputs.")
        return mask if is_wanted else ""

    def _chosen_metrics(self) -> list[Metric]:
        """How often the student is right where there are labels of classes; else how often it agrees."""
        if self._held_out is None:
            return []
        labels = self._held_out.labels
        outputs = [name for name, kind in self._student_kinds.items() if kind != "values"]
        if labels is not None and labels.dtype.kind in "iu" and labels.ndim <= 2:
            columns = [
                (one.student, one.column)
                for one in self._objective.losses
                if isinstance(one, Ce) and one.student in outputs
            ]
            if labels.ndim == 1 and not columns:
                columns = [(name, -1) for name in outputs[:1]]
            names = {output: "accuracy" if len(columns) == 1 else f"accuracy of {output}" for output, _ in columns}
            found: list[Metric] = [Accuracy(output, column, names[output]) for output, column in dict(columns).items()]
            if found:
                return found
        theirs = self._first.graph.outputs[0].name or ""
        is_comparable = bool(outputs) and _kinds(self._first)[theirs] != "values"
        return [Agreement(outputs[0], theirs)] if is_comparable else []

    # -- training ----------------------------------------------------------------------------------------------------

    def prune(self, goal: str, steps: int, *, train: bool) -> None:
        """Prunes the student towards a goal in some steps, and trains it after each but the last."""
        from graphopt.pruning.goal import Goal
        from graphopt.pruning.pruner import prune

        if not isinstance(self._student, GraphStudent):
            raise UsageError("only students that are ONNX graphs can be pruned", hint="Export the module first.")
        if steps < 1:
            raise UsageError(f"prune-steps={steps} makes no sense", hint="Give 1 or more.")
        limits = Goal.of(goal).limits
        if steps > 1 and limits.get("latency", 0) > 1:
            raise UsageError("milliseconds are reached in one step", hint="Give a share: latency=0.5.")
        calibration = list(self._train.take(_CALIBRATION, self._settings.seed).batches())
        whole: dict[str, float] = {}
        for step in range(1, steps + 1):
            model = self._student.to_onnx()
            if not whole:
                size = _size(model, self._train)
                whole = {"macs": size[1], "params": size[0], "bytes": size[2]}
            aim = {
                name: limit ** (1 / steps) if name == "latency" else _between(limit, whole[name], step / steps)
                for name, limit in limits.items()
            }
            with self._timed("prune"):
                pruned = prune(
                    model,
                    aim if steps > 1 else dict(limits),
                    calibration,
                    seed=self._settings.seed,
                    provider=self._provider,
                    threads=self._threads,
                    progress=self._progress,
                )
            self._student = GraphStudent(pruned, sorted(self._objective.needs.student))
            if train and step < steps:
                self.train()

    def train(self) -> None:
        """Trains the student as it is, for all epochs."""
        done = len(self._history.records)
        self._rounds.append(done)
        with self._timed("train"):
            if not done:
                self._contenders += [*self._judged_teachers(), self._judged("student before", self._student)]
            objective = self._parsed(self._interface)
            objective.share(self._student.module.parameters())
            checkpoints = None if self._folder is None else Checkpoints(self._checkpoints(len(self._rounds)))
            history = fit(
                self._student,
                objective,
                self._reader,
                self._settings,
                evaluation=self._judge,
                metrics=self._metrics,
                checkpoints=checkpoints,
                identity=self._identity,
                progress=self._told,
                world=self._world,
            )
        records = [_later(one, done) for one in history.records]
        self._history = History([*self._history.records, *records], done + history.best)
        self._notes += history.notes

    def _told(self, moment: Moment) -> None:
        epochs, number = self._settings.epochs, len(self._rounds)
        share = (moment.epoch + moment.step / max(1, moment.steps)) / epochs
        scores = "".join(f"  {name} {_shown(score)}" for name, score in self._latest(moment).items())
        which = f"round {number}, " if number > 1 else ""
        self._progress(f"train  {which}epoch {moment.epoch + 1}/{epochs}  loss {moment.loss:.4g}{scores}", share)
        if self._follow is not None:
            record = None if moment.record is None else _later(moment.record, self._rounds[-1])
            self._follow(dataclasses.replace(moment, epoch=moment.epoch + self._rounds[-1], record=record))

    def _latest(self, moment: Moment) -> Mapping[str, float]:
        """The scores of the last epoch that is over."""
        if moment.record is not None:
            self._scores = {name: one for name, one in moment.record.evaluation.items() if name != "loss"}
        return self._scores

    # -- what comes of it --------------------------------------------------------------------------------------------

    def rehearse(self) -> None:
        """Tries one batch, so that what does not fit is told without training."""
        self._contenders += [*self._judged_teachers(), self._judged("student before", self._student)]
        rehearse(self._student, self._objective, self._reader, self._judge, self._metrics, self._settings.batch)

    def finish(self, *, optimize: bool) -> Any:
        """The student as ONNX, compared with what was trained, and judged in ONNX Runtime."""
        with self._timed("export"):
            self._student.module.to("cpu").eval()
            result = self._student.to_onnx()
        deviation: dict[str, float] = {}
        if self._world.is_first and self._rounds:
            if optimize:
                result = self._optimized(result)
            with self._timed("compare"):
                served = _Asked(result, [value.name or "" for value in result.graph.outputs], self._threads)
                deviation = self._deviation(served)
                # The others have gone: the first process judges alone.
                self._contenders.append(self._judged("student", served, result, world=World()))
        self.report = DistillReport(
            self._loss,
            (len(self._train), 0 if self._held_out is None else len(self._held_out)),
            self._contenders,
            self._history.records,
            self._history.best,
            self._rounds,
            deviation,
            self._staff.cached,
            self._notes,
            self._seconds,
            self._world.is_first,
        )
        return self._given.give_back(result) if isinstance(self._given, Source) else result

    def _optimized(self, model: ir.Model) -> ir.Model:
        from graphopt.optimizer import optimize

        with self._timed("optimize"):
            result, report = optimize(model, with_report=True)
        self._notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        found: ir.Model = result
        return found

    @torch.no_grad()
    def _deviation(self, served: _Asked) -> dict[str, float]:
        """How far the result in ONNX Runtime is from the student in torch, by output.

        Raises:
            NotEquivalent: Too far.
        """
        feeds = {name: one.cpu() for name, one in self._reader.feeds(some(self._reader), 0).items()}
        ours, theirs = self._student.outputs(feeds), served.outputs(feeds)
        found = {}
        for name, got in theirs.items():
            expected = ours[name].detach()
            scale = float(expected.abs().max()) if expected.numel() else 0.0
            found[name] = float((expected - got).abs().max()) / max(scale, 1e-12) if expected.numel() else 0.0
            if not found[name] <= _CLOSE:
                raise NotEquivalent(
                    f"output '{name}' of the exported student is off by {found[name]:.1e} of its size from the trained "
                    "one",
                    hint="Please report it; with the student as an ONNX graph, weights are written back as they are.",
                )
        return found

    def _judged_teachers(self) -> list[Contender]:
        found = []
        for number, teacher in enumerate(self._staff.teachers):
            model = self._sources[number].read()
            outputs = [value.name or "" for value in model.graph.outputs]
            names = dict(zip(self._student_kinds, outputs, strict=False))
            right = [one for one in self._metrics if isinstance(one, Accuracy) and one.output in names]
            metrics = [dataclasses.replace(one, output=names[one.output]) for one in right]
            name = "teacher" if len(self._staff.teachers) == 1 else f"teacher {number}"
            served = _Asked(teacher if set(outputs) <= set(teacher.names) else model, outputs, self._threads)
            found.append(self._judged(name, served, model, metrics))
        return found

    def _judged(
        self,
        name: str,
        student: Model,
        model: ir.Model | None = None,
        metrics: Sequence[Metric] | None = None,
        world: World | None = None,
    ) -> Contender:
        """A model's size, and its scores on what was held out."""
        scores: dict[str, float] = {}
        chosen = self._metrics if metrics is None else metrics
        if self._judge is not None and chosen:
            scores = evaluate(student, None, self._judge, chosen, world=world or self._world)
        if model is None and isinstance(student, GraphStudent):
            model = student.to_onnx()
        params, macs, size = (None, None, None) if model is None else _size(model, self._train)
        return Contender(name, params, macs, size, scores)


class _Asked:
    """A model in ONNX Runtime, to be judged like a student."""

    learns_statistics = False

    def __init__(self, model: ir.Model | Teacher, names: Sequence[str], threads: int | None) -> None:
        self.module = nn.Module()
        self._teacher = model if isinstance(model, Teacher) else Teacher(model, names, threads=threads)

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ONNX Runtime gives."""
        return self._teacher.tensors(feeds)


def _later(record: Record, epochs: int) -> Record:
    return dataclasses.replace(record, epoch=record.epoch + epochs)


def _device(provider: str, world: World) -> torch.device:
    """Where the student trains."""
    if provider.lower() not in ("cuda", "cudaexecutionprovider"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentProblem("torch sees no CUDA device to train on", hint="Install a CUDA build of torch.")
    return torch.device("cuda", world.local_rank)


def _kinds(model: ir.Model) -> dict[str, Kind]:
    return {value.name or "": kind for value, kind in zip(model.graph.outputs, kinds(model), strict=True)}


def _size(model: ir.Model, data: Bound) -> tuple[int, int, int]:
    """Parameters, multiply-accumulates of one sample, and bytes of constants."""
    from graphopt.analysis.cost import costs
    from graphopt.analysis.parameters import parameters
    from graphopt.pipeline.report import Summary

    feeds = next(iter(data.batches(1)))
    own = {value.name for value in model.graph.inputs}
    shapes = {name: tuple(array.shape) for name, array in feeds.items() if name in own and hasattr(array, "shape")}
    counted = costs(model, input_shapes=shapes)
    return parameters(model), counted.macs, Summary.of(model).weight_bytes


def _between(limit: float, whole: float, share: float) -> float:
    """A number that is ``share`` of the way, in logarithms, from the whole to its limit."""
    last = limit if limit > 1 else limit * whole
    return float(max(1.0 + 1e-9, whole * (last / whole) ** share))


def _shown(score: float) -> str:
    return f"{score:.2%}"
