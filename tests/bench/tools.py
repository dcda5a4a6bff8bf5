"""graphopt and its peers behind one signature: read the model at one path, write the optimized one to another.

Each is used as its documentation says, with its own defaults and without its checks of the result (most have none).
Importing happens in :func:`prepare`, so that it never counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["TOOLS", "prepare"]

_LIMIT = 1_900_000_000  # bytes; protobuf holds no more than 2 GB, so bigger results need their weights outside


def _graphopt(source: str, output: str) -> None:
    import graphopt

    graphopt.save(graphopt.optimize(source, validate=False), output)


def _onnxslim(source: str, output: str) -> None:
    import onnxslim

    onnxslim.slim(source, output, save_as_external_data=_is_external(source))


def _onnxsim(source: str, output: str) -> None:
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(source)
    onnx.save(model, output, save_as_external_data=_is_external(source), location=f"{Path(output).name}.data")


def _onnxscript(source: str, output: str) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(model, output, external_data=f"{Path(output).name}.data" if _is_external(source) else None)


def _onnxoptimizer(source: str, output: str) -> None:
    import onnx
    import onnxoptimizer

    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    model = onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes(), fixed_point=True)
    onnx.save(model, output, save_as_external_data=_is_external(source), location=f"{Path(output).name}.data")


def _ort_basic(source: str, output: str) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = output
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if _is_external(source):
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, f"{Path(output).name}.data")
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _is_external(source: str) -> bool:
    data = Path(f"{source}.data")
    return data.exists() or Path(source).stat().st_size > _LIMIT


TOOLS: Mapping[str, Callable[[str, str], None]] = {
    "graphopt": _graphopt,
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxscript": _onnxscript,
    "onnxoptimizer": _onnxoptimizer,
    "ort-basic": _ort_basic,
}

_MODULES: Mapping[str, Sequence[str]] = {
    "graphopt": ("graphopt.optimizer", "graphopt.io", "graphopt_passes", "onnx"),
    "onnxslim": ("onnxslim", "onnx"),
    "onnxsim": ("onnxsim", "onnx"),
    "onnxscript": ("onnxscript.optimizer", "onnx_ir", "onnx"),
    "onnxoptimizer": ("onnxoptimizer", "onnx"),
    "ort-basic": ("onnxruntime",),
}


def prepare(tool: str) -> None:
    """Imports what the tool needs.

    Raises:
        ImportError: It is not installed.
    """
    for module in _MODULES[tool]:
        importlib.import_module(module)
