"""What ONNX Runtime's NNAPI and CoreML providers take: the lists that ONNX Runtime ships, and what they ask of a node.

The lists (``onnxruntime/tools/mobile_helpers/*.md``) belong to the installed version. Their notes are prose; those that
decide about whole layers are written as demands here, the others are passed on. What is asked of every node (fixed
shapes, float32, at most five axes for CoreML, no branch or loop body) is in ``base_op_builder.cc`` and
``*_execution_provider.cc`` of the two, under ``onnxruntime/core/providers``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx_ir as ir

from graphopt.errors import EnvironmentProblem
from graphopt.mobile.demands import BIAS, PLANES, Demand, Kind, Row, constant, constant_if_given, is_set
from graphopt.mobile.sight import QUANTIZED_TYPES

__all__ = ["COREML_NETWORK", "COREML_PROGRAM", "FLOAT32", "NNAPI", "operators"]

FLOAT32: Final = frozenset({ir.DataType.FLOAT})

_FLOAT_NAMES: Final = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}

_ANY_TYPE: Final = frozenset(
    {"And", "ArgMax", "Cast", "Concat", "DequantizeLinear", "Flatten", "Gather", "GatherND", "Identity", "QLinearAdd",
     "QLinearAveragePool", "QLinearConv", "QLinearMatMul", "QLinearSigmoid", "Reshape", "Shape", "Slice", "Split",
     "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip
"""Operators that move data, convert them, or compute in integers; all others compute in floats."""

_SPELLINGS: Final = {"Argmax": "ArgMax"}
"""Names that the lists misspell."""

_LINES: Final = Demand(
    Kind.AXES,
    "it has neither one nor two spatial axes",
    lambda s: (dims := s.dims()) is not None and len(dims) in (3, 4),
)
_DEPTH_FIRST: Final = is_set("mode", "DCR", "DCR", "it does not go by depth, column, row (mode)")
_SCALES: Final = (constant(1, "scale"), constant_if_given(2, "zero point"))
_PADS: Final = (
    is_set("mode", "constant", "constant", "it does not pad with a constant"),
    constant(1, "padding"),
    constant_if_given(2, "padding"),
)
_LIMITS: Final = tuple(constant_if_given(index, "limits") for index in (1, 2, 3, 4))
_SPLIT: Final = (constant_if_given(1, "split"),)
_POOLS: Final = dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), (PLANES,))

NNAPI: Final[Mapping[str, tuple[Demand, ...]]] = {
    **_POOLS,
    "Conv": (PLANES, constant(1, "weight"), BIAS),
    "DepthToSpace": (_DEPTH_FIRST,),
    "DequantizeLinear": _SCALES,
    "Gather": (
        Demand(
            Kind.CONSTANT,
            "its indices are computed while the model runs, and not in int32",
            lambda s: s.constant(1) is not None or s.dtype(1) is ir.DataType.INT32,
        ),
    ),
    "Gemm": (
        Demand(
            Kind.CONSTANT,
            "its weight is computed while the model runs, and not transposed",
            lambda s: s.constant(1) is not None or s.attribute("transB", 0) == 1,
        ),
    ),
    "Pad": _PADS,
    "QLinearConv": (PLANES, constant(3, "weight"), constant_if_given(8, "bias")),
    "QuantizeLinear": _SCALES,
    "Resize": (PLANES,),
    "Split": _SPLIT,
    "Squeeze": (constant_if_given(1, "axes"),),
    "Unsqueeze": (constant_if_given(1, "axes"),),
}
COREML_PROGRAM: Final[Mapping[str, tuple[Demand, ...]]] = {
    **_POOLS,
    "Conv": (_LINES, BIAS),
    "ConvTranspose": (constant(1, "weight"), BIAS),
    "Gemm": (constant(1, "weight"),),
    "Slice": _LIMITS,
    "Split": _SPLIT,
}
COREML_NETWORK: Final[Mapping[str, tuple[Demand, ...]]] = {
    **_POOLS,
    "Conv": (_LINES, constant(1, "weight"), BIAS),
    "DepthToSpace": (_DEPTH_FIRST,),
    "Gather": (Demand(Kind.AXES, "its index is a scalar", lambda s: s.dims(1) != ()),),
    "Gemm": (constant(1, "weight"),),
    "MatMul": (constant(1, "weight"),),
    "PRelu": (constant(1, "slope"),),
    "Pad": _PADS,
    "Resize": (
        PLANES,
        is_set("coordinate_transformation_mode", "asymmetric", "half_pixel", "it places its samples otherwise"),
    ),
    "Slice": _LIMITS,
    "Split": _SPLIT,
}


def operators(page: str, demands: Mapping[str, tuple[Demand, ...]], types: frozenset[ir.DataType]) -> Mapping[str, Row]:
    """A provider's operators, from the page about it that the installed ONNX Runtime brings.

    Args:
        page: Its file name.
        demands: What some operators ask for.
        types: What the others compute in.

    Raises:
        EnvironmentProblem: There is no such page.
    """
    path = _pages() / page
    if not path.is_file():
        raise EnvironmentProblem(
            f"the installed onnxruntime has no {page}, which lists what runs on phones",
            hint="Install another build of onnxruntime: the official ones bring it.",
        )
    names = " or ".join(_FLOAT_NAMES[one] for one in sorted(types))
    floats = Demand(
        Kind.TYPE, f"it does not compute in {names}", lambda s: s.dtype() in (QUANTIZED_TYPES if s.quantized else types)
    )
    rows = {}
    for line in path.read_text("utf-8").splitlines():
        name, _, note = line.strip("|").partition("|")
        domain, dot, operator = name.replace("ai.onnx.", "ai.onnx:").partition(":")  # one row has a typo
        if line.startswith("|") and dot:
            key = _SPELLINGS.get(operator, operator) if domain == "ai.onnx" else f"{domain}::{operator}"
            general = () if key.rpartition("::")[2] in _ANY_TYPE else (floats,)
            rows[key] = Row((*general, *demands.get(key, ())), note="" if key in demands else _plain(note))
    return rows


def _pages() -> Path:
    found = importlib.util.find_spec("onnxruntime")  # its package 'tools' would import torch
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tools" / "mobile_helpers"


def _plain(note: str) -> str:
    return note.replace("<br/>", " ").replace("`", "").strip()
