"""What a row of the table of operators is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit
    from graphopt.channels.op import Op

__all__ = ["Rule", "Table"]


class Rule(NamedTuple):
    """One operator.

    Attributes:
        link: Relates the axes of its inputs and outputs.
        fit: Adapts attributes and constants that encode sizes, once lanes are gone; ``None`` where there are none.
    """

    link: Callable[[Op], None]
    fit: Callable[[Fit], None] | None = None


Table = dict[str, Rule]
