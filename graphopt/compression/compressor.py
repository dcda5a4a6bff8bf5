"""``compress``: from a model and data to a smaller, faster model that was measured and judged."""

from __future__ import annotations

import dataclasses
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import io
from graphopt.compression import settings as choices
from graphopt.compression.checking import check_options
from graphopt.compression.context import Context
from graphopt.compression.executors import EXECUTORS
from graphopt.compression.gates import Limits
from graphopt.compression.job import Job
from graphopt.compression.settings import Settings
from graphopt.compression.workspace import Workspace
from graphopt.errors import Harmful, Infeasible, SaveError, UsageError
from graphopt.interop.kinds import Source
from graphopt.lock import exclusive
from graphopt.pipeline.spec import close_match
from graphopt.pruning.goal import Goal
from graphopt.pruning.plan import digest_of, digest_of_weights

__all__ = ["compress"]


def compress(
    source: Any,
    data: Any = None,
    *,
    evaluation: Any = None,
    goal: Any = None,
    max_drop: float | str | None = None,
    metric: str = "",
    output: str = "",
    class_drop: float | None = None,
    slices: Iterable[str] = (),
    slice_drop: float | None = None,
    gap: float | None = None,
    flips: float | None = None,
    calibration: float | None = None,
    noise_drop: float | None = None,
    skip: Iterable[str] = (),
    precisions: Iterable[str] = ("float32", "int8"),
    importance: str = "obs",
    keep: float = 0.02,
    exclude: Iterable[str] = (),
    preprocess: str = "",
    samples: int | None = None,
    epochs: int | None = None,
    learning_rate: float = 1e-3,
    loss: str = "",
    augment: str = "",
    quantization_aware: bool = False,
    tune: int = 0,
    train_batch: int = 64,
    batch: int = 1,
    provider: str = "cpu",
    threads: int | None = None,
    latency_table: str | Path | None = None,
    executor: str = "serial",
    workers: int = 2,
    run_directory: str | Path | None = None,
    seed: int = 0,
    allow_loss: bool = False,
    best_effort: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
    with_report: bool = False,
) -> Any:
    """Compresses a model: optimizes, prunes, refits, distils and quantizes it as far as the goal asks or harm allows.

    Variants are built, timed on this machine beside the original, and judged on samples that they did not learn from.
    The one that is taken is judged once more, on samples that nothing was chosen by.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``; never changed.
        data: To learn and calibrate with, with labels if there are any: whatever :func:`graphopt.datasets.bind`
            takes. None for noise, and then nobody can say what the accuracy is.
        evaluation: Half of it to choose by, half to judge the result by: best what the original has never seen. None
            to hold some of ``data`` out.
        goal: ``{"latency": 0.5}``: shares of the original, or numbers with a unit or above 1 (``"latency=0.4ms"``);
            also ``macs``, ``params``, ``bytes`` and ``memory``, several at once. None for the fastest that the gates
            allow.
        max_drop: What the metric may lose: percentage points, or ``"rel:0.5%"`` of what it was.
        metric: One of :data:`graphopt.compression.metrics.METRICS`, or ``module:function``, **which runs that code**.
            Where there are no labels: how often the result agrees with the original.
        output: The output that is judged; the first if empty.
        class_drop: Gate: percentage points that the accuracy of any class may lose.
        slices: Columns of the data that hold a value a sample: the samples of one value are a slice.
        slice_drop: Gate: points that the metric may lose on any slice.
        gap: Gate: points by which the difference between the best and the worst slice may grow.
        flips: Gate: share of samples that may get another class than before.
        calibration: Gate: by how much the expected calibration error may rise, 0 to 1.
        noise_drop: Gate: points that noisy inputs may cost more than they cost the original.
        skip: Stages to leave out, of :data:`graphopt.compression.settings.STAGES`; without ``prune`` there is no
            ``depth``, ``refine``, or ``distill`` either.
        precisions: What may be chosen, of :data:`graphopt.compression.settings.PRECISIONS`.
        importance: Who goes first, see :func:`graphopt.prune`.
        keep: Share of each group of channels that stays, unless its residual block goes as a whole.
        exclude: Shell patterns of groups to leave alone, with the residual blocks that hold any layer of theirs.
        preprocess: What to do to the data of files, see :func:`graphopt.datasets.open_dataset`.
        samples: To rank, refit and calibrate with: at most 2,048, and 256 MiB, if ``None``; heavy
            models are refitted with fewer then, 512 at least.
        epochs: Of each distillation; as many as suit the size of the data if ``None``.
        learning_rate: The highest of distillation.
        loss: Of distillation, see :func:`graphopt.distill`.
        augment: Of distillation, likewise.
        quantization_aware: What is distilled and becomes int8 is distilled once more with the rounding in place.
        tune: Trials that look for a better learning rate and loss before anything is distilled; each costs a third of
            a distillation. Needs the extra ``tune``.
        train_batch: Samples of a step of distillation.
        batch: Samples of the run whose latency is measured, and whose memory counts.
        provider: Execution provider.
        threads: Intra-op threads; ``None`` leaves it to ONNX Runtime.
        latency_table: A file of what was measured: read if it is there, and written. With the same table, seed,
            threads and versions the result is the same, byte by byte.
        executor: Where variants are built: ``serial``, ``processes`` or ``ray``.
        workers: How many at once.
        run_directory: A folder that keeps what was worked out, so that an interrupted run goes on from there.
        seed: Of all that is random.
        allow_loss: Accept that a graphsurgeon graph cannot hold all of the model.
        best_effort: Return the best that can be had where the goal cannot be met or a gate fails, instead of raising.
        progress: Called with the name of each step and the share of it that is done.
        with_report: Return ``(model, report)``.

    Returns:
        The compressed model, of the kind that came in (a path gives an ``onnx_ir.Model``).

    Raises:
        UsageError: Options that make no sense, or do not fit the model or the data.
        ModelError: Model or data cannot be read, or do not fit each other.
        Infeasible: The goal cannot be met within the gates; the error says how far it goes.
        Harmful: What was chosen fails a gate on the samples that it was judged by.
        LimitReached: Another run is at work in the folder.
        SaveError: The folder cannot be written.
        EnvironmentProblem: A provider or an extra is missing.
    """
    drop, relative = choices.limit_of_drop(max_drop)
    limits = Limits(
        drop=drop,
        relative_drop=relative,
        class_drop=class_drop,
        slice_drop=slice_drop,
        gap=gap,
        flips=flips,
        calibration=calibration,
        noise_drop=noise_drop,
    )
    if goal is None and limits == Limits():
        raise UsageError(
            "there is neither a goal nor a limit", hint='Give goal={"latency": 0.5}, or max_drop=0.5, or both.'
        )
    if workers < 1:
        raise UsageError(f"workers cannot be {workers}", hint="Give 1 or more.")
    if executor not in EXECUTORS:
        raise UsageError(f"there is no executor '{executor}'", hint=close_match(executor, list(EXECUTORS)))
    skip = choices.skipped(skip)
    settings = Settings(
        goal="" if goal is None else str(Goal.of(goal)),
        metric=metric,
        output=output,
        limits=limits,
        slices=_texts(slices),
        skip=skip,
        precisions=choices.precisions(precisions, skip),
        importance=importance,
        keep=keep,
        exclude=_texts(exclude),
        samples=samples or 0,
        epochs=epochs or 0,
        learning_rate=learning_rate,
        loss=loss,
        augment=augment,
        quantization_aware=quantization_aware,
        tune=tune,
        batch=batch,
        train_batch=train_batch,
        provider=provider,
        threads=threads,
        seed=seed,
    )
    check_options(settings)
    origin = Source.of(source, allow_loss=allow_loss)
    scratch = None if run_directory is not None else tempfile.TemporaryDirectory(prefix="graphopt-compress-")
    workspace = Workspace(Path(scratch.name if scratch else str(run_directory)).absolute())
    workspace.prepare()
    with exclusive(workspace.lock, wait=0):
        context = _context(workspace, origin, settings, data, evaluation, preprocess, is_shared=executor != "serial")
        table = None if latency_table is None else Path(latency_table).absolute()
        job = Job(context, progress or (lambda step, share: None), executor=executor, workers=workers, table=table)
        job.load()
        choice = job.search()
        path, report = job.finish(choice)
        if not best_effort:
            _insist(report)
        model = io.load(path)
        if origin.holds_metadata:
            model.metadata_props["graphopt.compress"] = report.stamp()
        model.meta["graphopt.scratch"] = scratch  # big weights stay in its files as long as somebody has the model
        result = origin.give_back(model)
    return (result, report) if with_report else result


def _texts(given: Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _context(
    workspace: Workspace,
    origin: Source,
    settings: Settings,
    data: Any,
    evaluation: Any,
    preprocess: str,
    *,
    is_shared: bool,
) -> Context:
    """What trials share; where they run in other processes, what these need is left in files."""
    original = origin.original
    if not isinstance(original, Path):
        given = original
        original = workspace.model("original", origin.read)
        if _digest(io.load(original)) != _digest(given):
            raise UsageError(
                f"{workspace.folder} keeps another run: its model differs",
                hint="Name another folder, or remove this one.",
            )
    if is_shared:
        data = _on_disk(workspace, "data", data)
        evaluation = _on_disk(workspace, "evaluation", evaluation)
        said = {"original": str(original), "data": data, "evaluation": evaluation, "preprocess": preprocess}
        workspace.write("trial.json", said | {"settings": dataclasses.asdict(settings)})
    return Context(workspace.folder, original, settings, data, evaluation, preprocess)


def _on_disk(workspace: Workspace, name: str, data: Any) -> str | None:
    """A path or a spec of data, for other processes.

    Raises:
        UsageError: They cannot be written to a file.
    """
    if data is None:
        return None
    if isinstance(data, str | Path):
        exists = Path(data).exists()
        return str(Path(data).absolute()) if exists else str(data)
    if not isinstance(data, dict):
        raise UsageError(
            "data that other processes read cannot be whole feeds",
            hint="Give arrays by input name or a path, or executor='serial'.",
        )
    path = workspace.folder / f"{name}.npz"
    _save_arrays(path, {str(key): np.asarray(one) for key, one in data.items()})
    return str(path)


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """As ``numpy.savez`` does, which takes no array of the name ``file``, pickles objects, and leaves half a file.

    Raises:
        UsageError: Python objects are no arrays.
        SaveError: It cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w") as held:
            for name, array in arrays.items():
                if array.dtype.hasobject:
                    raise UsageError(f"'{name}' holds Python objects", hint="Give numbers or texts.")
                with held.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        part.replace(path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _digest(model: ir.Model) -> tuple[str, str]:
    return digest_of(model), digest_of_weights(model)


def _insist(report: Any) -> None:
    """That the goal is met and no gate failed."""
    if report.choice.point is None:
        raise Infeasible(report.verdict, hint="Allow more (goal, max-drop, gates), give more data, or take the best.")
    if not report.audit.passed:
        raise Harmful(report.verdict, hint="Allow less of the goal, or give more data to choose by.")
