"""Which layers stay as they are, so that the outputs err no more than allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

import onnx_ir as ir

from graphopt.errors import Infeasible
from graphopt.quantization.candidates import Target
from graphopt.quantization.yardstick import Yardstick, share

__all__ = ["Choice", "choose"]

Build = Callable[[Sequence[Target]], ir.Model]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is quantized.

    Attributes:
        model: The quantized model.
        layers: What is quantized.
        left: Layers that stay as they are, each with the reason.
        error: Of the model, on the inputs that were looked at.
    """

    model: ir.Model
    layers: Sequence[Target]
    left: dict[Target, str]
    error: float


def choose(
    layers: Sequence[Target],
    harms: Sequence[float],
    build: Build,
    yardstick: Yardstick,
    *,
    max_error: float,
    max_layer_error: float | None = None,
) -> Choice:
    """Leaves out the fewest layers, the most harmful first, with which the model's measured error is small enough.

    Args:
        layers: What can be quantized.
        harms: The error of the outputs that each of them causes alone.
        build: Makes a model in which some layers are quantized.
        yardstick: Measures a model.
        max_error: The error of the outputs that is allowed.
        max_layer_error: The error that one layer may cause.

    Raises:
        Infeasible: With no layer at all, or with too little error.
        ModelError: A model cannot be built or run.
    """
    limit = float("inf") if max_layer_error is None else max_layer_error
    left = {
        layer: f"alone it would cause an error of {share(harm)}, more than {share(limit)}"
        for layer, harm in zip(layers, harms, strict=True)
        if harm > limit
    }
    ranked = sorted(zip(harms, range(len(layers)), strict=True), key=lambda pair: (-pair[0], pair[1]))
    order = [layers[place] for _, place in ranked if layers[place] not in left]
    if not order:
        raise Infeasible(
            f"no layer causes an error of at most {share(limit)}; the best causes {share(min(harms))}",
            hint="Allow more with max_layer_error.",
        )
    errors: dict[int, float] = {}
    good: dict[int, ir.Model] = {}

    def error(count: int) -> float:
        """Without the ``count`` most harmful layers."""
        if count not in errors:
            model = build(_without(layers, [*left, *order[:count]]))
            errors[count] = yardstick.error(model)
            if errors[count] <= max_error:  # each is better than the one before
                good.clear()
                good[count] = model
        return errors[count]

    fewest = _fewest(error, len(order), max_error)
    by_place = dict(zip(layers, harms, strict=True))
    for layer in order[:fewest]:
        left[layer] = (
            f"it is among those that err most (alone {share(by_place[layer])}), to stay within {share(max_error)}"
        )
    return Choice(good[fewest], _without(layers, left), left, errors[fewest])


def _without(layers: Sequence[Target], left: Collection[Target]) -> list[Target]:
    gone = set(left)
    return [layer for layer in layers if layer not in gone]


def _fewest(error: Callable[[int], float], most: int, limit: float) -> int:
    """The least count whose error is within the limit, looking at 0, 1, 2, 4, ... and then between two of them."""
    low, high = -1, 0
    while error(high) > limit:
        low = high
        if high == most - 1:
            raise Infeasible(
                f"quantizing a single layer errs by {share(error(high))}, more than the {share(limit)} allowed"
                if most > 1
                else f"quantized, the model errs by {share(error(high))}, more than the {share(limit)} allowed",
                hint="Allow more with max_error, or try another scheme, or more calibration inputs that are real.",
            )
        high = min(max(1, 2 * high), most - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if error(middle) > limit:
            low = middle
        else:
            high = middle
    return high
