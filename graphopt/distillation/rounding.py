"""Students that are quantized before they learn, so that they learn to be right in spite of it.

Quantization-aware distillation: the student runs as the quantized graph that comes of it, with each rounding in its
place. Gradients pass these as if they were not there (Bengio et al., arXiv 1308.3432), and end where a value is beyond
its range. The scales of weights learn with them, those of biases follow, and those of activations stay as calibration
chose them: where they learnt, too, a MobileNet erred a third more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.errors import UsageError
from graphopt.pipeline.spec import close_match, parse

__all__ = ["Rounded", "is_quantized", "rounded", "settings"]

Array = npt.NDArray[Any]

_SCHEME: Final = "static"
"""The one whose operators gradients can pass: the others round at run time, or keep weights packed."""


def _switch(text: str) -> bool:
    return {"yes": True, "true": True, "no": False, "false": False}[text.lower()]


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "per_channel": ("yes or no", _switch),
    "reduce_range": ("yes or no", _switch),
    "method": ("the name of one", str),
    "exclude": ("patterns of layers, joined by +", lambda text: text.split("+")),
}
"""What a spec may say beside the scheme, as :func:`graphopt.quantize` takes it: in words, and how it is read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rounded:
    """A quantized student.

    Attributes:
        model: The graph.
        floats: What the integers of its weights and biases were rounded from, by initializer, as far as that is known.
        notes: What a user should know.
    """

    model: ir.Model
    floats: Mapping[str, Array]
    notes: list[str]


def settings(spec: str) -> dict[str, Any]:
    """The options of a spec, ``static:per-channel=no:method=minmax``, as :func:`graphopt.quantize` takes them.

    Raises:
        UsageError: It is no such spec, or a student cannot learn with such a quantization.
    """
    scheme, given = parse(spec, what="quantization", example="static:per-channel=no")
    if scheme != _SCHEME:
        from graphopt.quantization.schemes import SCHEMES

        why = "gradients cannot pass it" if scheme in SCHEMES else "there is none of that name"
        raise UsageError(
            f"students cannot learn with the quantization '{scheme}': {why}", hint=f"Write quantize={_SCHEME}."
        )
    found: dict[str, Any] = {"scheme": scheme}
    for key, text in given.items():
        name = key.replace("_", "-")
        if key not in _OPTIONS:
            known = [one.replace("_", "-") for one in _OPTIONS]
            raise UsageError(f"the quantization of a student has no option '{name}'", hint=close_match(name, known))
        words, read = _OPTIONS[key]
        try:
            found[key] = read(text)
        except KeyError:
            raise UsageError(f"{spec}: {name} cannot be '{text}'", hint=f"It takes {words}.") from None
    return found


def rounded(
    model: ir.Model,
    spec: str,
    samples: Any,
    *,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> Rounded:
    """Quantizes every layer that can be: the harm that it does is what training is for.

    Args:
        model: A float model; not changed.
        spec: See :func:`settings`.
        samples: To see ranges of activations on, as :func:`graphopt.quantize` takes them.
        seed: Of their drawing.
        provider: Where to calibrate.
        threads: Of ONNX Runtime.
        progress: Called with the name of each step and the share of it that is done.

    Raises:
        UsageError: The spec makes no sense.
        ModelError: The model is quantized already, or nothing in it can be.
    """
    from graphopt.optimizer import optimize
    from graphopt.quantization.normalizing import normalize
    from graphopt.quantization.quantizer import quantize

    options = settings(spec)
    whole: ir.Model = optimize(model)
    normalize(whole)
    found, report = quantize(
        whole,
        samples,
        max_error=float("inf"),
        optimize=False,
        time=False,
        seed=seed,
        provider=provider,
        threads=threads,
        progress=progress,
        with_report=True,
        **options,
    )
    left = [f"layer '{one.name}' stays float: {one.reason}" for one in report.layers if not one.quantized]
    return Rounded(found, _floats(whole, found), [*report.notes, *left])


def is_quantized(model: ir.Model) -> bool:
    """Whether something in a model rounds what it computes."""
    return any(node.op_type == "QuantizeLinear" for node in ir.traversal.RecursiveGraphIterator(model.graph))


def _floats(before: ir.Model, after: ir.Model) -> dict[str, Array]:
    """The constants that layers of ``before`` read, by the integers that they have become in ``after``."""
    layers = {node.name: node for node in before.graph}
    found: dict[str, Array] = {}
    for node in after.graph:
        same = layers.get(node.name)
        if same is None or same.op_type != node.op_type:
            continue
        for was, value in zip(same.inputs, node.inputs, strict=False):
            array = constants.array(was)
            maker = value.producer() if value is not None else None
            if array is None or maker is None or maker.op_type != "DequantizeLinear":
                continue
            integers = maker.inputs[0]
            if integers is not None and integers.is_initializer() and integers.shape == array.shape:
                found[integers.name or ""] = np.asarray(array)
    return found
