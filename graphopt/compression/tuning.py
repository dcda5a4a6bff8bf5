"""Looks for settings of distillation, where that is asked for: the rate, the temperature, and how much labels count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import onnx_ir as ir

from graphopt import io
from graphopt.compression.context import Context, epochs_for
from graphopt.compression.points import Variant
from graphopt.errors import EnvironmentProblem, GraphoptError

__all__ = ["tuned"]

_RATES: Final = (1e-4, 1e-2)
_TEMPERATURES: Final = (1.0, 8.0)
_WEIGHTS: Final = (0.3, 1.0)  # of what the original says, against labels
_SHARE: Final = 1 / 3  # of the epochs of a whole distillation


def tuned(context: Context, way: float, trials: int, progress: Callable[[str, float | None], None]) -> dict[str, Any]:
    """The best settings that were tried, on the model after so much of the way; what was found before is taken.

    Optuna's sampler (TPE, arXiv 1907.10902) proposes; a trial is a short distillation, judged on the samples to choose
    by.

    Args:
        context: The run.
        way: How far the model is pruned that is distilled.
        trials: How many settings are tried.
        progress: Called with what is done.

    Returns:
        ``learning_rate`` and ``loss``.

    Raises:
        EnvironmentProblem: Optuna is not installed.
    """
    kept = context.workspace.read("tuned.json")
    if kept is not None:
        return kept
    try:
        import optuna
    except ImportError as error:
        raise EnvironmentProblem(
            f"tuning needs Optuna, which cannot be imported: {error}",
            hint="Install it with: pip install 'graphopt[tune]'.",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=context.settings.seed))

    def attempt(trial: Any) -> float:
        progress("tune", trial.number / trials)
        return _score(context, way, _proposed(trial, has_labels=context.drawn.train.labels is not None))

    study.optimize(attempt, n_trials=trials)
    found = dict(study.best_trial.user_attrs) | {"score": study.best_value, "trials": trials}
    context.workspace.write("tuned.json", found)
    return found


def _proposed(trial: Any, *, has_labels: bool) -> dict[str, Any]:
    rate = trial.suggest_float("learning rate", *_RATES, log=True)
    temperature = trial.suggest_float("temperature", *_TEMPERATURES, log=True)
    loss = f"kd:temperature={temperature:.3g}"
    if has_labels:
        weight = trial.suggest_float("weight", *_WEIGHTS)
        loss = f"{loss}:weight={weight:.3g}+ce:weight={1 - weight:.3g}" if weight < 1 else loss
    proposed = {"learning_rate": rate, "loss": loss}
    for name, value in proposed.items():
        trial.set_user_attr(name, value)
    return proposed


def _score(context: Context, way: float, proposed: dict[str, Any]) -> float:
    """How good the model is after a short distillation; as bad as can be where it fails."""
    import graphopt

    settings, train = context.settings, context.drawn.train
    epochs = settings.epochs or epochs_for(len(train), settings.train_batch)
    try:
        made: ir.Model = graphopt.distill(
            context.optimized,
            context.pruned(Variant(way, "float32")),
            train.dataset,
            augment=settings.augment,
            epochs=max(1, round(_SHARE * epochs)),
            batch=settings.train_batch,
            seed=settings.seed,
            provider=settings.provider,
            threads=settings.threads,
            **proposed,
        )
    except GraphoptError:  # a rate that was too high, most likely
        return float("-inf")
    path = context.workspace.folder / "tuned.onnx"
    io.save(made, path)
    judge = context.chooser
    return judge.metric.score(judge.outputs(path), judge.truth) * judge.metric.is_better
