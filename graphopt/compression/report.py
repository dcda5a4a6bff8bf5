"""What a compression did, as plain data; :mod:`graphopt.compression.render` shows it in a terminal,
:mod:`graphopt.reporting` as a page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.compression.gates import Audit
from graphopt.compression.points import Point, front
from graphopt.compression.search import Choice
from graphopt.compression.sensitivity import Sensitivity
from graphopt.compression.settings import Settings
from graphopt.pruning.report import Size
from graphopt.reporting.plain import finite

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["CompressionReport", "Stage"]


@dataclasses.dataclass
class Stage:
    """A stage of a run.

    Attributes:
        name: Its name.
        seconds: How long it took.
        decision: What it decided, and why.
        skipped: Whether it was left out.
    """

    name: str
    seconds: float = 0.0
    decision: str = ""
    skipped: bool = False


@dataclasses.dataclass(eq=False)
class CompressionReport:
    """What a compression did.

    Attributes:
        title: Name of the original.
        choice: What the search found.
        point: What was taken, or the best that can be had.
        limits: The goal, as shares of the original.
        settings: How.
        audit: What the samples that nothing was chosen by say.
        is_better: 1 if a higher score is better, -1 if a lower one is.
        is_share: Whether scores are shares.
        before: What the original costs.
        after: What the result costs.
        milliseconds: Of a run of the original.
        millijoules: Of a run of the original and of the result, where that could be measured.
        ops: Operators of both, by type.
        stages: What was done.
        harm: By group, the estimated harm of each number of removed units.
        kept: By group, how many units there were and how many are left.
        sensitivity: What the removal of shares of groups does to the score.
        layers: What each node takes, before and after.
        flips: Samples whose class changed most.
        history: Epochs of the distillation.
        notes: What a user should know.
        provenance: Hashes, versions, the command.
    """

    title: str
    choice: Choice
    point: Point
    limits: Mapping[str, float]
    settings: Settings
    audit: Audit
    is_better: int
    is_share: bool
    before: Size
    after: Size
    milliseconds: float
    millijoules: tuple[float | None, float | None]
    ops: tuple[Mapping[str, int], Mapping[str, int]]
    stages: Sequence[Stage]
    harm: Mapping[str, Sequence[float]]
    kept: Mapping[str, tuple[int, int]]
    sensitivity: Sequence[Sensitivity]
    layers: Sequence[Mapping[str, Any]]
    flips: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    notes: list[str]
    provenance: dict[str, Any]

    @property
    def is_met(self) -> bool:
        """Whether the goal is met and all gates are passed."""
        return self.choice.point is not None and self.audit.passed

    @property
    def speedup(self) -> float:
        """How many times faster the result is than the original."""
        return 1 / self.point.left["latency"]

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def verdict(self) -> str:
        """In a sentence."""
        score = self.audit.checks[0]
        unit = " points" if self.is_share else ""
        lost = f"{score.name} {self._told(score.before)} to {self._told(score.after)} ({-score.harm:+.2f}{unit})"
        smaller = self.before.bytes / max(1, self.after.bytes) if self.before.bytes else 1.0
        what = f"{self.speedup:.2f}x as fast, {smaller:.1f}x smaller, {lost}"
        if self.is_met:
            return what
        if self.choice.point is None:
            return f"infeasible: {self.choice.reason}. The best that can be had: {what}"
        failed = ", ".join(one.name for one in self.audit.failed)
        return f"harmful: {failed} beyond the limit on the samples that it was judged by. {what}"

    def _told(self, score: float) -> str:
        return f"{100 * score:.2f} %" if self.is_share else f"{score:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON, as :mod:`graphopt.reporting.schema` describes it."""
        score = self.audit.checks[0]
        on_front = {id(one) for one in front(self.choice.points)}
        groups = {one.group: one.scores for one in self.sensitivity}
        data = {
            "title": self.title,
            "verdict": {"met": self.is_met, "text": self.verdict, "reasons": [self.choice.reason]},
            "goal": self.settings.goal or None,
            "max_drop": _drop(self.settings),
            "metric": self.audit.metric,
            "metric_is_share": self.is_share,
            "higher_is_better": self.is_better > 0,
            "samples": self.audit.samples,
            "limits": dict(self.limits),
            "before": self._costs(0, self.milliseconds, score.before),
            "after": self._costs(1, self.milliseconds * self.point.left["latency"], score.after),
            "stages": [
                {
                    "name": one.name,
                    "status": "skipped" if one.skipped else "done",
                    "seconds": one.seconds,
                    "decision": one.decision,
                }
                for one in self.stages
            ],
            "groups": [
                {
                    "name": name,
                    "units": units,
                    "kept": kept,
                    "harm": list(self.harm.get(name, ())),
                    "sensitivity": [list(pair) for pair in groups.get(name, ())],
                }
                for name, (units, kept) in self.kept.items()
            ],
            "layers": [dict(one) for one in self.layers],
            "points": [self._point(one, id(one) in on_front) for one in self.choice.points],
            "checks": [
                dataclasses.asdict(one) | {"passed": one.passed, "unit": self._unit(one.name)}
                for one in self.audit.checks
            ],
            "classes": [dataclasses.asdict(one) for one in self.audit.by_class],
            "slices": {name: [dataclasses.asdict(one) for one in own] for name, own in self.audit.slices.items()},
            "flips": {
                "share": next((one.after for one in self.audit.checks if one.name == "flips"), None),
                "samples": [dict(one) for one in self.flips],
            },
            "history": [
                {
                    "epoch": number + 1,
                    "loss": one.get("loss"),
                    "score": _first(one.get("evaluation"), self.audit.metric),
                }
                for number, one in enumerate(self.history)
            ],
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
        }
        found: dict[str, Any] = finite(json.loads(json.dumps(data)))
        return found

    def stamp(self) -> str:
        """What the result carries along in its metadata: where it comes from, and what was found. No times: the same
        run gives the same bytes."""
        kept = {
            "original": self.provenance["original sha256"],
            "variant": self.point.variant.name,
            "goal": self.settings.goal,
            "seed": self.settings.seed,
            "metric": self.audit.metric,
            "before": self.audit.checks[0].before,
            "after": self.audit.checks[0].after,
            "met": self.is_met,
        }
        return json.dumps(finite(kept))

    def _unit(self, check: str) -> str:
        """What the harm of a gate is in."""
        if check in ("flips", "calibration error", "NaN") or check.endswith("relative"):
            return "share"
        return "points" if self.is_share or check == "worst class" else ""

    def _costs(self, which: int, milliseconds: float, score: float) -> dict[str, Any]:
        """Of the original (0) or the result (1)."""
        return dataclasses.asdict((self.before, self.after)[which]) | {
            "latency_ms": milliseconds,
            "energy_mj": self.millijoules[which],
            "score": score,
            "ops": dict(self.ops[which]),
        }

    def _point(self, point: Point, on_front: bool) -> dict[str, Any]:
        return {
            "name": point.variant.name,
            "latency": point.left["latency"],
            "score": point.score * self.is_better,
            "drop": point.drop,
            **{
                name: round(point.left[name] * getattr(self.before, name)) if math.isfinite(point.left[name]) else None
                for name in ("bytes", "memory", "macs")
            },
            "precision": point.variant.precision,
            "trained": point.variant.trained,
            "on_front": on_front,
            "chosen": point is self.point,
            "complaint": point.complaint,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.compression import render

        yield from render.report(self)

    def _repr_html_(self) -> str:
        from graphopt.reporting.page import page

        return page(self.to_dict())


def _drop(settings: Settings) -> str | None:
    limits = settings.limits
    if limits.drop is not None:
        return f"{limits.drop:g} points"
    return None if limits.relative_drop is None else f"{100 * limits.relative_drop:g} % of the score"


def _first(scores: Mapping[str, Any] | None, metric: str) -> Any:
    """The score of the metric, or of what training judged by instead."""
    own = {name: one for name, one in (scores or {}).items() if name != "loss"}
    return own.get(metric, next(iter(own.values()), None))
