"""Sessions to time things with: opened as ``bench`` opens them, and with a profile of every node."""

from __future__ import annotations

import collections
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

from graphopt import io, proto, runtime, walk
from graphopt.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["CONFIG", "NodeTimes", "open_session", "profile"]

CONFIG = {"session.force_spinning_stop": "1"}
"""As ``bench`` opens its sessions: idle threads must not steal the cores from the next model."""

_LARGEST_MESSAGE = 1_800_000_000  # bytes; protobuf ends at 2 GB
_NO_LIMIT = 1 << 62
_HOLDERS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""What is within them has events of its own."""
_CALM = 0.97
"""A run that had the core for so much of its time is taken for undisturbed."""
_PATIENCE = 3
"""So many times the usual number of runs are made in search of undisturbed ones."""


class NodeTimes(NamedTuple):
    """What a profile says of a model.

    Attributes:
        nodes: The fastest time of each node of the optimized graph, in milliseconds, by its name and operator.
        overhead: The least that a run took beyond its nodes, in milliseconds.
        wall: The fastest run, in milliseconds.
        share: What part of a usual run's time the calling thread had a core, waiting for others included.
    """

    nodes: Mapping[tuple[str, str], float]
    overhead: float
    wall: float
    share: float = 1.0


class _Run(NamedTuple):
    """``wall`` in seconds, and what ``share`` of them went to it and not to other processes."""

    wall: float
    share: float


def open_session(
    model: ir.Model | bytes | Path, *, provider: str, threads: int | None, scratch: Path | None = None
) -> ort.InferenceSession:
    """Opens a model to be timed. One in memory that is too large for a message goes through a file in ``scratch``.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        EnvironmentProblem: The provider is missing.
    """
    source = _serialized(model, scratch) if isinstance(model, ir.Model) else model
    return runtime.open_session(source, provider=provider, threads=threads, config=CONFIG)


def _serialized(model: ir.Model, scratch: Path | None) -> bytes | Path:
    """The model with its weights inside: handed over as arrays, not all of ONNX Runtime's fusions find them."""
    tensors = [value.const_value for scope in walk.scopes(model) for value in scope.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) < _LARGEST_MESSAGE:
        return proto.to_session_bytes(model, inline_below=_NO_LIMIT)[0]
    if scratch is None:
        raise ModelError("the model is larger than a message can be", hint="Give its path.")
    path = Path(tempfile.mkdtemp(dir=scratch)) / "model.onnx"
    io.save(model, path)
    return path


def profile(
    model: ir.Model | bytes,
    feeds: Mapping[str, Any],
    *,
    threads: int | None,
    enough: Callable[[int, float], bool],
    before: Callable[[], object] = lambda: None,
) -> NodeTimes:
    """Runs a model on the CPU and reads what each node took.

    The fastest of several runs is what counts: on a machine that others use, all noise makes runs slower. With a
    single thread, what the system gave to others in the middle of a run is left out, too.

    Args:
        model: The model.
        feeds: What to feed it.
        threads: Intra-op threads; ``None`` leaves it to ONNX Runtime.
        enough: Asked after each run but the first, with the number of runs and the seconds that they took; of those
            that nothing has disturbed, unless there are too few.
        before: Called before each run, and not timed.

    Raises:
        ModelError: ONNX Runtime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-profile-") as folder:
        runs: list[_Run] = []
        try:
            session = _profiled(model, threads, Path(folder))
            while len(runs) < 2 or not _are_enough(runs[1:], enough, alone=threads == 1):
                before()
                start, mine = time.perf_counter(), time.thread_time()
                session.run(None, feeds)
                mine = time.thread_time() - mine
                wall = time.perf_counter() - start
                runs.append(_Run(wall, min(1.0, mine / wall)))
            path = session.end_profiling()
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {runtime.trim(error)}") from error
        events = json.loads(Path(path).read_text("utf-8"))
    return _times(events, runs, alone=threads == 1)


def _profiled(model: ir.Model | bytes, threads: int | None, folder: Path) -> ort.InferenceSession:
    """Not by way of ``runtime.open_session``, which has no switch for profiles."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    for key, value in CONFIG.items():
        options.add_session_config_entry(key, value)
    source = _serialized(model, folder) if isinstance(model, ir.Model) else model
    opened = source if isinstance(source, bytes) else str(source)
    return ort.InferenceSession(opened, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _are_enough(runs: list[_Run], enough: Callable[[int, float], bool], *, alone: bool) -> bool:
    calm = [run.wall for run in runs if run.share >= _CALM or not alone]
    return enough(len(calm), sum(calm)) or enough(len(runs) // _PATIENCE, sum(run.wall for run in runs) / _PATIENCE)


def _times(events: list[dict[str, Any]], runs: list[_Run], *, alone: bool) -> NodeTimes:
    """Microseconds of ``*_kernel_time`` events, in the order of the runs; the first run warms up and does not count.

    Of a run in which others had the core it is not known which node they held up; those that were held up least count.
    What was taken from a thread that is ``alone`` is left out of its time.
    """
    spent = [run.wall * 1e3 * (run.share if alone else 1.0) for run in runs]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    found: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in kernels:
        key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        if key[1] in _HOLDERS:
            continue
        found[key].append(event["dur"] / 1e3)
    count = len(runs)
    best = max(run.share for run in runs[1:])
    calm = [number for number, run in enumerate(runs) if number and run.share >= best + _CALM - 1]
    sums = [0.0] * count
    nodes: dict[tuple[str, str], float] = {}
    for key, times in found.items():
        each = len(times) // count  # a node in a loop runs several times
        if not each:
            continue
        per_run = [
            sum(times[at * each : (at + 1) * each]) * (run.share if alone else 1.0) for at, run in enumerate(runs)
        ]
        sums = [total + one for total, one in zip(sums, per_run, strict=True)]
        nodes[key] = min(per_run[at] for at in calm)
    overhead = min(spent[at] - sums[at] for at in calm)
    usual = statistics.median(run.share for run in runs[1:])
    return NodeTimes(nodes, max(0.0, overhead), min(spent[at] for at in calm), usual)
