"""Every architecture of the zoo, and every way it is exported."""

from __future__ import annotations

from typing import NamedTuple

from zoo import attention, dense, handmade, huggingface, plain, recurrent, residual
from zoo.architecture import Architecture

__all__ = ["ARCHITECTURES", "CASES", "Case"]

ARCHITECTURES: tuple[Architecture, ...] = tuple(
    architecture
    for family in (plain, residual, dense, attention, recurrent, huggingface, handmade)
    for architecture in family.ARCHITECTURES
)


class Case(NamedTuple):
    """An architecture and who exports it."""

    architecture: Architecture
    exporter: str

    def __str__(self) -> str:
        return f"{self.architecture.name}-{self.exporter}"


CASES = tuple(Case(architecture, exporter) for architecture in ARCHITECTURES for exporter in architecture.exporters)
