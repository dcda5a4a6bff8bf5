"""``distill``: a student learns what its teachers say, is exported, optimized, and proven to be what was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from graphopt.distillation import rounding
from graphopt.distillation.history import Progress
from graphopt.distillation.job import Job
from graphopt.distillation.parallel import World
from graphopt.distillation.schedule import Schedule
from graphopt.distillation.settings import Settings
from graphopt.distillation.staff import Teaching
from graphopt.distillation.student import is_shrunk
from graphopt.errors import UsageError

__all__ = ["distill"]

_MOST_THREADS: Final = 1024  # a hundred times as many take a machine down before anything is computed


def distill(
    teacher: Any,
    student: Any = None,
    data: Any = None,
    *,
    evaluation: Any = None,
    loss: str | None = None,
    balance: str = "static",
    teacher_weights: Sequence[float] | Literal["sample"] | None = None,
    mask: str = "",
    augment: str | Callable[..., Any] = "",
    views: int | None = None,
    preprocess: str = "",
    samples: int | None = None,
    epochs: int = 10,
    batch: int = 64,
    optimizer: str = "adamw",
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    warmup: float = 0.05,
    weight_decay: float = 0.01,
    clip: float = 0.0,
    accumulate: int = 1,
    average: float = 0.0,
    precision: str = "float32",
    patience: int = 0,
    prune: str = "",
    prune_steps: int = 1,
    quantize: str = "",
    cache: bool | None = None,
    top_k: int | None = None,
    half: bool = False,
    optimize: bool = True,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    run_directory: str | Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
    follow: Progress | None = None,
    with_report: bool = False,
) -> Any:
    """Trains a student on what its teachers say of the data, or on labels, or both.

    The student is any ONNX graph (a pruned one, most often), the teacher itself with fewer channels, or any torch
    module. Teachers run in ONNX Runtime, once for each sample: their outputs are kept. Under ``torchrun`` the
    processes share each batch, and the result is that of one process.

    Args:
        teacher: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``; or a list of them.
        student: A model likewise; ``shrink:macs=0.25``; ``module:factory``, **which runs that code**; or an
            ``nn.Module``. None for the teacher itself, to be fine-tuned. See
            :func:`graphopt.distillation.student.open_student`.
        data: Inputs and perhaps labels to learn from: whatever :func:`graphopt.datasets.bind` takes.
        evaluation: Others to judge by, which also choose the best epoch; None to hold out a tenth of ``data``.
        loss: A sum of losses (see :data:`graphopt.distillation.losses.LOSSES`), as
            ``kd:temperature=4:weight=0.9+ce:weight=0.1``, which is also what None means where there are labels;
            without any it means ``kd:temperature=4``.
        balance: How tasks are weighed: ``static``, ``uncertainty`` or ``gradnorm``.
        teacher_weights: One a teacher, or ``"sample"`` for weights by sample, which needs labels.
        mask: The input ``(B, T)`` that tells which tokens count.
        augment: Random changes to inputs: names of :data:`graphopt.distillation.augmentations.AUGMENTATIONS`, as
            ``shift:pixels=2+flip``, or ``module:function``, or a function ``(feeds, random) -> feeds`` of one sample.
        views: Variants of each sample that augmentation makes; 8 if None, or as many as epochs.
        preprocess: What to do to the data of files, see :func:`graphopt.datasets.open_dataset`.
        samples: How many to learn from at most; all if None.
        epochs: How often each sample is seen.
        batch: Samples of a step, over all processes.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: The highest.
        schedule: ``cosine``, ``linear``, ``step`` or ``constant``.
        warmup: Share of the run in which the rate rises.
        weight_decay: On weights, not on biases and normalizations.
        clip: The longest that the gradient may be; 0 for any length.
        accumulate: Batches whose gradients make one step.
        average: Decay of an exponential average of the weights; 0 for none.
        precision: ``float32``, or mixed with ``bfloat16`` or (CUDA) ``float16``.
        patience: Stop after so many epochs without a better score; 0 for never.
        prune: A goal, as ``macs=0.25``: the student is pruned, refitted and trained, in ``prune_steps`` rounds of
            ``epochs`` each, until it meets the goal. Only for students that are ONNX graphs.
        prune_steps: In how many rounds.
        quantize: As ``static``, or ``static:per-channel=no``, see :func:`graphopt.distillation.rounding.settings`: the
            student is quantized before it is trained, so that it learns to be right in spite of the rounding. One that
            is pruned or shrunk here is trained for ``epochs`` before that, too. Only for students that are ONNX graphs.
        cache: Whether teachers' outputs are kept in files; None where it pays.
        top_k: Keep that many of the largest probabilities only, and the rest as one number.
        half: Keep floats in half precision.
        optimize: Run the default passes on the result.
        seed: Of all that is random: same seed, same weights on the same machine.
        provider: ``cpu`` or ``cuda``: where the teachers run, and the student trains.
        threads: Of torch and ONNX Runtime.
        run_directory: A folder that keeps checkpoints and teachers' outputs; a run that was interrupted goes on from
            there, to the same weights.
        resume: The folder must hold a run to go on with.
        dry_run: Stop before training; the report tells what would be trained.
        progress: Called with the name of each step and the share of it that is done.
        follow: Called with a :class:`~graphopt.distillation.history.Moment` now and then, and after each epoch.
        with_report: Return ``(model, report)``.

    Returns:
        The student as an ``onnx_ir.Model``; the kind of ``student`` where that was another kind of ONNX model.

    Raises:
        UsageError: Options that make no sense, or do not fit each other.
        ModelError: Models and data cannot be read or do not fit each other, or the loss is no longer finite.
        SaveError: A checkpoint or a cache cannot be written.
        NotEquivalent: The result is not what was trained.
        EnvironmentProblem: A provider is missing.
        Infeasible: The student cannot be pruned or shrunk that much.
    """
    if data is None:
        raise UsageError("there are no data to learn from", hint="Give arrays by input name, or a path.")
    if resume and run_directory is None:
        raise UsageError("there is nothing to resume from", hint="Name the folder of the run.")
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads cannot be {threads}", hint=f"Give 1 to {_MOST_THREADS}.")
    if quantize:
        rounding.settings(quantize)  # now, before any work
    settings = Settings(
        epochs=epochs,
        batch=batch,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        schedule=Schedule(schedule, warmup=warmup),
        accumulate=accumulate,
        clip=clip,
        average=average,
        precision=precision,
        patience=patience,
        seed=seed,
    )
    teaching = Teaching(loss, balance, teacher_weights, mask, augment, views, cache, top_k, half)
    with World.joined(cuda=provider == "cuda") as world:
        job = Job(
            settings,
            teaching,
            world,
            provider=provider,
            threads=threads,
            folder=None if run_directory is None else Path(run_directory).absolute(),
            progress=progress or (lambda step, share: None),
            follow=follow,
        )
        with job:
            job.load(
                teacher,
                student,
                data,
                evaluation,
                preprocess=preprocess,
                samples=samples,
                resume=resume,
                dry_run=dry_run,
            )
            if prune:
                job.prune(prune, prune_steps, train=not dry_run)
            if quantize:
                if (prune or is_shrunk(student)) and not dry_run:
                    job.train()  # what is new has to find its ranges first
                job.quantize(quantize)
            if dry_run:
                job.rehearse()
            else:
                job.train()
            result = job.finish(optimize=optimize)
    return (result, job.report) if with_report else result
