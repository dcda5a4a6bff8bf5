"""Which channels of a model must go together, and their removal.

>>> graph = graphopt.channels.analyze("model.onnx")
>>> weak = [unit for group in graph.groups for unit in group.units[: len(group.units) // 2]]
>>> smaller = graphopt.channels.remove(graph, weak)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphopt.channels.analysis import analyze, mask, remove
    from graphopt.channels.explaining.explanation import Explanation, explain
    from graphopt.channels.groups import ChannelGraph
    from graphopt.channels.liveness.masks import apply_mask
    from graphopt.channels.units import Frozen, Group, Member, Saving, Unit

__all__ = [
    "ChannelGraph",
    "Explanation",
    "Frozen",
    "Group",
    "Member",
    "Saving",
    "Unit",
    "analyze",
    "apply_mask",
    "explain",
    "mask",
    "remove",
]

_HOME = {
    **dict.fromkeys(("analyze", "mask", "remove"), "graphopt.channels.analysis"),
    "apply_mask": "graphopt.channels.liveness.masks",
    **dict.fromkeys(("Explanation", "explain"), "graphopt.channels.explaining.explanation"),
    "ChannelGraph": "graphopt.channels.groups",
    **dict.fromkeys(("Frozen", "Group", "Member", "Saving", "Unit"), "graphopt.channels.units"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphopt.channels' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
