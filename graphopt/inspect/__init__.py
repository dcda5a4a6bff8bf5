"""What a model is made of: interface, operators, parameters, cost, layers, and what would fold."""

from __future__ import annotations

from graphopt.inspect.folding import Folding
from graphopt.inspect.inspection import Inspection, Port, Stored, StoredTensor, inspect
from graphopt.inspect.layers import Group, Layer, OperatorCount

__all__ = ["Folding", "Group", "Inspection", "Layer", "OperatorCount", "Port", "Stored", "StoredTensor", "inspect"]
