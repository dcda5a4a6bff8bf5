"""What operators do to channels, and why some stay, in plain words."""

from __future__ import annotations

__all__ = ["MOVERS", "does", "plain"]

MOVERS = frozenset(
    {
        "Cast", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that move elements about; what couples layers is rather what comes before or after."""

_TOGETHER = {
    **dict.fromkeys(("Add", "Sum", "com.microsoft::BiasGelu", "com.microsoft::FastGelu"), "adds them"),
    **dict.fromkeys(("MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul"), "multiplies them"),
    **dict.fromkeys(("Max", "Min", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), "compares them"),
    **dict.fromkeys(("And", "Or", "Xor"), "combines them"),
    **dict.fromkeys(("Reshape", "Flatten", "DepthToSpace", "SpaceToDepth"), "rearranges them"),
    **dict.fromkeys(("Slice", "Split"), "cuts them out of one tensor"),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Transpose", "Expand"), "passes them on"),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"), "takes them in"),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "runs them through one state"),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), "attends head by head"),
    "Concat": "joins them",
    "Div": "divides them",
    "Gather": "picks them",
    "If": "gives one or the other",
    "Mean": "averages them",
    "Mul": "multiplies them",
    "Pad": "pads them",
    "Pow": "raises one to the other",
    "Sub": "subtracts them",
    "SkipLayerNormalization": "adds them",
    "SkipSimplifiedLayerNormalization": "adds them",
    "Tile": "repeats them",
    "Where": "chooses between them",
}

_PLAIN = (
    ("zero is not absent", "a channel of zeros still counts there, so that a model without it gives something else"),
    ("when masked", "a channel that is switched off is not zero there, so that a sum without it is another sum"),
    ("is not finite", "a channel that is switched off has no finite value there"),
    ("zero when masked", "a channel that is switched off would be divided by"),
    ("has no rule", "graphopt does not know how this operator treats channels, and leaves alone what it touches"),
    ("part of the model's", "callers rely on its size"),
    ("caller may override", "a caller may pass a tensor of the old size"),
    ("mixed with their neighbours", "it counts positions, not channels"),
    ("it is a window", "it is the extent of a kernel"),
    ("not known to be equal", "the shapes do not tell whether the two sizes are the same"),
    ("unknown size", "the shapes do not tell its size"),
    ("size is not known", "the shapes do not tell its size"),
    ("positions that are not known", "where it is cut is only known at run time"),
    ("indexed at run time", "which of its places are read is only known at run time"),
    ("picked by number", "a single place of it is read by its number"),
    ("cuts across its factors", "no channel before is a whole number of channels after"),
    ("body of a loop", "what enters a loop keeps its size"),
    ("at this granularity", "heads and the channels within them cannot both be free; see --granularity"),
    ("several factors", "it is in one axis twice"),
    ("only constants", "no tensor that is computed has it"),
    ("looks along it", "every place of it has a say in the result"),
    ("mixes neighbouring channels", "a channel's result depends on the channels beside it"),
    ("measured over all lanes", "the range of a quantized tensor would change"),
    ("it counts", "it is a number of parts, not of channels"),
    ("summed along", "every place of it has a say in those after it"),
    ("there is only one", "nothing would be left"),
)  # fmt: skip


def does(operator: str) -> str:
    """What an operator does with the channels of several layers, as in "Add adds them"."""
    return _TOGETHER.get(operator) or _TOGETHER.get(operator.rpartition("::")[2]) or "needs them alike"


def plain(reason: str) -> str:
    """What a reason means for someone who has not read the operator's definition; empty where it says it itself."""
    return next((words for part, words in _PLAIN if part in reason), "")
