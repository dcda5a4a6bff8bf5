"""One distillation, step by step: what there is, training, and what comes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir
import torch
from torch import Tensor

from graphopt.datasets import Bound, bind, open_dataset
from graphopt.distillation import augmentations
from graphopt.distillation.checkpoint import Checkpoints
from graphopt.distillation.evaluation import Agreement
from graphopt.distillation.history import History, Moment, Progress, Record
from graphopt.distillation.judging import Judge, Served, choose_metrics, deviation, named_kinds, size
from graphopt.distillation.losses import Objective, parse
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader
from graphopt.distillation.rehearsal import check_inputs, rehearse
from graphopt.distillation.report import Contender, DistillReport
from graphopt.distillation.rounding import rounded
from graphopt.distillation.rounds import aims
from graphopt.distillation.settings import Settings
from graphopt.distillation.shrinking import calibration
from graphopt.distillation.staff import Staff, Teaching, some
from graphopt.distillation.stepwise import stepwise
from graphopt.distillation.student import GraphStudent, Student, is_model, open_student
from graphopt.distillation.trainer import fit
from graphopt.errors import EnvironmentProblem, SaveError, UsageError
from graphopt.interop.kinds import Source
from graphopt.lock import exclusive

__all__ = ["Job"]

LOCK: Final = "lock"
"""The file in the folder of a run that the running process locks."""
_HELD_OUT = 0.1  # of the samples, where no others are given to judge by
_FEWEST = 20  # samples below which none are held out
_VIEWS = 8


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
        self._best: int | None = None
        self._scores: Mapping[str, float] = {}
        self._rounds: list[int] = []
        self._off_by_one: float | None = None
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
            models = [source.read() for source in self._sources]
            self._first = models[0]
            outputs = [one for model in reversed(models) for one in named_kinds(model).items()]
            self._teacher_kinds = dict(outputs)  # those of the first teacher go before those of the others
            self._given: Any = self._sources[0] if student is None else student
            if not isinstance(self._given, Source) and is_model(self._given):
                self._given = Source.of(self._given)
        with self._timed("data"):
            self._bind(data, evaluation, preprocess, samples)
        with self._timed("student"):
            graph = self._given.read() if isinstance(self._given, Source) else None
            self._interface = self._first if graph is None else graph
            for number, model in enumerate(models):
                check_inputs(f"teacher {number}", model, self._first, self._train)
            check_inputs("the student", self._interface, self._first, self._train)
            self._student_kinds = named_kinds(self._interface)
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

        It is locked to the end: two runs at once would take each other's checkpoints for their own.
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
        if self._world.is_first:
            self._stack.enter_context(exclusive(self._folder / LOCK, wait=0))

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
            student_kinds=named_kinds(interface),
            teacher_kinds=self._teacher_kinds,
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
        self._reads = None
        if self._held_out is not None:
            self._reads = Reader(self._held_out, None, device=self._device, mask=self._mask(needs.mask))
        self._metrics = choose_metrics(self._objective, self._held_out, self._student_kinds, self._first)
        self._staff = Staff(
            [source.read() for source in self._sources],
            self._objective,
            {metric.teacher for metric in self._metrics if isinstance(metric, Agreement)},
            teaching,
            provider=self._provider,
            threads=self._threads,
            device=self._device.index or 0,
            folder=lambda: self._teachers_folder,
            progress=self._progress,
        )
        readers = {"train": self._reader} | ({} if self._reads is None else {"evaluation": self._reads})
        self._judge = Judge(self._reads, self._metrics, self._train, self._world)
        self._staff.teach(readers, settings.epochs, keeps=keeps)
        self._notes += self._staff.notes
        self._identity = {
            "loss": self._loss,
            "balance": teaching.balance,
            "teachers": [teacher.digest for teacher in self._staff.teachers],
            "teacher weights": teaching.weights,
            "mask": teaching.mask,
            "top-k": teaching.top_k,
            "half": teaching.half,
        }

    def _mask(self, is_wanted: bool) -> str:
        mask = self._teaching.mask
        if mask and mask not in {value.name for value in self._first.graph.inputs}:
            raise UsageError(f"there is no input '{mask}' to tell which tokens count", hint="Name one of the inputs.")
        return mask if is_wanted else ""

    # -- training ----------------------------------------------------------------------------------------------------

    def prune(self, goal: str, steps: int, *, train: bool) -> None:
        """Prunes the student towards a goal in some steps, and trains it after each but the last."""
        from graphopt.pruning.pruner import prune

        if not isinstance(self._student, GraphStudent):
            raise UsageError("only students that are ONNX graphs can be pruned", hint="Export the module first.")
        chosen = list(aims(goal, steps))
        self._introduce()
        samples = calibration(self._train, self._settings.seed)
        whole: Mapping[str, float] = {}
        for number, aim in enumerate(chosen):
            if number and train:
                self.train()
            model = self._student.to_onnx()
            now = dict(zip(("params", "macs", "bytes"), size(model, self._train), strict=True))
            whole = whole or now
            with self._timed("prune"):
                pruned = prune(
                    model,
                    aim.of(whole, now),
                    samples,
                    seed=self._settings.seed,
                    provider=self._provider,
                    threads=self._threads,
                    progress=self._progress,
                )
            self._student = GraphStudent(pruned, sorted(self._objective.needs.student))

    def quantize(self, spec: str) -> None:
        """Quantizes the student, so that what is trained from here on is what its weights come to as integers."""
        if not isinstance(self._student, GraphStudent):
            raise UsageError("only students that are ONNX graphs can be quantized", hint="Export the module first.")
        self._introduce()
        with self._timed("quantize"):
            found = rounded(
                self._student.to_onnx(),
                spec,
                calibration(self._train, self._settings.seed),
                seed=self._settings.seed,
                provider=self._provider,
                threads=self._threads,
                progress=self._progress,
            )
            inner = sorted(self._objective.needs.student)
            self._student = GraphStudent(found.model, inner, floats=found.floats, learns_scales=True)
        self._notes += found.notes
        self._student.module.to(self._device)
        with self._timed("judge"):
            self._contenders.append(self._judge.student("student quantized", self._student))

    def train(self) -> None:
        """Trains the student as it is, for all epochs."""
        done = len(self._history.records)
        self._rounds.append(done)
        self._introduce()
        with self._timed("train"):
            objective = self._parsed(self._interface)
            objective.share(self._student.module.parameters())
            checkpoints = None if self._folder is None else Checkpoints(self._checkpoints(len(self._rounds)))
            start = self._start()
            history = fit(
                self._student,
                objective,
                self._reader,
                self._settings,
                evaluation=self._reads,
                metrics=self._metrics,
                checkpoints=checkpoints,
                identity=self._identity,
                progress=self._told,
                world=self._world,
            )
            best = done + history.best if self._is_better(history, start) else None
        records = [_later(one, done) for one in history.records]
        self._history = History([*self._history.records, *records], done + history.best)
        self._best = best
        self._notes += history.notes

    def _start(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """How good the student is before a round, and its weights."""
        scores = self._judge.student("start", self._student).scores if self._metrics else {}
        state = self._student.module.state_dict() if scores else {}
        return dict(scores), {name: one.detach().clone() for name, one in state.items()}

    def _is_better(self, history: History, start: tuple[dict[str, float], dict[str, Tensor]]) -> bool:
        """Whether an epoch is as good as the start, which else comes back."""
        scores, weights = start
        if not scores or not history.records:
            return True
        name = self._metrics[0].name
        found = history.records[history.best].evaluation[name]
        if not scores[name] > found:
            return True
        self._student.module.load_state_dict(weights)
        self._notes.append(
            f"no epoch was as good as the start ({name} {scores[name]:.2%}, then {found:.2%}): the student is as it was"
        )
        return False

    def _introduce(self) -> None:
        """Says how good teachers and student are before anything is done, once; and tries one batch before that."""
        if self._contenders:
            return
        self._student.module.to(self._device)
        with self._timed("judge"):
            rehearse(self._student, self._objective, self._reader, self._reads, self._metrics, self._settings.batch)
            for number, teacher in enumerate(self._staff.teachers):
                name = "teacher" if len(self._staff.teachers) == 1 else f"teacher {number}"
                model = self._sources[number].read()
                served = Served(model, self._threads, teacher)
                self._contenders.append(self._judge.teacher(name, served, model, list(self._student_kinds)))
            self._contenders.append(self._judge.student("student before", self._student))

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
        self._introduce()
        self._notes.append("This was a dry run: one batch has gone all the way, and nothing was trained.")

    def finish(self, *, optimize: bool) -> Any:
        """The student as ONNX, compared with what was trained, and judged in ONNX Runtime."""
        with self._timed("export"):
            self._student.module.to("cpu").eval()
            result = self._student.to_onnx()
        found: dict[str, float] = {}
        if self._world.is_first and self._rounds:
            if optimize:
                result = self._optimized(result)
            with self._timed("compare"):
                served = Served(result, self._threads)
                found = self._compared(served)
                # The other processes have gone.
                self._contenders.append(self._judge.student("student", served, result, alone=True))
        self.report = DistillReport(
            self._loss,
            (len(self._train), 0 if self._held_out is None else len(self._held_out)),
            self._contenders,
            self._history.records,
            self._best,
            self._rounds,
            found,
            self._staff.cached,
            self._notes,
            self._seconds,
            self._world.is_first,
            self._off_by_one,
        )
        return self._given.give_back(result) if isinstance(self._given, Source) else result

    @torch.no_grad()
    def _compared(self, served: Served) -> dict[str, float]:
        """How far the result in ONNX Runtime is from what was trained, by output.

        Of a quantized student this is told before the passes run, which may take out channels and have their own proof.
        """
        feeds = {name: one.cpu() for name, one in self._reader.feeds(some(self._reader), 0).items()}
        if isinstance(self._student, GraphStudent) and self._student.is_quantized:
            found = stepwise(self._student, feeds, threads=self._threads)
            self._off_by_one = found.off_by_one
            return deviation(found.ours, found.theirs)
        return deviation(self._student.outputs(feeds), served.outputs(feeds))

    def _optimized(self, model: ir.Model) -> ir.Model:
        from graphopt.optimizer import optimize

        with self._timed("optimize"):
            result, report = optimize(model, with_report=True)
        self._notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        found: ir.Model = result
        return found


def _later(record: Record, epochs: int) -> Record:
    return dataclasses.replace(record, epoch=record.epoch + epochs)


def _device(provider: str, world: World) -> torch.device:
    """Where the student trains."""
    if provider.lower() not in ("cuda", "cudaexecutionprovider"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentProblem("torch sees no CUDA device to train on", hint="Install a CUDA build of torch.")
    return torch.device("cuda", world.local_rank)


def _shown(score: float) -> str:
    return f"{score:.2%}"
