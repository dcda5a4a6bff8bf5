"""Random changes to inputs, by name: each changes the arrays of one sample, whose leading axis is 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from graphopt.distillation.sampling import Arrays, Augmentation
from graphopt.errors import UsageError
from graphopt.importing import imported, names_function
from graphopt.pipeline.spec import close_match, parse

__all__ = ["AUGMENTATIONS", "augmentation"]

Array = np.ndarray[Any, Any]


class Change(Protocol):
    """A random change to one input. Its fields are its options; ``input`` names the input, where not all are meant."""

    name: ClassVar[str]
    suits: ClassVar[str]
    """What kind of inputs it is for."""
    alone: ClassVar[bool]
    """Whether it is for one input only, which must be named if there are several of the kind."""

    @property
    def input(self) -> str:
        """The name of the input; all that suit if empty."""

    def applies(self, array: Array) -> bool:
        """Whether an input is of the kind that this is for."""

    def __call__(self, array: Array, random: np.random.Generator) -> Array:
        """The changed array, of the same shape."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shift:
    """Moves images by up to ``pixels`` in each direction; their edges fill what becomes free."""

    name: ClassVar[str] = "shift"
    suits: ClassVar[str] = "images (rank 4, channels second)"
    alone: ClassVar[bool] = False
    pixels: int = 2
    input: str = ""

    def __post_init__(self) -> None:
        _check(self.pixels >= 0, "pixels cannot be below 0")

    def applies(self, array: Array) -> bool:
        return array.ndim == 4

    def __call__(self, array: Array, random: np.random.Generator) -> Array:
        down, right = random.integers(-self.pixels, self.pixels + 1, 2)
        rows = np.clip(np.arange(array.shape[2]) - down, 0, array.shape[2] - 1)
        columns = np.clip(np.arange(array.shape[3]) - right, 0, array.shape[3] - 1)
        return array[:, :, rows[:, None], columns]


@dataclasses.dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors images left to right with probability ``share``."""

    name: ClassVar[str] = "flip"
    suits: ClassVar[str] = "images (rank 4, channels second)"
    alone: ClassVar[bool] = False
    share: float = 0.5
    input: str = ""

    def __post_init__(self) -> None:
        _check(0 <= self.share <= 1, "share must be from 0 to 1")

    def applies(self, array: Array) -> bool:
        return array.ndim == 4

    def __call__(self, array: Array, random: np.random.Generator) -> Array:
        return array[..., ::-1] if random.random() < self.share else array


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """Adds normal noise of the standard deviation ``deviation``."""

    name: ClassVar[str] = "noise"
    suits: ClassVar[str] = "floats"
    alone: ClassVar[bool] = False
    deviation: float = 0.1
    input: str = ""

    def __post_init__(self) -> None:
        _check(0 <= self.deviation < float("inf"), "deviation must be 0 or more")

    def applies(self, array: Array) -> bool:
        return np.issubdtype(array.dtype, np.floating)

    def __call__(self, array: Array, random: np.random.Generator) -> Array:
        return array + random.standard_normal(array.shape, np.float32) * np.float32(self.deviation)


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Replaces ``share`` of the tokens of a text by ``token``."""

    name: ClassVar[str] = "drop"
    suits: ClassVar[str] = "integers of rank 2 (tokens)"
    alone: ClassVar[bool] = True  # masks and token types are integers too
    share: float = 0.1
    token: int = 0
    input: str = ""

    def __post_init__(self) -> None:
        _check(0 <= self.share <= 1, "share must be from 0 to 1")

    def applies(self, array: Array) -> bool:
        return array.dtype.kind in "iu" and array.ndim == 2

    def __call__(self, array: Array, random: np.random.Generator) -> Array:
        return np.where(random.random(array.shape) < self.share, np.array(self.token).astype(array.dtype), array)


AUGMENTATIONS: Final[Mapping[str, type[Any]]] = {made.name: made for made in (Shift, Flip, Noise, Drop)}
"""Every change, by its name in specs."""


def augmentation(given: str | Callable[..., Any], seed: int, views: int) -> Augmentation | None:
    """What changes the samples.

    Args:
        given: ``shift:pixels=2+flip``; ``module:function``, **which runs that code**; or a function of the feeds of one
            sample and a generator, which gives the changed feeds. Empty for none.
        seed: Of the generators.
        views: Variants of each sample.

    Raises:
        UsageError: There is no such change, option or function; or, once there are samples, no input for it.
    """
    if callable(given):
        return Augmentation(given, seed, views)
    if not given:
        return None
    if names_function(given) and given.partition(":")[0] not in AUGMENTATIONS:
        return Augmentation(imported(given), seed, views)
    changes = [_change(part) for part in given.split("+")]

    def change(feeds: Arrays, random: np.random.Generator) -> Arrays:
        changed = dict(feeds)
        for one in changes:
            for name in _inputs(one, feeds):
                changed[name] = one(changed[name], random)
        return changed

    return Augmentation(change, seed, views)


def _inputs(change: Change, feeds: Arrays) -> list[str]:
    """Names of the inputs to change.

    Raises:
        UsageError: There is none that suits, or one must be named.
    """
    found = [name for name, array in feeds.items() if change.applies(array) and change.input in ("", name)]
    if not found:
        wanted = f"no input '{change.input}' of them" if change.input else "none among the inputs"
        raise UsageError(
            f"the augmentation '{change.name}' is for {change.suits}, and there is {wanted}",
            hint=f"The inputs are {', '.join(f'{name} {list(array.shape)}' for name, array in feeds.items())}.",
        )
    if change.alone and len(found) > 1:
        raise UsageError(
            f"the augmentation '{change.name}' could be for {', '.join(found)}",
            hint=f"Name the one: {change.name}:input={found[0]}.",
        )
    return found


def _change(spec: str) -> Change:
    name, options = parse(spec, what="augmentation", example="shift:pixels=2")
    if name not in AUGMENTATIONS:
        raise UsageError(f"there is no augmentation '{name}'", hint=close_match(name, AUGMENTATIONS))
    made = AUGMENTATIONS[name]
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(made)}
    for key in options:
        if key not in defaults:
            raise UsageError(f"the augmentation '{name}' has no option '{key}'", hint=close_match(key, defaults))
    try:
        change: Change = made(**{key: type(defaults[key])(text) for key, text in options.items()})
    except ValueError as error:
        usual = ":".join(f"{key}={value}" for key, value in defaults.items() if value != "")
        raise UsageError(f"'{spec}' is no augmentation: {error}", hint=f"The defaults: {name}:{usual}.") from error
    return change


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
