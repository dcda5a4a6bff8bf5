"""Channel graphs and explanations as plain data.

``graphopt inspect --groups --json`` prints::

    {
      "schema": "graphopt.channels/1", "granularity": "heads",
      "total": {"parameters": ..., "bytes": ..., "macs": ...}, "macs_are_symbolic": false,
      "groups": [{
        "index": 0, "name": "conv1", "units": 64, "heads": false, "exact": true, "segments": [64],
        "statistics": [{"node": "norm", "operator": "LayerNormalization"}],
        "nodes": [{"node": "conv1", "operator": "Conv"}, ...], "layers": 2,
        "saving_per_unit": {"parameters": ..., "bytes": ..., "macs": ...},
        "saving_half": {...}, "share_half": {"parameters": 0.12, "bytes": 0.12, "macs": 0.2},
        "members": [{"tensor": "w1", "axis": 0, "indices": [0]}, ...]
      }],
      "frozen": [{
        "name": "fc", "size": 10, "node": null, "operator": null, "reason": "it is part of the model's output",
        "plain": "callers rely on its size", "tensors": [["w9", 0]],
        "saving_per_lane": {...}, "saving_half": {...}, "share_half": {...}
      }]
    }

``members`` are those of the first unit. ``layers`` counts the nodes with a weight that is more than one number a
channel. Work (``macs``) is of one run, sizes that are not known taken to be 1, and no layer counts twice if it runs
twice. What halves save counts in that a tensor may shrink along two axes; what is frozen is to first order.

``graphopt explain --json`` prints::

    {
      "schema": "graphopt.explanation/1",
      "name": "conv1", "kind": "node", "operator": "Conv", "granularity": "heads",
      "channels": [{
        "role": "gives", "count": 64, "group": 3, "group_name": "conv1", "units": 64, "heads": false, "exact": true,
        "slices": [{"tensor": "w1", "axis": 0, "size": 64, "lanes": 1}, ...],
        "statistics": [{"node": "norm", "operator": "LayerNormalization"}],
        "saving_per_unit": {...}, "saving_half": {...}, "share_half": {...},
        "layers": [{"name": "conv2", "operator": "Conv", "role": "gives", "because": "Add 'add_3' adds them",
                    "slices": [...], "via": [{"node": "add_3", "operator": "Add", "does": "adds them"}]}],
        "attendants": [{"node": "bn1", "operator": "BatchNormalization"}],
        "frozen": null
      }, {
        "role": "reads", "count": 3, "group": null, ...,
        "frozen": {"node": null, "operator": null, "where": ["x"], "reason": "it is part of the model's input",
                   "plain": "callers rely on its size", "via": [...]}
      }]
    }

``lanes`` are the places that one unit has along the axis (of what is frozen: all). Savings of what is frozen are what
one lane and half of them would have saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.channels.explaining.ties import layers_of
from graphopt.channels.explaining.wording import plain
from graphopt.names import label, operator

if TYPE_CHECKING:
    from graphopt.channels.explaining.explanation import Channels, Explanation
    from graphopt.channels.explaining.ties import Piece
    from graphopt.channels.groups import ChannelGraph
    from graphopt.channels.units import Frozen, Group, Saving

__all__ = ["of_explanation", "of_graph"]


def of_graph(graph: ChannelGraph) -> dict[str, Any]:
    """Groups and what is frozen."""
    return {
        "schema": "graphopt.channels/1",
        "granularity": graph.granularity,
        "total": graph.savings.total._asdict(),
        "macs_are_symbolic": graph.savings.is_symbolic,
        "groups": [_group(graph, group) for group in graph.groups],
        "frozen": [_frozen(graph, one) for one in graph.frozen],
    }


def of_explanation(explanation: Explanation) -> dict[str, Any]:
    """What is known of one node or tensor."""
    return {
        "schema": "graphopt.explanation/1",
        "name": explanation.name,
        "kind": explanation.kind,
        "operator": explanation.operator,
        "granularity": explanation.graph.granularity,
        "channels": [_channels(explanation.graph, one) for one in explanation.channels],
    }


def _group(graph: ChannelGraph, group: Group) -> dict[str, Any]:
    return {
        "index": group.index,
        "name": group.name,
        "units": len(group.units),
        "exact": group.exact,
        "heads": group.heads,
        "segments": [len(segment) for segment in group.segments],
        "statistics": _nodes(group.statistics),
        "nodes": _nodes(group.nodes),
        "layers": len(layers_of(group)),
        "saving_per_unit": group.units[0].saving._asdict(),
        **_half(graph, graph.savings.half(group)),
        "members": [member._asdict() for member in group.units[0].members],
    }


def _frozen(graph: ChannelGraph, one: Frozen) -> dict[str, Any]:
    return {
        "name": one.name,
        "size": one.size,
        "node": None if one.node is None else label(one.node),
        "operator": None if one.node is None else operator(one.node),
        "reason": one.reason,
        "plain": plain(one.reason),
        "tensors": [list(tensor) for tensor in one.tensors],
        "saving_per_lane": one.saving._asdict(),
        **_half(graph, one.half),
    }


def _channels(graph: ChannelGraph, one: Channels) -> dict[str, Any]:
    group = one.group
    return {
        "role": one.role,
        "count": one.count,
        "group": None if group is None else group.index,
        "group_name": None if group is None else group.name,
        "units": None if group is None else len(group.units),
        "heads": group is not None and group.heads,
        "exact": None if group is None else group.exact,
        "statistics": [] if group is None else _nodes(group.statistics),
        "slices": [_piece(piece) for piece in one.slices],
        "saving_per_unit": one.saving._asdict(),
        **_half(graph, one.half),
        "layers": [
            {
                "name": tie.name,
                "operator": tie.operator,
                "role": tie.role,
                "because": tie.because,
                "slices": [_piece(piece) for piece in tie.slices],
                "via": [dataclasses.asdict(step) for step in tie.via],
            }
            for tie in one.layers
        ],
        "attendants": [{"node": name, "operator": kind} for name, kind in one.attendants],
        "frozen": None if one.frozen is None else dataclasses.asdict(one.frozen),
    }


def _half(graph: ChannelGraph, saving: Saving) -> dict[str, Any]:
    share = dict(zip(saving._fields, graph.savings.share(saving), strict=True))
    return {"saving_half": saving._asdict(), "share_half": share}


def _nodes(nodes: Iterable[ir.Node]) -> list[dict[str, str]]:
    return [{"node": label(node), "operator": operator(node)} for node in nodes]


def _piece(piece: Piece) -> dict[str, Any]:
    return {"tensor": piece.tensor, "axis": piece.axis, "size": piece.size, "lanes": piece.lanes}
