"""A torch module as ONNX, with the interface of a teacher."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from graphopt import io, runtime
from graphopt.errors import ModelError, NotEquivalent
from graphopt.torch.values import to_numpy
from graphopt.verify import feeds

__all__ = ["Interface", "exported"]

_TRACED: Final = 2  # samples in the example that is exported
_CHECKED: Final = 3  # samples of the check: another number, so that a batch size that was frozen is found out
_TOLERANCE: Final = 1e-4  # of an output's largest magnitude; single precision, summed in another order, is well below


@dataclasses.dataclass(frozen=True)
class Interface:
    """What a module is called with, and what it gives.

    Attributes:
        inputs: In order; the open dimensions of each have names.
        output_names: In order.
    """

    inputs: tuple[feeds.Input, ...]
    output_names: tuple[str, ...]

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """That of a model."""
        inputs = [feeds.signature(value) for value in model.graph.inputs if not value.is_initializer()]
        return cls(tuple(inputs), tuple(value.name or "" for value in model.graph.outputs))

    @property
    def input_names(self) -> list[str]:
        """In order."""
        return [one.name for one in self.inputs]

    def named(self, given: Any) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            given: What the module returned: a tensor, a sequence, or a mapping, whose values are taken in order.

        Raises:
            ModelError: Their number is another one, or they are no tensors.
        """
        values = list(given.values()) if isinstance(given, Mapping) else [given] if isinstance(given, Tensor) else given
        if not isinstance(values, Sequence) or not all(isinstance(one, Tensor) for one in values):
            raise ModelError(f"the module gives a {type(given).__name__}", hint="Return a tensor, or several.")
        if len(values) != len(self.output_names):
            raise ModelError(
                f"the module gives {len(values)} outputs, and the teacher {len(self.output_names)}: "
                f"{', '.join(self.output_names)}",
                hint="Return as many, in the same order.",
            )
        return dict(zip(self.output_names, values, strict=True))

    def open_axes(self, entry: feeds.Input) -> dict[int, str]:
        """The axes of an input without a fixed size, each with a name that torch takes."""
        return {axis: re.sub(r"\W", "_", dim) for axis, dim in enumerate(entry.shape or ()) if not isinstance(dim, int)}


def exported(module: nn.Module, interface: Interface, example: Mapping[str, Tensor]) -> ir.Model:
    """A module as ONNX, checked in ONNX Runtime; the first exporter of torch's that succeeds is taken.

    Args:
        module: In whatever mode and on whatever device; not changed.
        interface: Names and open dimensions.
        example: Inputs by name, of any number of samples.

    Raises:
        ModelError: torch cannot export it.
        NotEquivalent: What it exports computes something else.
    """
    plain = copy.deepcopy(module).cpu().eval()
    problems: list[ModelError | NotEquivalent] = []
    for name, export in _EXPORTERS.items():
        if name == "dynamo" and importlib.util.find_spec("onnxscript") is None:
            continue
        try:
            made = _written(export, plain, interface, _samples(interface, example, _TRACED))
            _check(made, plain, interface, _samples(interface, example, _CHECKED))
        except (ModelError, NotEquivalent) as error:
            problems.append(error)
        else:
            return made
    raise problems[0]


def _dynamo(module: nn.Module, interface: Interface, inputs: tuple[Tensor, ...], path: Path) -> None:
    torch.onnx.export(
        module,
        inputs,
        path,
        dynamo=True,
        input_names=interface.input_names,
        output_names=list(interface.output_names),
        dynamic_shapes=tuple(interface.open_axes(one) for one in interface.inputs),
        verbose=False,
    )


def _torchscript(module: nn.Module, interface: Interface, inputs: tuple[Tensor, ...], path: Path) -> None:
    batch = next(iter({axes[0]: 0 for one in interface.inputs if 0 in (axes := interface.open_axes(one))}), "")
    outputs = {name: {0: batch} for name in interface.output_names} if batch else {}
    torch.onnx.export(
        module,
        inputs,
        str(path),
        dynamo=False,
        input_names=interface.input_names,
        output_names=list(interface.output_names),
        dynamic_axes={one.name: interface.open_axes(one) for one in interface.inputs} | outputs,
    )


_EXPORTERS: Final[Mapping[str, Callable[[nn.Module, Interface, tuple[Tensor, ...], Path], None]]] = {
    "dynamo": _dynamo,
    "torchscript": _torchscript,
}
"""torch's exporters, the better one first; it needs the package onnxscript."""


def _written(
    export: Callable[[nn.Module, Interface, tuple[Tensor, ...], Path], None],
    module: nn.Module,
    interface: Interface,
    inputs: Mapping[str, Tensor],
) -> ir.Model:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "module.onnx"
        try:
            export(module, interface, tuple(inputs.values()), path)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"torch cannot export the module {type(module).__name__}: {lines[0]}",
                hint="Export it yourself, and give the ONNX model as the student.",
            ) from error
        model = io.load(path)
        for value in model.graph.initializers.values():  # they lie in the file, which is about to go
            if value.const_value is not None:
                value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)
    # Where the module's source lies is nobody's business.
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    return model


def _samples(interface: Interface, example: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """``count`` samples of an example, repeated if it has fewer; all of them where the number is fixed."""
    chosen = {}
    for one in interface.inputs:
        value = example[one.name].detach().cpu()
        is_open = value.ndim > 0 and 0 in interface.open_axes(one)
        chosen[one.name] = value[torch.arange(count) % len(value)] if is_open else value
    return chosen


def _check(model: ir.Model, module: nn.Module, interface: Interface, inputs: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        expected = interface.named(module(*inputs.values()))
    session = runtime.open_session(model, faithful=True)
    known = {entry.name for entry in session.get_inputs()}
    try:
        given = session.run(
            list(interface.output_names), {name: to_numpy(one) for name, one in inputs.items() if name in known}
        )
    except runtime.ort_errors() as error:
        raise ModelError(
            f"ONNX Runtime cannot run the exported module: {runtime.trim(error)}",
            hint="Most often the number of samples is fixed within the module; use tensor.flatten(1), say.",
        ) from error
    for (name, wanted), found in zip(expected.items(), given, strict=True):
        array = to_numpy(wanted)
        scale = float(np.abs(array).max(initial=0)) or 1.0
        if found.shape != array.shape or not np.allclose(found, array, rtol=0, atol=_TOLERANCE * scale):
            raise NotEquivalent(
                f"the exported module gives another '{name}' in ONNX Runtime than in torch",
                hint="Does the module depend on the number of samples, on randomness, or on its own state?",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporters have to say of themselves from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
