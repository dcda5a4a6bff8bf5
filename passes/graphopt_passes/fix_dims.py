"""Gives inputs of a model a fixed shape."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import onnx_ir as ir

from graphopt.errors import UsageError
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.verify.dims import Dim, evaluate, is_expression
from graphopt.verify.feeds import Input, signature

__all__ = ["FixDims"]

_ITEM: Final = re.compile(r"(.+?)=(-?\d+(?:x-?\d+)*)(?:\+(?=.)|$)")
"""``name=1x3x224``; sizes and not what lies between items tell where a name ends, since names may have any sign."""


@dataclasses.dataclass(frozen=True)
class FixDims(GraphPass):
    """Gives inputs of a model a fixed shape, as phones and many accelerators want them.

    What it does:
        ``dims=batch=1+height=224`` fixes dims by name, wherever inputs have them (``x@2`` is the third of ``x`` if it
        has no name), ``shapes=x=1x3x224x224+ids=1x128`` all dims of an input, and what has the same name elsewhere.
        Inputs are named as they are or by a pattern with ``*`` and ``?``. Arithmetic on names, ``past + 1``, follows.
        So do the shapes of outputs and of all in between, as far as they are known then, and other passes fold what
        is computed from them. It runs before all other passes.

    Before:
        ``(float[N,4] x) => (float[N,4] y) { s = Shape(x); z = Expand(w, s); y = Add(x, z) }``, with ``dims=N=2``

    After:
        ``(float[2,4] x) => (float[2,4] y) { s = Shape(x); z = Expand(w, s); y = Add(x, z) }``

    Does not apply when:
        - all inputs that are named have these shapes;
        - it is a shape that a function declares, which is of all its calls.

    Safety:
        Lossy: what is lost is a part of the interface, other sizes; results at these stay. Proven equal to the model as
        it was, at these sizes. No preset includes it.

    Attributes:
        dims: Sizes by name of the dim, joined by ``+``.
        shapes: Shapes by name of the input, joined by ``+``.
    """

    name = "fix-dims"
    safety = Safety.LOSSY
    dims: str = ""
    shapes: str = ""

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if not (self.dims or self.shapes):
            raise UsageError(
                "fix-dims needs to know which sizes",
                hint="Write fix-dims:dims=batch=1+height=224, or fix-dims:shapes=x=1x3x224x224.",
            )
        values = {str(value.name): value for value in model.graph.inputs if not value.is_initializer()}
        inputs = [signature(value) for value in values.values()]
        wanted = _Wanted(inputs)
        wanted.fix_dims(self.dims)
        wanted.fix_shapes(self.shapes)
        wanted.check()
        fixed = {one.name: shape for one in inputs if (shape := wanted.shape(one)) != one.shape and shape is not None}
        if not fixed:
            return Outcome()
        for name, shape in fixed.items():
            _declare(values[name], shape)
        reference = model.clone()
        reference.meta.update(model.meta)
        context.refresh()
        _follow(model, context, wanted.sizes)
        return Outcome(len(fixed), None, reference)


class _Wanted:
    """The sizes that are asked for.

    Args:
        inputs: Of the model.

    Attributes:
        sizes: By name of the dim.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.sizes: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._inputs = inputs

    def fix_dims(self, text: str) -> None:
        """Takes note of ``batch=1+height=224``.

        Raises:
            UsageError: It is no such text, or no input has such a dim.
        """
        known = list(dict.fromkeys(dim for one in self._inputs for dim in one.shape or () if isinstance(dim, str)))
        for name, sizes in _items("dims", text):
            if len(sizes) != 1:
                raise UsageError(f"fix-dims: the dim '{name}' has one size", hint="Write shapes=INPUT=1x3x224x224.")
            if name not in known:
                names = f"There are: {', '.join(known)}." if known else "All dims have a size already."
                raise UsageError(f"fix-dims: no input has an open dim '{name}'", hint=names)
            self._settle(name, sizes[0])

    def fix_shapes(self, text: str) -> None:
        """Takes note of ``x=1x3x224x224+ids=1x128``.

        Raises:
            UsageError: It is no such text, there is no such input, or it cannot have that shape.
        """
        for pattern, shape in _items("shapes", text):
            for one in self._named(pattern):
                self._fix(one, shape)

    def _named(self, pattern: str) -> list[Input]:
        exact = [one for one in self._inputs if one.name == pattern]
        found = exact or [one for one in self._inputs if fnmatch.fnmatchcase(one.name, pattern)]
        if not found:
            names = ", ".join(one.name for one in self._inputs)
            raise UsageError(f"fix-dims: the model has no input '{pattern}'", hint=f"Its inputs are: {names}.")
        return found

    def _fix(self, one: Input, shape: tuple[int, ...]) -> None:
        shown = "x".join(map(str, shape))
        if one.kind != "tensor":
            raise UsageError(f"fix-dims: input '{one.name}' is no tensor, but of the kind {one.kind}")
        if self._shapes.setdefault(one.name, shape) != shape:
            raise UsageError(f"fix-dims: input '{one.name}' has two shapes", hint="Give one.")
        if one.shape is None:
            return
        if len(one.shape) != len(shape):
            raise UsageError(
                f"fix-dims: input '{one.name}' is of rank {len(one.shape)}, which cannot be {shown}",
                hint=f"It is {one.shown_shape}.",
            )
        for dim, size in zip(one.shape, shape, strict=True):
            if isinstance(dim, str):
                self._settle(dim, size)
            elif dim != size:
                raise UsageError(
                    f"fix-dims: input '{one.name}' has a fixed dim of {dim}, which cannot be {size}",
                    hint=f"It is {one.shown_shape}.",
                )

    def _settle(self, name: str, size: int) -> None:
        if self.sizes.setdefault(name, size) != size:
            raise UsageError(f"fix-dims: the dim '{name}' cannot be both {self.sizes[name]} and {size}")

    def check(self) -> None:
        """That sizes go together.

        Raises:
            UsageError: One is not what follows from the others.
        """
        for name, size in self.sizes.items():
            computed = _size(name, {other: known for other, known in self.sizes.items() if other != name})
            if computed not in (None, size):
                raise UsageError(f"fix-dims: the dim '{name}' cannot be {size}: by the others it is {computed}")

    def shape(self, one: Input) -> tuple[Dim, ...] | None:
        """What an input becomes."""
        if one.name in self._shapes:
            return self._shapes[one.name]
        return None if one.shape is None else tuple(_size(dim, self.sizes) or dim for dim in one.shape)


def _items(option: str, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names in the text of an option, and their sizes.

    Raises:
        UsageError: It is no such text, or a size is not positive.
    """
    end = 0
    while end < len(text):
        match = _ITEM.match(text, end)
        if match is None:
            raise UsageError(
                f"fix-dims: {option} cannot be '{text}'", hint="Write dims=batch=1+height=224, or shapes=x=1x3x224x224."
            )
        end = match.end()
        sizes = tuple(map(int, match[2].split("x")))
        if min(sizes) < 1:
            raise UsageError(f"fix-dims: {option} cannot be '{text}': sizes are 1 or more")
        yield match[1].strip(), sizes


def _size(dim: Dim | None, sizes: Mapping[str, int]) -> int | None:
    """The size of a dim, if it has one, or its name or the names in it do."""
    if dim is None or isinstance(dim, int):
        return dim
    return evaluate(dim, sizes) if dim in sizes or is_expression(dim) else None


def _declare(value: ir.Value, shape: Sequence[Dim | None]) -> None:
    """Declares the sizes that are known; the rest stays as it is."""
    declared = ir.Shape(shape) if value.shape is None else value.shape.copy()
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            declared[axis] = size
    value.shape = declared


def _follow(model: ir.Model, context: Context, sizes: Mapping[str, int]) -> None:
    """Declares what is known of the values that nodes compute.

    Names of dims count where nothing else is known, and in the main graph only: in a body one may mean another number.
    """
    for scope in context.scopes():
        if scope.function is not None:
            continue  # what a function declares is of all its calls
        own = sizes if scope.graph is model.graph else {}
        for value in (output for node in scope.graph for output in node.outputs):
            if value.shape is None or all(isinstance(dim, int) and dim >= 0 for dim in value.shape):
                continue
            declared = [_size(dim if isinstance(dim, int) else dim.value, own) for dim in value.shape]
            computed = context.shapes.of(value)
            if computed is not None and len(computed) == len(declared):
                declared = [new if isinstance(new, int) else old for new, old in zip(computed, declared, strict=True)]
            _declare(value, declared)
