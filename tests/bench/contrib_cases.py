"""The rows of tests/bench/contrib.py: what an operator of ONNX Runtime's stands for, and itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["CASES", "Case"]

_HIDDEN, _INNER, _HEADS, _SHARED, _SIZE = 384, 1536, 6, 2, 64


def _weights(length: int) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> npt.NDArray[np.float32]:
        return np.asarray(random.standard_normal(shape) / shape[0] ** 0.5, np.float32)

    angles = random.standard_normal((length, _SIZE // 2))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    projections = {f"w{one}": matrix(_HIDDEN, _HIDDEN) for one in "qkv"} | {f"b{one}": matrix(_HIDDEN) for one in "qkv"}
    return {
        **projections,
        "wqkv": np.concatenate([projections[f"w{one}"] for one in "qkv"], axis=1),
        "bqkv": np.concatenate([projections[f"b{one}"] for one in "qkv"]),
        "bias": matrix(_INNER),
        "gamma": matrix(_HIDDEN) + 1,
        "beta": matrix(_HIDDEN),
        "kernel": matrix(20, 20, 3, 3) / 9,
        "square": matrix(_HIDDEN, _HIDDEN),
        "half": np.float32(0.5),
        "one": np.float32(1),
        "three": np.float32(3),
        "cube": np.float32(0.044715),
        "root": np.float32(0.7978845608),
        "q1702": np.float32(1.702),
        "eighth": np.float32(0.125),
        "cos": cos,
        "sin": sin,
        "cos4": np.concatenate([cos, cos], -1)[None, None],
        "sin4": np.concatenate([sin, sin], -1)[None, None],
        "start": np.zeros(1, np.int64),
        "apart": np.array([0, 0, _HEADS, _SIZE]),
        "few": np.array([0, 0, _SHARED, _SIZE]),
        "joined": np.array([0, 0, _HIDDEN]),
        "halves": np.array([_SIZE // 2] * 2),
        "two": np.array([2]),
        "copies": np.array([1, 1, _HEADS // _SHARED, 1, 1]),
        "all": np.array([0, _HEADS, -1, _SIZE]),
        "shared": np.array([0, _SHARED, _HEADS // _SHARED * length, 0]),
        "scores": np.array([0, _HEADS, length, 0]),
        "last": np.array([length - 1], np.int32),
        "total": np.array(length, np.int32),
    }


_WORDS = str.maketrans(dict.fromkeys("(),<>=", " "))
_SPLIT = "q4 = Reshape (q, apart) a = Transpose <perm = [0, 2, 1, 3]> (q4) "
_ALONE = _SPLIT + (
    "k4 = Reshape (k, apart) t = Transpose <perm = [0, 2, 3, 1]> (k4) "
    "v4 = Reshape (v, apart) b = Transpose <perm = [0, 2, 1, 3]> (v4) "
)
_ATTEND = (
    "s = MatMul (a, t) d = Mul (s, eighth) e = Add (d, mask) p = Softmax <axis = -1> (e) o = MatMul (p, b) "
    "y4 = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape (y4, joined)"
)
_PROJECT = "".join(f"{one}0 = MatMul (x, w{one}) {one} = Add ({one}0, b{one}) " for one in "qkv")
_GROUPED = _SPLIT + (
    "k4 = Reshape (k, few) k5 = Transpose <perm = [0, 2, 1, 3]> (k4) "
    "v4 = Reshape (v, few) v5 = Transpose <perm = [0, 2, 1, 3]> (v4) "
    "ku = Unsqueeze (k5, two) ke = Expand (ku, copies) kr = Reshape (ke, all) t = Transpose <perm = [0, 1, 3, 2]> (kr) "
    "vu = Unsqueeze (v5, two) ve = Expand (vu, copies) b = Reshape (ve, all) "
)
_BELOW = _SPLIT + (
    "k4 = Reshape (k, few) t = Transpose <perm = [0, 2, 3, 1]> (k4) "
    "v4 = Reshape (v, few) b = Transpose <perm = [0, 2, 1, 3]> (v4) "
    "g = Reshape (a, shared) s0 = MatMul (g, t) d0 = Mul (s0, eighth) d = Reshape (d0, scores) e = Add (d, mask) "
    "p = Softmax <axis = -1> (e) p0 = Reshape (p, shared) o0 = MatMul (p0, b) o = Reshape (o0, scores) "
    "y4 = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape (y4, joined)"
)
_TURN = (
    "l, h = Split <axis = -1> (x, halves) n = Neg (h) r = Concat <axis = -1> (n, l) "
    "c = Mul (x, cos4) s = Mul (r, sin4) y = Add (c, s)"
)
_TANH = (
    "x3 = Pow (x, three) a = Mul (x3, cube) b = Add (x, a) c = Mul (b, root) t = Tanh (c) p = Add (t, one) "
    "g = Mul (x, half) y = Mul (g, p)"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """An operator, and what it stands for.

    Attributes:
        op_type: Its name in ``com.microsoft``.
        cuda: Types for which CUDA has a kernel.
        graphopt: What graphopt does.
        shapes: Inputs and their shapes, ``S`` being the number of tokens.
        before: The pieces; empty if there are none to measure.
        after: The operator.
        remark: What is to be said about ONNX Runtime's own fusion.
    """

    op_type: str
    cuda: str
    graphopt: str
    shapes: str = ""
    before: str = ""
    after: str = ""
    remark: str = ""

    def pieces(self, length: int) -> onnx.ModelProto:
        """The pieces, for so many tokens."""
        return self._model(self.before, length)

    def fused(self, length: int) -> onnx.ModelProto:
        """The operator, for so many tokens."""
        return self._model(self.after, length)

    def feeds(self, length: int) -> dict[str, Any]:
        """Seeded inputs; a mask hides the last fifth."""
        random = np.random.default_rng(1)
        found: dict[str, Any] = {}
        for one in self.pieces(length).graph.input:
            shape = [dim.dim_value for dim in one.type.tensor_type.shape.dim]
            found[one.name] = random.standard_normal(shape).astype(np.float32)
        if "mask" in found:
            found["mask"] = np.where(np.arange(length) < max(1, 0.8 * length), 0, -1e4).astype(np.float32)
            found["mask"] = np.broadcast_to(found["mask"], (1, 1, length, length)).copy()
        return found

    def _model(self, body: str, length: int) -> onnx.ModelProto:
        opset = 23 if "RMSNormalization" in self.before else 20  # ONNX Runtime finds more in what is not so new
        text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> g '
        model = onnx.parser.parse_model(f"{text}({self.shapes.replace('S', str(length))}) => (float[] y) {{ {body} }}")
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        words = set(body.translate(_WORDS).split())
        for name, contents in _weights(length).items():
            if name in words:
                model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(contents), name))
        return model


_QKV = f"float[1,S,{_HIDDEN}] q, float[1,S,{_HIDDEN}] k, float[1,S,{_HIDDEN}] v, float[1,1,S,S] mask"
_FEW = _QKV.replace(f"{_HIDDEN}] k", "128] k").replace(f"{_HIDDEN}] v", "128] v")
_SUM = f"float[1,S,{_HIDDEN}] x, float[1,S,{_HIDDEN}] u"
_INSIDE = f"float[1,S,{_INNER}] x"
_ORT_CPU_CUDA = "ort-cpu, ort-cuda: "

CASES: tuple[Case, ...] = (
    Case("Attention", "float, float16", _ORT_CPU_CUDA + "fuse-packed-attention",
         f"float[1,S,{_HIDDEN}] x, float[1,1,S,S] mask", _PROJECT + _ALONE + _ATTEND,
         f"y = com.microsoft.Attention <num_heads = {_HEADS}> (x, wqkv, bqkv,,, mask)"),
    Case("MultiHeadAttention", "float, float16", _ORT_CPU_CUDA + "fuse-multi-head-attention", _QKV, _ALONE + _ATTEND,
         f"y = com.microsoft.MultiHeadAttention <num_heads = {_HEADS}> (q, k, v,,, mask)"),
    Case("MultiHeadAttention", "float, float16", "the same", _QKV.partition(", float[1,1")[0],
         _ALONE + _ATTEND.replace("e = Add (d, mask) ", "").replace("(e)", "(d)"),
         f"y = com.microsoft.MultiHeadAttention <num_heads = {_HEADS}> (q, k, v)", ", without a mask"),
    Case("GroupQueryAttention", "float16, bfloat16", "no, but see the next row", _FEW, _GROUPED + _ATTEND,
         f"y = com.microsoft.GroupQueryAttention <num_heads = {_HEADS}, kv_num_heads = {_SHARED}, causal = 0> "
         "(q, k, v,,, last, total,,,, mask)"),
    Case("GroupQueryAttention", "-", "every target: eliminate-repeated-heads", _FEW, _GROUPED + _ATTEND, _BELOW,
         "; in ONNX's operators, as graphopt has it"),
    Case("RotaryEmbedding", "float, float16", _ORT_CPU_CUDA + "fuse-rotary-embedding (portable: ONNX's own, opset 23)",
         f"float[1,{_HEADS},S,{_SIZE}] x", _TURN, "y = com.microsoft.RotaryEmbedding (x, start, cos, sin)"),
    Case("SkipLayerNormalization", "float, float16", "ort-cuda: fuse-skip-norm; ort-cpu: convert-add-to-sum", _SUM,
         "s = Add (x, u) y = LayerNormalization <axis = -1> (s, gamma, beta)",
         "y = com.microsoft.SkipLayerNormalization <epsilon = 1e-5> (x, u, gamma, beta)", ", though it costs"),
    Case("SkipSimplifiedLayerNormalization", "float, float16", "ort-cuda: fuse-skip-norm", _SUM,
         "s = Add (x, u) y = RMSNormalization <axis = -1> (s, gamma)",
         "y = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1e-5> (x, u, gamma)"),
    Case("BiasGelu", "float, float16", "no", _INSIDE, "s = Add (x, bias) y = Gelu (s)",
         "y = com.microsoft.BiasGelu (x, bias)"),
    Case("FastGelu", "float, float16", "no (fuse-gelu to ONNX's own, opset 20)", _INSIDE, _TANH,
         "y = com.microsoft.FastGelu (x)"),
    Case("QuickGelu", "float, float16", "no", _INSIDE, "m = Mul (x, q1702) s = Sigmoid (m) y = Mul (x, s)",
         "y = com.microsoft.QuickGelu <alpha = 1.702> (x)"),
    Case("FusedMatMul", "float, float16", "no", f"float[1,{_HEADS},S,{_SIZE}] q, float[1,{_HEADS},S,{_SIZE}] k",
         "t = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul (q, t) y = Mul (s, eighth)",
         "y = com.microsoft.FusedMatMul <transB = 1, alpha = 0.125> (q, k)"),
    Case("FusedGemm", "none", "no", f"float[S,{_HIDDEN}] x", "a = Gemm (x, square, beta) y = Relu (a)",
         'y = com.microsoft.FusedGemm <activation = "Relu"> (x, square, beta)'),
    Case("FusedConv", "float", "no", "float[1,20,S,28] x", "a = Conv <pads = [1, 1, 1, 1]> (x, kernel) y = Relu (a)",
         'y = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "Relu"> (x, kernel)',
         "; its blocked Conv has the activation"),
    Case("NhwcConv", "float, float16", "no"),
)  # fmt: skip
