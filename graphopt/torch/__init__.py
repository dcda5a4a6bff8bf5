"""Any ONNX graph as a trainable torch module, and its weights back into ONNX.

``module = from_onnx("model.onnx")``, train it like any module, ``to_onnx(module, "model.onnx")``.
"""

from __future__ import annotations

from graphopt.errors import EnvironmentProblem

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise EnvironmentProblem(
        "PyTorch, which runs graphs as trainable modules, is missing", hint="pip install 'graphopt[distill]'"
    ) from error

from graphopt.torch import ops as _ops  # noqa: F401 -- fills the table
from graphopt.torch.module import GraphModule, from_onnx
from graphopt.torch.node import OpNode, UnsupportedOperator
from graphopt.torch.registry import register
from graphopt.torch.writeback import to_onnx

__all__ = ["GraphModule", "OpNode", "UnsupportedOperator", "from_onnx", "register", "to_onnx"]
