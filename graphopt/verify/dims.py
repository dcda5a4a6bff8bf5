"""Sizes for the dimensions that a model leaves open: one size a symbol, guesses that tend to run first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Dim", "OpenDims", "Role", "Sizes", "evaluate", "is_expression", "size"]

Dim = int | str
"""A fixed size, or the name of an open one. ``input@axis`` where the model gives it no name."""

Role = Literal["batch", "image", "channels", "length", "past", "count"]
Sizes = dict[str, int]

_BY_NAME: Final[tuple[tuple[Role, re.Pattern[str]], ...]] = (
    ("past", re.compile(r"past|cache|history", re.I)),
    ("batch", re.compile(r"batch|^(n|b|bs|bsz)$|^unk__\d+$", re.I)),
    ("image", re.compile(r"height|width|^(h|w|ih|iw)$|image|spatial", re.I)),
    ("length", re.compile(r"seq|len|time|frame|sample|audio|token|^(t|s|l)$", re.I)),
    ("count", re.compile(r"num|count|size|^[a-z]$", re.I)),
)

# Multiples of 32 for networks that halve and add; odd ones for fixed heads.
_IMAGE: Final = (64, 224, 32, 256, 96, 320, 48, 28, 128, 512, 192, 640, 299, 416)
# Audio front ends need at least a window; 576 and 288 are windows with context.
_LENGTH: Final = (16, 8, 32, 64, 1, 128, 2, 256, 512, 576, 288, 384, 1024, 4096, 16000, 3000, 48000)
_COUNT: Final = (0, 4, 1, 2, 8, 16, 64, 3)  # 0: each symbol a size of its own
_CHANNELS: Final = (3, 1, 4, 64)
_ALIKE: Final = (1, 2, 4, 8, 16)


def is_expression(name: str) -> bool:
    """Whether a dimension's name is arithmetic on other names, like ``past_sequence_length + 1``."""
    return re.search(r"[-+*/]", name) is not None and _parse(name) is not None


def evaluate(name: str, sizes: Mapping[str, int]) -> int | None:
    """The size of a dimension whose name is a symbol or arithmetic on symbols; None where one is unknown."""
    if name in sizes:
        return sizes[name]
    tree = _parse(name)
    try:
        return None if tree is None else max(0, _value(tree, sizes))
    except (KeyError, ZeroDivisionError):
        return None


def size(dim: Dim, sizes: Mapping[str, int], default: int) -> int:
    """The size of a fixed or open dimension, ``default`` where it is unknown."""
    known = dim if isinstance(dim, int) else evaluate(dim, sizes)
    return default if known is None else known


def _parse(name: str) -> ast.expr | None:
    try:
        tree = ast.parse(name, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    allowed = (ast.BinOp, ast.Name, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Load)
    return tree if all(isinstance(part, allowed) for part in ast.walk(tree)) else None


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.BinOp):
        left, right = _value(tree.left, sizes), _value(tree.right, sizes)
        match tree.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case _:
                return left // right
    raise KeyError(ast.dump(tree))


@dataclass(slots=True)
class OpenDims:
    """The open dimensions of a model's inputs, in order of appearance, each with the role it seems to play."""

    roles: dict[str, Role] = field(default_factory=dict)
    fixed: Sizes = field(default_factory=dict)

    def add(self, shape: Sequence[Dim], *, is_float: bool) -> None:
        """Take note of an input's shape."""
        for axis, dim in enumerate(shape):
            if isinstance(dim, str) and not is_expression(dim) and dim not in self.roles:
                self.roles[dim] = _role(dim, axis, shape, is_float=is_float)

    @property
    def free(self) -> list[str]:
        """Symbols that the user did not fix."""
        return [name for name in self.roles if name not in self.fixed]

    def guesses(self) -> Iterator[Sizes]:
        """Assignments to try, the likeliest first, none twice."""
        seen = set()
        for sizes in self._all_guesses():
            key = tuple(sorted(sizes.items()))
            if key not in seen:
                seen.add(key)
                yield sizes

    def _all_guesses(self) -> Iterator[Sizes]:
        rounds = max(len(_IMAGE), len(_LENGTH), len(_COUNT))
        for turn in range(rounds):
            yield self._guess(turn)
        for alike in _ALIKE:
            yield dict.fromkeys(self.roles, alike) | self.fixed

    def _guess(self, turn: int) -> Sizes:
        sizes: Sizes = {}
        count = _COUNT[turn % len(_COUNT)]
        for position, (name, role) in enumerate(self.roles.items()):
            match role:
                case "batch":
                    sizes[name] = 1
                case "image":
                    sizes[name] = _IMAGE[turn % len(_IMAGE)]
                case "channels":
                    sizes[name] = _CHANNELS[turn % len(_CHANNELS)]
                case "length":
                    sizes[name] = _LENGTH[turn % len(_LENGTH)]
                case "past":
                    sizes[name] = (4, 0, 1)[turn % 3]
                case "count":
                    sizes[name] = count or 5 + 3 * position
        return sizes | self.fixed

    def variations(self, sizes: Sizes) -> Iterator[Sizes]:
        """Other assignments that should run where ``sizes`` ran, the most different first; at last ``sizes`` itself."""
        if self.free:
            yield self._vary(sizes, {"batch", "image", "length", "past", "count"})
            yield self._vary(sizes, {"image", "length", "past", "count"})
            yield self._vary(sizes, {"batch"})
            yield self._vary(sizes, {"image", "length"}, factor=2)
            yield self._vary(sizes, {"length", "past"})
        yield dict(sizes)

    def _vary(self, sizes: Sizes, which: set[str], factor: int = 1) -> Sizes:
        step = {"batch": 2, "image": 32, "length": 5, "past": 3, "count": 2}
        varied = dict(sizes)
        for name in self.free:
            role = self.roles[name]
            if role in which:
                varied[name] = sizes[name] * factor if factor > 1 else sizes[name] + step[role]
        return varied


def _role(name: str, axis: int, shape: Sequence[Dim], *, is_float: bool) -> Role:
    rank = len(shape)
    if "@" not in name:
        for role, pattern in _BY_NAME:
            if pattern.search(name):
                return role
    if axis == 0:
        return "batch" if rank > 1 else "count"
    if rank == 3 and axis == 1 and isinstance(shape[0], int) and isinstance(shape[2], int):
        return "batch"  # a recurrent state: (layers, batch, features)
    if rank in (4, 5) and is_float:
        return "channels" if axis == 1 else "image"
    return "length"
