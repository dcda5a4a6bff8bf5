"""Students: what learns, as a torch module with named inputs, outputs and inner tensors, and back as ONNX."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graphopt.datasets import Bound
from graphopt.distillation import shrinking
from graphopt.distillation.exporting import Interface, exported
from graphopt.distillation.rounding import is_quantized
from graphopt.errors import ModelError, UsageError
from graphopt.importing import imported, names_function
from graphopt.interop.kinds import Source
from graphopt.torch.module import GraphModule, from_onnx
from graphopt.torch.writeback import to_onnx

__all__ = ["GraphStudent", "ModuleStudent", "Student", "is_model", "is_shrunk", "open_student"]


class GraphStudent:
    """A student that is an ONNX graph; inner tensors are named as the values of the graph.

    Attributes:
        module: The graph with the inner tensors as further outputs.
        learns_statistics: Whether batch normalizations learn their statistics anew. By default they keep them: those
            of a trained graph are good, and most graphs have them folded into convolutions anyway.
        is_quantized: Whether the graph is: then a step may go up in torch and down in ONNX Runtime.
    """

    def __init__(
        self,
        model: Any,
        inner: Sequence[str] = (),
        *,
        learns_statistics: bool = False,
        floats: Mapping[str, Any] | None = None,
        learns_scales: bool = False,
    ) -> None:
        """Args:
        model: A path, an ``ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``; never changed.
        inner: Inner values to give besides the outputs.
        learns_statistics: See above.
        floats: What integers of a quantized graph were rounded from, by initializer, to start from.
        learns_scales: Whether the scales of its weights train, too.

        Raises:
            UsageError: There is no such value.
            ModelError: The model cannot be read, or has nothing to train.
            UnsupportedOperator: torch cannot run a node here.
        """
        self._source = Source.of(model)
        tapped = self._source.read()
        _tap(tapped, inner)
        self.module: GraphModule = from_onnx(tapped, scales=learns_scales)
        self.module.refine(floats or {})
        self.learns_statistics = learns_statistics
        self._learns_scales = learns_scales
        self.is_quantized = is_quantized(tapped)
        if not any(one.requires_grad for one in self.module.parameters()):
            raise ModelError(
                f"the student '{tapped.graph.name}' has no weights of floating-point numbers to train",
                hint="Give a float model; quantize it after distillation.",
            )

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs and inner values by name.

        Args:
            feeds: By input name; what the graph does not take is passed over, and the one input of a graph takes a
                single feed of any name.
        """
        return dict(zip(self.module.output_names, self.module(*_choose(self.module.input_names, feeds)), strict=True))

    def watched(self, inner: Sequence[str]) -> GraphStudent:
        """The same with the same weights, giving other inner values."""
        other = GraphStudent(
            self._source.read(),
            inner,
            learns_statistics=self.learns_statistics,
            learns_scales=self._learns_scales,
        )
        other.module.load_state_dict(self.module.state_dict())
        return other

    def to_onnx(self) -> ir.Model:
        """The graph with the weights of the module, and with its own outputs only."""
        model: ir.Model = to_onnx(self.module, self._source.read())
        return model


class ModuleStudent:
    """A student that is any torch module; inner tensors are named as its submodules, whose outputs they are.

    The module is called with the inputs in the order of the interface. It gives one tensor, a sequence of them, or a
    mapping, whose values are taken in order.

    Attributes:
        module: Trained as it is, in training mode.
        learns_statistics: True: batch normalizations learn, and dropouts drop.
        is_quantized: False.
    """

    learns_statistics = True
    is_quantized = False

    def __init__(self, module: nn.Module, interface: Interface, inner: Sequence[str] = ()) -> None:
        """Args:
        module: The module.
        interface: Names, types and shapes of inputs and outputs, most often those of the teacher.
        inner: Names of submodules.

        Raises:
            UsageError: There is no such submodule.
            ModelError: Nothing in the module trains.
        """
        self.module = module
        self._interface = interface
        self._inner = [name for name in inner if name not in interface.output_names]
        self._seen: dict[str, Tensor] = {}
        self._example: dict[str, Tensor] = {}
        known = [name for name, _ in module.named_modules() if name]
        for name in self._inner:
            if name not in known:
                raise _no_such("submodule", name, known)
        self._hooks = self._tap()
        if not any(one.requires_grad for one in module.parameters()):
            raise ModelError(f"the module {type(module).__name__} has no parameters to train")

    def _tap(self) -> list[RemovableHandle]:
        return [self.module.get_submodule(name).register_forward_hook(self._hook(name)) for name in self._inner]

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise UsageError(
                    f"submodule '{name}' gives a {type(output).__name__}, no tensor", hint="Name a submodule within it."
                )
            self._seen[name] = output

        return see

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs and inner tensors by name.

        Raises:
            ModelError: The module gives another number of outputs, or something else than tensors.
        """
        self._seen.clear()
        given = _choose(self._interface.input_names, feeds)
        if not self._example:
            self._example = dict(zip(self._interface.input_names, given, strict=True))
        return self._interface.named(self.module(*given)) | self._seen

    def to_onnx(self) -> ir.Model:
        """The module as ONNX, from torch's exporter, checked in ONNX Runtime on the first batch it has seen.

        Raises:
            UsageError: It has seen none.
            ModelError: torch cannot export it.
            NotEquivalent: What it exports computes something else.
        """
        if not self._example:
            raise UsageError("the module has never been run, so that nothing is known to export it with")
        for hook in self._hooks:
            hook.remove()
        try:
            return exported(self.module, self._interface, self._example)
        finally:
            self._hooks = self._tap()


Student = GraphStudent | ModuleStudent


def open_student(
    source: Any, teacher: ir.Model, inner: Sequence[str] = (), *, data: Bound | None = None, seed: int = 0
) -> Student:
    """A student from what the user named.

    ======================================  ==========================================================================
    ``student.onnx``, or any model          that graph
    ``shrink:macs=0.25[:init=random]``      the teacher with a quarter of its multiplications, as many channels of each
                                            layer as of any other, see :func:`~graphopt.distillation.shrinking.shrink`
    ``module:factory``                      **runs that code**: called without arguments, it gives an ``nn.Module``
    an ``nn.Module``                        that module
    ======================================  ==========================================================================

    Args:
        source: See above.
        teacher: Its inputs and outputs are those of a module, too.
        inner: Names of inner tensors to give besides the outputs.
        data: For ``shrink``: samples, bound to the teacher.
        seed: Of first weights.

    Raises:
        UsageError: The spec makes no sense, or there is no inner tensor of a name.
        ModelError: The model cannot be read, or a factory gives no module.
        Infeasible: The teacher cannot be shrunk that much.
    """
    if isinstance(source, nn.Module):
        return ModuleStudent(source, Interface.of(teacher), inner)
    if is_shrunk(source):
        shrunk = shrinking.shrink(teacher, source, data=data, seed=seed)
        return GraphStudent(shrunk.model, inner, learns_statistics=shrunk.is_untrained)
    if isinstance(source, str) and names_function(source):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = _called(source, imported(source))
        if not isinstance(made, nn.Module):
            raise ModelError(f"{source} gives a {type(made).__name__}", hint="Return a torch.nn.Module.")
        return ModuleStudent(made, Interface.of(teacher), inner)
    return GraphStudent(source, inner)


def _called(source: str, factory: Any) -> Any:
    """What a factory makes; an error in it is left to tell where it is."""
    with contextlib.suppress(ValueError):  # what is written in C need not say what it takes
        try:
            inspect.signature(factory).bind()
        except TypeError as error:
            raise UsageError(
                f"{source} cannot be called without arguments: {error}", hint="Name a function that needs none."
            ) from error
    return factory()


def is_model(source: Any) -> bool:
    """Whether :func:`open_student` takes it for an ONNX model, or for the path of one."""
    if isinstance(source, str):
        return not is_shrunk(source) and not names_function(source)
    return not isinstance(source, nn.Module)


def is_shrunk(source: Any) -> bool:
    """Whether it names the teacher with fewer channels."""
    return isinstance(source, str) and source.partition(":")[0] == "shrink"


def _tap(model: ir.Model, names: Sequence[str]) -> None:
    """Makes inner values outputs."""
    known = {value.name: value for value in model.graph.inputs}
    known |= {value.name: value for node in model.graph for value in node.outputs if value.name}
    for name in names:
        if name not in known:
            raise _no_such("value", name, [one for one in known if one])
        if known[name] not in model.graph.outputs:
            model.graph.outputs.append(known[name])


def _choose(names: Sequence[str], feeds: Mapping[str, Tensor]) -> list[Tensor]:
    missing = [name for name in names if name not in feeds]
    if not missing:
        return [feeds[name] for name in names]
    if len(names) == len(feeds) == 1:
        return list(feeds.values())
    raise UsageError(
        f"the student needs {', '.join(missing)}, and the data feed {', '.join(feeds) or 'nothing'}",
        hint="Name the arrays of the data as the student's inputs.",
    )


def _no_such(kind: str, name: str, known: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, 3, 0.4) or list(known[-3:])
    return UsageError(f"the student has no {kind} '{name}'", hint=f"It has, among others: {', '.join(near)}.")
