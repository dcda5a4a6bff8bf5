"""Pruners behind one signature: a trained model and a share of its MACs in, an ONNX model out.

Rivals take a ratio of channels, so the ratio is bisected until the MACs come nearest to the goal, as a user would
do by hand.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import torch
from bench.pruning.models import Trained, exported, unlabelled

import graphopt
from graphopt import proto
from graphopt.analysis.cost import costs

__all__ = ["GRAPHOPT", "POLISHED", "PRUNERS", "Pruner", "bisected", "macs", "with_graphopt"]

Array = np.ndarray[Any, Any]
Pruner = Callable[[Trained, float], bytes]
"""Takes the model and the share of MACs to keep. Returns the model as bytes; unchanged where it can prune nothing."""

GRAPHOPT: Final = "graphopt"
POLISHED: Final = "graphopt --polish"
_EPOCHS: Final = {"lenet": 8, "resnet": 5, "digits": 5}
"""Of polishing: what fits into a minute."""
_STEPS: Final = 8
_STARTS: Final = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # Torch-Pruning leaves a layer alone that would lose everything


def macs(model: bytes | str, input_shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one run, counted in the same way for every tool."""
    loaded = graphopt.load(model) if isinstance(model, str) else proto.from_proto(onnx.load_from_string(model))
    return costs(loaded, input_shapes=input_shapes).macs


def bisected(prune: Callable[[float], bytes], cost: Callable[[bytes], float], wanted: float) -> bytes:
    """The model whose cost comes nearest to what is wanted, from above or below: small networks come in coarse steps.

    Args:
        prune: The model at a ratio in [0, 1); more is removed as it grows.
        cost: What a model costs.
        wanted: What it should cost; where none costs so little, the cheapest one is the result.
    """
    tried: list[tuple[float, bytes]] = []

    def fits(ratio: float) -> bool:
        model = prune(ratio)
        tried.append((cost(model), model))
        return tried[-1][0] <= wanted

    high = next(filter(fits, _STARTS), None)
    if high is not None:
        low = 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
    return min(tried, key=lambda one: abs(math.log(one[0] / wanted)))[1]


def with_graphopt(trained: Trained, share: float, **options: Any) -> bytes:
    """graphopt as it comes."""
    options = {"goal": {"macs": share}, "calibration": trained.calibration, **options}
    model, _ = graphopt.prune(trained.onnx_path, with_report=True, **options)
    return bytes(proto.to_proto(model).SerializeToString())


def _polished(trained: Trained, share: float) -> bytes:
    """graphopt, which may look at all training inputs (at none of the labels)."""
    (name,) = trained.calibration
    return with_graphopt(
        trained, share, calibration={name: unlabelled(trained)}, polish=_EPOCHS[trained.name.split("-")[-1]]
    )


def _onnxsim(trained: Trained, share: float) -> bytes:
    onnxsim = importlib.import_module("onnxsim")
    return _rival(trained, share, lambda model, ratio: onnxsim.apply_structured_pruning(model, ratio))


def _onnxsim_wanda(trained: Trained, share: float) -> bytes:
    onnxsim = importlib.import_module("onnxsim")

    def prune(model: onnx.ModelProto, ratio: float) -> onnx.ModelProto:
        pruned: onnx.ModelProto = onnxsim.apply_structured_wanda_pruning(model, [trained.calibration], sparsity=ratio)
        return pruned

    return _rival(trained, share, prune)


def _rival(trained: Trained, share: float, prune: Callable[[onnx.ModelProto, float], onnx.ModelProto]) -> bytes:
    def at(ratio: float) -> bytes:
        return bytes(prune(onnx.load(trained.path), ratio).SerializeToString())

    return bisected(at, _cost(trained), _wanted(trained, share))


def _torch_pruning(trained: Trained, share: float) -> bytes:
    return _exported(trained, _torch_pruned(trained, share))


def _torch_pruning_recalibrated(trained: Trained, share: float) -> bytes:
    module = _torch_pruned(trained, share)
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    (calibration,) = trained.calibration.values()
    module.train()
    with torch.no_grad():
        for batch in torch.from_numpy(calibration).chunk(math.ceil(len(calibration) / 64)):
            module(batch)
    return _exported(trained, module.eval())


def _torch_pruned(trained: Trained, share: float) -> torch.nn.Module:
    """Local L2, as in the library's own examples."""
    library: Any = importlib.import_module("torch_pruning")
    (calibration,) = trained.calibration.values()
    made: dict[bytes, torch.nn.Module] = {}

    def at(ratio: float) -> bytes:
        module = trained.module()
        layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        pruner = library.pruner.MagnitudePruner(
            module,
            torch.from_numpy(calibration[:1]),
            importance=library.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=layers[-1:],
        )
        pruner.step()
        model = _exported(trained, module)
        made[model] = module
        return model

    return made[bisected(at, _cost(trained), _wanted(trained, share))]


def _exported(trained: Trained, module: torch.nn.Module) -> bytes:
    ((name, calibration),) = trained.calibration.items()
    return exported(module, calibration[:2], name)


def _cost(trained: Trained) -> Callable[[bytes], float]:
    return lambda model: macs(model, trained.input_shapes)


def _wanted(trained: Trained, share: float) -> float:
    return share * macs(trained.onnx_path, trained.input_shapes)


PRUNERS: Final[Mapping[str, Pruner]] = {
    GRAPHOPT: with_graphopt,
    POLISHED: _polished,
    "onnxsim L2": _onnxsim,
    "onnxsim Wanda": _onnxsim_wanda,
    "Torch-Pruning": _torch_pruning,
    "Torch-Pruning + BN": _torch_pruning_recalibrated,
}
"""The last one re-estimates the statistics of batch normalizations on the same calibration samples."""
