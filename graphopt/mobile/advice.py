"""What can be done about nodes that a provider leaves, by the kind of reason."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from graphopt.mobile.demands import Kind
from graphopt.mobile.report import Refusal

__all__ = ["advice"]

_FIX: Final = "Fix the shapes of inputs: graphopt optimize IN OUT --passes {}"
_SHOWN: Final = 4  # inputs whose shapes are written out
_SEPARATOR: Final = re.compile("[,:]")
_UNSPEAKABLE: Final = re.compile(r"[,:\[\]]")
_RAISE: Final = "Raise the operator set: graphopt optimize IN OUT --passes default,convert-opset:to=13"
_LOWER: Final = "Export the model with an operator set of 13 to 21: the kernels know no newer variant of the operator."
_BRANCH: Final = "Branches whose condition is known fold: graphopt optimize IN OUT; export without the others."
_FLOAT: Final = (
    "Layers in float16 go back to float32: graphopt optimize IN OUT --passes convert-float32. Where a quantized model "
    "is left, its float original may not be."
)
_CONTRIB: Final = "Operators of com.microsoft are for processors: make the model with --target portable."
_OUTSIDE: Final = (
    "Layers with weights in a file beside the model are left: graphopt optimize IN OUT --no-external-data."
)


def advice(refusals: Iterable[Refusal], free: Mapping[str, tuple[int, ...]], *, outside: bool) -> tuple[str, ...]:
    """Hints for the reasons that something can be done about.

    Args:
        refusals: The reasons.
        free: A shape for each input that has no fixed one.
        outside: Whether the model has weights in other files, and the provider takes none from there.
    """
    given = list(refusals)
    kinds = {one.kind for one in given}
    found = []
    if Kind.SHAPE in kinds and free:
        found.append(_fixing(free))
    if Kind.OPSET in kinds:
        reasons = " ".join(one.reason for one in given if one.kind == Kind.OPSET)
        found += [text for word, text in (("older", _RAISE), ("newer", _LOWER)) if word in reasons]
    if any(one.kind == Kind.TYPE and one.macs for one in given):
        found.append(_FLOAT)
    if Kind.BODY in kinds:
        found.append(_BRANCH)
    if any(name.startswith("com.microsoft::") for one in given for name in one.operators):
        found.append(_CONTRIB)
    if outside:
        found.append(_OUTSIDE)
    return tuple(found)


def _fixing(free: Mapping[str, tuple[int, ...]]) -> str:
    """How to fix the shapes of inputs. A name that a pass spec cannot hold becomes a pattern."""
    shapes = [
        f"{_UNSPEAKABLE.sub('?', name) if _SEPARATOR.search(name) else name}={'x'.join(map(str, shape))}"
        for name, shape in list(free.items())[:_SHOWN]
    ]
    others = list(free)[_SHOWN:]
    also = f", and likewise for {', '.join(others)}" if others else ""
    return _FIX.format(shlex.quote(f"fix-dims:shapes={'+'.join(shapes)},default")) + also
