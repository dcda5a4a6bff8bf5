"""Attention, token mixing, gates and experts, in the forms people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it
from zoo.architecture import Architecture
from zoo.layers import HEAD_DIM, VOCABULARY, Block, Head, Mlp, Patches, floats, scaled, tokens

__all__ = ["ARCHITECTURES"]

Mixer = Callable[[int, int], nn.Module]
"""Makes what mixes tokens, from the hidden size and the number of heads."""

_IMAGE = {"x": {0: "N"}}
_TOKENS = {"x": {0: "N", 1: "S"}}


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention over ``[N, heads, S, HEAD_DIM]``, heads back in the last axis."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    mixed: Tensor = scores.softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


class FusedAttention(nn.Module):
    """One Linear for q, k and v, whose output axis is (3, heads, dim), (heads, 3, dim) or (heads, dim, 3)."""

    def __init__(self, size: int, heads: int, order: str) -> None:
        super().__init__()
        inner = heads * HEAD_DIM
        self.qkv, self.out = nn.Linear(size, 3 * inner), nn.Linear(inner, size)
        sizes = {"3": 3, "h": heads, "d": HEAD_DIM}
        self.split = [sizes[axis] for axis in order]
        self.permutation = [2 + order.index("3"), 0, 2 + order.index("h"), 1, 2 + order.index("d")]

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], *self.split).permute(self.permutation).unbind(0)
        return self.out(_attend(q, k, v))


class Attention(nn.Module):
    """Separate Linears for q, k and v; keys and values may come from elsewhere."""

    def __init__(self, size: int, heads: int, source: int = 0, attend: Callable[..., Tensor] = _attend) -> None:
        super().__init__()
        inner = heads * HEAD_DIM
        self.q, self.out, self.heads, self.attend = nn.Linear(size, inner), nn.Linear(inner, size), heads, attend
        self.k, self.v = nn.Linear(source or size, inner), nn.Linear(source or size, inner)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Any:
        source = x if source is None else source
        q, k, v = (
            linear(y).reshape(*y.shape[:2], self.heads, HEAD_DIM).transpose(1, 2)
            for linear, y in ((self.q, x), (self.k, source), (self.v, source))
        )
        return self.out(self.attend(q, k, v))


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax as feature map: of queries over the features of a head, of keys over tokens."""
    return (q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)).transpose(1, 2).flatten(2)


class Multihead(nn.Module):
    """torch's own attention; its fast path has no operator in ONNX."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        torch.backends.mha.set_fastpath_enabled(False)
        self.attention = nn.MultiheadAttention(size, heads, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, need_weights=False)[0]


class TokenMlp(nn.Module):
    """MLP-Mixer's mixing of tokens: their number stays, the hidden size is prunable."""

    def __init__(self, count: int, hidden: int) -> None:
        super().__init__()
        self.mlp = Mlp(count, hidden)

    def forward(self, x: Tensor) -> Any:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


class Rotary(nn.Module):
    """Grouped-query attention: causal, rotary positions by rotating halves, keys and values shared by expanding."""

    def __init__(self, size: int, groups: int, ratio: int = 2) -> None:
        super().__init__()
        self.groups, self.ratio = groups, ratio
        self.q, self.out = (nn.Linear(*sizes, bias=False) for sizes in self._sizes(size, groups * ratio))
        self.k, self.v = (nn.Linear(size, groups * HEAD_DIM, bias=False) for _ in range(2))

    @staticmethod
    def _sizes(size: int, heads: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (size, heads * HEAD_DIM), (heads * HEAD_DIM, size)

    def forward(self, x: Tensor) -> Any:
        n, s, _ = x.shape
        angles = torch.arange(s, dtype=torch.float32)[:, None] * 0.1 ** torch.arange(HEAD_DIM // 2)
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        q, k = (
            y * cos + torch.cat([-y[..., HEAD_DIM // 2 :], y[..., : HEAD_DIM // 2]], -1) * sin
            for y in (linear(x).view(n, s, -1, HEAD_DIM).transpose(1, 2) for linear in (self.q, self.k))
        )
        v = self.v(x).view(n, s, -1, HEAD_DIM).transpose(1, 2)
        k, v = (
            y[:, :, None].expand(n, self.groups, self.ratio, s, HEAD_DIM).reshape(n, -1, s, HEAD_DIM) for y in (k, v)
        )
        return self.out(_attend(q, k, v, torch.ones(s, s, dtype=torch.bool).tril()))


class RMSNorm(nn.Module):
    """Written out, as in Llama."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class SwiGlu(nn.Module):
    """silu(gate) times up, from one Linear or two."""

    def __init__(self, size: int, hidden: int, fused: bool) -> None:
        super().__init__()
        self.ups = nn.ModuleList(nn.Linear(size, n, bias=False) for n in ([2 * hidden] if fused else [hidden, hidden]))
        self.down = nn.Linear(hidden, size, bias=False)

    def forward(self, x: Tensor) -> Any:
        parts = [up(x) for up in self.ups]
        gate, up = parts if len(parts) == 2 else parts[0].chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Glu(nn.Module):
    """torch's GLU: value, then gate, split from one Linear."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(size, 2 * hidden), nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Any:
        return self.down(F.glu(self.up(x), -1))


class Experts(nn.Module):
    """A dense mixture of experts with stacked weights: a softmax over the experts weighs what all of them say.

    The number of experts is under the softmax and stays; their hidden size is prunable.
    """

    def __init__(self, size: int, hidden: int, einsum: bool, count: int = 4) -> None:
        super().__init__()
        self.router, self.einsum = nn.Linear(size, count), einsum
        self.up = nn.Parameter(torch.zeros(count, size, hidden))
        self.down = nn.Parameter(torch.zeros(count, hidden, size))

    def forward(self, x: Tensor) -> Any:
        gate = self.router(x).softmax(-1)
        if self.einsum:
            hidden = F.gelu(torch.einsum("nsc,ecf->nsef", x, self.up))
            return torch.einsum("nsef,efc,nse->nsc", hidden, self.down, gate)
        hidden = F.gelu(x.flatten(0, 1)[None] @ self.up)
        return ((hidden @ self.down) * gate.flatten(0, 1).t()[..., None]).sum(0).reshape(x.shape)


class Vision(nn.Module):
    """Patches, two blocks, a head."""

    def __init__(self, width: float, mixer: Mixer) -> None:
        super().__init__()
        size, heads, hidden = scaled(32, width), scaled(4, width), scaled(64, width)
        blocks = (Block(size, mixer(size, heads), Mlp(size, hidden)) for _ in range(2))
        self.layers = nn.Sequential(Patches(size), *blocks, Head(size))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class Language(nn.Module):
    """Embedding, blocks, logits; the embedding may serve as the output layer too."""

    def __init__(self, size: int, blocks: list[nn.Module], norm: nn.Module, tied: bool = False) -> None:
        super().__init__()
        self.embedding, self.blocks, self.norm = nn.Embedding(VOCABULARY, size), nn.Sequential(*blocks), norm
        self.output = None if tied else nn.Linear(size, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.blocks(self.embedding(x)))
        return y @ self.embedding.weight.t() if self.output is None else self.output(y)


def _language(width: float, mlp: Callable[[int, int], nn.Module], tied: bool = False) -> nn.Module:
    size, heads, hidden = scaled(32, width), scaled(4, width), scaled(64, width)
    blocks: list[nn.Module] = [Block(size, Attention(size, heads), mlp(size, hidden)) for _ in range(2)]
    return Language(size, blocks, nn.LayerNorm(size), tied)


def _llama(width: float, fused: bool) -> nn.Module:
    size, groups, hidden = scaled(32, width), scaled(4, width), scaled(48, width)
    blocks: list[nn.Module] = [
        Block(size, Rotary(size, groups), SwiGlu(size, hidden, fused), RMSNorm) for _ in range(2)
    ]
    return Language(size, blocks, RMSNorm(size))


def _mixer(width: float) -> nn.Module:
    return Vision(width, lambda *_: TokenMlp(16, scaled(24, width)))


class Encoder(nn.Module):
    """torch's own encoder layers, which normalize last or first."""

    def __init__(self, width: float, first: bool) -> None:
        super().__init__()
        torch.backends.mha.set_fastpath_enabled(False)
        size, heads, hidden = scaled(32, width), scaled(4, width), scaled(64, width)
        self.embedding = nn.Linear(12, size)
        options: dict[str, Any] = {"batch_first": True, "norm_first": first, "activation": "gelu"}
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(size, heads, hidden, **options) for _ in range(2)))
        self.head = Head(size)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(self.embedding(x)))


class Decoder(nn.Module):
    """Blocks with attention to another input, whose own hidden size is a second prunable one."""

    def __init__(self, width: float) -> None:
        super().__init__()
        size, heads, hidden, source = scaled(32, width), scaled(4, width), scaled(64, width), scaled(24, width)
        self.embedding, self.source = nn.Embedding(VOCABULARY, size), nn.Linear(12, source)
        self.blocks = nn.ModuleList(Block(size, Attention(size, heads), Mlp(size, hidden)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.crosses = nn.ModuleList(Attention(size, heads, source) for _ in range(2))
        self.output = nn.Linear(size, VOCABULARY)

    def forward(self, x: Tensor, memory: Tensor) -> Any:
        x, source = self.embedding(x), F.gelu(self.source(memory))
        for block, norm, cross in zip(self.blocks, self.norms, self.crosses, strict=True):
            x = x + cross(norm(x), source)
            x = block(x)
        return self.output(x)


class WindowAttention(nn.Module):
    """Swin's attention in windows of 4x4 tokens, shifted or not, with a table of relative position biases."""

    window: Tensor
    mask: Tensor
    index: Tensor

    def __init__(self, size: int, heads: int, grid: int, shift: int, side: int = 4) -> None:
        super().__init__()
        self.grid, self.shift, self.side, self.heads = grid, shift, side, heads
        self.qkv, self.out = nn.Linear(size, 3 * heads * HEAD_DIM), nn.Linear(heads * HEAD_DIM, size)
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
        index = (y[:, None] - y + side - 1) * (2 * side - 1) + x[:, None] - x + side - 1
        self.register_buffer("index", index.flatten())
        part = (torch.arange(grid) >= grid - side).long() + (torch.arange(grid) >= grid - shift if shift else 0)
        parts = self._windows((3 * part[:, None] + part).reshape(1, grid, grid, 1)).flatten(1)
        self.register_buffer("mask", (parts[:, None, None] == parts[:, None, :, None]))

    def _windows(self, x: Tensor) -> Tensor:
        n, count = x.shape[0], self.grid // self.side
        x = x.view(n, count, self.side, count, self.side, x.shape[-1])
        return x.transpose(2, 3).reshape(-1, self.side**2, x.shape[-1])

    def forward(self, x: Tensor) -> Any:
        n, count, area = x.shape[0], self.grid // self.side, self.side**2
        x = x.reshape(n, self.grid, self.grid, -1).roll((-self.shift, -self.shift), (1, 2))
        qkv = self.qkv(self._windows(x)).reshape(-1, area, 3, self.heads, HEAD_DIM)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q * HEAD_DIM**-0.5 @ k.transpose(-2, -1)
        scores = scores + self.table[self.index].reshape(area, area, self.heads).permute(2, 0, 1)[None]
        if self.shift:
            scores = scores.reshape(n, count**2, self.heads, area, area).masked_fill(~self.mask, -100.0)
            scores = scores.reshape(-1, self.heads, area, area)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = y.reshape(n, count, count, self.side, self.side, y.shape[-1]).transpose(2, 3)
        y = y.reshape(n, self.grid, self.grid, y.shape[-1]).roll((self.shift, self.shift), (1, 2))
        return y.flatten(1, 2)


class Merge(nn.Module):
    """Swin's downsampling: four strided slices, concatenated, normalized, projected."""

    def __init__(self, size: int, grid: int) -> None:
        super().__init__()
        self.grid, self.norm, self.reduce = grid, nn.LayerNorm(4 * size), nn.Linear(4 * size, 2 * size, bias=False)

    def forward(self, x: Tensor) -> Any:
        x = x.reshape(x.shape[0], self.grid, self.grid, x.shape[-1])
        x = torch.cat([x[:, i::2, j::2] for j in range(2) for i in range(2)], -1)
        return self.reduce(self.norm(x.flatten(1, 2)))


def _swin(width: float) -> nn.Module:
    size, heads = scaled(32, width), scaled(4, width)
    return nn.Sequential(
        Patches(size, patch=2),
        *(Block(size, WindowAttention(size, heads, 8, shift), Mlp(size, 2 * size)) for shift in (0, 2)),
        Merge(size, 8),
        Block(2 * size, WindowAttention(2 * size, 2 * heads, 4, 0), Mlp(2 * size, 4 * size)),
        Head(2 * size),
    )


def _vision(name: str, mixer: Mixer, dynamic: Mapping[str, Mapping[int, str]] = _IMAGE) -> Architecture:
    images = floats((2, 3, 16, 16))
    return Architecture(name, lambda width: Vision(width, mixer), images, dynamic=dynamic, norms=True)


def _text(name: str, build: Callable[[float], nn.Module], norms: bool = True) -> Architecture:
    return Architecture(name, build, tokens((2, 9)), dynamic=_TOKENS, norms=norms)


ARCHITECTURES: tuple[Architecture, ...] = (
    _vision("vit-fused-3hd", lambda size, heads: FusedAttention(size, heads, "3hd")),
    _vision("vit-fused-h3d", lambda size, heads: FusedAttention(size, heads, "h3d")),
    _vision("vit-fused-hd3", lambda size, heads: FusedAttention(size, heads, "hd3")),
    _vision("vit-separate", Attention),
    _vision("vit-separate-static", Attention, {}),
    _vision("vit-sdpa", lambda size, heads: Attention(size, heads, attend=_sdpa)),
    _vision("vit-linear-attention", lambda size, heads: Attention(size, heads, attend=_linear_attention)),
    _vision("multihead-attention", Multihead),
    *(
        Architecture(
            f"encoder-norm-{order}",
            lambda width, first=order == "first": Encoder(width, first),  # type: ignore[misc]
            floats((2, 9, 12)),
            dynamic=_IMAGE,  # The older exporter takes the number of tokens for a constant.
            norms=True,
        )
        for order in ("last", "first")
    ),
    _text("llama", lambda width: _llama(width, fused=False), norms=False),
    _text("llama-fused-gate-up", lambda width: _llama(width, fused=True), norms=False),
    Architecture("mlp-mixer", _mixer, floats((2, 3, 16, 16)), norms=True),
    Architecture("swin", _swin, floats((2, 3, 16, 16)), dynamic=_IMAGE, norms=True),
    Architecture(
        "cross-attention",
        Decoder,
        lambda: (*tokens((2, 9))(), *floats((2, 7, 12))()),
        ("x", "memory"),
        {"x": {0: "N", 1: "S"}, "memory": {0: "N", 1: "M"}},
        norms=True,
    ),
    _text("glu", lambda width: _language(width, Glu)),
    _text("experts-einsum", lambda width: _language(width, lambda size, hidden: Experts(size, hidden, einsum=True))),
    _text("experts-matmul", lambda width: _language(width, lambda size, hidden: Experts(size, hidden, einsum=False))),
    _text("tied-embedding", lambda width: _language(width, Mlp, tied=True)),
)
