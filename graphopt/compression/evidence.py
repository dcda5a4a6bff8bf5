"""What a report tells of a result besides its score: operators, times of nodes, flips, epochs, where it comes from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt import runtime
from graphopt.benchmark import binding
from graphopt.benchmark.energy import opened, silence
from graphopt.benchmark.profile import node_times
from graphopt.compression.context import Context
from graphopt.compression.gates import Audit, probabilities
from graphopt.compression.judging import Judge, is_probability
from graphopt.compression.points import Variant
from graphopt.compression.samples import Drawn
from graphopt.pruning.latency.measure import Stopwatch

__all__ = ["digest", "energy", "flips", "history", "layers", "operators", "provenance"]

_INTEGERS: Final = re.compile("QLinear|QGemm|DynamicQuantize|.*Integer|MatMulNBits")
"""Operators that compute with whole numbers."""


def operators(model: ir.Model) -> dict[str, int]:
    """How many nodes of each operator the main graph has, the most frequent first."""
    found: dict[str, int] = {}
    for node in model.graph:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def layers(context: Context, path: Path) -> list[dict[str, Any]]:
    """What each node of the original and of a result takes, by the name it has in both."""
    settings = context.settings
    feeds = next(context.drawn.choose.batches(settings.batch))
    running: dict[str, Any] = {"provider": settings.provider, "threads": settings.threads}
    before, after = ({one.name: one for one in node_times(file, feeds, **running)} for file in (context.original, path))
    return [
        {
            "name": name,
            "op": (after.get(name) or before[name]).op,
            "before_ms": before[name].milliseconds if name in before else None,
            "after_ms": after[name].milliseconds if name in after else None,
            "precision": "int8" if name in after and _INTEGERS.match(after[name].op) else "float",
        }
        for name in dict.fromkeys([*before, *after])
    ]


def energy(context: Context, path: Path) -> tuple[tuple[float | None, float | None], str]:
    """Millijoules of a run of the original and of a result, measured in turns; and what to know about them."""
    settings = context.settings
    is_seen = binding.device_of(runtime.resolve_provider(settings.provider)) == "cpu"
    meter, told = opened() if is_seen else (None, "")
    if meter is None:
        return (None, None), f"energy is not measured: {told}" if told else ""
    feeds = next(context.drawn.choose.batches(settings.batch))
    running: dict[str, Any] = {"provider": settings.provider, "threads": settings.threads, "seed": settings.seed}
    with Stopwatch(context.original, feeds, meter=meter, **running) as watch:
        watch.ratio(path)
    if watch.millijoules[0] is None:
        return (None, None), f"energy is not measured: {silence(meter, told)}"
    return watch.millijoules, f"energy is that of {told}, whatever else ran meanwhile included"


def flips(judge: Judge, audit: Audit, path: Path) -> list[dict[str, Any]]:
    """The samples whose class changed most."""
    if not audit.changed:
        return []
    certain = is_probability(judge.before)
    old, new = (probabilities(one, certain) for one in (judge.before, judge.outputs(path)))
    labels = judge.samples.labels
    rows = judge.samples.bound.rows
    return [
        {
            "index": int(rows[number]),
            "label": None if labels is None or labels.ndim != 1 else str(labels[number]),
            "before": str(old[number].argmax()),
            "after": str(new[number].argmax()),
            "confidence_before": float(old[number].max()),
            "confidence_after": float(new[number].max()),
        }
        for number in audit.changed
    ]


def history(context: Context, variant: Variant) -> list[dict[str, Any]]:
    """The epochs of its distillation."""
    if not variant.trained:
        return []
    kept = context.workspace.read(f"trained/{variant.cut}-report.json") or {}
    return [dict(one) for one in kept.get("epochs", ())]


def provenance(context: Context, path: Path) -> dict[str, Any]:
    """Hashes, seed, versions and the machine."""
    from graphopt.benchmark.table import environment

    return {
        "original sha256": _sha256(context.original),
        "result sha256": _sha256(path),
        "data": digest(context.drawn),
        "seed": context.settings.seed,
        **environment(),
    }


def digest(drawn: Drawn) -> str:
    """SHA-256, in hex, of all samples, as they were shared out."""
    parts = (drawn.train, drawn.choose, drawn.final)
    return hashlib.sha256(" ".join(one.bound.digest for one in parts).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
