"""``prune``: rank, allocate, remove, prove, reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.errors import UsageError
from graphopt.interop.kinds import Source
from graphopt.pruning.goal import Goal
from graphopt.pruning.importance import Criterion, Evidence, Gradients, Ranking, criterion
from graphopt.pruning.job import Job
from graphopt.pruning.plan import Plan, Settings
from graphopt.pruning.rundirectory import RunDirectory

if TYPE_CHECKING:
    from graphopt.pruning.latency.table import LatencyTable

__all__ = ["prune"]


def prune(
    source: Any,
    goal: Any = None,
    calibration: Any = None,
    *,
    importance: str | Callable[[Evidence], list[Ranking]] = "obs",
    ranking: str = "global",
    granularity: str = "heads",
    groups: Iterable[str] = (),
    exclude: Iterable[str] = (),
    keep: float = 0.1,
    multiple: int | None = None,
    steps: int = 1,
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
    progress: Callable[[str, float | None], None] | None = None,
    with_report: bool = False,
) -> Any:
    """Makes a model smaller by taking out what matters least, and lets what is left make up for it.

    Channels, heads and hidden units go physically. What goes is proven to equal a mask of zeros; what is left is
    refitted on calibration inputs, without labels, so that it computes what the original computed.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or an ``onnx_graphsurgeon.Graph``; never changed.
        goal: ``{"macs": 0.5}`` or ``"macs=0.5"``: shares of the original, or numbers with a unit or above 1. Also
            ``params``, ``bytes``, ``memory`` and ``latency`` (``"latency=0.4ms"``), and several at once.
        calibration: Inputs: whatever :func:`graphopt.datasets.bind` takes, as a path, arrays by name, or feeds.
        importance: A name of :data:`graphopt.pruning.importance.CRITERIA`, or a function that ranks.
        ranking: One of :data:`graphopt.pruning.allocation.RANKINGS`.
        granularity: Where an axis is heads times lanes: ``heads``, or ``head-dim``.
        groups: Shell patterns of the groups to prune, by the name of the group or of a node; all if empty.
        exclude: Shell patterns of groups to leave alone.
        keep: Share of each group that stays whatever happens.
        multiple: Kept channels are multiples of it, even in small groups. If ``None`` it is measured where latency is a
            goal; else it is 8, and small groups may keep any number.
        steps: Choose in so many steps, each after the model has lost what was chosen before, and been refitted.
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
        latency_batch: Samples of the run whose latency, or memory, is the goal.
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
    _check_numbers(keep, multiple=multiple, steps=steps, polish=polish, seed=seed, threads=threads)
    given = plan if plan is None or isinstance(plan, Plan) else Plan.load(plan)
    settings = Settings(
        importance if isinstance(importance, str) else "",
        ranking,
        granularity,
        _patterns(allow_interface),
        steps,
        optimize,
        reconstruct,
        polish,
        samples or 0,
        batch,
        seed,
        provider,
        threads,
    )
    measure = criterion(importance) if isinstance(importance, str) else Criterion(importance)
    job = Job(
        Source.of(source, allow_loss=allow_loss),
        given.settings if given is not None else settings,
        progress or (lambda step, share: None),
        RunDirectory.of(run_directory),
        check=check,
    )
    job.load(calibration, preprocess, latency_batch)
    if given is not None:
        chosen = job.follow(given)
    else:
        assert wanted is not None
        limits = {"groups": _patterns(groups), "exclude": _patterns(exclude), "keep": keep}
        chosen = job.choose(measure, gradients, job.target(wanted, latency_table, latency_batch), multiple, limits)
    reached = Goal.of(given.goal) if given is not None else wanted
    assert reached is not None
    result = job.carry_out(chosen, reached)
    report = job.report(chosen, str(reached), given)
    return (job.origin.give_back(result), report) if with_report else job.origin.give_back(result)


def _check_numbers(keep: float, **numbers: int | None) -> None:
    """That options are numbers that make sense; the others are checked where they are used."""
    if not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise UsageError(f"keep={keep!r} is no share", hint="Give a number from 0 to 1.")
    for name, number in numbers.items():
        least = 0 if name in ("polish", "seed") else 1
        if number is not None and (not isinstance(number, int) or number < least):
            raise UsageError(f"{name}={number!r} makes no sense", hint=f"Give a whole number from {least} on.")


def _patterns(given: Iterable[str]) -> tuple[str, ...]:
    """Patterns as a tuple; a string is one."""
    return (given,) if isinstance(given, str) else tuple(given)
