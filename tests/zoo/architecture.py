"""What an entry of the zoo is: an architecture, how to build it at any width, and how it gets exported to ONNX."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import torch

__all__ = ["EXPORTERS", "Architecture", "export", "randomize"]

EXPORTERS = ("legacy", "dynamo")
"""torch's TorchScript-based exporter and the one based on torch.export."""

_SHARED = ("architecture", "blocks", "layers")
"""Files that the result depends on beside the one with the entry."""

_CACHE = Path(__file__).parents[2] / ".zoo"
_VERSIONS = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxscript", "torch", "transformers"))


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
    """One network of the zoo.

    Attributes:
        name: Kebab-case.
        build: The network at a width: 1.0 is the full one, 0.5 the one whose every prunable dimension is half as
            large, written down by hand, which is what removing half of each group should arrive at. Inputs, outputs
            and vocabularies keep their size. Torch modules get exported; a model in ONNX is taken as it is.
        inputs: Example inputs; not used for models in ONNX.
        input_names: Their names.
        dynamic: Names of dynamic axes, by input name and axis.
        exporters: Those of :data:`EXPORTERS` that can export it; for models in ONNX, ``("onnx",)``.
        opsets: The operator set to ask each exporter for.
        norms: Whether a normalization takes statistics over a prunable axis, so that removal equals the masked model
            only with statistics over what is left.
    """

    name: str
    build: Callable[[float], torch.nn.Module | onnx.ModelProto]
    inputs: Callable[[], Sequence[torch.Tensor]] = tuple
    input_names: Sequence[str] = ("x",)
    dynamic: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    exporters: Sequence[str] = EXPORTERS
    opsets: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"legacy": 17, "dynamo": 20})
    norms: bool = False


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every parameter and statistic a value that matters, as after training: no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.dtype.is_floating_point or not (isinstance(tensor, torch.nn.Parameter) or "running_" in name):
                continue  # A mask or a table of positions means what it is.
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim >= 2:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif "bias" in name.rpartition(".")[2] or name.endswith("running_mean"):
                tensor.copy_(0.2 * noise)
            elif tensor.ndim == 1:
                tensor.copy_(1 + 0.2 * noise)
    return module.eval()


def export(architecture: Architecture, exporter: str, width: float = 1.0) -> onnx.ModelProto:
    """The architecture in ONNX, seeded; kept on disk between runs as long as its source does not change."""
    here = Path(__file__).parent
    files = [Path(inspect.getfile(architecture.build)), *(here / f"{name}.py" for name in _SHARED)]
    source = "".join(file.read_text() for file in files if file.exists())
    key = hashlib.sha256(f"{architecture.name} {exporter} {width} {_VERSIONS} {source}".encode()).hexdigest()[:24]
    path = _CACHE / f"{architecture.name}-{exporter}-{key}.onnx"
    if path.exists():
        return onnx.load(path)
    torch.manual_seed(0)
    built = architecture.build(width)
    model = built if isinstance(built, onnx.ModelProto) else _export(built, architecture, exporter)
    _CACHE.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    onnx.save(model, temporary)
    temporary.replace(path)
    return model


def _export(module: torch.nn.Module, architecture: Architecture, exporter: str) -> onnx.ModelProto:
    randomize(module)
    inputs = tuple(architecture.inputs())
    options: dict[str, Any] = {
        "opset_version": architecture.opsets[exporter],
        "input_names": [*architecture.input_names],
    }
    if exporter == "legacy":
        options |= {"dynamo": False, "dynamic_axes": {name: dict(axes) for name, axes in architecture.dynamic.items()}}
    else:
        dims = tuple(dict(architecture.dynamic.get(name, {})) for name in architecture.input_names)
        options |= {"dynamo": True, "dynamic_shapes": dims if any(dims) else None, "verbose": False}
    stream: Any = io.BytesIO()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(module, inputs, None if exporter == "dynamo" else stream, **options)
    if program is not None and exporter == "dynamo":
        return program.model_proto
    return onnx.load_from_string(stream.getvalue())


@contextlib.contextmanager
def _quiet() -> Any:
    """Exporters talk a lot."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        sys.stdout.flush()
