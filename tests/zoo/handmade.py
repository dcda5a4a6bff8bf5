"""Operators and forms that exporters seldom write, as ONNX text with seeded weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser
from zoo.architecture import Architecture
from zoo.layers import HEAD_DIM, scaled

__all__ = ["ARCHITECTURES"]

Array = npt.NDArray[Any]
Weights = Mapping[str, Sequence[int] | Array]
"""What a weight is, or its shape only; ``g...`` are around one, others around zero."""

Extra = Mapping[str, Callable[[int], Any]]
"""More weights, by the number of channels."""

_SAME = "<kernel_shape=[3,3], pads=[1,1,1,1]>"


def _weight(rng: np.random.Generator, name: str, weight: Sequence[int] | Array) -> onnx.TensorProto:
    if not isinstance(weight, np.ndarray):
        scale = np.prod(weight[1:]) ** -0.5 if len(weight) > 1 else 0.2
        noise = scale * rng.standard_normal(tuple(weight))
        weight = (noise + name.startswith("g")).astype(np.float32)
    return numpy_helper.from_array(weight, name)


def _model(signature: str, body: str, weights: Weights, opset: int = 21, functions: str = "") -> onnx.ModelProto:
    domains = f'"" : {opset}' + ', "com.microsoft" : 1' * ("com.microsoft." in body) + ', "zoo" : 1' * bool(functions)
    text = f"<ir_version: 10, opset_import: [{domains}]> handmade {signature} {{ {body} }} {functions}"
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(_weight(rng, name, weight) for name, weight in weights.items())
    return model


def _image(body: str, features: int, weights: Weights, opset: int = 21, functions: str = "") -> onnx.ModelProto:
    """From ``x`` to ``z``, whose channels are averaged over the image and classified."""
    head = "p = GlobalAveragePool(z) f = Flatten(p) y = Gemm<transB=1>(f, wo, bo)"
    weights = {**weights, "wo": (5, features), "bo": (5,)}
    return _model("(float[N,3,8,8] x) => (float[N,5] y)", f"{body} {head}", weights, opset, functions)


def _sequence(body: str, size: int, weights: Weights, opset: int = 21, functions: str = "") -> onnx.ModelProto:
    """From ``h``, tokens of the hidden size, to ``z``, which are classified."""
    body = f"e = MatMul(x, wi) h = Add(e, bi) {body} o = MatMul(z, wo) y = Add(o, bo)"
    weights = {"wi": (12, size), "bi": (size,), **weights, "wo": (size, 5), "bo": (5,)}
    return _model("(float[N,S,12] x) => (float[N,S,5] y)", body, weights, opset, functions)


def _conv(outputs: int, inputs: int, kernel: int = 3) -> tuple[int, ...]:
    return outputs, inputs, kernel, kernel


def _convs(*sizes: tuple[int, int]) -> Weights:
    """Weights and biases, numbered from 1, of convolutions with these numbers of outputs and inputs."""
    weights = {f"w{i}": _conv(*one) for i, one in enumerate(sizes, 1)}
    return {**weights, **{f"b{i}": (one[0],) for i, one in enumerate(sizes, 1)}}


# Control flow and functions


def _if_branches(width: float) -> onnx.ModelProto:
    """Both branches capture a value; one captures its weight too, the other has its own."""
    a, b = scaled(16, width), scaled(32, width)
    model = _image(
        f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c) m = ReduceMean<keepdims=0>(x) test = Greater(m, zero)
        s = If(test) <
            then_branch = first () => (float[N,{b},8,8] t) {{ t = Conv{_SAME}(r, w2, b2) }},
            else_branch = second () => (float[N,{b},8,8] u) {{ v = Conv(r, w3) u = Sigmoid(v) }}
        >
        z = Relu(s)
        """,
        b,
        {**_convs((a, 3), (b, a)), "w3": _conv(b, a, 1), "zero": np.asarray(0, np.float32)},
    )
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[1].g
    own = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
    branch.initializer.append(own)
    model.graph.initializer.remove(own)
    return model


def _if_skip(width: float) -> onnx.ModelProto:
    """One branch gives what came in, so that the other has to keep its channels."""
    a = scaled(16, width)
    return _image(
        f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c) m = ReduceMean<keepdims=0>(x) test = Greater(m, zero)
        z = If(test) <
            then_branch = first () => (float[N,{a},8,8] t) {{ t = Identity(r) }},
            else_branch = second () => (float[N,{a},8,8] u) {{ v = Conv{_SAME}(r, w2, b2) u = Add(v, r) }}
        >
        """,
        a,
        {**_convs((a, 3), (a, a)), "zero": np.asarray(0, np.float32)},
    )


def _functions(width: float) -> onnx.ModelProto:
    """One function called twice, with other weights of other sizes."""
    a, b = scaled(16, width), scaled(32, width)
    function = """
        <domain: "zoo", opset_import: ["" : 21]>
        Layer (x, w, b) => (y) { c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) y = Relu(c) }
    """
    body = "r = zoo.Layer(x, w1, b1) z = zoo.Layer(r, w2, b2)"
    return _image(body, b, _convs((a, 3), (b, a)), functions=function)


# Attention and normalization


def _attention(width: float, attend: str, groups: int = 4, opset: int = 21) -> onnx.ModelProto:
    """Two residual blocks around an operator that attends; ``groups`` is the number of heads of keys and values."""
    size, heads, groups = scaled(32, width), scaled(4, width), scaled(groups, width)
    inner, shared = heads * HEAD_DIM, groups * HEAD_DIM
    body, weights = "h0 = Identity(h)", dict[str, Sequence[int] | Array]()
    for i in range(2):
        body += f"""
            q{i} = MatMul(h{i}, wq{i}) k{i} = MatMul(h{i}, wk{i}) v{i} = MatMul(h{i}, wv{i})
            a{i} = {attend.format(heads=heads, groups=groups)}(q{i}, k{i}, v{i})
            r{i} = MatMul(a{i}, wr{i}) h{i + 1} = Add(h{i}, r{i})
        """
        weights |= {
            f"wq{i}": (size, inner),
            f"wk{i}": (size, shared),
            f"wv{i}": (size, shared),
            f"wr{i}": (inner, size),
        }
    return _sequence(f"{body} z = Identity(h2)", size, weights, opset)


def _ms_attention(width: float) -> onnx.ModelProto:
    size, heads = scaled(32, width), scaled(4, width)
    inner = heads * HEAD_DIM
    body = f"a = com.microsoft.Attention<num_heads={heads}>(h, w, b) r = MatMul(a, wr) z = Add(h, r)"
    return _sequence(body, size, {"w": (size, 3 * inner), "b": (3 * inner,), "wr": (inner, size)})


def _einsum_attention(width: float) -> onnx.ModelProto:
    """Heads and their features are axes of their own, of the weights too."""
    size, heads = scaled(32, width), scaled(4, width)
    body = """
        q = Einsum<equation="nsc,chd->nshd">(h, wq) k = Einsum<equation="nsc,chd->nshd">(h, wk)
        v = Einsum<equation="nsc,chd->nshd">(h, wv) s = Einsum<equation="nqhd,nkhd->nhqk">(q, k)
        p = Softmax<axis=-1>(s) a = Einsum<equation="nhqk,nkhd->nqhd">(p, v)
        r = Einsum<equation="nqhd,hdc->nqc">(a, wr) z = Add(h, r)
    """
    weights = dict.fromkeys(("wq", "wk", "wv"), (size, heads, HEAD_DIM))
    return _sequence(body, size, {**weights, "wr": (heads, HEAD_DIM, size)})


def _mlp(width: float, norm: str, weights: Sequence[str], opset: int) -> onnx.ModelProto:
    """Two residual MLPs after an operator that normalizes the last axis."""
    size, hidden = scaled(32, width), scaled(48, width)
    body, sizes = "h0 = Identity(h)", dict[str, Sequence[int] | Array]()
    for i in range(2):
        names = [f"{name}{i}" for name in weights]
        body += f"""
            n{i} = {norm}({", ".join([f"h{i}", *names])}) u{i} = MatMul(n{i}, w{i}) t{i} = Tanh(u{i})
            d{i} = MatMul(t{i}, v{i}) h{i + 1} = Add(h{i}, d{i})
        """
        sizes |= {**dict.fromkeys(names, (size,)), f"w{i}": (size, hidden), f"v{i}": (hidden, size)}
    return _sequence(f"{body} z = Identity(h2)", size, sizes, opset)


def _skip_layer_norm(width: float) -> onnx.ModelProto:
    """The normalization adds a branch and a bias first; the second one's sum is used as well."""
    size, hidden = scaled(32, width), scaled(48, width)
    body = """
        u = MatMul(h, w1) t = Relu(u) d = MatMul(t, v1)
        n = com.microsoft.SkipLayerNormalization<epsilon=0.00001>(h, d, g1, c1, b1)
        u2 = MatMul(n, w2) t2 = Relu(u2) d2 = MatMul(t2, v2)
        m, unused1, unused2, sum = com.microsoft.SkipLayerNormalization<epsilon=0.00001>(n, d2, g2, c2, b2)
        z = Add(m, sum)
    """
    matrices = {"w1": (size, hidden), "v1": (hidden, size), "w2": (size, hidden), "v2": (hidden, size)}
    model = _sequence(body, size, {**matrices, **dict.fromkeys(("g1", "c1", "b1", "g2", "c2", "b2"), (size,))})
    for node in model.graph.node:
        node.output[:] = ["" if name.startswith("unused") else name for name in node.output]
    return model


def _group_norm(width: float) -> onnx.ModelProto:
    """Groups of channels, which stay as many and get smaller."""
    a = scaled(32, width)
    body = f"""
        c = Conv{_SAME}(x, w1, b1) n = GroupNormalization<num_groups=4>(c, g1, c1) r = Relu(n)
        d = Conv{_SAME}(r, w2, b2) m = GroupNormalization<num_groups=4>(d, g2, c2) z = Add(m, r)
    """
    return _image(body, a, {**_convs((a, 3), (a, a)), **dict.fromkeys(("g1", "c1", "g2", "c2"), (a,))})


# Recurrence


def _recurrent(width: float, node: str, gates: int, directions: int, extra: Weights) -> onnx.ModelProto:
    """From a context, the initial state; from that and the steps, a label a step."""
    hidden = scaled(16, width)
    body = f"""
        s = Gemm(context, ws, bs) i0 = Unsqueeze(s, first)
        i1 = Concat<axis=0>({", ".join(["i0"] * directions)})
        {node.format(hidden=hidden)}
        t = Transpose<perm=[0,2,1,3]>(r) f = Reshape(t, shape) o = MatMul(f, wo) y = Add(o, bo)
    """
    weights: Weights = {
        "ws": (7, hidden),
        "bs": (hidden,),
        "first": np.asarray([0]),
        "W": (directions, gates * hidden, 12),
        "R": (directions, gates * hidden, hidden),
        "B": (directions, 2 * gates * hidden),
        **extra,
        "shape": np.asarray([0, 0, directions * hidden]),
        "wo": (directions * hidden, 5),
        "bo": (5,),
    }
    return _model("(float[S,N,12] x, float[N,7] context) => (float[S,N,5] y)", body, weights)


def _lstm_peepholes(width: float) -> onnx.ModelProto:
    node = """r, last, cell = LSTM<hidden_size={hidden}, direction="bidirectional">(x, W, R, B, none, i1, i1, P)"""
    model = _recurrent(width, node, 4, 2, {"P": (2, 3 * scaled(16, width))})
    lstm = next(one for one in model.graph.node if one.op_type == "LSTM")
    lstm.input[4] = lstm.output[1] = lstm.output[2] = ""
    return model


def _gru_linear_before_reset(width: float) -> onnx.ModelProto:
    node = "r = GRU<hidden_size={hidden}, linear_before_reset=1>(x, W, R, B, none, i1)"
    model = _recurrent(width, node, 3, 1, {})
    next(one for one in model.graph.node if one.op_type == "GRU").input[4] = ""
    return model


# Quantization


def _int8(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-100, 100, shape).astype(np.int8)


def _scales(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(0.001, 0.003, shape).astype(np.float32)


def _conv_qdq(width: float) -> onnx.ModelProto:
    """Weights with a scale an output channel, activations with one in all, a residual connection."""
    a, rng = scaled(16, width), np.random.default_rng(1)
    body, weights = "", dict[str, Sequence[int] | Array]()
    weights |= {"s": np.asarray(0.03, np.float32), "zero": np.asarray(128, np.uint8)}
    value, inputs = "x", 3
    for i in range(3):
        body += f"""
            q{i} = QuantizeLinear({value}, s, zero) d{i} = DequantizeLinear(q{i}, s, zero)
            w{i} = DequantizeLinear<axis=0>(k{i}, s{i}, z{i}) b{i} = DequantizeLinear<axis=0>(c{i}, t{i})
            o{i} = Conv{_SAME}(d{i}, w{i}, b{i}) {f"a{i} = Add(o{i}, d{i})" if i == 2 else ""}
            r{i} = Relu({"a" if i == 2 else "o"}{i})
        """
        scale = _scales(rng, a)
        weights |= {f"k{i}": _int8(rng, *_conv(a, inputs)), f"s{i}": scale, f"z{i}": np.zeros(a, np.int8)}
        weights |= {f"c{i}": rng.integers(-999, 999, a).astype(np.int32), f"t{i}": scale * np.float32(0.03)}
        value, inputs = f"r{i}", a
    return _image(f"{body} z = Identity(r2)", a, weights)


def _qlinear_conv(width: float) -> onnx.ModelProto:
    a, b, rng = scaled(16, width), scaled(32, width), np.random.default_rng(1)
    body = f"""
        q = QuantizeLinear(x, s, zero)
        c = QLinearConv{_SAME}(q, s, zero, w1, s1, z1, s, zero, b1)
        d = QLinearConv{_SAME}(c, s, zero, w2, s2, z2, s, zero, b2)
        z = DequantizeLinear(d, s, zero)
    """
    weights: dict[str, Sequence[int] | Array] = {"s": np.asarray(0.03, np.float32), "zero": np.asarray(128, np.uint8)}
    for i, (outputs, inputs) in enumerate([(a, 3), (b, a)], 1):
        weights |= {f"w{i}": _int8(rng, *_conv(outputs, inputs)), f"s{i}": _scales(rng, outputs)}
        weights |= {f"z{i}": np.zeros(outputs, np.int8), f"b{i}": rng.integers(-999, 999, outputs).astype(np.int32)}
    return _image(body, b, weights)


def _matmul_integer(width: float) -> onnx.ModelProto:
    """Dynamic quantization: activations get their scale from what they are, weights have one a column."""
    a, b, rng = scaled(32, width), scaled(16, width), np.random.default_rng(1)
    body, weights = "", dict[str, Sequence[int] | Array]()
    for i, (inputs, outputs) in enumerate([(12, a), (a, b), (b, 5)]):
        body += f"""
            q{i}, s{i}, z{i} = DynamicQuantizeLinear({f"r{i - 1}" if i else "x"})
            m{i} = MatMulInteger(q{i}, w{i}, z{i}, o{i}) c{i} = Cast<to=1>(m{i}) t{i} = Mul(s{i}, k{i})
            d{i} = Mul(c{i}, t{i}) {"y" if i == 2 else f"e{i}"} = Add(d{i}, b{i})
            {"" if i == 2 else f"r{i} = Relu(e{i})"}
        """
        weights |= {f"w{i}": _int8(rng, inputs, outputs), f"o{i}": np.zeros(outputs, np.int8)}
        weights |= {f"k{i}": _scales(rng, outputs), f"b{i}": (outputs,)}
    return _model("(float[N,12] x) => (float[N,5] y)", body, weights)


# Matrix products and convolutions


def _gemms(width: float) -> onnx.ModelProto:
    """Every way to transpose, factors, a bias as a row and as a matrix."""
    a, b = scaled(32, width), scaled(16, width)
    body = """
        u = Gemm<transB=1, alpha=0.5>(x, w1, b1) r = Relu(u) t = Transpose<perm=[1,0]>(r)
        v = Gemm<transA=1, beta=2.0>(t, w2, b2) s = Relu(v) q = Transpose<perm=[1,0]>(s)
        o = Gemm<transA=1, transB=1>(q, w3) g = Transpose<perm=[1,0]>(o) p = Relu(g)
        y0 = Gemm(w4, p, b4) y = Transpose<perm=[1,0]>(y0)
    """
    weights = {"w1": (a, 12), "b1": (a,), "w2": (a, b), "b2": (1, b), "w3": (a, b), "w4": (5, a), "b4": (5, 1)}
    return _model("(float[N,12] x) => (float[N,5] y)", body, weights)


def _conv_transpose(width: float, groups: int) -> onnx.ModelProto:
    """Grouped (as many groups, of fewer channels) or, without a number, depthwise."""
    a = scaled(16, width)
    b = scaled(32, width) if groups else a
    groups = groups or a
    body = f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c)
        t = ConvTranspose<group={groups}, kernel_shape=[2,2], strides=[2,2]>(r, w2, b2) s = Relu(t)
        z = Conv{_SAME}(s, w3, b3)
    """
    return _image(body, a, {**_convs((a, 3), (b, a), (a, b)), "w2": (a, b // groups, 2, 2)})


def _layers(width: float, between: str, factor: float, extra: Extra) -> onnx.ModelProto:
    """What stands between two convolutions, from ``r`` to ``s``, and makes a multiple of the channels."""
    a, b = scaled(32, width), scaled(16, width)
    body = f"c = Conv{_SAME}(x, w1, b1) r = Relu(c) {between.format(c=a, h=a // 2)} z = Conv{_SAME}(s, w2, b2)"
    return _image(
        body, b, {**_convs((a, 3), (b, round(a * factor))), **{name: make(a) for name, make in extra.items()}}
    )


def _between(name: str, between: str, factor: float = 1, **extra: Callable[[int], Any]) -> Architecture:
    return _entry(name, lambda width: _layers(width, between, factor, extra))


def _option_a(width: float) -> onnx.ModelProto:
    """A shortcut without weights: every second pixel, channels of zeros added on both sides."""
    a = scaled(16, width)
    body = f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c)
        d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(r, w2, b2) e = Relu(d) f0 = Conv{_SAME}(e, w3, b3)
        k = Slice(r, starts, ends, axes, steps) l = Pad(k, pads) s = Add(f0, l) t = Relu(s)
        g = Conv{_SAME}(t, w4, b4) z = Add(g, t)
    """
    weights: Weights = {
        **_convs((a, 3), (2 * a, a), (2 * a, 2 * a), (2 * a, 2 * a)),
        "starts": np.asarray([0, 0]),
        "ends": np.asarray([8, 8]),
        "axes": np.asarray([2, 3]),
        "steps": np.asarray([2, 2]),
        "pads": np.asarray([0, a // 2, 0, 0, 0, a // 2, 0, 0]),
    }
    return _image(body, 2 * a, weights)


def _frozen(width: float, node: str, after: int = 12, **extra: Array) -> onnx.ModelProto:
    """Between prunable convolutions one whose channels, all 12, an operator compares with each other."""
    a, b = scaled(32, width), scaled(16, width)
    body = f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c) d = Conv{_SAME}(r, w2, b2) {node}
        e = Conv{_SAME}(s, w3, b3) z = Relu(e)
    """
    return _image(body, b, {**_convs((a, 3), (12, a), (b, after)), **extra})


def _spatial(width: float, largest: bool) -> onnx.ModelProto:
    """A gate a pixel from the mean over channels; with the largest one beside it (CBAM), channels have to stay."""
    a, b = scaled(16, width), 16 if largest else scaled(16, width)
    pool = "l = ReduceMax(d, one) k = Concat<axis=1>(m, l)" if largest else "k = Identity(m)"
    body = f"""
        c = Conv{_SAME}(x, w1, b1) r = Relu(c) d = Conv{_SAME}(r, w2, b2) m = ReduceMean(d, one) {pool}
        e = Conv{_SAME}(k, w3, b3) g = Sigmoid(e) z = Mul(d, g)
    """
    return _image(body, b, {**_convs((a, 3), (b, a), (1, 1 + largest)), "one": np.asarray([1])})


def _entry(name: str, build: Callable[[float], onnx.ModelProto], norms: bool = False) -> Architecture:
    return Architecture(name, build, exporters=("onnx",), norms=norms)


ARCHITECTURES: tuple[Architecture, ...] = (
    _entry("if-branches", _if_branches),
    _entry("if-skip", _if_skip),
    _entry("functions", _functions),
    _entry(
        "attention-op",
        lambda width: _attention(width, "Attention<q_num_heads={heads}, kv_num_heads={groups}>", opset=23),
    ),
    _entry(
        "attention-op-grouped",
        lambda width: _attention(width, "Attention<q_num_heads={heads}, kv_num_heads={groups}>", 2, opset=23),
    ),
    _entry(
        "ms-multihead-attention",
        lambda width: _attention(width, "com.microsoft.MultiHeadAttention<num_heads={heads}>"),
    ),
    _entry("ms-attention", _ms_attention),
    _entry("ms-skip-layer-norm", _skip_layer_norm, norms=True),
    _entry("einsum-attention", _einsum_attention),
    _entry("layer-norm-op", lambda width: _mlp(width, "LayerNormalization", ["g", "b"], 17), norms=True),
    _entry("rms-norm-op", lambda width: _mlp(width, "RMSNormalization", ["g"], 23)),
    _entry("group-norm-op", _group_norm, norms=True),
    _entry("lstm-peepholes", _lstm_peepholes),
    _entry("gru-linear-before-reset", _gru_linear_before_reset),
    _entry("conv-qdq", _conv_qdq),
    _entry("qlinear-conv", _qlinear_conv),
    _entry("matmul-integer", _matmul_integer),
    _entry("gemms", _gemms),
    _entry("conv-transpose-grouped", lambda width: _conv_transpose(width, 4)),
    _entry("conv-transpose-depthwise", lambda width: _conv_transpose(width, 0)),
    _between("depth-to-space-dcr", 's = DepthToSpace<blocksize=2, mode="DCR">(r)', 1 / 4),
    _between("depth-to-space-crd", 's = DepthToSpace<blocksize=2, mode="CRD">(r)', 1 / 4),
    _between("space-to-depth", "s = SpaceToDepth<blocksize=2>(r)", 4),
    _entry("option-a", _option_a),
    _between(
        "slice-channels",
        "f0 = Slice(r, zero, half, one) f1 = Slice(r, half, end, one) t = Tanh(f1) s = Mul(f0, t)",
        1 / 2,
        zero=lambda _: np.asarray([0]),
        half=lambda channels: np.asarray([channels // 2]),
        end=lambda _: np.asarray([2**31 - 1]),
        one=lambda _: np.asarray([1]),
    ),
    _between("split-channels", "f0, f1 = Split<axis=1, num_outputs=2>(r) t = Tanh(f1) s = Concat<axis=1>(t, f0)"),
    _between(
        "split-uneven",
        "f0, f1 = Split<axis=1>(r, parts) t = Conv(f1, wt) s = Concat<axis=1>(f0, t)",
        parts=lambda channels: np.asarray([channels // 4, channels - channels // 4]),
        wt=lambda channels: _conv(channels - channels // 4, channels - channels // 4, 1),
    ),
    _between(
        "gather-shuffle",
        "t = Gather<axis=1>(r, order) s = Add(t, r)",
        order=lambda channels: np.arange(channels).reshape(2, -1).T.flatten(),
    ),
    _between(
        "gather-pairs",
        "f0 = Gather<axis=1>(r, even) f1 = Gather<axis=1>(r, odd) t = Tanh(f1) s = Mul(f0, t)",
        1 / 2,
        even=lambda channels: np.arange(0, channels, 2),
        odd=lambda channels: np.arange(1, channels, 2),
    ),
    # Channels under a maximum, a softmax, an order or a window over them stay: which others there are matters.
    _entry("max-channels", lambda width: _frozen(width, "s = ReduceMax(d, axis)", 1, axis=np.asarray([1]))),
    _entry("softmax-channels", lambda width: _frozen(width, "s = Softmax<axis=1>(d)")),
    _entry("top-k", lambda width: _frozen(width, "s, places = TopK<axis=1>(d, k)", 2, k=np.asarray([2]))),
    _entry("lrn", lambda width: _frozen(width, "s = LRN<size=5>(d)")),
    _between("prelu", "s = PRelu(c, slope)", slope=lambda channels: (channels, 1, 1)),
    _between(
        "channel-constants",
        "t = Mul(r, scale) u = Sub(shift, t) s = Div(u, divisor)",
        scale=lambda channels: (1, channels, 1, 1),
        shift=lambda channels: (channels, 1, 1),
        divisor=lambda channels: np.linspace(1, 2, channels, dtype=np.float32).reshape(1, channels, 1, 1),
    ),
    _entry("spatial-mean", lambda width: _spatial(width, largest=False)),
    _entry("spatial-cbam", lambda width: _spatial(width, largest=True)),
    _between(
        "expand",
        "t = GlobalAveragePool(r) u = Conv(t, wt) v = Expand(u, shape) s = Concat<axis=1>(r, v)",
        3 / 2,
        wt=lambda channels: _conv(channels // 2, channels, 1),
        shape=lambda channels: np.asarray([1, channels // 2, 8, 8]),
    ),
    _between(
        "tile-space", "t = GlobalMaxPool(r) u = Tile(t, times) s = Add(r, u)", times=lambda _: np.asarray([1, 1, 8, 8])
    ),
    _between("tile-channels", "s = Tile(r, times)", 2, times=lambda _: np.asarray([1, 2, 1, 1])),
)
