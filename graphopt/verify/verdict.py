"""From the worker's figures to a verdict in words, or to the error that its reply stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt import errors
from graphopt.errors import GraphoptError, LimitReached
from graphopt.verify.result import MetricComparison, OutputComparison, Tolerance

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds
    from graphopt.verify.process import WorkerLost
    from graphopt.verify.protocol import Message

__all__ = ["judge", "lost_error", "metric", "outputs", "reason", "shapes"]


def reason(reply: Message) -> str:
    """Why a model does not load or run, from an error reply.

    Raises:
        GraphoptError: The error is not about the model: the worker's own, in this process.
    """
    if reply["error"] == "ModelError":
        return str(reply["message"])
    kind: type[GraphoptError] = getattr(errors, reply["error"])
    raise kind(reply["message"], hint=reply["hint"])


def outputs(reply: Message) -> tuple[OutputComparison, ...]:
    """The comparisons in a reply."""
    return tuple(
        OutputComparison(
            **entry
            | {
                "shape": None if entry["shape"] is None else tuple(entry["shape"]),
                "tolerance": Tolerance(**entry["tolerance"]),
            }
        )
        for entry in reply["outputs"]
    )


def metric(reply: Message, name: str | None) -> MetricComparison | None:
    """The metric in a reply, if one was asked for."""
    return None if name is None else MetricComparison(name, **reply["metric"])


def judge(
    outputs: tuple[OutputComparison, ...], metric: MetricComparison | None, max_drop: float | None, samples: int
) -> tuple[bool, str]:
    """Whether the candidate is equal, and the sentence that says why."""
    on = f"on {samples} sample{'' if samples == 1 else 's'}"
    if metric is not None and max_drop is not None:
        moved = f"{metric.name} went from {metric.original:.6g} to {metric.candidate:.6g} {on}"
        return metric.drop <= max_drop, f"{moved}; at most {max_drop:g} worse is allowed"
    wrong = next((output for output in outputs if not output.ok), None)
    if wrong is not None:
        return False, f"output '{wrong.name}': {_complaint(wrong)}"
    count = f"{len(outputs)} output{'' if len(outputs) == 1 else 's'}"
    if all(output.identical for output in outputs):
        return True, f"identical bits in {count} {on}"
    largest = max((output.max_abs for output in outputs if output.max_abs is not None), default=0.0)
    return True, f"{count} within tolerance {on}, largest difference {largest:.2g}"


def _complaint(output: OutputComparison) -> str:
    if output.note:
        return output.note
    if output.tolerance.kind == "exact" and output.max_rel is None and output.argmax_agreement is not None:
        return f"only {output.argmax_agreement:.4%} of the elements are equal"
    if output.tolerance.kind == "exact":
        return f"not bit-identical, differs by up to {output.max_abs:.3g}"
    return f"differs by up to {output.max_abs:.3g}, allowed is {output.tolerance}"


def shapes(feeds: Feeds) -> dict[str, tuple[int, ...] | None]:
    """The shape of each input; None for what is no tensor."""
    return {name: getattr(value, "shape", None) for name, value in feeds.items()}


def lost_error(lost: WorkerLost, what: str) -> Exception:
    """The error for a worker that took too much, or broke down by a fault of ours."""
    if lost.reason == "bug":
        return RuntimeError(f"the verification worker failed while running {what}:\n{lost.detail}")
    flag = "--time-limit" if lost.reason == "time" else "--memory-limit"
    return LimitReached(f"verification stopped while running {what}: {lost.detail}", hint=f"Raise it with {flag}.")
