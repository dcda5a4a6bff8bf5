"""What the whole suite shares: the long tests behind ``--slow``, the CUDA tests where there is a device, the paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("harness")
pytest_plugins = ["figures"]

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long tests too: property, fuzz, size, packaging")


def pytest_configure(config: pytest.Config) -> None:
    # Terminal width and colours of whoever runs the suite must not reach the output under test.
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "PY_COLORS"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = pytest.mark.skip(reason="long: runs with --slow")
    cuda = pytest.mark.skip(reason="ONNX Runtime has no usable CUDA device here")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "cuda" in item.keywords and not _cuda_usable():
            item.add_marker(cuda)


_CUDA: list[bool] = []


def _cuda_usable() -> bool:
    """Whether a session on the CUDA provider opens; asked once, and only when a test wants it."""
    if not _CUDA:
        from graphopt.errors import GraphoptError
        from graphopt.runtime import resolve_provider

        try:
            resolve_provider("cuda")
            _CUDA.append(True)
        except GraphoptError:
            _CUDA.append(False)
    return _CUDA[0]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of shipped models."""
    return ROOT / "models"
