"""The hypothesis strategy: a random model, what to feed it, and a random choice of passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper
from property.control import CONTROL
from property.maker import Maker, Value
from property.steps import STEPS

__all__ = ["Example", "models", "pass_lists"]

_INPUTS: dict[str, tuple[tuple[str | int, ...], tuple[int, ...]]] = {
    "image": (("N", 4, "H", "W"), (2, 4, 5, 6)),
    "table": (("N", 6), (2, 6)),
    "tokens": (("N", "S", 8), (2, 3, 8)),
}


class Example:
    """A model and one set of inputs; no dataclass, so that a failure prints the model as text."""

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        self.model = model
        self.feeds = feeds

    def __repr__(self) -> str:
        return f"Example(opset={self.model.opset_import[0].version})\n{onnx.printer.to_text(self.model)}"


@st.composite
def models(draw: st.DrawFn, max_steps: int = 14) -> Example:
    """Random models of opsets 11 to 23 with symbolic dims, subgraphs, functions, dead nodes and duplicate weights."""

    def choose(count: int) -> int:
        return draw(st.integers(0, count - 1)) if count > 1 else 0

    maker = Maker(choose, draw(st.sampled_from([11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])))
    chosen = [name for name in _INPUTS if choose(2)] or ["image"]
    maker.values += [Value(name, _INPUTS[name][1]) for name in chosen]
    for _ in range(draw(st.integers(1, max_steps))):
        (maker.one_of(CONTROL) if maker.coin(7) else maker.one_of(STEPS))(maker)
    return _finish(maker, chosen)


def _finish(maker: Maker, chosen: list[str]) -> Example:
    made = [one for one in maker.values if one.name not in chosen]
    if not made:
        made = [maker.add("Identity", [maker.values[0]], maker.values[0].shape)]
    results = [made[-1]]
    for _ in range(maker.choose(3)):
        extra = maker.one_of(made)
        if extra not in results:
            results.append(extra)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _INPUTS[name][0]) for name in chosen]
    inputs.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    feeds: dict[str, npt.NDArray[Any]] = {
        name: maker.random.standard_normal(_INPUTS[name][1]).astype(np.float32) for name in chosen
    }
    feeds["condition"] = np.asarray(maker.coin())
    for weight in maker.weights:  # an initializer that is an input too may be overridden by the caller
        if weight.data_type == TensorProto.FLOAT and maker.coin(8):
            inputs.append(helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
            if maker.coin():
                feeds[weight.name] = np.asarray(onnx.numpy_helper.to_array(weight) + 0.5, np.float32)
    imports = [helper.make_opsetid("", maker.opset), helper.make_opsetid("local", 1)]
    model = helper.make_model(
        maker.graph("random", inputs, results),
        opset_imports=imports,
        functions=maker.functions,
        ir_version=10 if maker.opset >= 19 else 8,
    )
    return Example(model, feeds)


def pass_lists(names: list[str]) -> st.SearchStrategy[list[str]]:
    """Any passes in any order, repetition allowed; at times the default pipeline among them."""
    return st.lists(st.sampled_from([*names, "default"]), min_size=1, max_size=8) | st.permutations(names)
