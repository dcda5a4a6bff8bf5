"""One callable that runs a session once: plain, or bound to device memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt import runtime

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["device_of", "runner"]

_DEVICES = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
}


def device_of(provider: str) -> str:
    """The memory in which an execution provider wants its tensors, in ONNX Runtime's words."""
    return _DEVICES.get(provider, "cpu")


def runner(
    session: ort.InferenceSession, feeds: Mapping[str, Any], *, device: str | None = None
) -> Callable[[], object]:
    """A callable that runs ``session`` on ``feeds`` once and returns when the outputs are there.

    Args:
        session: An open session.
        feeds: What to feed each input, see :data:`graphopt.verify.feeds.Feeds`.
        device: ``None`` hands arrays over at each run. Otherwise inputs are copied to that device (``"cpu"``,
            ``"cuda"``) once, outputs stay there, and each run ends with a device synchronization: the time is the
            model's alone. Sequences, maps and strings have no device form; a model with those runs unbound.
    """
    import onnxruntime as ort

    outputs = [output.name for output in session.get_outputs()]
    fed = {value.name: feeds[value.name] for value in session.get_inputs()}
    if not all(_is_native(array) for array in fed.values()):
        values = {name: runtime.to_ort_value(array) for name, array in fed.items()}
        return lambda: session.run_with_ort_values(outputs, values)
    if device is None or not _bindable(session):
        return lambda: session.run(outputs, fed)
    binding = session.io_binding()
    for name, array in fed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0))
    for name in outputs:
        binding.bind_output(name, device_type=device, device_id=0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _bindable(session: ort.InferenceSession) -> bool:
    kinds = [argument.type for argument in (*session.get_inputs(), *session.get_outputs())]
    return all(kind.startswith("tensor(") and kind != "tensor(string)" for kind in kinds)


def _is_native(feed: object) -> bool:
    """Whether ``session.run`` takes it: anything but an array of a type that NumPy lacks (bfloat16, int4)."""
    return not isinstance(feed, np.ndarray) or feed.dtype.isbuiltin == 1
