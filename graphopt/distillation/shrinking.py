"""Students made from their teachers: the same graph with fewer channels."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.datasets import Bound
from graphopt.datasets.column import LABELS
from graphopt.errors import UsageError
from graphopt.pipeline.spec import parse

__all__ = ["Shrunk", "calibration", "initialized", "shrink"]

_STARTS: Final = ("kept", "random")
_CALIBRATION: Final = 2048  # samples
_LEAST_KEPT: Final = 0.05  # share of each layer's channels


@dataclasses.dataclass(frozen=True, slots=True)
class Shrunk:
    """A smaller teacher.

    Attributes:
        model: The graph.
        is_untrained: Whether its weights are random ones.
    """

    model: ir.Model
    is_untrained: bool


def shrink(teacher: ir.Model, spec: str, *, data: Bound | None = None, seed: int = 0) -> Shrunk:
    """The teacher with fewer channels, heads and hidden units: the same share of each layer.

    Args:
        teacher: Not changed.
        spec: ``shrink:macs=0.25``: any goals of :func:`graphopt.prune`. By default the weights that matter most stay,
            refitted so that the layers give what they gave; with ``init=random`` none do.
        data: Samples for the refitting; made up if None.
        seed: Of samples and random weights.

    Raises:
        UsageError: The spec makes no sense.
        Infeasible: The goal cannot be reached.
    """
    _, options = parse(spec, what="student", example="shrink:macs=0.25")
    start = options.pop("init", "kept")
    if start not in _STARTS:
        raise UsageError(f"{spec}: weights cannot start as '{start}'", hint="Write init=kept or init=random.")
    if not options:
        raise UsageError(f"{spec} has no goal", hint="Write shrink:macs=0.25, say.")
    from graphopt.pruning.pruner import prune

    is_kept = start == "kept"
    model: ir.Model = prune(
        teacher,
        ",".join(f"{key}={value}" for key, value in options.items()),
        calibration=calibration(data, seed) if is_kept and data is not None else None,
        importance="obs" if is_kept else "l2",
        ranking="uniform",
        keep=_LEAST_KEPT,
        reconstruct=is_kept,
        # Folded normalizations are good for weights that are kept, and bad for those that begin anew.
        optimize=is_kept,
        seed=seed,
    )
    return Shrunk(model if is_kept else initialized(model, seed), not is_kept)


def calibration(data: Bound, seed: int = 0) -> Any:
    """Some samples, as :func:`graphopt.prune` takes them: one by one if that can be, since goals are by sample."""
    taken = data.take(_CALIBRATION, seed)
    if taken.whole or taken.shared or taken.group_is_fixed:
        return list(taken.batches())
    feeds = taken.at(np.arange(len(taken)))
    return list(taken.batches()) if LABELS in feeds else feeds


def initialized(model: ir.Model, seed: int = 0) -> ir.Model:
    """A copy with random weights, drawn as frameworks do: the result depends on the seed and the names of weights.

    Weights of convolutions and products are normal with the variance 2 / fan-in (He et al., arXiv 1502.01852), those of
    recurrent layers uniform within 1 / sqrt(hidden size), embeddings normal with a deviation of 0.02. Scales of
    normalizations are 1, biases and means are 0. What is none of these (tables added to activations) stays.
    """
    copy = model.clone()
    copy.meta.update(model.meta)
    for scope in walk.within(walk.Scope(copy.graph, copy.opset_imports)):
        for node in scope.graph:
            for place, value in enumerate(node.inputs):
                draw = _DRAWS.get((node.op_type, place)) if not node.domain else None
                tensor = value.const_value if value is not None and value.is_initializer() else None
                if value is None or draw is None or tensor is None or tensor.dtype not in constants.FLOAT_TYPES:
                    continue
                random = np.random.default_rng([seed, zlib.crc32((value.name or "").encode())])
                array = draw(node, tuple(tensor.shape.numpy()), random)
                if array is None:
                    continue
                value.const_value = constants.tensor(array.astype(tensor.dtype.numpy()), value.name)
    return copy


_Draw = Callable[[ir.Node, Sequence[int], np.random.Generator], "np.ndarray[Any, Any] | None"]


def _normal(fan_in: Callable[[ir.Node, Sequence[int]], int]) -> _Draw:
    return lambda node, shape, random: random.standard_normal(shape) * math.sqrt(2 / max(1, fan_in(node, shape)))


def _gemm_fan_in(node: ir.Node, shape: Sequence[int]) -> int:
    attribute = node.attributes.get("transB")
    return shape[1] if attribute is not None and attribute.as_int() else shape[0]


def _recurrent(node: ir.Node, shape: Sequence[int], random: np.random.Generator) -> np.ndarray[Any, Any]:
    hidden = node.attributes.get("hidden_size")
    bound = 1 / math.sqrt(hidden.as_int() if hidden is not None else shape[-1])
    return random.uniform(-bound, bound, shape)


def _zeros(_: ir.Node, shape: Sequence[int], __: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.zeros(shape)


def _ones(_: ir.Node, shape: Sequence[int], __: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.ones(shape)


def _of_vector(draw: _Draw) -> _Draw:
    """Leaves alone what is no bias or scale along the last axis."""
    return lambda node, shape, random: draw(node, shape, random) if len(shape) == 1 else None


_NORMS: Final = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization")
_DRAWS: Final[Mapping[tuple[str, int], _Draw]] = {
    ("Conv", 1): _normal(lambda _, shape: math.prod(shape[1:])),
    ("Conv", 2): _zeros,
    ("ConvTranspose", 1): _normal(lambda _, shape: shape[0] * math.prod(shape[2:])),
    ("ConvTranspose", 2): _zeros,
    ("Gemm", 1): _normal(_gemm_fan_in),
    ("Gemm", 2): _zeros,
    ("MatMul", 1): _normal(lambda _, shape: shape[-2] if len(shape) > 1 else shape[0]),
    ("MatMul", 0): _normal(lambda _, shape: shape[-1]),
    ("Gather", 0): lambda _, shape, random: random.standard_normal(shape) * 0.02,
    **{(name, 1): _ones for name in _NORMS},
    **{(name, 2): _zeros for name in _NORMS},
    **{("Add", place): _of_vector(_zeros) for place in (0, 1)},
    **{("Mul", place): _of_vector(_ones) for place in (0, 1)},
    ("RMSNormalization", 1): _ones,
    ("BatchNormalization", 3): _zeros,
    ("BatchNormalization", 4): _ones,
    **{(name, place): _recurrent for name in ("LSTM", "GRU", "RNN") for place in (1, 2, 3)},
}
"""How the constant in a place of an operator begins."""
