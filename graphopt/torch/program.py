"""A graph as a list of steps over numbered slots, and how it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from graphopt.torch.values import Ints, Run, tensor

__all__ = ["Body", "Program", "Step"]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One node.

    Attributes:
        call: The function of the inputs.
        inputs: Slots to read; slot 0 always holds ``None``.
        outputs: Slots to write.
        done: Slots that nobody reads any more.
        wants_run: Whether ``call`` takes ``run``.
        mixed: Whether an input may hold sizes that ``call`` wants as tensors.
        sizes: Positions of inputs that ``call`` takes as they are.
        host: What to call if all inputs are sizes.
        label: For messages.
    """

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    done: tuple[int, ...]
    wants_run: bool
    mixed: bool
    sizes: frozenset[int]
    host: Callable[..., Any] | None
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A compiled graph.

    Attributes:
        steps: In the order of execution.
        slots: How many.
        inputs: Slots of the inputs, then of what a subgraph captures.
        outputs: Slots of the outputs.
        literals: Slots that hold sizes known beforehand.
    """

    steps: tuple[Step, ...]
    slots: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    literals: tuple[tuple[int, Ints], ...] = ()

    def fresh(self) -> list[Any]:
        """Values for a run, the literals filled in."""
        values: list[Any] = [None] * self.slots
        for slot, literal in self.literals:
            values[slot] = literal
        return values

    def run(self, values: list[Any], run: Run) -> tuple[Any, ...]:
        """Executes the steps on values whose inputs and constants are filled in.

        Raises:
            RuntimeError: And others that torch raises; a note names the node.
        """
        if torch.compiler.is_compiling():
            for step in self.steps:
                _execute(step, values, run)
        else:
            self._run_with_notes(values, run)
        return tuple(tensor(values[slot], run.device) for slot in self.outputs)

    def _run_with_notes(self, values: list[Any], run: Run) -> None:
        step: Step | None = None
        try:
            for step in self.steps:
                _execute(step, values, run)
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            if step is not None and not getattr(error, "__notes__", None):
                error.add_note(f"while executing node '{step.label}'")
            raise


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """A compiled subgraph.

    Attributes:
        program: Its inputs are the subgraph's own, then what it captures.
        picks: Which of the values captured by the node these are.
    """

    program: Program
    picks: tuple[int, ...]

    def __call__(self, inputs: Sequence[Any], captured: Sequence[Any], run: Run) -> tuple[Any, ...]:
        """Runs it."""
        values = self.program.fresh()
        given = (*inputs, *(captured[place] for place in self.picks))
        for slot, value in zip(self.program.inputs, given, strict=True):
            values[slot] = value
        return self.program.run(values, run)


def _execute(step: Step, values: list[Any], run: Run) -> None:
    inputs = [values[slot] for slot in step.inputs]
    result = _call_mixed(step, inputs, run) if step.mixed else _call(step, inputs, run)
    outputs = step.outputs
    if type(result) is tuple:
        for slot, value in zip(outputs, result, strict=False):
            values[slot] = value
    else:
        values[outputs[0]] = result
    for slot in step.done:
        values[slot] = None


def _call(step: Step, inputs: list[Any], run: Run) -> Any:
    return step.call(*inputs, run=run) if step.wants_run else step.call(*inputs)


def _call_mixed(step: Step, inputs: list[Any], run: Run) -> Any:
    if step.host is not None and all(value is None or isinstance(value, Ints) for value in inputs):
        result = step.host(*inputs)
        if result is not NotImplemented:
            return result
    device = next((value.device for value in inputs if isinstance(value, torch.Tensor)), run.device)
    made = [value if place in step.sizes else tensor(value, device) for place, value in enumerate(inputs)]
    return _call(step, made, run)
