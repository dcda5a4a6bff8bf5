"""What is found out before a compression begins: which run it is, and whether what was asked for can be done."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from typing import Any

from graphopt.compression import evidence
from graphopt.compression.context import Context
from graphopt.errors import UsageError
from graphopt.pruning.plan import digest_of, digest_of_weights

__all__ = ["check_limits", "check_training", "identity"]


def identity(context: Context) -> dict[str, Any]:
    """What tells a run from others: its model, data and settings."""
    return {
        "model": f"{digest_of(context.model)} {digest_of_weights(context.model)}",
        "data": evidence.digest(context.drawn),
        "settings": dataclasses.asdict(context.settings),
    }


def check_limits(context: Context) -> None:
    """Checks that a drop can be told from the data.

    Raises:
        UsageError: It cannot.
    """
    limits = context.settings.limits
    if context.drawn.is_synthetic and (limits.drop is not None or limits.relative_drop is not None):
        raise UsageError("without data nobody can say what the drop is", hint="Give data, or leave max-drop out.")
    for judge in (context.chooser, context.referee):
        if not math.isfinite(judge.base):
            raise UsageError(
                f"the {judge.metric.name} of the original is {judge.base} on {len(judge.samples):,} samples",
                hint="Check the labels: some of them must count.",
            )


def check_training(context: Context) -> None:
    """Says now what would be found out after hours. Whether PyTorch is there is said where it is needed.

    Raises:
        UsageError: The loss or the augmentation makes no sense.
    """
    settings = context.settings
    if "distill" in settings.skip or context.drawn.is_synthetic or importlib.util.find_spec("torch") is None:
        return
    if settings.loss:
        from graphopt.distillation.losses.objective import parse

        first = context.model.graph.outputs[0].name or ""
        parse(settings.loss, default_student=first, default_teacher=first)
    if settings.augment:
        from graphopt.distillation.augmentations import augmentation

        augmentation(settings.augment, settings.seed, 1)
