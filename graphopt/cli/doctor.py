"""``graphopt doctor``: versions, execution providers, and what is wrong with this installation."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode
from graphopt.human import byte_size
from graphopt.version import __version__

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]

_REQUIRED = {
    "click": "click",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx-graphsurgeon": "onnx_graphsurgeon",
    "onnx-ir": "onnx_ir",
    "rich": "rich",
}
"""Distribution name to the module it must provide."""

_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "onnxruntime-training",
)
"""Packages that all install the same module ``onnxruntime``, over each other's files."""

_OPTIONAL = ("torch",)

_PROBE = """
import json
from graphopt.errors import EnvironmentProblem
from graphopt.runtime import resolve_provider
import onnxruntime

found = {}
for provider in onnxruntime.get_available_providers():
    try:
        found[provider] = "works" if resolve_provider(provider) == provider else "does not work"
    except EnvironmentProblem:
        found[provider] = "cannot start: its libraries or the device are missing"
print()  # some releases of onnxruntime write to stdout themselves
print(json.dumps(found))
"""


@dataclasses.dataclass(slots=True)
class _Findings:
    """What was found.

    Attributes:
        system: Python and machine.
        packages: Version of each package that graphopt needs or can use.
        providers: What became of starting each execution provider.
        passes: How many passes are installed.
        problems: What is broken.
    """

    system: dict[str, str]
    packages: dict[str, str]
    providers: dict[str, str]
    passes: int
    problems: list[str]


@click.command("doctor")
@options.reporting
def command(*, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Check this installation: versions, execution providers, pass packages. Exits with 8 if something is broken."""
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    with terminal.progress("look"):
        findings = _look()
    terminal.show(_render(findings))
    terminal.result(dataclasses.asdict(findings))
    return ExitCode.ENVIRONMENT if findings.problems else ExitCode.OK


def _look() -> _Findings:
    problems: list[str] = []
    runtimes = {name: version for name in _RUNTIMES if (version := _version(name))}
    if len(runtimes) > 1:
        problems.append(
            f"{' and '.join(runtimes)} are installed side by side and overwrite each other's files; uninstall both, "
            "then install the one you want"
        )
    if not runtimes:
        problems.append("onnxruntime is not installed; run 'pip install graphopt' again")
    required = {name: _version(name) for name in _REQUIRED}
    problems += [
        f"{name} is not installed; run 'pip install graphopt' again" for name, found in required.items() if not found
    ]
    optional = {name: version for name in _OPTIONAL if (version := _version(name))}
    modules = [_REQUIRED[name] for name, found in required.items() if found]
    with ThreadPoolExecutor(max_workers=2) as pool:
        probe = pool.submit(_providers) if runtimes else None
        for module, failure in zip(modules, pool.map(_import_failure, modules), strict=True):
            if failure:
                problems.append(f"'import {module}' fails: {failure}")
        providers, failure = probe.result() if probe else ({}, "")
    if failure:
        problems.append(f"'import onnxruntime' or a session in it fails: {failure}")
    passes, broken = _passes()
    problems += [f"the entry point {point} does not load: {reason}" for point, reason in broken.items()]
    if not passes:
        problems.append("no pass is installed; run 'pip install graphopt' again")
    packages = {**{name: version or "missing" for name, version in required.items()}, **runtimes, **optional}
    return _Findings(_system(), packages, providers, passes, problems)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _run(code: str) -> tuple[str, str]:
    """Output of ``code`` in a fresh interpreter, and why it failed; a broken library may take its process with it."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "", "it does not come back within 120 s"
    if done.returncode == 0:
        return done.stdout, ""
    last = done.stderr.strip().splitlines()[-1:] or [f"the process ends with code {done.returncode}"]
    return "", last[0]


def _import_failure(module: str) -> str:
    return _run(f"import {module}")[1]


def _providers() -> tuple[dict[str, str], str]:
    output, failure = _run(_PROBE)
    return (json.loads(output.splitlines()[-1]) if output else {}), failure


def _passes() -> tuple[int, dict[str, str]]:
    from graphopt.pipeline import registry

    return len(registry.catalogue()), dict(registry.broken())


def _system() -> dict[str, str]:
    facts = {
        "graphopt": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(terse=True) + f", {platform.machine()}",
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory"] = byte_size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return facts


def _render(findings: _Findings) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def table(rows: dict[str, Any]) -> Table:
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        grid.add_column(min_width=26, no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows.items():
            grid.add_row(name, Text(str(value), style="green" if value == "works" else ""))
        return grid

    parts: list[RenderableType] = [table(findings.system), "", table(findings.packages), ""]
    if findings.providers:
        parts += [table(findings.providers), ""]
    parts += [table({"passes": findings.passes}), ""]
    parts += [Text.assemble(("broken  ", "bold red"), problem) for problem in findings.problems]
    if not findings.problems:
        parts.append(Text("Everything works.", style="green"))
    return Group(*parts)
