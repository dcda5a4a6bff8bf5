"""How much work one operator does, as a table from operator to formula.

A formula sees shapes and attributes, never data, and gives :class:`Work`: multiply-accumulates of linear algebra, and
every other arithmetic operation. One operation is an addition, a comparison, a multiplication or a transcendental
function alike. Moving data is no work; it shows in the bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["GATHERS", "RULES", "VIEWS", "Operands", "Unknown", "Work"]

Shape = tuple[int, ...]


class Unknown(Exception):
    """A shape that a formula needs is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates, and the other operations."""

    macs: int = 0
    other: int = 0


class Operands:
    """A node as formulas see it.

    Args:
        node: The node.
        shape: Gives a value's concrete shape, or ``None``.
    """

    __slots__ = ("_shape", "node")

    def __init__(self, node: ir.Node, shape: Callable[[ir.Value], Shape | None]) -> None:
        self.node = node
        self._shape = shape

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def input(self, index: int = 0) -> Shape:
        """The shape of an input; raises :class:`Unknown`."""
        return self._known(self.node.inputs[index] if self.has(index) else None)

    def output(self, index: int = 0) -> Shape:
        """The shape of an output; raises :class:`Unknown`."""
        return self._known(self.node.outputs[index] if index < len(self.node.outputs) else None)

    def _known(self, value: ir.Value | None) -> Shape:
        shape = None if value is None else self._shape(value)
        if shape is None:
            raise Unknown
        return shape

    def size_in(self, index: int = 0) -> int:
        """The elements of an input."""
        return math.prod(self.input(index))

    def size_out(self, index: int = 0) -> int:
        """The elements of an output."""
        return math.prod(self.output(index))

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None or attribute.is_ref() else attribute.as_int()

    def integers(self, name: str) -> Sequence[int]:
        """An attribute of integers; empty when absent."""
        attribute = self.node.attributes.get(name)
        return () if attribute is None or attribute.is_ref() else attribute.as_ints()

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None or attribute.is_ref() else attribute.as_string()


Rule = Callable[[Operands], Work]


def _convolution(weight: int, bias: int | None = None) -> Rule:
    """Every output element takes one row of the (M, C/group, *kernel) weights."""

    def rule(node: Operands) -> Work:
        kernel = node.input(weight)
        if not kernel or not kernel[0]:
            raise Unknown
        out = node.size_out()
        return Work(out * (math.prod(kernel) // kernel[0]), out if bias is not None and node.has(bias) else 0)

    return rule


def _transposed_convolution(node: Operands) -> Work:
    """Every input element is spread over one row of the (C, M/group, *kernel) weights."""
    kernel = node.input(1)
    if not kernel or not kernel[0]:
        raise Unknown
    return Work(node.size_in() * (math.prod(kernel) // kernel[0]), node.size_out() if node.has(2) else 0)


def _causal_convolution(node: Operands) -> Work:
    return Work(node.size_out() * node.input(1)[-1], node.size_out() if node.has(2) else 0)


def _matmul(transposed: str = "", bias: int | None = None) -> Rule:
    """Every output element is a dot product over the last axis of the first input (the first where transposed)."""

    def rule(node: Operands) -> Work:
        left = node.input()
        if not left:
            raise Unknown
        inner = left[-2] if transposed and node.integer(transposed) and len(left) > 1 else left[-1]
        return Work(node.size_out() * inner, node.size_out() if bias is not None and node.has(bias) else 0)

    return rule


def _einsum(node: Operands) -> Work:
    """One multiplication less than operands for every point of the index space, as written (no reassociation)."""
    equation = node.text("equation").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    extents: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = node.input(index)
        head, dots, tail = term.partition("...")
        spread = len(shape) - len(head) - len(tail)
        if spread < 0 or (spread and not dots):
            raise Unknown
        letters = [*head, *(f"...{position}" for position in range(-spread, 0)), *tail]
        for letter, extent in zip(letters, shape, strict=True):
            extents[letter] = max(extents.get(letter, 1), extent)
    points = math.prod(extents.values())
    if len(terms) == 1:
        return Work(other=points if points > node.size_out() else 0)
    return Work(points * (len(terms) - 1))


def _recurrent(per_unit: int) -> Rule:
    """Each step multiplies by all of W and R; ``per_unit`` counts the gates' elementwise work a hidden unit."""

    def rule(node: Operands) -> Work:
        x, weights, recurrence = node.input(0), node.size_in(1), node.size_in(2)
        if len(x) != 3:
            raise Unknown
        steps = x[0] * x[1]
        directions = node.input(2)[0]
        return Work(steps * (weights + recurrence), steps * directions * node.integer("hidden_size") * per_unit)

    return rule


def _attention(node: Operands) -> Work:
    """ai.onnx Attention: queries against keys, weights against values; a causal mask saves nothing."""
    keys = node.input(1)[-2] if len(node.input(1)) == 4 else node.input(1)[1]
    keys += node.input(4)[-2] if node.has(4) else 0
    return _scores(node.size_in() + node.size_out(), keys, node.size_in() // max(1, node.input()[-1]))


def _multi_head_attention(node: Operands) -> Work:
    """com.microsoft: queries (B, S, H), packed (B, S, N, 3, D); keys (B, L, H), (B, N, L, D) or (B, L, N, 2, D)."""
    query = node.input()
    keys = query[1]
    if node.has(1):
        key = node.input(1)
        keys = key[2] if len(key) == 4 else key[1]
    keys += node.input(6)[2] if node.has(6) else 0
    queries = node.size_in() // (3 if len(query) == 5 else 1)
    return _scores(queries + node.size_out(), keys, query[0] * query[1])


def _group_query_attention(node: Operands) -> Work:
    batch, length = node.input()[:2]
    keys = length + (node.input(3)[2] if node.has(3) else 0)
    return _scores(2 * node.size_out(), keys, batch * length)


def _attention_with_projection(past: int) -> Rule:
    """com.microsoft Attention: one weight (I, 3H) projects the input (B, S, I) first."""

    def rule(node: Operands) -> Work:
        batch, length, _ = node.input()
        keys = length + (node.input(past)[3] if node.has(past) else 0)
        scores = _scores(2 * node.size_out(), keys, batch * length)
        return Work(scores.macs + batch * length * node.size_in(1), scores.other)

    return rule


def _scores(elements: int, keys: int, rows: int) -> Work:
    """``elements`` of queries and outputs, each against all ``keys``; a softmax over every row of keys."""
    return Work(elements * keys, 5 * rows * keys)


def _pool(node: Operands) -> Work:
    return Work(other=node.size_out() * math.prod(node.integers("kernel_shape")))


def _resize(node: Operands) -> Work:
    """Neighbours read for each output element: 2 (linear) or 4 (cubic) along each resized axis."""
    taps = {"linear": 2, "cubic": 4}.get(node.text("mode", "nearest"), 0)
    if not taps:
        return Work()
    resized = sum(before != after for before, after in zip(node.input(), node.output(), strict=False))
    return Work(other=2 * node.size_out() * taps**resized if resized else 0)


def _local_response(node: Operands) -> Work:
    return Work(other=node.size_out() * (2 * node.integer("size", 1) + 3))


def _fourier(node: Operands) -> Work:
    """5 N log2 N for each transform, the usual count of a radix-2 FFT."""
    points = node.size_out() // 2 if node.output()[-1] == 2 else node.size_out()
    length = max(2, max(node.input(), default=2))
    return Work(other=int(5 * points * math.log2(length)))


def _linear_model(node: Operands) -> Work:
    coefficients = node.node.attributes.get("coefficients")
    shape = node.input()
    rows = shape[0] if len(shape) > 1 else 1
    return Work(0 if coefficients is None else rows * len(coefficients.as_floats()), rows)


def _per_output(operations: int) -> Rule:
    return lambda node: Work(other=operations * node.size_out())


def _per_input(operations: int) -> Rule:
    return lambda node: Work(other=operations * node.size_in())


def _variadic(node: Operands) -> Work:
    return Work(other=node.size_out() * max(1, len(node.node.inputs) - 1))


def _nothing(node: Operands) -> Work:
    return Work()


VIEWS: Final = frozenset(
    {
        "Constant", "Dropout", "Flatten", "Identity", "If", "Loop", "Optional", "OptionalGetElement",
        "OptionalHasElement", "Reshape", "Scan", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceLength",
        "SequenceMap", "Shape", "Size", "Squeeze", "Unsqueeze", "ZipMap",
    }
)  # fmt: skip
"""Operators that read and write no tensor to speak of: they rename it, look at its shape or run a graph."""

GATHERS: Final = frozenset(
    {"Gather", "GatherElements", "GatherND", "Slice", "ArrayFeatureExtractor", "SequenceAt", "Compress"}
)
"""Operators that read only as much of their first input as they write, however large it is."""

_ONNX: Final[tuple[tuple[Rule, str], ...]] = (
    (_convolution(1, 2), "Conv"),
    (_convolution(1), "ConvInteger"),
    (_convolution(3, 8), "QLinearConv"),
    (_convolution(1, 3), "DeformConv"),
    (_transposed_convolution, "ConvTranspose"),
    (_causal_convolution, "CausalConvWithState"),
    (_matmul(), "MatMul MatMulInteger QLinearMatMul"),
    (_matmul("transA", 2), "Gemm"),
    (_einsum, "Einsum"),
    (_recurrent(9), "LSTM"),
    (_recurrent(10), "GRU"),
    (_recurrent(2), "RNN"),
    (_attention, "Attention"),
    (_pool, "AveragePool LpPool MaxPool"),
    (_resize, "Resize Upsample"),
    (_local_response, "LRN"),
    (_fourier, "DFT STFT"),
    (
        _per_input(1),
        (
            "ArgMax ArgMin CumProd CumSum GlobalAveragePool GlobalMaxPool NonZero ReduceL1 ReduceMax ReduceMean "
            "ReduceMin ReduceProd ReduceSum TopK Unique"
        ),
    ),
    (_per_input(2), "GlobalLpPool ReduceL2 ReduceLogSum ReduceSumSquare NegativeLogLikelihoodLoss Det"),
    (_per_input(3), "ReduceLogSumExp LpNormalization SoftmaxCrossEntropyLoss Hardmax"),
    (
        _per_output(1),
        (
            "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil "
            "Cos Cosh Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Mod Mul Neg "
            "Not Or Pow Reciprocal Relu Round Sigmoid Sign Sin Sinh Sqrt Sub Tan Tanh ThresholdedRelu Xor"
        ),
    ),
    (
        _per_output(2),
        "BatchNormalization Clip DequantizeLinear LeakyRelu PRelu QuantizeLinear Softplus Softsign Shrink",
    ),
    (_per_output(3), "Celu Elu HardSigmoid HardSwish RotaryEmbedding Selu Swish"),
    (_per_input(4), "DynamicQuantizeLinear"),
    (_per_output(5), "Gelu LogSoftmax Mish Softmax SwiGLU"),
    (_per_output(5), "RMSNormalization"),
    (_per_output(7), "GroupNormalization InstanceNormalization LayerNormalization MeanVarianceNormalization"),
    (_per_output(8), "AffineGrid GridSample MaxRoiPool RoiAlign"),
    (_per_output(1), "Bernoulli BlackmanWindow HammingWindow HannWindow MelWeightMatrix Multinomial Range"),
    (_variadic, "Max Mean Min Sum"),
    (
        _nothing,
        (
            "BitCast Cast CastLike CenterCropPad Col2Im Compress Concat ConcatFromSequence ConstantOfShape "
            "DepthToSpace Expand EyeLike Gather GatherElements GatherND ImageDecoder MaxUnpool NonMaxSuppression "
            "OneHot Pad RandomNormal RandomNormalLike RandomUniform RandomUniformLike RegexFullMatch "
            "ReverseSequence Scatter ScatterElements ScatterND SequenceErase SequenceInsert Slice SpaceToDepth "
            "Split SplitToSequence StringConcat StringNormalizer StringSplit TensorScatter TfIdfVectorizer Tile "
            "Transpose Trilu Where"
        ),
    ),
    (_nothing, " ".join(sorted(VIEWS - {"ZipMap"}))),
)
_ML: Final[tuple[tuple[Rule, str], ...]] = (
    (_linear_model, "LinearClassifier LinearRegressor"),
    (_per_output(2), "Scaler"),
    (_per_output(1), "Binarizer Imputer"),
    (_per_input(3), "Normalizer"),
    (
        _nothing,
        (
            "ArrayFeatureExtractor CastMap CategoryMapper DictVectorizer FeatureVectorizer LabelEncoder OneHotEncoder "
            "ZipMap"
        ),
    ),
)
_MICROSOFT: Final[tuple[tuple[Rule, str], ...]] = (
    (_convolution(1, 2), "FusedConv NhwcFusedConv"),
    (_matmul("transA"), "FusedMatMul TransposeMatMul"),
    (_matmul("transA", 2), "FusedGemm QGemm"),
    (_matmul(), "DynamicQuantizeMatMul MatMulInteger16 MatMulIntegerToFloat MatMulNBits MatMulBnb4 MatMulFpQ4"),
    (_recurrent(9), "DynamicQuantizeLSTM"),
    (_attention_with_projection(4), "Attention"),
    (_attention_with_projection(8), "QAttention"),
    (_multi_head_attention, "MultiHeadAttention"),
    (_group_query_attention, "GroupQueryAttention"),
    (_per_output(2), "DequantizeLinear QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QuantizeLinear"),
    (_per_output(5), "BiasGelu FastGelu Gelu QuickGelu QLinearSoftmax"),
    (_per_output(8), "EmbedLayerNormalization SimplifiedLayerNormalization"),
    (_per_output(9), "SkipLayerNormalization SkipSimplifiedLayerNormalization"),
    (_per_output(3), "RotaryEmbedding"),
    (_per_input(1), "QLinearGlobalAveragePool QLinearReduceMean"),
    (_pool, "QLinearAveragePool"),
    (_nothing, "QLinearConcat QLinearWhere NhwcMaxPool"),
)

RULES: Final[Mapping[tuple[str, str], Rule]] = {
    (domain, name): rule
    for domain, rows in (("", _ONNX), ("ai.onnx.ml", _ML), ("com.microsoft", _MICROSOFT))
    for rule, names in rows
    for name in names.split()
}
"""(domain, operator) to formula. What is missing here is counted as *uncounted*, never as free."""
