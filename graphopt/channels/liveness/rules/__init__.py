"""The table of operators: what lanes they give, as far as that is known from the lanes they take.

Unknown lanes are NaN, which spreads through arithmetic by itself. A rule may leave out what it does not care for; it
must never claim a lane to be constant that may vary, also at the borders of an image.
"""

from __future__ import annotations

from graphopt.channels.liveness.lanes import Rule
from graphopt.channels.liveness.rules import attention, elementwise, linear, movement, norm, quantized, recurrent

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    **attention.TABLE,
    **elementwise.TABLE,
    **linear.TABLE,
    **movement.TABLE,
    **norm.TABLE,
    **quantized.TABLE,
    **recurrent.TABLE,
}
