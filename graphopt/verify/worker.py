"""The process in which both models run: ``python -m graphopt.verify.worker``, spoken to over its stdin and stdout.

A model may take all memory, loop for ever, or crash ONNX Runtime; here it takes down a process that can be spared.
Imports are few (no onnx, no onnx_ir), so that it is ready in a fifth of a second. At most one session is open at a
time: the original's outputs are kept, its session is not.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphopt import runtime
from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.verify import metrics, tolerance
from graphopt.verify.protocol import Message, dtype_of, receive, send
from graphopt.verify.result import OutputComparison

__all__ = ["main"]

_NATIVE = frozenset(
    f"tensor({name})"
    for name in (
        "float", "double", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
        "string",
    )
)  # fmt: skip
_DTYPES = {name.replace("_", "").removesuffix("fn") if "e2m1" in name or "e8m0" in name else name.replace("_", ""): name
           for name in runtime.ELEMENT_TYPES}  # fmt: skip


@dataclass(slots=True)
class _Sample:
    feeds: dict[str, Any]
    outputs: list[Any]
    truth: np.ndarray[Any, Any] | None
    drifts: list[float] = field(default_factory=list)


class _Judge:
    """Runs the original once a sample, then every candidate against what it gave."""

    def __init__(self) -> None:
        self._original: Message = {}
        self._options: dict[str, Any] = {}
        self._session: Any = None
        self._interface: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        self._samples: list[_Sample] = []

    def open(self, request: Message) -> Message:
        """Open the original and describe its interface."""
        self._original = request["model"]
        self._options = request["options"]
        self._session = _open(self._original, self._options, "off")
        self._interface = _interface(self._session)
        inputs, outputs = self._interface
        return {"inputs": inputs, "outputs": outputs, "provider": self._session.get_providers()[0]}

    def trial(self, request: Message) -> Message:
        """Run the original on feeds; when it runs, they become a sample (in place of the last one on ``replace``)."""
        if self._session is None:
            self._session = _open(self._original, self._options, "off")
        outputs = _run(self._session, request["feeds"])
        if request.get("replace"):
            self._samples.pop()
        self._samples.append(_Sample(request["feeds"], outputs, request.get("truth")))
        return {"finite": min((_finite(value) for value in outputs), default=1.0)}

    def rest(self, request: Message) -> Message:
        """Close the original's session; its outputs stay. Tells which of them never varied, where inputs did."""
        self._session = None
        gc.collect()
        if not any(sample.feeds for sample in self._samples):
            return {"flat": []}
        names = [name for name, _ in self._interface[1]]
        return {
            "flat": [name for i, name in enumerate(names) if _is_flat([sample.outputs[i] for sample in self._samples])]
        }

    def check(self, request: Message) -> Message:
        """Compare a candidate with the original on all samples."""
        policy = tolerance.Policy(**request["policy"])
        session = _open(request["model"], self._options, "off")
        changed = _interface_change(self._interface, _interface(session))
        if changed:
            return {"different": changed}
        names = [name for name, _ in self._interface[1]]
        differences: list[list[tolerance.Difference]] = [[] for _ in names]
        kept: list[list[Any]] = []
        for sample in self._samples:
            outputs = _run(session, sample.feeds)
            for index, (expected, actual) in enumerate(zip(sample.outputs, outputs, strict=True)):
                rtol = policy.factors(tolerance.describe(expected)[0])[0]
                differences[index].append(tolerance.compare(expected, actual, rtol))
            if request.get("metric"):
                kept.append(outputs)
            del outputs
        del session
        random = set(request["random"])
        verdicts = self._judge(names, differences, policy, random)
        reply: Message = {"outputs": [_wire(verdict) for verdict in verdicts]}
        if request.get("metric"):
            reply["metric"] = self._measure(request["metric"], request["sys_path"], names, kept)
        return reply

    def _judge(
        self, names: Sequence[str], differences: list[list[tolerance.Difference]], policy: tolerance.Policy,
        random: set[str],
    ) -> list[OutputComparison]:  # fmt: skip
        """Judge by dtype; where that fails, once more by what ONNX Runtime's optimizations do to the original."""
        verdicts = [
            tolerance.judge(name, samples, policy, random=name in random)
            for name, samples in zip(names, differences, strict=True)
        ]
        if not policy.exact and any(map(tolerance.can_calibrate, verdicts)):
            self._calibrate()
            for index, verdict in enumerate(verdicts):
                if tolerance.can_calibrate(verdict):
                    drifts = [sample.drifts[index] for sample in self._samples]
                    verdicts[index] = tolerance.judge(verdict.name, differences[index], policy, drifts=drifts)
        return verdicts

    def _calibrate(self) -> None:
        if all(sample.drifts for sample in self._samples):
            return
        gc.collect()
        try:
            session = _open(self._original, self._options, "all")
            for sample in self._samples:
                optimized = _run(session, sample.feeds)
                sample.drifts = [
                    tolerance.drift(reference, other)
                    for reference, other in zip(sample.outputs, optimized, strict=True)
                ]
        except ModelError:  # ONNX Runtime's optimizations break the original: nothing to go by
            for sample in self._samples:
                sample.drifts = [0.0] * len(sample.outputs)

    def _measure(self, name: str, sys_path: list[str], names: list[str], candidate: list[list[Any]]) -> Message:
        sys.path[:] = sys_path  # module:function is found where the caller would find it
        metric, higher_is_better = metrics.resolve(name)
        truth = _stack([sample.truth for sample in self._samples])
        runs = [_by_name(names, outputs) for outputs in ([sample.outputs for sample in self._samples], candidate)]
        try:
            values = [float(metric(outputs, truth)) for outputs in runs]
        except Exception as error:  # the caller's code, which may raise anything
            raise UsageError(f"metric '{name}' failed: {type(error).__name__}: {error}") from error
        drop = values[0] - values[1]
        return {"original": values[0], "candidate": values[1], "drop": drop if higher_is_better else -drop}


def _by_name(names: list[str], runs: list[list[Any]]) -> dict[str, Any]:
    return {name: _stack([outputs[index] for outputs in runs]) for index, name in enumerate(names)}


def _stack(parts: list[Any]) -> Any:
    if len(parts) == 1 or not all(isinstance(part, np.ndarray) for part in parts):
        return parts[0]
    return np.concatenate([np.atleast_1d(part) for part in parts])


def _open(model: Message, options: Mapping[str, Any], optimization: runtime.Optimization) -> Any:
    data = model.get("bytes")
    return runtime.open_session(
        Path(model["path"]) if data is None else data.tobytes(),
        arrays=model.get("arrays") or {},
        optimization=optimization,
        faithful=True,
        **options,
    )


def _run(session: Any, feeds: Mapping[str, Any]) -> list[Any]:
    """All outputs; tensors of types that NumPy lacks come as ml_dtypes arrays."""
    names = [output.name for output in session.get_outputs()]
    wanted = {entry.name for entry in session.get_inputs()}
    wanted |= {entry.name for entry in session.get_overridable_initializers()}
    fed = {name: value for name, value in feeds.items() if name in wanted}
    types = {
        entry.type for entry in (*session.get_inputs(), *session.get_outputs()) if entry.type.startswith("tensor(")
    }
    try:
        if types <= _NATIVE:
            return list(session.run(names, fed))
        values = session.run_with_ort_values(names, {name: runtime.to_ort_value(value) for name, value in fed.items()})
        return [_to_numpy(value) for value in values]
    except runtime.ort_errors() as error:
        raise ModelError(f"ONNX Runtime cannot run the model: {runtime.trim(error)}") from error


def _to_numpy(value: Any) -> Any:
    kind = value.data_type().removeprefix("tensor(").removesuffix(")").lower()
    name = _DTYPES.get(kind.partition("x")[0])  # packed types are spelled Int4x2
    if name is None:
        return value.numpy()
    import ctypes

    shape, dtype = tuple(value.shape()), dtype_of(name)
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()), np.uint8)
    count = int(np.prod(shape, dtype=np.int64))
    if raw.size < count * dtype.itemsize:  # packed, several to a byte
        bits = 8 * raw.size // max(1, count)
        bits = 4 if bits >= 4 else 2
        lanes = raw[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)
        raw = (lanes & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    return raw[: count * dtype.itemsize].view(dtype).reshape(shape)


def _interface(session: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return (
        [(entry.name, entry.type) for entry in session.get_inputs()],
        [(entry.name, entry.type) for entry in session.get_outputs()],
    )


def _interface_change(
    before: tuple[list[tuple[str, str]], list[tuple[str, str]]],
    after: tuple[list[tuple[str, str]], list[tuple[str, str]]],
) -> str:
    for what, old, new in zip(("input", "output"), before, after, strict=True):
        if old == new:
            continue
        for position in range(max(len(old), len(new))):
            one = " ".join(old[position]) if position < len(old) else "missing"
            other = " ".join(new[position]) if position < len(new) else "missing"
            if one != other:
                return f"{what} {position} was {one}, now {other}"
    return ""


def _finite(value: Any) -> float:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        return float(np.isfinite(value).mean())
    return 1.0


def _is_flat(values: list[Any]) -> bool:
    """Whether tensors hold one and the same number all over, or nothing at all."""
    if not all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in values):
        return False
    filled = [value for value in values if value.size]
    return not filled or all(bool((value == filled[0].flat[0]).all()) for value in filled)


def _wire(verdict: OutputComparison) -> Message:
    plain = {name: getattr(verdict, name) for name in OutputComparison.__slots__}
    kind = verdict.tolerance
    return plain | {"tolerance": {"rtol": kind.rtol, "atol": kind.atol, "kind": kind.kind}}


def _end_with_parent() -> None:
    """A parent that was killed cannot close the pipe's other end while this process computes."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Answer requests until the other side closes the pipe."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # whatever prints, prints elsewhere
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    judge = _Judge()
    actions = {"open": judge.open, "trial": judge.trial, "rest": judge.rest, "check": judge.check}
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            reply = actions[request.pop("do")](request)
        except GraphoptError as error:
            reply = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except MemoryError:
            reply = {"error": "LimitReached", "message": "verification ran out of memory", "hint": ""}
        send(replies, reply)


if __name__ == "__main__":
    main()
