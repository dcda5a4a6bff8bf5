"""Which layers are slower in integers, here: measured in the model, since neighbours decide on what a layer costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from graphopt.pruning.latency.measure import Stopwatch
from graphopt.pruning.stages import Feeds
from graphopt.quantization.candidates import Target
from graphopt.quantization.choice import Choice

__all__ = ["faster"]

_SECONDS = 0.3  # of each measurement
_ROUNDS = 3
_WORTH = 1.02  # times as fast without a layer's integers: below that it is noise


def faster(
    choice: Choice,
    build: Callable[[Sequence[Target]], ir.Model],
    feeds: Feeds,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Choice:
    """Leaves out the layers without which the model is faster.

    Each is left out alone, then all that gained anything together, which counts if that is faster indeed; and again
    with what is left, because a layer may only have paid for its neighbour.

    Args:
        choice: What would be quantized.
        build: Makes a model in which some layers are quantized.
        feeds: What to run it on.
        provider: Execution provider.
        threads: Intra-op threads.
        seed: Of the order of measurements.
        progress: Called with the share of a round that is done.

    Raises:
        ModelError: ONNX Runtime refuses a model.
    """
    running: dict[str, Any] = {"provider": provider, "threads": threads, "seconds": _SECONDS, "seed": seed}
    for _ in range(_ROUNDS):
        with Stopwatch(choice.model, feeds, **running) as watch:
            gains = {}
            for number, layer in enumerate(choice.layers):
                progress(number / len(choice.layers))
                rest = [one for one in choice.layers if one is not layer]
                gain = watch.ratio(build(rest)).value if rest else 0.0
                if gain > _WORTH:
                    gains[layer] = gain
            kept = [layer for layer in choice.layers if layer not in gains]
            if not gains or not kept:
                return choice
            model = build(kept)
            if watch.ratio(model).value <= 1:
                return choice
        reasons = {layer: f"without it the model is {gain:.2f} times as fast here" for layer, gain in gains.items()}
        choice = dataclasses.replace(choice, model=model, layers=kept, left={**choice.left, **reasons})
    return choice
