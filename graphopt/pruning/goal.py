"""What pruning has to reach: ``macs=0.5``, ``bytes=2MB``, or several of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from graphopt.errors import UsageError
from graphopt.pipeline import spec

__all__ = ["MEASURES", "Goal"]

MEASURES = ("macs", "params", "bytes", "latency")
"""What a goal may limit: multiply-accumulates, parameters, bytes of weights, milliseconds of a run."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """Upper limits, all of which must hold.

    Attributes:
        limits: By measure; up to 1 a share of the original, above it a number of them (milliseconds for latency).
    """

    limits: Mapping[str, float]

    @classmethod
    def of(cls, given: Any) -> Goal:
        """Reads ``"macs=0.5,params=0.4"``, a mapping, or a goal.

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
        return ",".join(f"{name}={limit:.12g}" for name, limit in self.limits.items())


def _limit(name: str, given: Any) -> float:
    if name not in MEASURES:
        raise UsageError(f"a goal cannot limit '{name}'", hint=spec.close_match(name, MEASURES))
    has_unit = False
    try:
        limit = float(given)
    except (TypeError, ValueError):
        has_unit = True
        text = str(given)
        try:
            limit = float(spec.size(text)) if name == "bytes" else float(text.removesuffix("ms" * (name == "latency")))
        except ValueError:
            limit = 0.0
    if not 0 < limit < float("inf"):
        raise UsageError(
            f"{name}={given} is no limit", hint=f"Give a share of the original, as {name}=0.5, or a number above 1."
        )
    if has_unit and limit <= 1:
        raise UsageError(
            f"{name}={given} cannot be told from a share of the original",
            hint=f"Numbers up to 1 are shares: divide it by what the original has, and give that, as {name}=0.5.",
        )
    return limit
