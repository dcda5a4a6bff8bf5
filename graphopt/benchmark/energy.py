"""What a run takes in joules, by the counters of the processor (RAPL), as Linux shows them in its powercap tree.

A zone is a folder with ``name``, ``energy_uj`` (microjoules, starting over at ``max_energy_range_uj``) and more::

    /sys/class/powercap/intel-rapl:0     package-0: cores, caches, graphics of a socket
    /sys/class/powercap/intel-rapl:0:1   dram: its memory, where that is counted

Packages and their memory are added up; ``core`` and ``uncore`` are in the package already, ``psys`` is all of the
machine. AMD's processors have the same folders. Counters move about once a millisecond and count whatever runs on the
processor, idle cores included: what is told of a model is an estimate, fit for comparing models measured in turns.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["LOST", "ROOT", "Meter", "opened", "silence"]

ROOT: Final = Path("/sys/class/powercap")
LOST: Final = (OSError, ValueError)
"""What reading a counter raises that is not there any more, or tells nonsense."""
_ZONE: Final = re.compile(r"intel-rapl:\d+(:\d+)?")  # intel-rapl-mmio has the same counters a second time
_COUNTED: Final = re.compile(r"package|dram")


@dataclasses.dataclass(slots=True)
class _Zone:
    """A counter, where it starts over, its last state and what it has counted; microjoules."""

    name: str
    counter: Path
    most: int
    last: int
    total: int = 0

    def advance(self) -> None:
        now = _number(self.counter)
        self.total += now - self.last + (self.most if now < self.last else 0)
        self.last = now


class Meter:
    """Microjoules since it was opened; to be read before a counter can start over twice (minutes).

    Args:
        zones: What is added up.

    Raises:
        OSError: When called: a counter cannot be read any more. So it does from then on, if that can be read again too.
        ValueError: Likewise: it tells no number.
    """

    def __init__(self, zones: Sequence[_Zone]) -> None:
        self._zones = zones
        self._lost: OSError | ValueError | None = None

    def __call__(self) -> int:
        if self._lost is not None:
            raise self._lost
        try:
            for zone in self._zones:
                zone.advance()
        except LOST as error:
            self._lost = error
            raise
        return sum(zone.total for zone in self._zones)


def opened(root: Path | None = None) -> tuple[Meter | None, str]:
    """The counters of this machine, and their names; or None, and why they cannot be read if there are any.

    Args:
        root: The powercap tree; :data:`ROOT` if ``None``.
    """
    root = ROOT if root is None else root
    zones = []
    try:
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            name = (folder / "name").read_text().strip() if _ZONE.fullmatch(folder.name) else ""
            if _COUNTED.match(name):
                counter = folder / "energy_uj"
                zones.append(_Zone(name, counter, _number(folder / "max_energy_range_uj"), _number(counter)))
    except PermissionError:
        return None, f"the counters in {root} may be read by root only"
    except LOST as error:
        return None, f"the counters in {root} cannot be read: {error}"
    if not zones:
        return None, ""
    return Meter(zones), ", ".join(zone.name for zone in zones)


def silence(meter: Callable[[], int], names: str) -> str:
    """Why a meter has counted nothing.

    Args:
        meter: The meter.
        names: Of its counters.
    """
    try:
        meter()
    except LOST as error:
        return f"{names} cannot be read any more: {getattr(error, 'strerror', None) or error}"
    return f"{names} stand still"


def _number(file: Path) -> int:
    return int(file.read_text())
