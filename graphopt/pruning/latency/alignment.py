"""The multiple of channels that an execution provider likes, found by measuring.

Kernels compute blocks of channels. What is not a whole number of them is padded, or goes another, slower way: under
ONNX Runtime's CPU provider with AVX-512, 79 channels took 934 us where 80 took 775.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from graphopt import runtime
from graphopt.benchmark import binding, timing
from graphopt.pruning.latency import sessions
from graphopt.pruning.latency.micro import Operand, Operator

__all__ = ["Kind", "preferred_multiple"]

Kind = Literal["conv", "matmul"]

_TOLERANCE = 1.05
"""A multiple is good enough when work costs no more than this many times as much as at the coarsest one."""
_PLAN = timing.Plan(None, warmup=1, min_time=0.2, max_time=1.5)
_CPU = "CPUExecutionProvider"
_OPSET = 17


def preferred_multiple(provider: str = "cpu", threads: int | None = None, kind: Kind = "conv") -> int:
    """The smallest multiple of channels beyond which work gets no cheaper: 16 for convolutions with AVX-512.

    Times a convolution of 3x3 (a matrix product) with as many input as output channels, for counts whose largest
    power of two is 1, 2, 4, 8, ...; each against counts of the coarsest multiple around it. Less than 5 seconds;
    found once a process.

    Args:
        provider: An execution provider, as everywhere.
        threads: Intra-op threads. Of no account on the CPU, where blocks are a matter of the kernels alone, and one
            thread tells best: with two, on two cores that others used as well, answers were between 2 and 32.
        kind: Of which operator.

    Raises:
        EnvironmentProblem: The provider is missing.
    """
    resolved = runtime.resolve_provider(provider)
    return _measured(resolved, 1 if resolved == _CPU else threads, kind)


@functools.cache
def _measured(provider: str, threads: int | None, kind: Kind) -> int:
    coarsest, batch = (32, 1) if provider == _CPU else (64, 16)
    device = binding.device_of(provider)
    runners = {}
    for count in _counts(coarsest):
        model, feeds = _operator(kind, count, batch).model(prepared=False)
        session = sessions.open_session(model, provider=provider, threads=threads)
        runners[count] = binding.runner(session, feeds, device=None if device == "cpu" else device)
    clock = time.thread_time_ns if provider == _CPU else time.perf_counter_ns
    samples = timing.measure(list(runners.values()), _PLAN, clock=clock)
    return choose(dict(zip(runners, relative([sample.rounds for sample in samples]), strict=True)), coarsest)


def relative(rounds: Sequence[Sequence[float]]) -> list[float]:
    """The time of each of several things over that of all of them in the same round: the median over the rounds.

    A round is short against what disturbs it, so that a slow machine slows all of them.
    """
    times = np.array(rounds, np.float64)
    shares: list[float] = np.median(times / times.mean(axis=0), axis=1).tolist()
    return shares


def _counts(coarsest: int) -> list[int]:
    """For each power of two up to ``coarsest``, three counts or so that are multiples of no larger one."""
    low = 2 * coarsest
    anchors = list(range(low, 2 * low + 1, coarsest))
    others: list[int] = []
    step = coarsest // 2
    while step:
        odd = range(low + step, 2 * low, 2 * step)
        others.extend(odd[:: max(1, len(odd) // 3)][:4])
        step //= 2
    return sorted({*anchors, *others})


def choose(times: dict[int, float], coarsest: int) -> int:
    """The smallest power of two at which, and beyond which, work costs what it does at multiples of ``coarsest``.

    Args:
        times: By count of channels, both in and out; any unit.
        coarsest: A power of two.
    """
    anchors = sorted(count for count in times if count % coarsest == 0)
    if len(anchors) < 2:
        return 1
    rates = [times[count] / count**2 for count in anchors]
    chosen, step = coarsest, coarsest // 2
    while step:
        own = [count for count in times if count % step == 0 and count % (2 * step)]
        expected = np.interp(own, anchors, rates)
        ratios = [times[count] / count**2 / rate for count, rate in zip(own, expected, strict=True)]
        if not ratios or float(np.median(ratios)) > _TOLERANCE:
            break
        chosen, step = step, step // 2
    return chosen


def _operator(kind: Kind, channels: int, batch: int) -> Operator:
    def operand(*shape: int, fixed: bool) -> Operand:
        return Operand(ir.DataType.FLOAT, shape, fixed)

    if kind == "matmul":
        operands = operand(batch, 3136, channels, fixed=False), operand(channels, channels, fixed=True)
        return Operator("", "MatMul", _OPSET, _OPSET, (), operands)
    operands = operand(batch, channels, 56, 56, fixed=False), operand(channels, channels, 3, 3, fixed=True)
    attributes = (ir.AttrInt64s("pads", [1, 1, 1, 1]), ir.AttrInt64s("kernel_shape", [3, 3]))
    return Operator("", "Conv", _OPSET, _OPSET, attributes, operands)
