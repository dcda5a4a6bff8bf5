"""Proof by running: the original and a candidate on the same feeds in ONNX Runtime, in a process of their own."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graphopt import errors
from graphopt.errors import GraphoptError, LimitReached, UsageError
from graphopt.verify.process import Worker, WorkerLost, available_memory
from graphopt.verify.result import Equivalence, MetricComparison, OutputComparison, Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    import onnx_ir as ir

    from graphopt.verify.facts import Facts
    from graphopt.verify.feeds import Feeds, Guess, Plan
    from graphopt.verify.protocol import Message

__all__ = ["Verifier", "validate"]

_SAMPLES: Final = 2
_MOSTLY: Final = 0.5  # share of finite elements below which other feeds are worth a try
_MEMORY_SHARE: Final = 0.9
_TRIES: Final = 60


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
        _check_options(metric=metric, max_drop=max_drop, feeds_file=feeds_file, samples=samples, time_limit=time_limit)
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
            "custom_ops": [os.path.abspath(library) for library in custom_ops],  # noqa: PTH100 - keeps symlinks
        }
        self._worker: Worker | None = Worker(self._memory_limit)
        self._facts: Facts | None = None
        self._samples: list[Message] = []
        self._unproven = ""
        self._failure: BaseException | None = None
        self._notes: list[str] = []
        try:
            self._model = _source(original)
            # A model in memory may change under our hands: look at it now. A file can wait for the thread.
            self._facts = None if isinstance(original, Path) else _facts(original, self._shapes)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._prepare, name="graphopt-verifier", daemon=True)
        self._thread.start()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
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
        self._thread.join()
        if self._failure is not None:
            raise self._failure
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
            self.close()
            if lost.reason == "crash":
                return self._verdict("different", f"the candidate does not run: {lost.detail}")
            raise _limit(lost, "the candidate") from lost
        return self._conclude(reply)

    # -- preparing: in a thread, while the caller optimizes ----------------------------------------------------------

    def _prepare(self) -> None:
        try:
            self._run_original()
        except WorkerLost as lost:
            if self._worker is None:
                return  # closed on purpose
            if lost.reason == "crash":
                self._unproven = f"the original does not run: {lost.detail}"
            else:
                self._failure = _limit(lost, "the original")
        except GraphoptError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001 - raised again in check(), in the caller's thread
            self._failure = error

    def _run_original(self) -> None:
        if self._facts is None:
            from graphopt import io

            self._facts = _facts(io.load(self._model["path"]), self._shapes)
        opened = self._ask({"do": "open", "model": self._model, "options": self._options})
        if "error" in opened:
            self._refuse(opened)
            return
        if self._feeds_file is not None:
            self._use_file(self._facts.plan, self._feeds_file)
        else:
            self._search(self._facts.plan)
        if not self._unproven:
            self._ask({"do": "rest"})

    def _refuse(self, reply: Message) -> None:
        """The original cannot be opened: unproven, unless it is the caller's to fix."""
        if reply["error"] != "ModelError":
            raise _rebuilt(reply)
        self._unproven = reply["message"]

    def _use_file(self, plan: Plan, source: Path | Sequence[Path]) -> None:
        from graphopt.verify import feedfile

        for name, feeds, truth in feedfile.read(source, plan, with_truth=self._metric is not None):
            sample = {"feeds": feeds, "truth": truth}
            reply = self._ask({"do": "trial", **sample})
            if "error" in reply:
                raise errors.ModelError(f"{name}: the original does not run on these inputs: {reply['message']}")
            self._samples.append(sample)

    def _search(self, plan: Plan) -> None:
        """Find feeds on which the original runs, then more of them."""
        tried: list[str] = []
        found = self._first(plan, plan.guesses(), self._seed, tried)
        if found is None:
            last = tried[-1] if tried else "no feeds are small enough"
            self._unproven = f"no generated inputs run on the original; tried {len(tried)}, at last {last}"
            return
        if found[1] < _MOSTLY:
            found = self._improved(plan, *found)
        for number in range(1, self._count):
            self._first(plan, plan.variations(found[0], number), self._seed + number, [])
        self._override(plan)

    def _first(self, plan: Plan, guesses: Iterable[Guess], seed: int, tried: list[str]) -> tuple[Guess, float] | None:
        """The first guess that runs, with the share of finite outputs; it becomes a sample."""
        from dataclasses import replace

        for _, guess in zip(range(_TRIES), guesses, strict=False):
            reply = self._try(plan.fill(guess, seed))
            bound = plan.bound_in(reply.get("message", ""))
            while bound is not None and 0 < bound < guess.cap:
                guess = replace(guess, cap=bound)  # noqa: PLW2901 - the same guess, tightened
                reply = self._try(plan.fill(guess, seed))
                bound = plan.bound_in(reply.get("message", ""))
            if "error" not in reply:
                return guess, reply["finite"]
            tried.append(f"{guess}: {reply['message']}")
        return None

    def _improved(self, plan: Plan, guess: Guess, finite: float) -> tuple[Guess, float]:
        """Mostly NaN proves little: try floats between 0 and 1."""
        from dataclasses import replace

        calmer = replace(guess, style="unit")
        reply = self._try(plan.fill(calmer, self._seed), replaces=True)
        if "error" in reply or reply["finite"] <= finite:
            self._try(plan.fill(guess, self._seed), replaces="error" not in reply)
            return guess, finite
        return calmer, reply["finite"]

    def _override(self, plan: Plan) -> None:
        """An initializer that callers may replace is replaced once, so that folding it shows."""
        other = plan.override(self._seed)
        if other and self._samples:
            self._try({**self._samples[0]["feeds"], **other})

    def _try(self, feeds: Feeds | None, *, replaces: bool = False) -> Message:
        if feeds is None:
            return {"error": "ModelError", "message": "too large to allocate"}
        sample = {"feeds": feeds, "replace": replaces}
        reply = self._ask({"do": "trial", **sample})
        if "error" in reply:
            if reply["error"] != "ModelError":
                raise _rebuilt(reply)
        elif replaces:
            self._samples[-1] = {"feeds": feeds}
        else:
            self._samples.append({"feeds": feeds})
        return reply

    # -- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, request: Message) -> Message:
        if self._worker is None:
            self._worker = self._restarted()
        return self._worker.request(request, self._time_limit)

    def _restarted(self) -> Worker:
        """A fresh worker that knows the original and its samples."""
        worker = Worker(self._memory_limit)
        worker.request({"do": "open", "model": self._model, "options": self._options}, self._time_limit)
        for sample in self._samples:
            worker.request({"do": "trial", **sample}, self._time_limit)
        worker.request({"do": "rest"}, self._time_limit)
        return worker

    # -- concluding --------------------------------------------------------------------------------------------------

    def _conclude(self, reply: Message) -> Equivalence:
        if "different" in reply:
            return self._verdict("different", reply["different"])
        if "error" in reply:
            if reply["error"] != "ModelError":
                raise _rebuilt(reply)
            return self._verdict("different", f"the candidate does not run: {reply['message']}")
        outputs = tuple(_output(entry) for entry in reply["outputs"])
        metric = MetricComparison(self._metric or "", **reply["metric"]) if "metric" in reply else None
        equal, message = _judgement(outputs, metric, self._max_drop, len(self._samples))
        return self._verdict("equal" if equal else "different", message, outputs, metric)

    def _verdict(
        self,
        status: Any,
        message: str,
        outputs: tuple[OutputComparison, ...] = (),
        metric: MetricComparison | None = None,
    ) -> Equivalence:
        notes = list(self._notes)
        random = sorted(self._facts.random_outputs) if self._facts is not None else []
        if random:
            notes.append(f"random: only shape and dtype were compared of {', '.join(random)}")
        return Equivalence(
            status,
            message,
            outputs,
            tuple(_shapes(sample["feeds"]) for sample in self._samples),
            self._provider,
            metric,
            tuple(notes),
        )


def validate(
    a: str | os.PathLike[str] | ir.Model, b: str | os.PathLike[str] | ir.Model, **options: Any
) -> Equivalence:
    """Whether model ``b`` does the same job as model ``a``; the options are those of :class:`Verifier`.

    Raises:
        ModelError: One of them cannot be read.
        LimitReached: Time or memory ran out.
    """
    from graphopt import io

    sides = [Path(side).absolute() if isinstance(side, (str, os.PathLike)) else side for side in (a, b)]
    for side in sides:
        if isinstance(side, Path):
            io.load(side)  # its errors are clearer than ONNX Runtime's
    with Verifier(sides[0], **options) as verifier:
        return verifier.check(sides[1])


def _facts(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Facts:
    from graphopt.verify.facts import Facts  # imports onnx_ir, for which the worker's start does not wait

    return Facts.of(model, shapes)


def _check_options(
    *, metric: str | None, max_drop: float | None, feeds_file: object, samples: int, time_limit: float
) -> None:
    if metric is not None and feeds_file is None:
        raise UsageError("a metric needs data", hint="Give a file with the inputs and 'y' (--inputs data.npz).")
    if max_drop is not None and metric is None:
        raise UsageError("max_drop needs a metric")
    if samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}")
    if not time_limit > 0:
        raise UsageError(f"time_limit must be positive, not {time_limit}")
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

    data, arrays = proto.to_session_bytes(model)
    return {
        "bytes": np.frombuffer(data, np.uint8),
        "arrays": {name: _by_reference(model, name, array) for name, array in arrays.items()},
    }


def _by_reference(model: ir.Model, name: str, array: Any) -> Any:
    import onnx_ir as ir

    from graphopt.verify.protocol import FileSlice

    tensor = model.graph.initializers[name].const_value
    if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.bitwidth < 8:
        return array
    return FileSlice(str(tensor.path), tensor.offset or 0, array.dtype.name, array.shape)


def _output(entry: Message) -> OutputComparison:
    shape = entry["shape"]
    return OutputComparison(
        **{
            **entry,
            "shape": None if shape is None else tuple(shape),
            "tolerance": Tolerance(**entry["tolerance"]),
        }
    )


def _judgement(
    outputs: tuple[OutputComparison, ...], metric: MetricComparison | None, max_drop: float | None, samples: int
) -> tuple[bool, str]:
    plural = "" if samples == 1 else "s"
    if metric is not None and max_drop is not None:
        better = f"{metric.name} went from {metric.original:.6g} to {metric.candidate:.6g}"
        return metric.drop <= max_drop, f"{better} on {samples} sample{plural}, at most {max_drop:g} worse is allowed"
    wrong = next((output for output in outputs if not output.ok), None)
    if wrong is not None:
        return False, _complaint(wrong)
    if all(output.identical for output in outputs):
        return True, f"identical bits in {_count(outputs)} on {samples} sample{plural}"
    largest = max((output.max_abs for output in outputs if output.max_abs is not None), default=0.0)
    return True, f"{_count(outputs)} within tolerance on {samples} sample{plural}, largest difference {largest:.2g}"


def _complaint(output: OutputComparison) -> str:
    if output.note:
        return f"output '{output.name}': {output.note}"
    if output.tolerance.kind == "exact" and output.cosine is None and output.argmax_agreement is not None:
        return f"output '{output.name}': only {output.argmax_agreement:.4%} of the elements are equal"
    if output.tolerance.kind == "exact":
        return f"output '{output.name}': not bit-identical, differs by up to {output.max_abs:.3g}"
    return f"output '{output.name}': differs by up to {output.max_abs:.3g}, allowed is {output.tolerance}"


def _count(outputs: tuple[OutputComparison, ...]) -> str:
    return "1 output" if len(outputs) == 1 else f"{len(outputs)} outputs"


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...] | None]:
    return {name: getattr(value, "shape", None) for name, value in feeds.items()}


def _limit(lost: WorkerLost, what: str) -> LimitReached:
    flag = "--time-limit" if lost.reason == "time" else "--memory-limit"
    return LimitReached(f"verification stopped while running {what}: {lost.detail}", hint=f"Raise it with {flag}.")


def _rebuilt(reply: Message) -> GraphoptError:
    kind = getattr(errors, reply["error"])
    error: GraphoptError = kind(reply["message"], hint=reply.get("hint", ""))
    return error
