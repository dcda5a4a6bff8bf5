"""How to make a model sparse."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Literal, get_args

from graphopt.errors import UsageError
from graphopt.pruning.sparsity.patterns import Pattern
from graphopt.pruning.sparsity.statistics import Need

__all__ = ["METHODS", "Method", "Scope", "Settings"]

Method = Literal["sparsegpt", "wanda", "magnitude"]
Scope = Literal["layer", "global"]

METHODS: Final[tuple[str, ...]] = get_args(Method)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How to make a model sparse.

    Attributes:
        pattern: Of zeros.
        method: How they are chosen.
        scope: Within what magnitudes are compared.
        reconstruct: Whether to refit what is left by least squares.
        smallest: The fewest elements of a weight that becomes sparse.
        include: Patterns of names of layers; all if empty.
        exclude: Patterns of names of layers to leave alone.
        seed: Of the rows that are sampled.
        provider: Execution provider.
        threads: Intra-op threads.
    """

    pattern: Pattern
    method: str = "sparsegpt"
    scope: str = "layer"
    reconstruct: bool = True
    smallest: int = 512
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    seed: int = 0
    provider: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"there is no method '{self.method}'", hint=f"Choose among {', '.join(METHODS)}.")
        if self.scope not in get_args(Scope):
            raise UsageError(f"there is no scope '{self.scope}'", hint="Choose layer or global.")
        if self.scope == "global" and (self.method != "magnitude" or self.pattern.is_grouped):
            raise UsageError(
                "only magnitudes can be compared over all layers, and not for N:M",
                hint="Leave scope=global out, or use method=magnitude with a share such as 50%.",
            )

    @property
    def need(self) -> Need:
        """What must be known of the rows of a layer."""
        if self.reconstruct or self.method == "sparsegpt":
            return "products"
        return "squares" if self.method == "wanda" else "rows"
