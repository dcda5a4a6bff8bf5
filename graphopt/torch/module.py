"""An ONNX graph as a torch module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from graphopt.analysis import constants
from graphopt.analysis.inlining import inlined
from graphopt.errors import ModelError, UsageError
from graphopt.interop.kinds import Source
from graphopt.torch import places
from graphopt.torch.compiler import compile_model
from graphopt.torch.ops.quantized import dequantized, layout, quantized, span
from graphopt.torch.places import Place
from graphopt.torch.policy import Policy, dequantizer, is_statistic, is_weight
from graphopt.torch.program import Program
from graphopt.torch.scales import followers
from graphopt.torch.values import Run, from_ir, torch_dtype

__all__ = ["GraphModule", "from_onnx"]

_PACE = 10.0  # a scale has one parameter for many weights, and AdamW takes equal steps: so it moves in larger ones
_OVERRIDABLE = 4  # IR version from which an initializer among the inputs is a default


class Grid(NamedTuple):
    """Of a weight that is integers in the file: how to find the nearest ones.

    Attributes:
        scale: What the module calls the scale.
        zero: And the zero point, if there is one.
        settings: How to round, as :func:`~graphopt.torch.ops.quantized.quantized` takes it.
    """

    scale: str
    zero: str | None
    settings: Mapping[str, Any]


class GraphModule(nn.Module):
    """Executes an ONNX graph; made by :func:`from_onnx`.

    Call it with tensors in the order of ``input_names``, or by keyword. It gives a tuple of the outputs in the order of
    ``output_names``. In training mode batch normalizations use and update statistics, and dropouts drop.

    Attributes:
        names: The ONNX name of each parameter and buffer, by its name here.
        input_names: What must be given.
        output_names: What comes out.
    """

    def __init__(self, program: Program, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        self.input_names = tuple(inputs)
        self.output_names = tuple(outputs)
        self._program = program
        self._reads: list[tuple[int, str]] = []
        self._overridable: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self._grids: dict[str, Grid] = {}
        self._growths: dict[str, str] = {}
        self._products: dict[str, tuple[str, str]] = {}

    def forward(self, *inputs: Any, **named: Any) -> tuple[Any, ...]:
        """The outputs.

        Args:
            *inputs: Tensors (or lists of them, for sequences), in the order of ``input_names``.
            **named: The same by name; the names of overridable initializers too.

        Raises:
            UsageError: An input is missing, or there are too many.
        """
        values = self._program.fresh()
        for slot, name in self._reads:
            values[slot] = self._held(name)
        given = self._given(inputs, named)
        for slot, value in zip(self._program.inputs, given, strict=True):
            values[slot] = value
        for name, value in named.items():
            values[self._overridable[name]] = value
        return self._program.run(values, Run(self.training, self._device(given)))

    def named(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name for inputs by name, which may be NumPy arrays.

        Raises:
            UsageError: An input is missing or unknown.
        """
        device = self._device(())
        made = {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(device) if isinstance(value, np.ndarray) else value
            for name, value in feeds.items()
        }
        return dict(zip(self.output_names, self(**made), strict=True))

    def _given(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """One value for each input; takes those used out of ``named``."""
        rest = self.input_names[len(inputs) :]
        given = [*inputs, *(named.pop(name) for name in rest if name in named)]
        if len(given) != len(self.input_names) or any(name not in self._overridable for name in named):
            raise UsageError(
                f"the module got {len(inputs)} inputs in order and {sorted(named)} beside them",
                hint=f"Its inputs are, in this order: {', '.join(self.input_names) or 'none'}.",
            )
        return given

    def _device(self, given: Sequence[Any]) -> torch.device:
        for value in given:
            if isinstance(value, torch.Tensor):
                return value.device
        for _, name in self._reads:
            held: torch.Tensor = getattr(self, name)
            return held.device
        return torch.device("cpu")

    def stored(self, name: str) -> torch.Tensor:
        """A parameter or buffer as it is in the file: of a weight that is quantized there, the nearest integers."""
        held = self._held(name)
        return self._rounded(name, held) if name in self._grids else held

    def _held(self, name: str) -> torch.Tensor:
        """A parameter or buffer as it is now: scales may have grown, or be the product of others."""
        held: torch.Tensor = getattr(self, name)
        if name in self._growths:
            return held * torch.exp(_PACE * getattr(self, self._growths[name]))
        if name in self._products:
            left, right = self._products[name]
            return (self._held(left) * self._held(right)).reshape(held.shape)
        return held

    @torch.no_grad()
    def refine(self, floats: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Lets weights that are integers in the file start from the floats that these were rounded from.

        Elements of which the nearest integer is another one stay as they are.

        Args:
            floats: By ONNX name; what is no such weight is passed over.
        """
        for name in self._grids:
            given = floats.get(self.names[name])
            held: torch.Tensor = getattr(self, name)
            if given is None or given.shape != tuple(held.shape):
                continue
            finer = torch.from_numpy(np.array(given)).to(held)
            held.copy_(torch.where(self._rounded(name, finer) == self.stored(name), finer, held))

    def _rounded(self, name: str, floats: torch.Tensor) -> torch.Tensor:
        """The nearest integers that a weight can be in the file."""
        scale, zero, settings = self._grids[name]
        with torch.no_grad():
            return quantized(floats, self._held(scale), None if zero is None else getattr(self, zero), **settings)

    def _note(self, onnx_name: str, name: str, slot: int, place: Place | None, overridable: bool) -> None:
        """Remembers whence a constant comes and where the program reads it."""
        self._reads.append((slot, name))
        if place is not None:
            self.names[name] = onnx_name
            self._places[name] = place
        if overridable:
            self._overridable[onnx_name] = slot

    def extra_repr(self) -> str:
        """A line for ``print(module)``."""
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return f"{len(self._program.steps)} steps, {parameters:,} parameters, inputs: {', '.join(self.input_names)}"


def from_onnx(model: Any, *, trainable: Policy = "weights", scales: bool = False) -> GraphModule:
    """An ONNX model as a module that can be trained, in evaluation mode.

    Args:
        model: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon graph; it is not changed.
        trainable: What trains: ``"weights"`` (what :func:`~graphopt.torch.policy.is_weight` says), ``"all"`` constants
            of floats, ``"none"``, or a function of the constant's value in the graph. Weights are parameters, whether
            they train or not; other constants, and the statistics of batch normalizations, are buffers. A weight that
            is integers behind a DequantizeLinear trains as the floats that it stands for, rounded at each use.
        scales: Whether the scales of such weights train, too; see :mod:`graphopt.torch.scales`.

    Raises:
        UnsupportedOperator: A node cannot be executed; see :func:`graphopt.torch.register`.
        ModelError: The model cannot be read.
    """
    original = Source.of(model).read()
    places.mark(original)
    flat = inlined(original)
    found = places.marked(flat)
    roles = {value: _role(value, trainable) for value in found}
    inputs = [value for value in flat.graph.inputs if not value.is_initializer()]
    compiled = compile_model(flat, inputs, lambda value: roles.get(value, "fixed") != "fixed")
    module = GraphModule(
        compiled.program, [value.name or "" for value in inputs], [value.name or "" for value in flat.graph.outputs]
    )
    names: dict[Place, str] = {}
    held: dict[ir.Value, str] = {}
    for value, slot in compiled.reads.items():
        place = None if value in compiled.folded else found.get(value)
        name = names.get(place) if place is not None else None
        if name is None:
            name = _unused(module, place.name if place is not None else value.name or "constant")
            _hold(module, name, value, roles.get(value, "fixed"), compiled.folded.get(value))
        if place is not None:
            names[place] = name
        held[value] = name
        overridable = value.is_graph_input() and (original.ir_version or _OVERRIDABLE) >= _OVERRIDABLE
        module._note(place.name if place is not None else value.name or "", name, slot, place, overridable)
    for value, name in held.items():
        if isinstance(getattr(module, name), nn.Parameter) and (grid := _grid(value, held)) is not None:
            module._grids[name] = grid
            if scales and len(value.shape or ()) > 1:
                _learn(module, value, held)
    return module.eval()


def _learn(module: GraphModule, weight: ir.Value, names: Mapping[ir.Value, str]) -> None:
    """Lets the scale of a weight train, and those of biases follow, where that can be."""
    ((node, _),) = weight.uses()
    scale = node.inputs[1]
    ties = followers(scale) if scale is not None else None
    name = module._grids[names[weight]].scale
    if ties is None or name in module._growths:
        return
    growth = _unused(module, f"{name}_growth")
    module.register_parameter(growth, nn.Parameter(torch.zeros_like(getattr(module, name))))
    module._growths[name] = growth
    module._products.update({names[bias]: (names[given], name) for bias, given in ties.items()})


def _grid(value: ir.Value, names: Mapping[ir.Value, str]) -> Grid | None:
    tensor = _tensor_of(value)
    node = dequantizer(value, tensor) if tensor is not None else None
    if node is None or tensor is None:
        return None
    scale, zero = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert scale is not None
    settings = {**layout(node), "dtype": torch_dtype(tensor.dtype), "bounds": span(value)}
    return Grid(names[scale], None if zero is None else names[zero], settings)


def _tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    return value.const_value if value.is_initializer() else constants.constant(value)


def _role(value: ir.Value, trainable: Policy) -> str:
    """trained | frozen | statistic | fixed; the first two are parameters."""
    tensor = _tensor_of(value)
    if tensor is None:
        return "fixed"
    chosen = trainable(value) if callable(trainable) else trainable == "all"
    if tensor.dtype not in constants.FLOAT_TYPES:
        wanted = chosen or trainable == "weights"
        return "trained" if wanted and dequantizer(value, tensor) is not None else "fixed"
    if is_statistic(value):
        return "statistic"
    if chosen:
        return "trained"
    if not is_weight(value, tensor):
        return "fixed"
    return "trained" if trainable == "weights" else "frozen"


def _hold(module: GraphModule, name: str, value: ir.Value, role: str, folded: torch.Tensor | None) -> None:
    """Registers a constant."""
    if folded is not None:
        module.register_buffer(name, folded, persistent=False)
        return
    source = _tensor_of(value)
    made = from_ir(source) if source is not None else None
    if made is None or source is None:
        kind = source.dtype.name if source is not None else "unknown"
        raise ModelError(f"constant '{value.name}' has elements of type {kind}, which torch does not have")
    node = dequantizer(value, source) if role == "trained" else None
    held = made if node is None else _dequantized(node, made)
    if role in ("trained", "frozen"):
        module.register_parameter(name, nn.Parameter(held, requires_grad=role == "trained"))
    else:
        module.register_buffer(name, held)


def _dequantized(node: ir.Node, integers: torch.Tensor) -> torch.Tensor:
    """The floats that a quantized weight stands for, which train in its place."""
    tensors = [None if value is None else _tensor_of(value) for value in node.inputs[1:3]]
    scale, zero = [None if one is None else from_ir(one) for one in [*tensors, None][:2]]
    assert scale is not None
    return dequantized(node, integers, scale, zero)


def _unused(module: nn.Module, name: str) -> str:
    """The name as an identifier that the module does not use yet."""
    base = re.sub(r"\W", "_", name)
    if not base or base[0].isdigit():
        base = f"_{base}"
    made, number = base, 0
    while hasattr(module, made):
        number += 1
        made = f"{base}_{number}"
    return made
