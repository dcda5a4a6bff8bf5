"""What a report of a compression holds: the data that :mod:`~graphopt.reporting.page` and
:mod:`~graphopt.reporting.markdown` show.

It is what ``json.loads`` gives of the JSON report. Every part may be missing, ``None`` or empty, and is then left out;
a number may be ``None`` or not finite. Names come from models and data sets: they may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

__all__ = [
    "Check",
    "Costs",
    "Epoch",
    "Flip",
    "Flips",
    "Group",
    "Layer",
    "Part",
    "Point",
    "Report",
    "Stage",
    "Verdict",
]


class Verdict(TypedDict, total=False):
    """Whether it worked; without ``met`` there was nothing to reach."""

    met: bool | None
    text: str
    reasons: Sequence[str]


class Costs(TypedDict, total=False):
    """A model, the original or the result: bytes of its weights and at the peak of a run, milliseconds and
    millijoules of a run, its score."""

    macs: int | None
    params: int | None
    bytes: int | None
    nodes: int | None
    memory: int | None
    latency_ms: float | None
    energy_mj: float | None
    score: float | None
    ops: Mapping[str, int] | None


class Stage(TypedDict, total=False):
    """A stage of the run, and why it did what it did."""

    name: str
    status: str
    seconds: float | None
    decision: str


class Group(TypedDict, total=False):
    """Channels that go together. ``harm``: the estimate for each number of removed units, from none on, on one scale
    for all groups. ``sensitivity``: pairs of the share removed from this group alone, and the score."""

    name: str
    units: int
    kept: int
    harm: Sequence[float | None] | None
    sensitivity: Sequence[Sequence[float | None]] | None


class Layer(TypedDict, total=False):
    """A node and the milliseconds that it took."""

    name: str
    op: str
    before_ms: float | None
    after_ms: float | None
    precision: str


class Point(TypedDict, total=False):
    """A candidate. ``latency``: as a share of the original's; ``drop``: of the score, in percentage points where that
    is a share, else in its own unit; above 0 is worse."""

    name: str
    latency: float | None
    score: float | None
    drop: float | None
    bytes: int | None
    memory: int | None
    macs: int | None
    precision: str
    trained: bool
    on_front: bool
    chosen: bool


class Check(TypedDict, total=False):
    """A gate: see :class:`graphopt.compression.gates.Check`. ``unit``: ``points`` where before and after are shares
    and harm and limit percentage points; ``share`` where all are shares; all are plain numbers if it is missing."""

    name: str
    before: float | None
    after: float | None
    harm: float | None
    limit: float | None
    passed: bool
    where: str
    unit: Literal["points", "share", ""]


class Part(TypedDict, total=False):
    """A class or a slice."""

    name: str
    samples: int
    before: float | None
    after: float | None


class Flip(TypedDict, total=False):
    """A sample that gets another class than before; confidences are shares."""

    index: int
    label: str | None
    before: str
    after: str
    confidence_before: float | None
    confidence_after: float | None


class Flips(TypedDict, total=False):
    """The share of such samples among all, and those that changed most."""

    share: float | None
    samples: Sequence[Flip]


class Epoch(TypedDict, total=False):
    """An epoch of training."""

    epoch: int
    loss: float | None
    score: float | None


class Report(TypedDict, total=False):
    """All of it.

    Attributes:
        title: The name of the model.
        verdict: Whether it worked.
        goal: What was to be reached, as ``latency=0.5``.
        max_drop: What the score was allowed to lose, as ``0.5 points`` or ``rel:0.5%``.
        metric: What the score is.
        metric_is_share: Whether scores are shares of 0 to 1, which is so unless said otherwise.
        higher_is_better: Whether more of the metric is better, which is so unless said otherwise.
        before: The original.
        after: The result.
        stages: What was done, in order.
        groups: What became of channels, in the order of the graph.
        layers: Latency by layer, in the order of the graph.
        points: Candidates.
        checks: The gates.
        classes: Accuracy by class.
        slices: The metric by slice, by the column that cuts them.
        flips: Predictions that changed.
        history: Training.
        notes: What a user should know.
        provenance: Hashes, versions, seed, plan; ``command`` is what makes the result again. Mappings may nest.
    """

    title: str | None
    verdict: Verdict | None
    goal: str | None
    max_drop: str | None
    metric: str | None
    metric_is_share: bool
    higher_is_better: bool
    before: Costs | None
    after: Costs | None
    stages: Sequence[Stage] | None
    groups: Sequence[Group] | None
    layers: Sequence[Layer] | None
    points: Sequence[Point] | None
    checks: Sequence[Check] | None
    classes: Sequence[Part] | None
    slices: Mapping[str, Sequence[Part]] | None
    flips: Flips | None
    history: Sequence[Epoch] | None
    notes: Sequence[str] | None
    provenance: Mapping[str, Any] | None
