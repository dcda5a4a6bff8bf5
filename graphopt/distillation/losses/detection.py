"""Losses on the heads of detectors: boxes and scores of the teacher, anchor by anchor.

Both models must give the same anchors in the same order, before any suppression of overlaps. Heads often share one
tensor: ``axis`` says where the coordinates and scores of an anchor lie, ``start`` and ``stop`` which of them are meant.
The teacher's confidence picks the anchors that count, so that background does not drown them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.distillation.batch import Batch
from graphopt.distillation.losses.base import TaughtLoss
from graphopt.distillation.losses.options import option
from graphopt.distillation.losses.tasks import binary_entropy
from graphopt.errors import UsageError
from graphopt.torch.outputs import Kind

__all__ = ["Box", "DetectionLoss", "Score", "giou"]


@dataclasses.dataclass(eq=False, kw_only=True)
class DetectionLoss(TaughtLoss):
    """The mean over anchors, weighted by the teacher's confidence.

    The weight of an anchor is 0 where the confidence is below the threshold, else 1, or, if ``scaled``, the confidence.

    Attributes:
        axis: Where coordinates and scores lie.
        start: The first of those that are meant.
        stop: The first that is not; -1 for all that follow.
        confidence: Name of the teacher's value that tells it; empty: all anchors count alike. The largest of several
            scores.
        confidence_kind: ``probabilities``, or ``logits`` before a sigmoid.
        confidence_start: As ``start``, for ``confidence``.
        confidence_stop: As ``stop``.
        threshold: The least confidence that counts.
        scaled: Whether the confidence is the weight.
    """

    axis: int = -1
    start: int = option(0, least=0)
    stop: int = option(-1, least=-1)
    confidence: str = ""
    confidence_kind: Kind = "probabilities"
    confidence_start: int = option(0, least=0)
    confidence_stop: int = option(-1, least=-1)
    threshold: float = option(0.3, least=0, most=1)
    scaled: bool = False

    @property
    def teacher_names(self) -> Sequence[tuple[int, str]]:
        names = [self.teacher, self.confidence] if self.confidence else [self.teacher]
        return [(self.teacher_number, name) for name in names]

    def errors(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of each anchor, ``(B, N)``, from ``(B, N, C)``."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        student = self._part(self.value(batch), self.start, self.stop)
        teacher = self._part(self.mean(batch), self.start, self.stop)
        if student.shape != teacher.shape:
            raise self.mismatch(student.shape, teacher.shape)
        errors = self.errors(student, teacher)
        weights = self._weights(batch, errors)
        return (errors * weights).sum() / weights.sum().clamp(min=torch.finfo(errors.dtype).tiny)

    def _part(self, value: Tensor, start: int, stop: int) -> Tensor:
        """``(B, N, C)``."""
        part = value.movedim(self.axis, -1)[..., start : None if stop < 0 else stop]
        if not part.shape[-1]:
            raise UsageError(
                f"loss '{self.name}': start={start} and stop={stop} leave nothing of shape {tuple(value.shape)}",
                hint="axis says where the coordinates and scores of an anchor lie.",
            )
        return part.reshape(len(part), -1, part.shape[-1])

    def _weights(self, batch: Batch, errors: Tensor) -> Tensor:
        if not self.confidence:
            return torch.ones_like(errors)
        value = self.mean(batch, self.confidence)
        if value.ndim == errors.ndim and value.shape == errors.shape:
            value = value.unsqueeze(self.axis)
        scores = self._part(value, self.confidence_start, self.confidence_stop).amax(-1)
        if scores.shape != errors.shape:
            raise self.mismatch(errors.shape, scores.shape, "teacher's confidence")
        scores = scores if self.confidence_kind == "probabilities" else scores.sigmoid()
        picked = (scores >= self.threshold).to(errors.dtype)
        return picked * scores if self.scaled else picked


@dataclasses.dataclass(eq=False, kw_only=True)
class Box(DetectionLoss):
    """The error of the student's boxes against the teacher's, the mean over the anchors that count.

    ``smooth-l1``: the mean over the four coordinates, quadratic below beta; ``giou``: 1 - GIoU; ``both``: their sum.

    Source: Chen et al., "Learning efficient object detection models with knowledge distillation", NIPS 2017; Mehta,
    Ozturk, arXiv 1805.06361, for the weights; Rezatofighi et al., arXiv 1902.09630, for GIoU.

    Attributes:
        measure: Which of them.
        layout: ``xyxy`` corners, ``xywh`` a corner and a size, ``cxcywh`` the centre and a size.
        beta: Where smooth-l1 turns linear, in the unit of the coordinates.
    """

    name: ClassVar[str] = "box"
    is_regression: ClassVar[bool] = True

    measure: Literal["smooth-l1", "giou", "both"] = "smooth-l1"
    layout: Literal["xyxy", "xywh", "cxcywh"] = "xyxy"
    beta: float = option(1.0, above=0)

    def errors(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape[-1] != 4:
            raise UsageError(
                f"loss 'box': '{self.student}' has {student.shape[-1]} numbers an anchor, and a box has 4",
                hint="Say which: axis=1:start=0:stop=4.",
            )
        errors = torch.zeros_like(student[..., 0])
        if self.measure != "giou":
            errors = errors + F.smooth_l1_loss(student, teacher, reduction="none", beta=self.beta).mean(-1)
        if self.measure != "smooth-l1":
            errors = errors + 1 - giou(_CORNERS[self.layout](student), _CORNERS[self.layout](teacher))
        return errors


@dataclasses.dataclass(eq=False, kw_only=True)
class Score(DetectionLoss):
    """-q_t log q_s - (1 - q_t) log(1 - q_s), q = sigmoid(z): objectness, or scores of classes, as the teacher has them.

    The mean over scores, then over the anchors that count.

    Source: Mehta, Ozturk, "Object detection at 200 frames per second", arXiv 1805.06361, for weights by confidence.

    Attributes:
        student_kind: ``probabilities`` after a sigmoid; ``logits`` and ``values`` count as before it.
        teacher_kind: Likewise.
    """

    name: ClassVar[str] = "score"

    student_kind: Kind = "logits"
    teacher_kind: Kind = "logits"

    def errors(self, student: Tensor, teacher: Tensor) -> Tensor:
        target = teacher if self.teacher_kind == "probabilities" else teacher.sigmoid()
        return binary_entropy(student, target, self.student_kind).mean(-1)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """IoU - |hull without the union| / |hull| of boxes ``(..., 4)`` by their corners ``x1, y1, x2, y2``.

    Source: Rezatofighi et al., arXiv 1902.09630.
    """
    tiny = torch.finfo(first.dtype).tiny
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = _area(first) + _area(second) - common
    hull = (
        (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2]))
        .clamp(min=0)
        .prod(-1)
    )
    return common / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _centred(boxes: Tensor) -> Tensor:
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


_CORNERS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "xyxy": lambda boxes: boxes,
    "xywh": lambda boxes: torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1),
    "cxcywh": _centred,
}
