"""How long one operator takes: on the CPU by a profile, elsewhere by how much longer several take than one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from graphopt import runtime
from graphopt.benchmark import binding, timing
from graphopt.errors import ModelError
from graphopt.pruning.latency import sessions
from graphopt.pruning.latency.micro import PREPARATION, Operator

__all__ = ["Meter"]

Method = Literal["profile", "slope"]

_FEWEST, _MOST, _SECONDS = 3, 8, 0.015
"""Runs of an operator, the one that warms up aside, and the seconds of them that are enough."""
_LARGEST_SWEEP = 64 << 20
_AROUND = frozenset({"ReorderInput", "ReorderOutput"})
"""Layout changes at the ends of a model of one operator, which within a network its neighbours do without."""


class Meter:
    """Times operators on one execution provider.

    On the CPU a profile gives the operator's own time, without layout changes that only a model of one operator has.
    Between runs as many bytes are read as the whole model has weights, so that weights come from where they would
    come from: on ResNet-50 (one thread, 32 MB of third-level cache) convolutions then sum up to 1.00 times what they
    take within the model, and to 0.96 without. Other providers are asynchronous: the time that several copies take
    longer than one is what one adds to a queue that is never empty.

    Args:
        provider: ONNX Runtime's name of it.
        threads: Intra-op threads; ``None`` leaves it to ONNX Runtime.
        sweep: Bytes to read between runs.
        seed: Of weights and inputs.
        method: ``profile`` or ``slope``; by the provider if not given.
    """

    def __init__(
        self, provider: str, threads: int | None, *, sweep: int = 0, seed: int = 0, method: Method | None = None
    ) -> None:
        self.provider = runtime.resolve_provider(provider)
        self.threads = threads
        self.seed = seed
        self.method: Method = method or ("profile" if self.provider == "CPUExecutionProvider" else "slope")
        self._swept = np.ones(min(sweep, _LARGEST_SWEEP) // 4, np.float32)

    def milliseconds(self, operator: Operator) -> float | None:
        """The time of one operator; ``None`` where ONNX Runtime does not run it alone."""
        try:
            return self._profiled(operator) if self.method == "profile" else self._slope(operator)
        except ModelError:
            return None

    def _profiled(self, operator: Operator) -> float:
        model, feeds = operator.model(seed=self.seed)
        times = sessions.profile(model, feeds, threads=self.threads, enough=_enough, before=self._swept.sum)
        around = {*_AROUND, *([operator.activation.op_type] if operator.activation else [])}
        return sum(
            milliseconds
            for (name, op_type), milliseconds in times.nodes.items()
            if op_type not in around and not name.startswith(PREPARATION)
        )

    def _slope(self, operator: Operator, copies: int = 5) -> float:
        device = binding.device_of(self.provider)
        bound = None if device == "cpu" else device
        runners = []
        for count in (1, copies):
            model, feeds = operator.model(copies=count, seed=self.seed)
            session = sessions.open_session(model, provider=self.provider, threads=self.threads)
            runners.append(binding.runner(session, feeds, device=bound))
        try:
            one, many = timing.measure(runners, timing.Plan(None, 3, 0.02, 0.5, self.seed))
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run {operator}: {runtime.trim(error)}") from error
        longer = float(np.quantile(many.runs, 0.1) - np.quantile(one.runs, 0.1)) / 1e6
        return max(longer / (copies - 1), 0.0)

    def whole(self, model: Any, feeds: Mapping[str, Any], seconds: float = 2.0) -> sessions.NodeTimes:
        """The time of a whole model; by node on the CPU.

        Raises:
            ModelError: ONNX Runtime cannot load or run it.
        """
        if self.method == "profile":
            enough = functools.partial(_long_enough, seconds)
            return sessions.profile(model, feeds, threads=self.threads, enough=enough)
        device = binding.device_of(self.provider)
        session = sessions.open_session(model, provider=self.provider, threads=self.threads)
        run = binding.runner(session, feeds, device=None if device == "cpu" else device)
        try:
            (sample,) = timing.measure([run], timing.Plan(None, 3, seconds / 2, seconds, self.seed))
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {runtime.trim(error)}") from error
        return sessions.NodeTimes({}, 0.0, float(np.quantile(sample.runs, 0.1)) / 1e6)


def _enough(runs: int, seconds: float) -> bool:
    return runs >= _MOST or (runs >= _FEWEST and seconds >= _SECONDS)


def _long_enough(limit: float, runs: int, seconds: float) -> bool:
    return runs >= 100 or (runs >= 5 and seconds >= limit)
