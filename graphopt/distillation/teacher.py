"""Teachers: models that ONNX Runtime runs, asked by the names of their outputs and inner values."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from graphopt import extraction, runtime
from graphopt.distillation.batch import TopK
from graphopt.errors import ModelError, UsageError
from graphopt.interop.kinds import Source
from graphopt.pruning.plan import digest_of, digest_of_weights
from graphopt.torch.outputs import Kind, kinds

__all__ = ["Feeds", "Ids", "Targets", "Teacher"]

Ids: TypeAlias = npt.NDArray[np.int64]
Feeds: TypeAlias = Mapping[str, Any]
"""Input name -> array or tensor of one batch."""

_CONFIG: Final = {"session.force_spinning_stop": "1"}
"""Idle threads of ONNX Runtime would spin and keep the cores from the student."""


class Targets(Protocol):
    """What one teacher says of samples: a cache of it, or the :class:`Teacher` itself."""

    def targets(self, ids: Ids, view: int, feeds: Feeds) -> Mapping[str, Tensor | TopK]:
        """Outputs and inner values by name, samples first.

        Args:
            ids: ``(B,)``, the number of each sample in the data.
            view: Number of the augmentation seed by which ``feeds`` were made; 0 without augmentation.
            feeds: The samples, as the model takes them.
        """


class Teacher:
    """A model in an ONNX Runtime session. Safe to ask from another thread: a run holds no lock of Python's.

    Attributes:
        names: What it gives, in order.
        kinds: Of each name, what the values are; inner values are ``values``.
        inputs: Names of what it must be fed.
        provider: ONNX Runtime's name of the execution provider.
    """

    def __init__(
        self,
        source: Any,
        names: Sequence[str] | None = None,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        custom_ops: Sequence[str] = (),
        device: int = 0,
    ) -> None:
        """Opens a model; nodes that nothing in ``names`` needs are left out.

        Args:
            source: A path, an ``ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``.
            names: Outputs and inner values of the main graph; None for all outputs.
            provider: ``cpu``, ``cuda``, ``auto``, or any other execution provider.
            threads: Intra-op threads; None leaves it to ONNX Runtime.
            custom_ops: Libraries of custom operators.
            device: Number of the CUDA device.

        Raises:
            UsageError: The model has no such value; near names are listed.
            ModelError: It cannot be read, or ONNX Runtime refuses it.
            EnvironmentProblem: The provider is missing.
        """
        model = Source.of(source).read()
        outputs: dict[str, Kind] = {
            value.name or "": kind if value.dtype is None or value.dtype.is_floating_point() else "values"
            for value, kind in zip(model.graph.outputs, kinds(model), strict=True)
        }
        self.names = tuple(dict.fromkeys(outputs if names is None else names))
        if not self.names:
            raise UsageError("nothing is asked of the teacher", hint="Name one of its outputs or inner values.")
        self.kinds: Mapping[str, Kind] = {name: outputs.get(name, "values") for name in self.names}
        self._model = model
        self._session = runtime.open_session(
            extraction.extract(model, [], self.names),
            provider=provider,
            threads=threads,
            custom_ops=custom_ops,
            config=_CONFIG,
            device=device,
        )
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.provider: str = self._session.get_providers()[0]
        on_cuda = self.provider == "CUDAExecutionProvider" and torch.cuda.is_available()
        self._device = torch.device("cuda", device) if on_cuda else torch.device("cpu")
        self._truths = {entry.name for entry in self._session.get_outputs() if entry.type == "tensor(bool)"}
        self._fixed = _fixed_batch([entry.shape for entry in self._session.get_inputs()])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the whole model: graph, attributes, functions and weights, whatever ``names`` are."""
        found = hashlib.sha256(f"{digest_of(self._model)} {digest_of_weights(self._model)}".encode())
        found.update(repr(sorted(self._model.graph.opset_imports.items())).encode())
        for function in self._model.functions.values():
            found.update(ir.to_proto(function).SerializeToString(deterministic=True))
        return found.hexdigest()

    def targets(self, ids: Ids, view: int, feeds: Feeds) -> Mapping[str, Tensor | TopK]:
        """See :class:`Targets`; the model is run."""
        return self.tensors(feeds)

    def outputs(self, feeds: Feeds) -> dict[str, np.ndarray[Any, Any]]:
        """What :meth:`tensors` gives, as arrays; bfloat16 becomes float32, which NumPy has."""
        return {name: _to_array(tensor) for name, tensor in self.tensors(feeds).items()}

    def tensors(self, feeds: Feeds) -> dict[str, Tensor]:
        """Runs a batch and gives what the session's own memory holds, without copying it.

        On CUDA the tensors stay on the device, and CUDA tensors among ``feeds`` are read where they are. Where the
        model fixes the size of its batch, others are cut and filled up to it.

        Args:
            feeds: By input name; one that the teacher does not have is passed over. The one input of a teacher takes
                a single feed of any name.

        Raises:
            UsageError: An input is not fed.
            ModelError: ONNX Runtime cannot run the batch.
        """
        chosen = self._choose(feeds)
        rows = len(chosen[self.inputs[0]]) if self._fixed else 0
        if rows == self._fixed:
            return self._run(chosen)
        if not rows:
            raise UsageError("a batch without samples is none")
        runs = []
        for start in range(0, rows, self._fixed):
            places = np.minimum(np.arange(start, start + self._fixed), rows - 1)
            runs.append(self._run({name: value[places] for name, value in chosen.items()}))
        for name in self.names:
            if runs[0][name].shape[:1] != (self._fixed,):
                raise UsageError(
                    f"the teacher takes {self._fixed} samples at once, and '{name}' has no axis of them",
                    hint=f"Train with batches of {self._fixed}, or export the teacher with a free batch dimension.",
                )
        return {name: torch.cat([run[name] for run in runs])[:rows] for name in self.names}

    def _choose(self, feeds: Feeds) -> Feeds:
        """The feeds that the session takes."""
        missing = [name for name in self.inputs if name not in feeds]
        if not missing:
            return {name: feeds[name] for name in self.inputs}
        if len(self.inputs) == len(feeds) == 1:
            return {self.inputs[0]: next(iter(feeds.values()))}
        raise UsageError(
            f"the teacher needs {_quoted(missing)}, and the data feed {_quoted(feeds) or 'nothing'}",
            hint="Name the arrays of the data as the teacher's inputs; the student passes over what it does not take.",
        )

    def _run(self, feeds: Feeds) -> dict[str, Tensor]:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        try:
            # A binding writes each run over the last one's outputs: a fresh one leaves them to the caller.
            binding = self._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, _to_ort(value, self._device))
            for name in self.names:
                binding.bind_output(name, self._device.type, self._device.index or 0)
            self._session.run_with_iobinding(binding)
            found = dict(zip(self.names, map(from_dlpack, binding.get_outputs()), strict=True))
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the teacher on the data: {runtime.trim(error)}") from error
        return {name: one.view(torch.bool) if name in self._truths else one for name, one in found.items()}


@dataclasses.dataclass(frozen=True)
class _Truths:
    """A tensor of bool, which ONNX Runtime takes as bytes only, and recognises by ``dtype``."""

    tensor: Tensor
    dtype: torch.dtype = torch.bool

    def __dlpack__(self) -> object:
        return self.tensor.view(torch.uint8).__dlpack__()


def _to_ort(value: Any, device: torch.device) -> Any:
    """A feed as a tensor of ONNX Runtime, in the same memory if that is on the device already."""
    if isinstance(value, np.ndarray):
        if device.type == "cpu" or value.dtype.kind in "OSU":
            return runtime.to_ort_value(value)
        value = torch.from_numpy(np.ascontiguousarray(value))
    from onnxruntime import OrtValue

    tensor = value.detach().to(device).contiguous()
    return OrtValue.from_dlpack(_Truths(tensor) if tensor.dtype == torch.bool else tensor)


def _to_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    whole = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    array: np.ndarray[Any, Any] = whole.cpu().numpy()
    return array


def _fixed_batch(shapes: Sequence[Sequence[int | str | None]]) -> int:
    """The leading size that all inputs declare; 0 if it is free, or not the same for all."""
    sizes = {shape[0] if shape else None for shape in shapes}
    only = sizes.pop() if len(sizes) == 1 else None
    return only if isinstance(only, int) else 0


def _quoted(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)
