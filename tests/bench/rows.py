"""The feature table, row by row: on which micro-graphs graphopt and its peers fire, and where they are wrong.

``python tests/bench/rows.py [--only TEXT ...] [--tools graphopt onnxslim]`` prints Markdown. A cell tells on how many
of the row's spellings the tool fired: ``·`` none, ``c`` into operators of another domain, ``!1`` one wrong result,
``E1`` one without a result. Exit code 1 if a result of graphopt is wrong or missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.micrographs import CASES, TRAPS  # noqa: E402
from bench.micrographs.case import Case  # noqa: E402
from bench.micrographs.judge import Judge, Outcome, summary  # noqa: E402
from bench.tools import TOOLS  # noqa: E402
from bench.worker import Worker  # noqa: E402

import graphopt  # noqa: E402

__all__ = ["main"]

_OURS = "graphopt"
_TIMEOUT = 60.0  # seconds that a tool has for a micro-graph
Found = dict[tuple[str, str], dict[str, Outcome]]  # (row, spelling) -> tool -> what came of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables and the lists; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--tools", nargs="+", default=[name for name in TOOLS if name != "ort-basic"], choices=TOOLS)
    options = parser.parse_args(arguments)
    cases, traps = ([one for one in of if any(part in one.row for part in options.only)] for of in (CASES, TRAPS))
    workers = {tool: Worker(tool) for tool in options.tools}
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = _run(cases, workers, Path(folder))
            sprung = _run(traps, workers, Path(folder))
    finally:
        for worker in workers.values():
            worker.close()
    print("\n".join(_table("pattern", found, options.tools, trap=False)))
    print("\n".join(["", *_table("trap", sprung, options.tools, trap=True)]))
    print("\n".join(_lists(found, sprung, options.tools)))
    ours = [one[_OURS] for one in (*found.values(), *sprung.values()) if _OURS in one]
    return int(any(one.wrong or one.error for one in ours))


def _run(cases: Sequence[Case], workers: Mapping[str, Worker], folder: Path) -> Found:
    found: Found = {}
    for case in cases:
        judge = Judge(case)
        source = folder / "original.onnx"
        onnx.save(judge.original, source)
        outcomes = found[case.row, case.name] = {}
        for tool, worker in workers.items():
            if tool == _OURS and case.option:
                wanted = ["default", case.option]
                outcomes[tool] = judge.outcome(graphopt.optimize(judge.original, wanted, validate=False))
                continue
            output = folder / f"{tool}.onnx"
            output.unlink(missing_ok=True)
            reply = worker.run(source, output, timeout=_TIMEOUT)
            if reply.error:  # onnxslim runs out of stack in a process that has seen many models
                worker.close()
                reply = worker.run(source, output, timeout=_TIMEOUT)
            outcomes[tool] = Outcome(error=reply.error) if reply.error else _read(judge, output)
    return found


def _read(judge: Judge, path: Path) -> Outcome:
    try:
        return judge.outcome(onnx.load(path))
    except (DecodeError, FileNotFoundError) as problem:
        return Outcome(error=f"no readable result: {problem}")


def _table(title: str, found: Found, tools: Sequence[str], *, trap: bool) -> Iterator[str]:
    yield f"| {title} | {' | '.join(tools)} |"
    yield f"|-|{'-|' * len(tools)}"
    for row in dict.fromkeys(row for row, _ in found):
        of_row = [outcomes for (name, _), outcomes in found.items() if name == row]
        cells = [summary([one[tool] for one in of_row], trap=trap) for tool in tools]
        yield f"| {row} | {' | '.join(cells)} |"


def _lists(found: Found, sprung: Found, tools: Sequence[str]) -> Iterator[str]:
    rivals = [tool for tool in tools if tool != _OURS]
    behind: list[str] = []
    nobody: list[str] = []
    for (row, name), outcomes in found.items():
        if _OURS not in outcomes or outcomes[_OURS].fired:
            continue
        better = [tool for tool in rivals if outcomes[tool].fired and not outcomes[tool].wrong]
        (behind if better else nobody).append(f"{row}: {name}" + f" ({', '.join(better)})" * bool(better))
    yield from _listed("A rival fires and graphopt does not", behind)
    yield from _listed("Nobody fires", nobody)
    for tool in tools:
        problems = [
            f"{row}: {name}: {outcomes[tool].wrong or outcomes[tool].error}"
            for (row, name), outcomes in {**found, **sprung}.items()
            if outcomes[tool].wrong or outcomes[tool].error
        ]
        yield from _listed(f"Wrong or no results of {tool}", problems)
    fired = [f"{row}: {name}: {tool}" for (row, name), one in sprung.items() for tool in tools if one[tool].fired]
    yield from _listed("Fired on a trap", fired)


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield from ["", f"## {title}: {len(lines)}", "", *(f"- {line}" for line in lines)]


if __name__ == "__main__":
    sys.exit(main())
