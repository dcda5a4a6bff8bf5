"""Knowledge distillation: a torch student learns from an ONNX Runtime teacher."""

from __future__ import annotations

import importlib.util

from graphopt.errors import EnvironmentProblem

if importlib.util.find_spec("torch") is None:
    raise EnvironmentProblem("PyTorch, which trains students, is missing", hint="pip install 'graphopt[distill]'")
