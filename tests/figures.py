"""Adds up the figures that tests record (``record_property("figures", {...})``) and prints them after the run."""

from __future__ import annotations

import collections

import pytest

_TOTAL: collections.Counter[str] = collections.Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "figures" and isinstance(value, dict):
                _TOTAL.update(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TOTAL:
        terminalreporter.section("figures")
        for name, count in sorted(_TOTAL.items()):
            terminalreporter.line(f"{name:<60}{count:>8}")
