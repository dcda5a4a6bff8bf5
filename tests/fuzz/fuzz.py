"""Damaged models must give a model or a GraphoptError: no other error, crash, hang, leftover file or escape.

``python tests/fuzz/fuzz.py --runs 20000`` runs at length; ``--show SEED`` writes the damaged model of one seed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

__all__ = ["Finding", "Outcome", "fuzz"]

_PATIENCE = 20.0  # seconds after which a run counts as hanging
_SLOW = 8.0
_MEMORY = 4 << 30


@dataclasses.dataclass(frozen=True)
class Finding:
    """A seed whose damaged model brought out a bug."""

    seed: int
    words: str


@dataclasses.dataclass
class Outcome:
    """What became of a range of seeds."""

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)

    def kinds(self) -> dict[str, list[int]]:
        """Seeds by the words of their finding."""
        found: dict[str, list[int]] = {}
        for one in self.findings:
            found.setdefault(one.words[:110], []).append(one.seed)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def fuzz(first: int, runs: int) -> Outcome:
    """Runs the seeds from ``first`` on, in a process that is started again after each crash or hang."""
    outcome, seed, end = Outcome(), first, first + runs
    while seed < end:
        with tempfile.TemporaryDirectory() as outside:
            folder = Path(outside) / "a" / "b"
            folder.mkdir(parents=True)
            seed = _batch(folder, seed, end, outcome)
            escaped = [str(path) for path in Path(outside).rglob("*") if path.is_file() and folder not in path.parents]
            if escaped:
                outcome.findings.append(Finding(seed, f"wrote outside its folder: {escaped}"))
    return outcome


def _batch(folder: Path, seed: int, end: int, outcome: Outcome) -> int:
    """Feeds one process; returns the seed to go on with."""
    paths = [str(ROOT / "tests"), str(ROOT), str(ROOT / "passes"), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz.child", str(folder), str(_MEMORY), str(seed), str(end)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        cwd=folder,
    )
    current = -1
    try:
        for line in _lines(process):
            if line is None:
                if current < 0:
                    raise TimeoutError("the fuzzed process does not start")
                outcome.counts["hang"] += 1
                outcome.findings.append(Finding(current, f"no result in {_PATIENCE:g} s"))
                return current + 1
            message = json.loads(line)
            current = message["seed"]
            if "verdict" in message:
                _note(message, outcome)
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    if code == 0:
        return end
    if current < 0:
        raise ChildProcessError(f"the fuzzed process did not start: exit {code}")
    how = signal.Signals(-code).name if code < 0 else f"exit {code}"
    outcome.counts["crash"] += 1
    outcome.findings.append(Finding(current, f"the process died: {how}"))
    return current + 1


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """What the process says; ``None`` when it has been silent for too long."""
    assert process.stdout is not None
    started = False
    buffer = b""
    with selectors.DefaultSelector() as selector, contextlib.closing(process.stdout):
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_PATIENCE if started else 120):
                yield None
                return
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            started = True
            *whole, buffer = (buffer + chunk).split(b"\n")
            yield from whole


def _note(message: dict[str, object], outcome: Outcome) -> None:
    verdict, seed, seconds = str(message["verdict"]), int(str(message["seed"])), float(str(message["seconds"]))
    outcome.counts[verdict] += 1
    outcome.slowest = max(outcome.slowest, (seconds, seed))
    if verdict == "bug":
        outcome.findings.append(Finding(seed, str(message["words"])))
    elif seconds > _SLOW:
        outcome.findings.append(Finding(seed, f"took {seconds:.1f} s"))


def show(seed: int, path: Path) -> None:
    """Writes the damaged model of a seed."""
    from fuzz.child import bases
    from fuzz.mutate import mutate

    models = bases()
    path.write_bytes(mutate(models[seed % len(models)], seed, models))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzzes and reports; exits with 1 when there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--show", type=int, metavar="SEED", help="write the damaged model of one seed to --output")
    parser.add_argument("--output", type=Path, default=Path("damaged.onnx"))
    options = parser.parse_args(arguments)
    if options.show is not None:
        show(options.show, options.output)
        return
    start = time.monotonic()
    outcome = fuzz(options.seed, options.runs)
    print(f"{options.runs} runs in {time.monotonic() - start:.0f} s: {dict(outcome.counts)}")
    print(f"slowest: {outcome.slowest[0]:.2f} s (seed {outcome.slowest[1]})")
    for words, seeds in outcome.kinds().items():
        print(f"{len(seeds):>6} x {words}   seeds {seeds[:6]}")
    sys.exit(1 if outcome.findings else 0)


if __name__ == "__main__":
    main()
