"""The command line of :mod:`equivalence.backend`: all cases in several processes, and the figures as a table."""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from equivalence import backend, cases
from rich.console import Console
from rich.table import Table

__all__ = ["main"]

_SHOWN = 60
_RIVALS = ("onnxslim", "onnxsim", "onnxscript", "onnxoptimizer")


def _chunk(start: int, step: int, variant: str, specs: Sequence[str]) -> list[backend.Verdict]:
    return [backend.judge(case, variant, specs) for case in cases.collect()[start::step]]


def _rival(tool: str, names: Sequence[str]) -> tuple[int, list[str]]:
    """How many of the named cases come out equal, and what happened to the others."""
    from bench.worker import Worker
    from equivalence.compare import difference, open_quietly, outputs

    from graphopt.runtime import ort_errors

    worker, equal, wrong = Worker(tool), 0, []
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        for case in [one for one in cases.collect() if one.name in set(names)]:
            source.write_bytes(case.model.SerializeToString())
            output.unlink(missing_ok=True)
            problem = worker.run(source, output, timeout=60).error
            if problem:  # some tools stay broken after an error; each case deserves a fresh process
                worker.close()
                problem = worker.run(source, output, timeout=60).error
            if not problem:
                try:
                    session = open_quietly(str(output))
                    taken = {one.name for one in session.get_inputs()}  # a tool may drop inputs that nothing reads
                    after = outputs(session, {name: one for name, one in case.feeds.items() if name in taken})
                    problem = difference(backend.reference(case)[1], after, exact=False)
                except ort_errors() as error:
                    problem = f"does not run: {error}"
            equal += not problem
            if problem:
                wrong.append(f"{case.name}: {problem}")
    worker.close()
    return equal, wrong


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures; exits with 1 when a result of graphopt differs."""
    parser = argparse.ArgumentParser(description=backend.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all variants (else the plain cases)")
    parser.add_argument("--variants", nargs="*", choices=list(cases.VARIANTS), default=["plain"])
    parser.add_argument("--passes", nargs="*", help="specs to run, each alone (default: the pipeline and every pass)")
    parser.add_argument("--rivals", action="store_true", help="the plain cases through other optimizers too")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    variants = list(cases.VARIANTS) if options.all else options.variants
    specs = options.passes or ["default", *backend.pass_names()]
    console = Console(highlight=False)
    table = Table("variant", "written", "run, not random", "equal", "changed", "seconds", box=None)
    failed: list[str] = []
    ran: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for variant in variants:
            start, step = time.monotonic(), 8 * options.jobs
            chunks = [pool.submit(_chunk, index, step, variant, specs) for index in range(step)]
            verdicts = [one for chunk in chunks for one in chunk.result()]
            runs = [one for one in verdicts if one.status == "ran"]
            ran = [one.case for one in runs] if variant == "plain" else ran
            failed += [f"{one.variant} {one.case}: {line}" for one in runs for line in one.failures]
            figures = (
                sum(one.status != "not written" for one in verdicts),
                len(runs),
                sum(not one.failures for one in runs),
                sum(one.changed > 0 for one in runs),
                round(time.monotonic() - start),
            )
            table.add_row(variant, *map(str, figures))
    for line in failed[:_SHOWN]:
        console.print(line, soft_wrap=True)
    console.print(f"{len(failed)} failures" + (f", {_SHOWN} shown" if len(failed) > _SHOWN else ""))
    console.print(f"{len(specs)} runs a case: the default pipeline and each pass alone, validation off")
    console.print(table)
    for tool in _RIVALS if options.rivals else ():
        equal, wrong = _rival(tool, ran)
        console.print(f"{tool}: {equal} of {len(ran)} equal")
        console.print("\n".join(f"  {line[:200]}" for line in wrong), style="dim", soft_wrap=True)
    sys.exit(1 if failed else 0)
