"""What to say where a reader's library is not installed."""

from __future__ import annotations

from graphopt.errors import EnvironmentProblem

__all__ = ["missing"]


def missing(where: str, package: str, error: ImportError) -> EnvironmentProblem:
    """The error for a library of the extra ``data`` that cannot be imported."""
    return EnvironmentProblem(
        f"{where}: reading it needs {package}, which cannot be imported: {error}",
        hint="Install it with: pip install 'graphopt[data]'.",
    )
