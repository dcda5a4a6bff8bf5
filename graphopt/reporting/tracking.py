"""Trackers that follow a training run: TensorBoard, and Weights & Biases.

Both come with the extra ``graphopt[track]``, and are imported when one is wanted. What they are told of a distillation
is in :func:`numbers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from graphopt.errors import EnvironmentProblem, SaveError, UsageError
from graphopt.pipeline.spec import close_match, parse

if TYPE_CHECKING:
    from graphopt.distillation.history import Moment

__all__ = ["TRACKERS", "numbers", "tracked"]

_Writer: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called with a step and the numbers by name."""


def numbers(moment: Moment) -> dict[str, float]:
    """What a moment of a run tells: ``train/loss``, and after each epoch the rest.

    ``epoch/loss`` and ``epoch/PART`` are means over the epoch, ``held-out/METRIC`` is of the samples to judge by. What
    is not finite is left out.
    """
    found = {"train/loss": moment.loss}
    if moment.record is not None:
        record = moment.record
        found |= {"epoch/loss": record.loss, "epoch/seconds": record.seconds}
        found |= {f"epoch/{name}": value for name, value in record.parts.items()}
        found |= {f"held-out/{name}": value for name, value in record.evaluation.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


@contextlib.contextmanager
def tracked(specs: Sequence[str], settings: Mapping[str, Any]) -> Iterator[Callable[[Moment], None] | None]:
    """Opens trackers.

    Args:
        specs: ``tensorboard:FOLDER``, and ``wandb:PROJECT``, to which ``:mode=online``, ``:name=NAME`` and
            ``:folder=FOLDER`` may be added: it sends nothing anywhere unless told ``online``.
        settings: What a tracker may show of how the run was started, in plain values.

    Yields:
        What :func:`graphopt.distill` may be given as ``follow``; None without any specs.

    Raises:
        UsageError: There is no such tracker, or it lacks something.
        EnvironmentProblem: Its package is not installed.
        SaveError: Its files cannot be written.
    """
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_opened(spec, settings)) for spec in specs]

        def follow(moment: Moment) -> None:
            step, found = moment.epoch * moment.steps + moment.step, numbers(moment)
            for write in writers:
                write(step, found)

        yield follow if writers else None


def _opened(spec: str, settings: Mapping[str, Any]) -> contextlib.AbstractContextManager[_Writer]:
    name, _, rest = spec.partition(":")
    if name not in TRACKERS:
        raise UsageError(f"there is no tracker '{name}'", hint=close_match(name, TRACKERS))
    if not rest:
        raise UsageError(f"'{spec}' does not say where to", hint=f"Write {TRACKERS[name].usage}.")
    return TRACKERS[name].open(rest, settings)


@contextlib.contextmanager
def _tensorboard(folder: str, _: Mapping[str, Any]) -> Iterator[_Writer]:
    """Event files, by TensorBoard's own writer."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise _missing("tensorboard", error) from error
    try:
        events = EventFileWriter(str(Path(folder).absolute()))
    except OSError as error:
        raise SaveError(f"{folder}: TensorBoard cannot write there: {error.strerror or error}") from error

    def write(step: int, found: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in found.items()]
        events.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        events.flush()

    try:
        yield write
    finally:
        events.close()


@contextlib.contextmanager
def _wandb(spec: str, settings: Mapping[str, Any]) -> Iterator[_Writer]:
    """A run of Weights & Biases; a run that fails is marked as failed."""
    project, options = parse(spec, what="wandb", example="wandb:project:mode=online")
    for key in options:
        if key not in ("mode", "name", "folder"):
            raise UsageError(f"wandb has no option '{key}'", hint=close_match(key, ("mode", "name", "folder")))
    mode = options.get("mode", "offline")
    if mode not in ("offline", "online"):
        raise UsageError(f"wandb cannot be '{mode}'", hint="Write mode=offline or mode=online.")
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb", error) from error
    folder = Path(options.get("folder", ".")).absolute()
    quiet = wandb.Settings(silent=True)
    given = {"config": dict(settings), "dir": str(folder), "mode": mode, "settings": quiet}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(project=project, name=options.get("name"), **given)
    except OSError as error:
        raise SaveError(f"{folder}: wandb cannot write there: {error.strerror or error}") from error
    except wandb.Error as error:
        raise EnvironmentProblem(f"wandb cannot begin a run: {error}", hint="Log in, or use mode=offline.") from error
    try:
        yield lambda step, found: run.log(dict(found), step=step)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _missing(package: str, error: ImportError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the package {package} cannot be imported: {error}", hint="Install it with: pip install 'graphopt[track]'."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Tracker:
    usage: str
    open: Callable[[str, Mapping[str, Any]], contextlib.AbstractContextManager[_Writer]]


TRACKERS: Final[Mapping[str, _Tracker]] = {
    "tensorboard": _Tracker("tensorboard:FOLDER", _tensorboard),
    "wandb": _Tracker("wandb:PROJECT", _wandb),
}
"""Every tracker, by its name in specs."""
