"""The one place that opens ONNX Runtime sessions: providers, options, and errors in ONNX Runtime's words, trimmed."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from graphopt.errors import EnvironmentProblem, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir
    import onnxruntime as ort

# ONNX Runtime's newer official builds tell their makers what they run, and leave a file ``.ses`` behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ELEMENT_TYPES",
    "PLACEHOLDER",
    "Optimization",
    "open_session",
    "ort_errors",
    "resolve_provider",
    "to_ort_value",
    "trim",
    "version",
]

Optimization = Literal["off", "basic", "extended", "all"]

PLACEHOLDER: Final = "runtime.py"
"""External-data location of initializers that are handed over as arrays.

ONNX Runtime insists that the file exists inside the folder it was told (this package's), though the array replaces
it. With ``SessionOptions.add_initializer`` the array's own memory is used; ``add_external_initializers`` copies it.
"""

ELEMENT_TYPES: Final[Mapping[str, int]] = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
}
"""ONNX element types of the ml_dtypes names that NumPy and ONNX Runtime's bindings do not share."""

_PACKED: Final[Mapping[int, int]] = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
_PACKAGE: Final = Path(__file__).parent
_FAITHFUL: Final[Mapping[str, str]] = {
    # at level 2 ONNX Runtime would turn int8 DequantizeLinear+MatMul into a kernel that accumulates in int8
    "session.qdq_matmulnbits_accuracy_level": "0",
    "session.disable_prepacking": "1",
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}
_SILENT: Final = 4  # ORT_LOGGING_LEVEL_FATAL: everything that matters comes back as an exception
_INSTALL: Final[Mapping[str, str]] = {
    "CUDAExecutionProvider": "Install onnxruntime-gpu with the CUDA and cuDNN it was built for "
    "(pip install 'onnxruntime-gpu[cuda,cudnn]'), and check that nvidia-smi shows a device.",
    "TensorrtExecutionProvider": "Install onnxruntime-gpu and the TensorRT it was built for.",
    "OpenVINOExecutionProvider": "Install onnxruntime-openvino instead of onnxruntime.",
    "DmlExecutionProvider": "Install onnxruntime-directml instead of onnxruntime.",
}
# y = Identity(x) on float[1], IR 7, opset 13: the least that makes a provider initialise.
_PROBE: Final = bytes.fromhex(
    "080712003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808"
    "0112040a02080142040a00100d"
)
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE: Final = re.compile(
    r"\S*onnxruntime_src\S+:\d+ (?:[^()\[\]]*\([^()]*(?:\([^()]*\)[^()]*)*\)(?:::<lambda\([^>]*>)?(?: const)?"
    r"(?: \[with [^\]]*\])?)?|\S+\.(?:cc|h|cu):\d+ ?\S*"
)


@functools.cache
def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentProblem(
            f"onnxruntime cannot be imported: {error}",
            hint="Install exactly one of onnxruntime and onnxruntime-gpu; 'graphopt doctor' says what is there.",
        ) from error
    return onnxruntime


def version() -> str:
    """The version of the onnxruntime that is installed.

    Raises:
        EnvironmentProblem: None is.
    """
    return str(_onnxruntime().__version__)


@functools.cache
def ort_errors() -> tuple[type[Exception], ...]:
    """All exceptions by which ONNX Runtime reports a failure; they share no base class of their own."""
    _onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def trim(error: BaseException | str, limit: int = 500) -> str:
    """An ONNX Runtime message without error code, source lines and C++ signatures, in one line, cut at ``limit``."""
    text = _PREFIX.sub("", str(error).strip())
    text = " ".join(_SOURCE.sub("", text).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def resolve_provider(name: str) -> str:
    """ONNX Runtime's name of an execution provider: ``cpu``, ``cuda``, ``auto`` (CUDA if it works), or any other.

    Raises:
        EnvironmentProblem: ONNX Runtime here does not have the provider, or cannot start it.
    """
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    wanted = name.strip().casefold().removesuffix("executionprovider")
    if wanted == "cpu":
        return cpu
    here: list[str] = list(_onnxruntime().get_available_providers())
    if wanted == "auto":
        return cuda if cuda in here and _starts(cuda) else cpu
    short = {provider.casefold().removesuffix("executionprovider"): provider for provider in here}
    have = ", ".join(short.values())
    if wanted not in short:
        full = {known.casefold().removesuffix("executionprovider"): known for known in _INSTALL}.get(wanted, name)
        raise EnvironmentProblem(
            f"onnxruntime {_onnxruntime().__version__} has no execution provider '{full}' here; it has: {have}",
            hint=_INSTALL.get(full, "Install the onnxruntime package that brings it, or use --provider cpu."),
        )
    if not _starts(short[wanted]):
        raise EnvironmentProblem(
            f"onnxruntime {_onnxruntime().__version__} was built with {short[wanted]} but cannot start it on this "
            "machine: its libraries or the device are missing",
            hint=_INSTALL.get(short[wanted], "Check the libraries that this provider needs, or use --provider cpu."),
        )
    return short[wanted]


@functools.cache
def _starts(provider: str) -> bool:
    """Whether the provider initialises; ONNX Runtime itself only logs that it fell back to the CPU."""
    ort = _onnxruntime()
    _preload(provider)
    ort.set_default_logger_severity(_SILENT)
    try:
        session = ort.InferenceSession(_PROBE, _options(None, "off"), providers=[provider], enable_fallback=0)
    except ort_errors():
        return False
    finally:
        ort.set_default_logger_severity(2)
    return provider in session.get_providers()


@functools.cache
def _preload(provider: str) -> None:
    """Load the CUDA and cuDNN libraries that pip installed, which are on no search path."""
    preload = getattr(_onnxruntime(), "preload_dlls", None)
    if preload is None or provider not in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        return
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; _starts() decides
        preload()


def _options(threads: int | None, optimization: Optimization, *, faithful: bool = False) -> Any:
    ort = _onnxruntime()
    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.graph_optimization_level = {
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[optimization]
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if faithful:
        options.use_deterministic_compute = True
        options.enable_cpu_mem_arena = False  # it would keep the peak of every run
        for key, value in _FAITHFUL.items():
            options.add_session_config_entry(key, value)
    return options


def open_session(
    source: Path | bytes | ir.Model,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    optimization: Optimization = "all",
    custom_ops: Sequence[str] = (),
    arrays: Mapping[str, np.ndarray[Any, Any]] = {},
    faithful: bool = False,
    config: Mapping[str, str] = {},
    device: int = 0,
    profile: Path | None = None,
    saved: Path | None = None,
) -> ort.InferenceSession:
    """Open a model for running.

    A path is opened by ONNX Runtime itself, which maps external data; the big initializers of an in-memory model
    are used where they lie. Neither costs a second copy of the weights.

    Args:
        source: A file, a serialized model, or a model.
        provider: An execution provider, see :func:`resolve_provider`.
        threads: Intra-op threads; None leaves it to ONNX Runtime.
        optimization: ONNX Runtime's own graph optimizations.
        custom_ops: Libraries of custom operators. Nothing is ever loaded that is not named here.
        arrays: Initializers, by name, that serialized bytes only refer to (``proto.to_session_bytes``).
        faithful: For comparing results: no approximate kernels, no prepacked second copy of the weights, threads
            that sleep when they wait, deterministic kernels.
        config: Further session configuration entries.
        device: Number of the CUDA device; other providers have none.
        profile: Where a profile goes, without the date and ending that ONNX Runtime adds; none is taken if None.
        saved: Where ONNX Runtime saves the model as it has optimized it.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        UsageError: A custom-operator library is missing or cannot be loaded.
        EnvironmentProblem: The provider is missing.
    """
    ort = _onnxruntime()
    name = resolve_provider(provider)
    options = _options(threads, optimization, faithful=faithful)
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    for library in custom_ops:
        _register(options, library)
    if not isinstance(source, (Path, bytes)):
        from graphopt import proto

        source, arrays = proto.to_session_bytes(source)
    values = [(key, to_ort_value(array)) for key, array in arrays.items()]
    if values:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(_PACKAGE))
    providers = _providers(name, device)
    try:
        if optimization in ("extended", "all"):
            # These optimizers read initializers from the file that they claim to lie in, unless they are injected.
            options.add_external_initializers([key for key, _ in values], [value for _, value in values])
        else:
            for key, value in values:
                options.add_initializer(key, value)
        model = os.fspath(source) if isinstance(source, Path) else source
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except ort_errors() as error:
        where = f"{source}: " if isinstance(source, Path) else ""
        raise ModelError(f"{where}ONNX Runtime cannot load the model: {trim(error)}") from error
    if name not in session.get_providers():
        raise EnvironmentProblem(f"{name} did not start for this model", hint=_INSTALL.get(name, ""))
    session.graphopt_initializers = values  # ONNX Runtime keeps only pointers into them
    return session


def _providers(name: str, device: int) -> list[str | tuple[str, dict[str, str]]]:
    """A provider, with its device if it has any, and the CPU to fall back to."""
    cpu = "CPUExecutionProvider"
    if name == cpu:
        return [cpu]
    return [(name, {"device_id": str(device)}) if name == "CUDAExecutionProvider" and device else name, cpu]


def _register(options: Any, library: str) -> None:
    path = Path(library).absolute()
    if not path.is_file():
        raise UsageError(f"custom-operator library {path} does not exist")
    try:
        options.register_custom_ops_library(str(path))
    except ort_errors() as error:
        raise UsageError(f"custom-operator library {path} cannot be loaded: {trim(error)}") from error


def to_ort_value(array: np.ndarray[Any, Any]) -> Any:
    """A tensor of ONNX Runtime over a NumPy array, sharing its memory where the type and layout allow.

    Arrays of ml_dtypes types (bfloat16, float8, int4 ...) become tensors of the matching ONNX type.
    """
    import numpy as np

    value = _onnxruntime().OrtValue
    element = ELEMENT_TYPES.get(array.dtype.name)
    if element is None:
        return value.ortvalue_from_numpy(array if array.flags.c_contiguous else np.ascontiguousarray(array))
    raw = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
    bits = _PACKED.get(element)
    if bits is None:
        return value.ortvalue_from_numpy_with_onnx_type(raw, element)
    tensor = value.ortvalue_from_shape_and_type(list(array.shape), element)
    packed = _pack(raw.ravel(), bits)
    import ctypes

    ctypes.memmove(tensor.data_ptr(), packed.ctypes.data, packed.nbytes)
    return tensor


def _pack(raw: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Several small integers to a byte, the first in the low bits, as ONNX stores them."""
    import numpy as np

    per_byte = 8 // bits
    padded = np.zeros(-(-raw.size // per_byte) * per_byte, np.uint8)
    padded[: raw.size] = raw & ((1 << bits) - 1)
    lanes = padded.reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    packed: np.ndarray[Any, Any] = np.bitwise_or.reduce(lanes << shifts, axis=1)
    return packed
