"""The table of operators: how the axes of each relate, and what to adapt when they shrink.

An operator without a row keeps the size of all that it touches. To add one, write its row in the file of its family.
"""

from __future__ import annotations

from graphopt.channels.rules import (
    attention,
    control,
    cutting,
    decoder,
    elementwise,
    linear,
    movement,
    norm,
    quantized,
    recurrent,
)
from graphopt.channels.rules.rule import Rule, Table

__all__ = ["RULES", "Rule", "Table"]

RULES: Table = {
    **attention.TABLE,
    **control.TABLE,
    **cutting.TABLE,
    **decoder.TABLE,
    **elementwise.TABLE,
    **linear.TABLE,
    **movement.TABLE,
    **norm.TABLE,
    **quantized.TABLE,
    **recurrent.TABLE,
}
