"""Where trials run: one after another in this process, in processes beside it, or on a Ray cluster.

Trials share the folder of the run and nothing else, so that they give the same wherever they run; the machines of a
cluster must see that folder under the same path. Whoever is killed in the middle leaves what it had finished, and
is tried again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, TypeAlias

from graphopt.compression.context import Context
from graphopt.compression.trial import Outcome, Trial, run
from graphopt.errors import EnvironmentProblem, LimitReached

__all__ = ["EXECUTORS", "Executor", "opened"]

Executor: TypeAlias = Callable[[Sequence[Trial]], list[list[Outcome]]]
"""Runs trials; outcomes come in their order."""

_AGAIN: Final = 3  # times that a trial is tried whose process was killed


@contextlib.contextmanager
def _serial(context: Context, workers: int) -> Iterator[Executor]:
    yield lambda asked: [run(one, context) for one in asked]


@contextlib.contextmanager
def _processes(context: Context, workers: int) -> Iterator[Executor]:
    spawn = multiprocessing.get_context("spawn")
    scratch = tempfile.TemporaryDirectory(prefix="trials-", dir=context.workspace.folder)

    def run_all(asked: Sequence[Trial]) -> list[list[Outcome]]:
        found: dict[Trial, list[Outcome]] = {}
        for _ in range(_AGAIN):
            left = [one for one in asked if one not in found]
            if not left:
                break
            pool = ProcessPoolExecutor(
                min(workers, len(left)), mp_context=spawn, initializer=_settle, initargs=(scratch.name,)
            )
            with pool, _ended_with_us():
                with _uninterrupted():
                    futures = {one: pool.submit(run, one) for one in left}
                for one, future in futures.items():
                    with contextlib.suppress(BrokenProcessPool):
                        found[one] = future.result()
        lost = [one for one in asked if one not in found]
        if lost:
            raise LimitReached(
                f"the process of a trial was killed {_AGAIN} times: memory is short, perhaps",
                hint="Ask for fewer workers, or give fewer samples.",
            )
        return [found[one] for one in asked]

    with scratch:
        yield run_all


def _settle(scratch: str) -> None:
    """Prepares a process: what it leaves behind goes with the parent's folder, and it ends when the parent does."""
    tempfile.tempdir = scratch
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # killed without a word: nobody waits for the result, and queues never say so


@contextlib.contextmanager
def _ended_with_us() -> Iterator[None]:
    """Ends the processes that were started in the block if it fails: a trial may take minutes more."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:  # an interruption, too
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started in the block do not hear Ctrl-C, which a terminal sends to all: we do, afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _ray(context: Context, workers: int) -> Iterator[Executor]:
    try:
        import ray
    except ImportError as error:
        raise EnvironmentProblem(
            f"ray cannot be imported: {error}", hint="Install it with: pip install 'graphopt[scale]'."
        ) from error
    own = not ray.is_initialized()
    if own:
        # Started here unless a cluster is named the way Ray wants it named.
        with contextlib.suppress(ConnectionError):
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        if not ray.is_initialized():
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    # Ray would give each worker a single thread of linear algebra, whose sums differ from those of several.
    as_here = {"env_vars": {"OMP_NUM_THREADS": str(os.cpu_count())}}
    remote = ray.remote(max_retries=_AGAIN, num_cpus=1, runtime_env=as_here)(run)
    try:
        yield lambda asked: _gathered(ray, [remote.remote(one) for one in asked])
    finally:
        if own:
            ray.shutdown()


def _gathered(ray: Any, references: Sequence[Any]) -> list[list[Outcome]]:
    try:
        found: list[list[Outcome]] = ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    except ray.exceptions.RayError as error:
        raise LimitReached(
            f"Ray lost a trial {_AGAIN} times: {str(error).splitlines()[0]}", hint="Ask for fewer workers."
        ) from error
    return found


_Open: TypeAlias = Callable[[Context, int], contextlib.AbstractContextManager[Executor]]
EXECUTORS: Final[Mapping[str, _Open]] = {"serial": _serial, "processes": _processes, "ray": _ray}


def opened(name: str, context: Context, workers: int) -> contextlib.AbstractContextManager[Executor]:
    """An executor, ready to run trials.

    Args:
        name: A key of :data:`EXECUTORS`.
        context: What all trials share.
        workers: How many trials run at once.

    Raises:
        EnvironmentProblem: Its package is not installed.
    """
    return EXECUTORS[name](context, workers)
