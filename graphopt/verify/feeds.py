"""Inputs for a model, made from the model: types and shapes it declares, values that its graph can use.

Open dimensions get one size a name; integers stay below what they select from; scalars that the graph compares
with constants (a sample rate) take those constants; the rest is seeded noise. Where a first guess does not run, a
caller walks through :meth:`Plan.guesses`, of which :func:`generate` gives the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.errors import ModelError, UsageError
from graphopt.verify import dims, fill, values

__all__ = ["Feeds", "Guess", "Input", "Plan", "generate", "signature"]

Array = np.ndarray[Any, Any]
Feeds = dict[str, Any]
"""An array, a list of arrays (sequence) or None (empty optional) for each input."""

_UNNAMED: Final = re.compile(r"\?|-?\d+|none|unknown|", re.IGNORECASE)
_OUT_OF_RANGE: Final = re.compile(r"(?:out of (?:data )?(?:bounds|range)|invalid ind)", re.IGNORECASE)
_RANGE: Final = re.compile(r"range \[-?\d+, ?(-?\d+)\]")
_RANKS: Final = ((2, 3), (4,), (), (1, 3, 8, 8), (2, 3, 4))
_MAX_CHOICES: Final = 4
_TOO_BIG: Final = 1 << 31  # bytes of one input: dimensions of a model nobody runs
_UNBOUNDED: Final = 16


@dataclass(frozen=True, slots=True)
class Input:
    """One graph input: ``kind`` is tensor, sequence or optional; ``shape`` None is of unknown rank."""

    name: str
    kind: str
    dtype: ir.DataType
    shape: tuple[dims.Dim, ...] | None
    uses: values.Uses

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array may have this shape; symbols take any size."""
        return self.shape is None or (
            len(self.shape) == len(shape)
            and all(not isinstance(dim, int) or dim == size for dim, size in zip(self.shape, shape, strict=True))
        )

    @property
    def shown_shape(self) -> str:
        """The declared shape for messages: ``[N, 3, ?]``."""
        if self.shape is None:
            return "[...]"
        shown = (
            "?" if isinstance(dim, str) and "@" in dim and not dims.is_expression(dim) else dim for dim in self.shape
        )
        return f"[{', '.join(map(str, shown))}]"


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to fill a model's inputs.

    Attributes:
        sizes: Of the open dimensions.
        style: ``normal``, or ``unit`` for floats in (0, 1).
        choice: Which of the constants that an input is compared with.
        cap: Exclusive bound on integers of which no other is known.
        rank: Which shape for inputs of unknown rank.
        variant: 0 for masks of ones and true conditions, 1 for mixed ones.
    """

    sizes: Mapping[str, int]
    style: str = "normal"
    choice: int = 0
    cap: int = _UNBOUNDED
    rank: int = 0
    variant: int = 0

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f"{sizes or 'fixed shapes'}{f', choice {self.choice}' if self.choice else ''}"


@dataclass(slots=True)
class Plan:
    """How to feed a model; built once, cheap to fill.

    Attributes:
        inputs: What a caller must feed.
        open_dims: Their dimensions that have no size.
        defaults: Initializers that a caller may replace (IR 4 and later), by name; the small ones.
    """

    inputs: list[Input]
    open_dims: dims.OpenDims
    defaults: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> Plan:
        """Look at a model's inputs and at what the graph does with them.

        Raises:
            UsageError: ``shapes`` names no input of the model, or contradicts what it declares.
            ModelError: An input has no type.
        """
        wanted = dict(shapes or {})
        required = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
        _check_names(wanted, [str(value.name) for value in required])
        plan = cls([], dims.OpenDims())
        returned = values.exits(model)
        for value in required:
            uses = values.follow(model, value, _size_of, returned)
            plan.inputs.append(plan._input(value, uses, wanted.get(str(value.name))))
        if model.ir_version >= 4:
            for value in model.graph.inputs:
                tensor = model.graph.initializers.get(str(value.name))
                if tensor is not None and tensor.const_value is not None and tensor.const_value.nbytes < 1 << 20:
                    plan.defaults[str(value.name)] = tensor.const_value.numpy()
        return plan

    def _input(self, value: ir.Value, uses: values.Uses, wanted: Sequence[int] | None) -> Input:
        entry = replace(signature(value), uses=uses)
        if wanted is not None:
            self._fix(entry.name, entry.shape, tuple(wanted))
            entry = replace(entry, shape=tuple(wanted))
        if entry.shape is not None:
            self.open_dims.add(entry.shape, is_float=entry.dtype.is_floating_point())
        return entry

    def _fix(self, name: str, declared: tuple[dims.Dim, ...] | None, wanted: tuple[int, ...]) -> None:
        shown = "×".join(map(str, wanted))
        if any(size < 0 for size in wanted):
            raise UsageError(f"input '{name}' cannot have the shape {shown}: sizes are not negative")
        if declared is None:
            return
        if len(declared) != len(wanted):
            raise UsageError(f"input '{name}' has {len(declared)} dimensions, not the {len(wanted)} of {shown}")
        for dim, size in zip(declared, wanted, strict=True):
            if isinstance(dim, int):
                if dim != size:
                    raise UsageError(f"input '{name}' has a fixed dimension of {dim}, which cannot be {size} ({shown})")
            elif not dims.is_expression(dim) and self.open_dims.fixed.setdefault(dim, size) != size:
                raise UsageError(f"dimension '{dim}' cannot be both {self.open_dims.fixed[dim]} and {size}")

    def guesses(self) -> Iterator[Guess]:
        """Ways to fill the inputs, the likeliest first."""
        choices = min(_MAX_CHOICES, self._choices())
        ranks = len(_RANKS) if any(entry.shape is None for entry in self.inputs) else 1
        for sizes in self.open_dims.guesses():
            for choice in range(choices):
                for rank in range(ranks):
                    yield Guess(sizes, choice=choice, rank=rank)

    def variations(self, guess: Guess, number: int) -> Iterator[Guess]:
        """Guesses for the ``number``-th further sample, given one that ran: other sizes and other values."""
        choices = self._choices()
        other = [(guess.choice + step) % choices for step in range(1, choices)][:_MAX_CHOICES]
        varied = list(self.open_dims.variations(dict(guess.sizes)))
        if number > 1:
            varied = varied[-1:]
        for choice in (*other, guess.choice):
            for sizes in varied:
                yield replace(guess, sizes=sizes, choice=choice, variant=1)
        if other:  # another choice may need other sizes
            for sizes in self.open_dims.guesses():
                yield replace(guess, sizes=sizes, choice=other[0], variant=1)
        yield replace(guess, variant=0)

    def _choices(self) -> int:
        return max((len(fill.options(entry)) for entry in self.inputs), default=1) or 1

    def fill(self, guess: Guess, seed: int) -> Feeds | None:
        """Arrays for a guess; None where they would be absurdly large."""
        shapes = {entry.name: self._shape(entry, guess) for entry in self.inputs}
        if any(math.prod(shape) * 8 > _TOO_BIG for shape in shapes.values()):
            return None
        feeds: Feeds = {}
        for position, entry in enumerate(self.inputs):
            random = np.random.default_rng([seed, position])
            shape = shapes[entry.name]
            if entry.kind == "sequence":
                feeds[entry.name] = [fill.array(entry, shape, guess, random) for _ in range(3)]
            else:
                feeds[entry.name] = fill.array(entry, shape, guess, random)
        return feeds

    def overrides(self, seed: int) -> Iterator[Feeds]:
        """Other values for initializers that a caller may replace: floats moved by a tenth; conditions turned around.

        Integers stay: most of them are shapes, axes and indices, and few of their other values run.
        """
        random = np.random.default_rng([seed, len(self.inputs)])
        yield {
            name: np.asarray(array * (1 + 0.1 * random.standard_normal(array.shape)), array.dtype)
            for name, array in self.defaults.items()
            if array.dtype.kind == "f"
        }
        yield {name: np.asarray(~array) for name, array in self.defaults.items() if array.dtype.kind == "b"}

    def _shape(self, entry: Input, guess: Guess) -> tuple[int, ...]:
        if entry.shape is None:
            return _RANKS[guess.rank]
        return tuple(dims.size(dim, guess.sizes, 1) for dim in entry.shape)

    def tightened(self, guess: Guess, message: str) -> Guess | None:
        """The same guess with smaller integers, where an ONNX Runtime error says that an index was too large."""
        if not _OUT_OF_RANGE.search(message) or all(entry.dtype.is_floating_point() for entry in self.inputs):
            return None
        stated = _RANGE.search(message)
        cap = min(guess.cap // 2, int(stated.group(1)) + 1) if stated else guess.cap // 2
        return replace(guess, cap=cap) if cap > 0 else None


def generate(
    model: ir.Model, *, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0, samples: int = 1
) -> list[Feeds]:
    """Feeds for a model, by input name; the sizes are first guesses, which a run may refuse.

    Args:
        model: The model; its weights are not read.
        shapes: Shapes of inputs, by name; they fix same-named dimensions of other inputs too.
        seed: Same seed, same values.
        samples: How many; they differ in values, not in shape.

    Raises:
        UsageError: ``shapes`` does not fit the model.
        ModelError: An input has no type, or no guess is small enough to allocate.
    """
    plan = Plan.of(model, shapes)
    guess = next(plan.guesses())
    made = [plan.fill(guess, seed + number) for number in range(samples)]
    feeds = [entry for entry in made if entry is not None]
    if len(feeds) != samples:
        raise ModelError("the model's inputs are too large to generate", hint="Give shapes with --input-shape.")
    return feeds


def signature(value: ir.Value) -> Input:
    """What a graph input declares, without a look at what the graph does with it.

    Raises:
        ModelError: It has no type.
    """
    kind, dtype = _type(value)
    return Input(str(value.name), kind, dtype, _declared(value), values.Uses())


def _check_names(wanted: Mapping[str, object], names: list[str]) -> None:
    for name in wanted:
        if name not in names:
            raise UsageError(f"the model has no input '{name}'", hint=f"Its inputs are: {', '.join(names) or 'none'}.")


def _type(value: ir.Value) -> tuple[str, ir.DataType]:
    """(tensor | sequence | optional, element type)."""
    kind, inner = "tensor", value.type
    if isinstance(inner, ir.OptionalType):
        kind, inner = "optional", inner.elem_type
    if isinstance(inner, ir.SequenceType):
        kind, inner = "sequence", inner.elem_type
    if inner is None or not isinstance(inner, (ir.TensorType, ir.SparseTensorType)):
        raise ModelError(f"input '{value.name}' has no type that can be fed: {value.type}")
    return kind, inner.dtype


def _declared(value: ir.Value) -> tuple[dims.Dim, ...] | None:
    if value.shape is None:
        return None
    return tuple(_dim(value, axis, size) for axis, size in enumerate(value.shape))


def _dim(value: ir.Value, axis: int, size: int | ir.SymbolicDimProtocol) -> dims.Dim:
    if isinstance(size, int):
        return size if size >= 0 else f"{value.name}@{axis}"
    name = size.value
    return f"{value.name}@{axis}" if name is None or _UNNAMED.fullmatch(str(name).strip()) else str(name)


def _size_of(value: ir.Value, axis: int) -> dims.Dim | None:
    """The size of a value along an axis, where the model declares it."""
    tensor = constants.constant(value)
    shape = value.shape if tensor is None else tensor.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    return _dim(value, axis % len(shape), shape[axis])
