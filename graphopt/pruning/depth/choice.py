"""Which residual blocks to drop, by name, or for what is wanted, given what each is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphopt.errors import UsageError
from graphopt.pruning.depth.blocks import Block, find, saving_of
from graphopt.pruning.depth.dropping import outermost
from graphopt.pruning.goal import Goal

__all__ = ["Scorer", "by_worth", "choose", "named"]

Scorer = Callable[[Sequence[Block], Sequence[Block]], Sequence[float]]
"""Scores of the blocks in the first argument, once those in the second are gone."""

_MEASURES = {"params": "parameters", "bytes": "bytes", "macs": "macs"}


def choose(
    blocks: Sequence[Block],
    scores: Sequence[float] | Scorer,
    *,
    count: int | None = None,
    fraction: float | None = None,
    goal: Goal | str | Mapping[str, Any] | None = None,
    iterative: bool = False,
) -> list[Block]:
    """The blocks to drop, lowest score first. A block within a dropped one goes with it and counts too.

    Args:
        blocks: All that may go.
        scores: A number a block, or what computes them.
        count: Drop this many.
        fraction: Drop this share of the blocks, rounded down.
        goal: Drop until no more than this is left, in ``macs``, ``params`` or ``bytes``: :class:`Goal`.
        iterative: Ask for new scores after each drop, of what is left; the first and the last block have no other
            protection than their scores.

    Raises:
        UsageError: Not exactly one of ``count``, ``fraction`` and ``goal``; they make no sense or cannot be reached;
            ``iterative`` without a function that scores.
    """
    if sum(one is not None for one in (count, fraction, goal)) != 1:
        raise UsageError("say how many blocks to drop, with one of count, fraction and goal")
    if iterative and not callable(scores):
        raise UsageError("scores that are measured again after each drop must come from a function")
    limit = _limit(len(blocks), count, fraction)
    reached = (lambda _: False) if goal is None else _goal(blocks, goal)
    current = _table(blocks, scores(blocks, ()) if callable(scores) else scores)
    chosen: list[Block] = []
    gone: set[Block] = set()
    while not reached(chosen):
        open_ = [block for block in blocks if block not in gone]
        fitting = [block for block in open_ if len(gone | _with(block, blocks)) <= limit]
        if not fitting:
            break
        best = min(fitting, key=lambda block: current[block])
        chosen = outermost([*chosen, best])
        gone |= _with(best, blocks)
        if iterative and callable(scores):
            left = [block for block in blocks if block not in gone]
            current.update(_table(left, scores(left, chosen)))
    if goal is not None and not reached(chosen):
        raise UsageError(
            f"dropping all {len(blocks)} blocks does not reach the goal",
            hint="Ask for less, or prune channels too.",
        )
    return chosen


def by_worth(blocks: Sequence[Block], harm: Sequence[float]) -> list[Block]:
    """All blocks, those first that do least harm for what they cost.

    What a block costs is the mean of its shares of the multiply-accumulates and of the nodes: small operators take the
    time of a call, whatever they compute.
    """
    if not blocks:
        return []
    survey = blocks[0].survey
    macs, nodes = max(1, survey.totals().macs), len(survey.model.graph)

    def rank(place: int) -> float:
        block = blocks[place]
        return 2 * harm[place] / (block.saving.macs / macs + len(block.nodes) / nodes)

    return [blocks[place] for place in sorted(range(len(blocks)), key=rank)]


def named(model: ir.Model, names: Collection[str]) -> list[Block]:
    """The residual blocks of some names.

    Raises:
        UsageError: The model has no such block.
    """
    found = {block.name: block for block in find(model)} if names else {}
    for name in names:
        if name not in found:
            raise UsageError(
                f"the model has no residual block '{name}' to drop",
                hint=f"It has {', '.join(found)}." if found else "It has none.",
            )
    return [found[name] for name in names]


def _with(block: Block, blocks: Iterable[Block]) -> set[Block]:
    return {block, *(other for other in blocks if block.covers(other))}


def _table(blocks: Sequence[Block], scores: Sequence[float]) -> dict[Block, float]:
    if len(blocks) != len(scores):
        raise UsageError(f"{len(blocks)} blocks have {len(scores)} scores")
    return {block: math.inf if math.isnan(score) else score for block, score in zip(blocks, scores, strict=True)}


def _limit(total: int, count: int | None, fraction: float | None) -> int:
    if count is not None:
        if not 0 <= count <= total:
            raise UsageError(f"{count} blocks cannot be dropped: there are {total}")
        return count
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise UsageError(f"a fraction lies between 0 and 1, not at {fraction}")
        return math.floor(fraction * total + 1e-9)  # 0.3 of 10 is 3
    return total


def _goal(blocks: Sequence[Block], given: Any) -> Callable[[Sequence[Block]], bool]:
    limits = Goal.of(given).limits
    for name in limits:
        if name not in _MEASURES:
            raise UsageError(f"blocks cannot be dropped for a goal of {name}", hint=f"Use {', '.join(_MEASURES)}.")
    if not blocks:
        return lambda _: all(limit.amount(1) >= 1 for limit in limits.values())
    totals = blocks[0].survey.totals()

    def reached(chosen: Sequence[Block]) -> bool:
        saved = saving_of(chosen)
        for name, limit in limits.items():
            total = getattr(totals, _MEASURES[name])
            if total - getattr(saved, _MEASURES[name]) > limit.amount(total):
                return False
        return True

    return reached
