"""Proof by running: the original and a candidate on the same feeds in ONNX Runtime, in a process of their own."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graphopt.errors import ModelError, UsageError
from graphopt.verify import verdict
from graphopt.verify.process import Worker, WorkerLost, available_memory
from graphopt.verify.result import Equivalence
from graphopt.verify.search import Attempt, Search, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import onnx_ir as ir

    from graphopt.verify.facts import Facts
    from graphopt.verify.feeds import Feeds, Plan
    from graphopt.verify.protocol import Message
    from graphopt.verify.result import Status

__all__ = ["Verifier", "validate"]

_SAMPLES: Final = 2
_MEMORY_SHARE: Final = 0.9


class Verifier:
    """Compares candidates with one original; use it as a context manager.

    The worker process starts at once and runs the original beside whatever the caller does next. Its outputs are kept
    for any number of :meth:`check` calls.

    Args:
        original: A file, which ONNX Runtime opens itself, or a model, which may be changed after this call.
        feeds_file: The user's inputs instead of generated ones: see :mod:`graphopt.verify.feedfile`.
        shapes: Input shapes, by name, for the generated ones.
        provider: Execution provider for both models.
        seed: Of the generated feeds.
        samples: How many to generate; from the second on dimensions left open get other sizes.
        rtol: Instead of the tolerance by dtype, calibration included.
        atol: Likewise.
        exact: Ask for identical bits.
        time_limit: Seconds for the original, and again for each candidate.
        memory_limit: Bytes of anonymous memory for the worker; None is nine tenths of what is free.
        custom_ops: Custom-operator libraries to load; no others are.
        metric: Also measure ``accuracy``, ``f1``, ``mae`` or ``module:function`` against ``y`` in the feeds file.
        max_drop: Judge by the metric alone: equal when it drops by no more than this.
        threads: Intra-op threads; None leaves it to ONNX Runtime.

    Raises:
        UsageError: Options that do not go together, or shapes that do not fit.
        EnvironmentProblem: The provider is missing.
    """

    def __init__(
        self,
        original: Path | ir.Model,
        *,
        feeds_file: Path | Sequence[Path] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        provider: str = "cpu",
        seed: int = 0,
        samples: int = _SAMPLES,
        rtol: float | None = None,
        atol: float | None = None,
        exact: bool = False,
        time_limit: float = 600,
        memory_limit: int | None = None,
        custom_ops: Sequence[str] = (),
        metric: str | None = None,
        max_drop: float | None = None,
        threads: int | None = None,
    ) -> None:
        _check_options(metric=metric, max_drop=max_drop, feeds_file=feeds_file)
        _check_numbers(samples=samples, seed=seed, time_limit=time_limit, rtol=rtol, atol=atol)
        self._provider = _resolve(provider)
        self._feeds_file = feeds_file
        self._shapes = dict(shapes or {})
        self._seed = seed
        self._count = samples
        self._policy = {"exact": exact, "rtol": rtol, "atol": atol}
        self._time_limit = time_limit
        self._memory_limit = _memory_limit(memory_limit)
        self._metric = metric
        self._max_drop = max_drop
        self._options = {
            "provider": self._provider,
            "threads": threads,
            "custom_ops": [os.path.abspath(library) for library in custom_ops],
        }
        self._closed = False
        self._worker: Worker | None = Worker(self._memory_limit)
        self._facts: Facts | None = None
        self._samples: list[Message] = []
        self._unproven = ""
        self._notes: list[str] = []
        self._deadline = time.monotonic() + time_limit
        try:
            self._model = _source(original)
            # A model in memory may change under our hands: look at it now. A file can wait for the thread.
            self._facts = None if isinstance(original, Path) else _facts(original, self._shapes)
        except BaseException:
            self.close()
            raise
        pool = ThreadPoolExecutor(1, "graphopt-verifier")
        self._ready = pool.submit(self._run_original)
        pool.shutdown(wait=False)

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker; a check that is under way fails."""
        self._closed = True
        self._discard()

    def _discard(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def check(self, candidate: Path | ir.Model) -> Equivalence:
        """Compare a candidate with the original.

        Raises:
            LimitReached: Time or memory ran out.
            ModelError: The user's feeds do not fit the original.
            UsageError: The metric cannot be computed.
        """
        self._wait()
        self._deadline = time.monotonic() + self._time_limit
        if self._unproven:
            return self._verdict("unproven", self._unproven)
        assert self._facts is not None
        request = {
            "do": "check",
            "model": _source(candidate),
            "policy": self._policy | {"precision": self._facts.precision},
            "random": sorted(self._facts.random_outputs),
            "metric": self._metric,
            "sys_path": sys.path,
        }
        try:
            reply = self._ask(request)
        except WorkerLost as lost:
            self._discard()  # the next check starts another
            if lost.reason == "crash":
                return self._verdict("different", f"the candidate does not run: {lost.detail}")
            raise verdict.lost_error(lost, "the candidate") from lost
        if "error" in reply:
            return self._verdict("different", f"the candidate does not run: {verdict.reason(reply)}")
        if "different" in reply:
            return self._verdict("different", reply["different"])
        outputs, metric = verdict.outputs(reply), verdict.metric(reply, self._metric)
        equal, message = verdict.judge(outputs, metric, self._max_drop, len(self._samples))
        return self._verdict("equal" if equal else "different", message, outputs=outputs, metric=metric)

    def _wait(self) -> None:
        """Until the original has run, or could not."""
        try:
            self._ready.result()
        except WorkerLost as lost:
            if lost.reason != "crash":
                raise verdict.lost_error(lost, "the original") from lost
            self._unproven = f"the original does not run: {lost.detail}"

    # -- preparing: in a thread, while the caller optimizes ----------------------------------------------------------

    def _run_original(self) -> None:
        if self._facts is None:
            from graphopt import io

            self._facts = _facts(io.load(self._model["path"]), self._shapes)
        opened = self._ask({"do": "open", "model": self._model, "options": self._options})
        if "error" in opened:
            self._unproven = verdict.reason(opened)
        elif self._feeds_file is not None:
            self._use_file(self._facts.plan, self._feeds_file)
        else:
            search = Search(self._facts.plan, self._attempt, self._seed)
            if not search.run(self._count):
                self._unproven = f"the original does not run: {refusal(search.tried)}"
            elif search.finite == 0:
                self._notes.append(
                    "the original gives nothing but NaN and infinity on these inputs, which proves little"
                )
        if not self._unproven:
            flat = self._ask({"do": "rest"})["flat"]
            if flat:
                self._notes.append(
                    f"the original gives the same number all over in {', '.join(flat)}, which proves little of it"
                )

    def _use_file(self, plan: Plan, source: Path | Sequence[Path]) -> None:
        from graphopt.verify import feedfile

        for name, feeds, truth in feedfile.read(source, plan, with_truth=self._metric is not None):
            reply = self._sample({"feeds": feeds, "truth": truth})
            if "error" in reply:
                raise ModelError(f"{name}: the original does not run on these inputs: {verdict.reason(reply)}")

    def _attempt(self, feeds: Feeds, replaces: bool) -> Attempt:
        reply = self._sample({"feeds": feeds, "replace": replaces})
        return Attempt(verdict.reason(reply)) if "error" in reply else Attempt(finite=reply["finite"])

    def _sample(self, sample: Message) -> Message:
        """Run the original once; what ran is kept, for a worker that must be started anew."""
        reply = self._ask({"do": "trial", **sample})
        if "error" not in reply:
            if sample.pop("replace", False):
                self._samples.pop()
            self._samples.append(sample)
        return reply

    # -- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, request: Message) -> Message:
        if self._closed:
            raise WorkerLost("crash", "the verifier was closed")
        if self._worker is None:
            self._worker = self._restarted()
        return self._worker.request(request, self._deadline - time.monotonic())

    def _restarted(self) -> Worker:
        """A fresh worker that knows the original and its samples."""
        worker = Worker(self._memory_limit)
        requests: list[Message] = [{"do": "open", "model": self._model, "options": self._options}]
        requests += [{"do": "trial", **sample} for sample in self._samples]
        for request in (*requests, {"do": "rest"}):
            worker.request(request, self._deadline - time.monotonic())
        return worker

    def _verdict(self, status: Status, message: str, **figures: Any) -> Equivalence:
        notes = list(self._notes)
        if self._facts is not None and self._facts.random_outputs:
            names = ", ".join(sorted(self._facts.random_outputs))
            notes.append(f"random: only the shape and dtype of {names} were compared")
        return Equivalence(
            status,
            message,
            samples=tuple(verdict.shapes(sample["feeds"]) for sample in self._samples),
            provider=self._provider,
            notes=tuple(notes),
            **figures,
        )


def validate(a: Any, b: Any, **options: Any) -> Equivalence:
    """Whether model ``b`` does the same job as model ``a``.

    Args:
        a: The original: a path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``.
        b: What is compared with it.
        options: Those of :class:`Verifier`.

    Raises:
        UsageError: One of them is no model.
        ModelError: One of them cannot be read.
        LimitReached: Time or memory ran out.
    """
    from graphopt import io
    from graphopt.interop.kinds import Source

    sides = [Source.of(side).original for side in (a, b)]
    for side in sides:
        if isinstance(side, Path):
            io.load(side)  # its errors are clearer than ONNX Runtime's
    with Verifier(sides[0], **options) as verifier:
        return verifier.check(sides[1])


def _facts(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Facts:
    from graphopt.proto import signatures  # imports onnx_ir, for which the worker's start does not wait
    from graphopt.verify.facts import Facts

    signatures.check(model)
    return Facts.of(model, shapes)


def _check_numbers(*, samples: int, seed: int, time_limit: float, rtol: float | None, atol: float | None) -> None:
    if samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, not {seed}")
    if not time_limit > 0:
        raise UsageError(f"time_limit must be positive, not {time_limit}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None and not tolerance >= 0:  # NaN too: nothing differs by more than that
            raise UsageError(f"{name} must be a number of at least 0, not {tolerance}")


def _check_options(*, metric: str | None, max_drop: float | None, feeds_file: object) -> None:
    if metric is not None and feeds_file is None:
        raise UsageError("a metric needs data", hint="Give a file with the inputs and 'y' (--inputs data.npz).")
    if max_drop is not None and metric is None:
        raise UsageError("max_drop needs a metric")
    if metric is not None and ":" not in metric:
        from graphopt.verify import metrics

        metrics.resolve(metric)


def _resolve(provider: str) -> str:
    if provider.strip().casefold() in ("cpu", "cpuexecutionprovider"):
        return "CPUExecutionProvider"  # without importing onnxruntime in this process
    from graphopt import runtime

    return runtime.resolve_provider(provider)


def _memory_limit(limit: int | None) -> int | None:
    if limit is not None:
        return limit
    free = available_memory()
    return None if free is None else int(free * _MEMORY_SHARE)


def _source(model: Path | ir.Model) -> Message:
    """A model as the worker takes it: a path, or bytes and the big initializers, those in files by reference."""
    if isinstance(model, Path):
        return {"path": str(model.absolute())}
    import numpy as np

    from graphopt import proto
    from graphopt.verify import mapped

    data, arrays = proto.to_session_bytes(model)
    return {"bytes": np.frombuffer(data, np.uint8), "arrays": mapped.by_reference(arrays)}
