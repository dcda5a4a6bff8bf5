"""What is found out before a compression begins: which run it is, and whether what was asked for can be done."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
from typing import Any, Final

from graphopt.compression import evidence
from graphopt.compression.context import Context
from graphopt.compression.settings import Settings
from graphopt.errors import UsageError
from graphopt.pruning.plan import digest_of, digest_of_weights

__all__ = ["check_limits", "check_options", "check_training", "identity"]

_TRAINING: Final = ("loss", "augment", "epochs", "tune", "quantization_aware")
"""Settings of distillation that nobody gives without a wish for it."""

_BEFORE_TRAINING: Final = ("distill", "prune")
"""Stages without which nothing is trained: only what was pruned is."""


def identity(context: Context) -> dict[str, Any]:
    """What tells a run from others: its model, data and settings."""
    return {
        "model": f"{digest_of(context.model)} {digest_of_weights(context.model)}",
        "data": evidence.digest(context.drawn),
        "settings": dataclasses.asdict(context.settings),
    }


def check_options(settings: Settings) -> None:
    """Checks that no setting is for a stage that does not happen.

    Raises:
        UsageError: One is; the error names both.
    """
    for option, stage in itertools.product(_asked(settings), _BEFORE_TRAINING):
        if stage in settings.skip:
            raise UsageError(
                f"{option} is of the stage distill, and nothing is distilled where {stage} is skipped",
                hint=f"Leave {option} out, or do not skip {stage}.",
            )
    if settings.quantization_aware and "int8" not in settings.precisions:
        why, cure = "int8 is not among the precisions", "add the precision int8"
        if "quantize" in settings.skip:
            why, cure = "quantize is skipped", "do not skip it"
        raise UsageError(
            f"quantization-aware is for what becomes int8, and {why}", hint=f"Leave quantization-aware out, or {cure}."
        )


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
        UsageError: The loss or the augmentation makes no sense, or there are no data to train on.
    """
    settings = context.settings
    asked = next(iter(_asked(settings)), "")
    if asked and context.drawn.is_synthetic:
        raise UsageError(
            f"{asked} is of the stage distill, and nothing is distilled without data",
            hint=f"Give data, or leave {asked} out.",
        )
    if "distill" in settings.skip or context.drawn.is_synthetic or importlib.util.find_spec("torch") is None:
        return
    if settings.loss:
        from graphopt.distillation.losses.objective import parse

        first = context.model.graph.outputs[0].name or ""
        parse(settings.loss, default_student=first, default_teacher=first)
    if settings.augment:
        from graphopt.distillation.augmentations import augmentation

        augmentation(settings.augment, settings.seed, 1)


def _asked(settings: Settings) -> list[str]:
    """Those of distillation that were given, as they are called on the command line."""
    return [name.replace("_", "-") for name in _TRAINING if getattr(settings, name)]
