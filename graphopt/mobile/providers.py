"""The execution providers of phones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

from graphopt.mobile import accelerators, xnnpack
from graphopt.mobile.demands import FIXED, Demand, Kind, Row
from graphopt.mobile.sight import FLOAT_TYPES, Sight

__all__ = ["PROVIDERS", "Provider"]


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    Attributes:
        key: Its name in data.
        name: Its name for people.
        operators: What it has, by operator.
        demands: What it asks of every node, after the operator.
        bodies: Whether it looks into branches and loop bodies.
        quantized: Whether it takes a node together with what dequantizes and quantizes for it.
        fused: Operators that become part of the node before them.
        fused_into: Operators of those nodes.
        parts: Whether it runs connected nodes as one, so that each further part costs a way there and back.
    """

    key: str
    name: str
    operators: Callable[[], Mapping[str, Row]]
    demands: tuple[Demand, ...] = ()
    bodies: bool = False
    quantized: bool = False
    fused: tuple[str, ...] = ()
    fused_into: tuple[str, ...] = ()
    parts: bool = True


def _at_most_five(sight: Sight) -> bool:
    return all(len(sight.dims(index) or ()) <= 5 for index in range(len(sight.node.inputs)))


_COREML: Final = (FIXED, Demand(Kind.AXES, "a tensor has more than five axes", _at_most_five))

PROVIDERS: Final = (
    Provider(
        "xnnpack",
        "XNNPACK",
        lambda: xnnpack.OPERATORS,
        bodies=True,
        quantized=True,
        fused=xnnpack.FUSED,
        fused_into=xnnpack.FUSED_INTO,
        parts=False,
    ),
    Provider(
        "nnapi",
        "NNAPI",
        lambda: accelerators.operators("nnapi_supported_ops.md", accelerators.NNAPI, accelerators.FLOAT32),
        (FIXED,),
        quantized=True,
    ),
    Provider(
        "coreml-mlprogram",
        "CoreML, ML program",
        lambda: accelerators.operators("coreml_supported_mlprogram_ops.md", accelerators.COREML_PROGRAM, FLOAT_TYPES),
        _COREML,
    ),
    Provider(
        "coreml-neuralnetwork",
        "CoreML, neural network",
        lambda: accelerators.operators(
            "coreml_supported_neuralnetwork_ops.md", accelerators.COREML_NETWORK, accelerators.FLOAT32
        ),
        _COREML,
    ),
)
