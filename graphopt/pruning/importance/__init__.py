"""Measures of importance: one function each, and one row in :data:`CRITERIA`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphopt.errors import UsageError
from graphopt.pruning.importance import activations, gradients, obs, swaps, weights
from graphopt.pruning.importance.evidence import Evidence, Gradients, Ranking

__all__ = ["CRITERIA", "Criterion", "Evidence", "Gradients", "Ranking", "criterion"]


class Criterion(NamedTuple):
    """A measure of importance.

    Attributes:
        rank: Ranks the units of every group.
        needs_data: Whether it watches the model on calibration inputs.
        refine: Given the units that are to go, finds as many of each group that had better go.
    """

    rank: Callable[[Evidence], list[Ranking]]
    needs_data: bool = False
    refine: Callable[[Evidence, Sequence[int]], list[int]] | None = None


CRITERIA: dict[str, Criterion] = {
    "obs": Criterion(obs.obs, needs_data=True),
    "obs-swap": Criterion(obs.obs, needs_data=True, refine=swaps.swapped),
    "wanda": Criterion(activations.wanda, needs_data=True),
    "apoz": Criterion(activations.apoz, needs_data=True),
    "mean-activation": Criterion(activations.mean_activation, needs_data=True),
    "l1": Criterion(weights.l1),
    "l2": Criterion(weights.l2),
    "fpgm": Criterion(weights.fpgm),
    "lamp": Criterion(weights.lamp),
    "bn-scale": Criterion(weights.batchnorm_scale),
    "random": Criterion(weights.random),
    "taylor": Criterion(gradients.taylor, needs_data=True),
    "fisher": Criterion(gradients.fisher, needs_data=True),
    "hessian": Criterion(gradients.hessian, needs_data=True),
}


def criterion(name: str) -> Criterion:
    """The criterion of a name.

    Raises:
        UsageError: There is none.
    """
    from graphopt.pipeline.spec import close_match

    if name not in CRITERIA:
        raise UsageError(f"there is no importance '{name}'", hint=close_match(name, list(CRITERIA)))
    return CRITERIA[name]
