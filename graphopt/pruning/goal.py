"""What pruning has to reach: ``macs=0.5``, ``bytes=2MB``, ``latency=0.4ms``, or several of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from graphopt.errors import UsageError
from graphopt.pipeline import spec

__all__ = ["MEASURES", "Goal", "Limit"]

MEASURES: Final[Mapping[str, str]] = {"macs": "", "params": "", "bytes": "B", "memory": "B", "latency": "ms"}
"""What a goal may limit, and its unit: multiply-accumulates, parameters, bytes of weights, bytes of one run
(:mod:`graphopt.analysis.memory`), milliseconds of one run."""

_SCALES: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BINARY: Final = {f"{prefix}i": 2.0 ** (10 * power) for power, prefix in enumerate(_SCALES) if prefix}
_UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "": _SCALES,
    "B": {f"{prefix}{unit}": factor for prefix, factor in (_SCALES | _BINARY).items() for unit in ("", "b")},
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
"""What may be written behind a number, and how many of the measure's unit it stands for."""
_EXAMPLES: Final = {"macs": "300M", "params": "1.5M", "bytes": "2MB", "memory": "2MB", "latency": "0.4ms"}
_NUMBER: Final = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)", re.ASCII)
_DIGITS: Final = 12  # of a limit: what is written reads back as the same number
_LEAST: Final = 1e-9  # of an original, so that shares of it are numbers


@dataclasses.dataclass(frozen=True)
class Limit:
    """The upper limit of one measure.

    Attributes:
        number: Without a unit and up to 1 a share of the original, else so many of the unit.
        unit: Of :data:`MEASURES`; empty for a share and for a count.
    """

    number: float
    unit: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the original."""
        return not self.unit and self.number <= 1

    def share(self, total: float) -> float:
        """The limit as a share of an original that has ``total`` of the unit."""
        return self.number if self.is_share else self.number / max(total, _LEAST)

    def amount(self, total: float) -> float:
        """The limit in the unit, for an original that has ``total`` of it."""
        return self.number * total if self.is_share else self.number

    def __str__(self) -> str:
        scale, sign = 1.0, ""
        if self.unit != "ms" and not self.is_share:
            found = [(factor, prefix) for prefix, factor in _SCALES.items() if self.number >= factor]
            scale, sign = max(found, default=(scale, sign))
        return f"{self.number / scale:.{_DIGITS}g}{sign if sign == 'k' else sign.upper()}{self.unit}"


@dataclasses.dataclass(frozen=True)
class Goal:
    """Upper limits, all of which must hold.

    Attributes:
        limits: By measure. As text a goal reads back as the same one.
    """

    limits: Mapping[str, Limit]

    @classmethod
    def of(cls, given: Any) -> Goal:
        """Reads ``"macs=0.5,latency=0.4ms"``, a mapping, or a goal.

        A number without a unit is a share of the original up to 1, and above it a number of what is measured; with a
        unit it is always that. Limits keep twelve digits.

        Raises:
            UsageError: It is none.
        """
        if isinstance(given, Goal):
            return given
        if isinstance(given, str):
            parts = [part.partition("=") for part in given.split(",") if part.strip()]
            if not parts or not all(name and equals and limit.strip() for name, equals, limit in parts):
                raise UsageError(f"'{given}' is no goal", hint="Write macs=0.5, or several: macs=0.5,params=0.4.")
            given = {name.strip(): limit.strip() for name, _, limit in parts}
            if len(given) < len(parts):
                raise UsageError("a measure has two limits", hint=f"Name each once: {','.join(given)}.")
        if not isinstance(given, Mapping) or not given:
            raise UsageError(f"{given!r} is no goal", hint='Give {"macs": 0.5} or "macs=0.5".')
        return cls({str(name): _limit(str(name), limit) for name, limit in given.items()})

    def __str__(self) -> str:
        return ",".join(f"{name}={limit}" for name, limit in self.limits.items())


def _limit(name: str, given: Any) -> Limit:
    if name not in MEASURES:
        raise UsageError(f"a goal cannot limit '{name}'", hint=spec.close_match(name, MEASURES))
    unit = MEASURES[name]
    match = _NUMBER.fullmatch(str(given).strip().lower())
    factor = _UNITS[unit].get(match[2]) if match is not None and match[2] else 1.0
    number = 0.0 if match is None or factor is None else float(f"{float(match[1]) * factor:.{_DIGITS}g}")
    is_less_than_one = match is not None and bool(match[2]) and not unit and number <= 1  # of what is counted
    if match is None or not 0 < number < float("inf") or is_less_than_one:
        raise UsageError(
            f"{name}={given} is no limit",
            hint=f"Give a share of the original, as {name}=0.5, or a number, as {name}={_EXAMPLES[name]}.",
        )
    return Limit(number, unit if match[2] or number > 1 else "")
