"""Recurrent networks (ONNX: RNN, GRU, LSTM).

Where torch's own kernels mean the same they run; peepholes, other activations, clipping, sequence lengths and the
like go step by step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import _VF, Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds

__all__: list[str] = []


def _affine(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


_ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "Relu": (torch.relu, ()),
    "Tanh": (torch.tanh, ()),
    "Sigmoid": (torch.sigmoid, ()),
    "Softsign": (torch.nn.functional.softsign, ()),
    "Softplus": (torch.nn.functional.softplus, ()),
    "LeakyRelu": (torch.nn.functional.leaky_relu, (0.01,)),
    "Elu": (torch.nn.functional.elu, (1.0,)),
    "Affine": (_affine, (1.0, 0.0)),
}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
"""Which of ONNX's gates torch has in each place."""


@dataclasses.dataclass(frozen=True)
class _Settings:
    kind: str
    hidden: int
    directions: int
    backward: bool
    activations: tuple[Callable[..., Tensor], ...]
    clip: float | None
    before_reset: bool
    coupled: bool
    layout: int
    native: bool

    @property
    def gates(self) -> int:
        return len(_GATES[self.kind])


@builds("RNN", "GRU", "LSTM")
def recurrent(node: OpNode) -> Callable[..., tuple[Tensor, ...]]:
    kind = node.node.op_type
    direction = node.attribute("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    names = node.attribute("activations") or _DEFAULTS[kind] * directions
    usual = tuple(names) == _DEFAULTS[kind] * directions
    clip = node.attribute("clip")
    linear = bool(node.attribute("linear_before_reset", 0))
    coupled = bool(node.attribute("input_forget", 0))
    native = usual and clip is None and not coupled and (kind != "GRU" or linear)
    settings = _Settings(
        kind,
        node.attribute("hidden_size"),
        directions,
        direction == "reverse",
        _activations(node, names),
        clip,
        linear,
        coupled,
        node.attribute("layout", 0),
        native and not node.given(4) and not node.given(7),
    )
    return functools.partial(_run, settings=settings)


def _activations(node: OpNode, names: Sequence[str]) -> tuple[Callable[..., Tensor], ...]:
    alphas, betas = list(node.attribute("activation_alpha", ())), list(node.attribute("activation_beta", ()))
    made = []
    for name in names:
        if name not in _ACTIVATIONS and name not in ("HardSigmoid", "ThresholdedRelu", "ScaledTanh"):
            raise node.refuse(f"the activation '{name}' is not known")
        if name in _ACTIVATIONS:
            function, defaults = _ACTIVATIONS[name]
        else:
            function, defaults = _OTHER[name]
        given = list(defaults)
        if defaults and alphas:
            given[0] = alphas.pop(0)
        if len(defaults) > 1 and betas:
            given[1] = betas.pop(0)
        made.append(functools.partial(_apply, function=function, parameters=tuple(given)))
    return tuple(made)


def _apply(x: Tensor, *, function: Callable[..., Tensor], parameters: tuple[float, ...]) -> Tensor:
    return function(x, *parameters)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _thresholded(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


_OTHER: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "HardSigmoid": (_hard_sigmoid, (0.2, 0.5)),
    "ThresholdedRelu": (_thresholded, (1.0,)),
    "ScaledTanh": (_scaled_tanh, (1.0, 1.0)),
}


def _run(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    settings: _Settings,
) -> tuple[Tensor, ...]:
    if settings.layout:
        x = x.transpose(0, 1)
        h = None if h is None else h.transpose(0, 1)
        c = None if c is None else c.transpose(0, 1)
    shape = settings.directions, x.shape[1], settings.hidden
    h = torch.zeros(shape, dtype=x.dtype, device=x.device) if h is None else h
    c = torch.zeros(shape, dtype=x.dtype, device=x.device) if c is None else c
    # AOTAutograd cannot save what the backward of torch's own LSTM on a CPU needs (torch 2.13); step by step it can.
    traceable = settings.kind != "LSTM" or not torch.compiler.is_compiling()
    if settings.native and x.shape[0] > 0 and traceable:
        y, h, c = _native(x, w, r, b, h, c, settings)
    else:
        y, h, c = _each_direction(x, w, r, b, lengths, h, c, p, settings)
    if settings.layout:
        y, h, c = y.permute(2, 0, 1, 3), h.transpose(0, 1), c.transpose(0, 1)
    return (y, h, c) if settings.kind == "LSTM" else (y, h)


def _native(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor, c: Tensor, settings: _Settings
) -> tuple[Tensor, Tensor, Tensor]:
    weights = []
    order, hidden = _GATES[settings.kind], settings.hidden
    for direction in range(settings.directions):
        weights += [_ordered(w[direction], order, hidden), _ordered(r[direction], order, hidden)]
        if b is not None:
            split = settings.gates * hidden
            weights += [_ordered(b[direction, :split], order, hidden), _ordered(b[direction, split:], order, hidden)]
    if settings.backward:
        x = x.flip(0)
    common = (weights, b is not None, 1, 0.0, False, settings.directions == 2, False)
    if settings.kind == "LSTM":
        y, h, c = _VF.lstm(x, (h.contiguous(), c.contiguous()), *common)
    else:
        y, h = (_VF.gru if settings.kind == "GRU" else _VF.rnn_tanh)(x, h.contiguous(), *common)
    y = y.reshape(*y.shape[:2], settings.directions, hidden).transpose(1, 2)
    return y.flip(0) if settings.backward else y, h, c


def _ordered(weight: Tensor, order: Sequence[int], hidden: int) -> Tensor:
    if len(order) == 1:
        return weight
    parts = torch.split(weight, hidden)
    return torch.cat([parts[gate] for gate in order])


def _each_direction(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor,
    c: Tensor,
    p: Tensor | None,
    settings: _Settings,
) -> tuple[Tensor, Tensor, Tensor]:
    count = len(settings.activations) // settings.directions
    results = []
    for direction in range(settings.directions):
        backward = settings.backward or direction == 1
        turned = _turned(x, lengths) if backward else x
        bias = b[direction] if b is not None else torch.zeros(2 * w.shape[1], dtype=x.dtype, device=x.device)
        split = w.shape[1]
        activations = settings.activations[direction * count : (direction + 1) * count]
        cell = functools.partial(
            _CELLS[settings.kind],
            r=r[direction],
            rb=bias[split:],
            peep=None if p is None else p[direction],
            activations=activations,
            settings=settings,
        )
        projected = turned @ w[direction].t() + bias[:split]
        y, hh, cc = _steps(projected, lengths, h[direction], c[direction], cell)
        results.append((_turned(y, lengths) if backward else y, hh, cc))
    ys, hs, cs = zip(*results, strict=True)
    return torch.stack(ys, 1), torch.stack(hs), torch.stack(cs)


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """In the reverse order of time; with lengths, only what is within them."""
    if lengths is None:
        return x.flip(0)
    time = torch.arange(x.shape[0], device=x.device)[:, None]
    places = torch.where(time < lengths, lengths - 1 - time, time).to(torch.int64)
    return x.gather(0, places[..., None].expand(x.shape))


def _steps(
    projected: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, cell: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    rows = []
    for step, now in enumerate(projected.unbind(0)):
        new_h, new_c = cell(now, h, c)
        if lengths is None:
            h, c = new_h, new_c
            rows.append(h)
            continue
        there = (step < lengths)[:, None]
        h, c = torch.where(there, new_h, h), torch.where(there, new_c, c)
        rows.append(torch.where(there, new_h, torch.zeros_like(new_h)))
    if not rows:
        return projected.new_zeros(0, *h.shape), h, c
    return torch.stack(rows), h, c


def _clipped(x: Tensor, settings: _Settings) -> Tensor:
    return x if settings.clip is None else x.clamp(-settings.clip, settings.clip)


def _rnn(
    now: Tensor, h: Tensor, c: Tensor, *, r: Tensor, rb: Tensor, activations: Any, settings: _Settings, **_: Any
) -> tuple[Tensor, Tensor]:
    return activations[0](_clipped(now + h @ r.t() + rb, settings)), c


def _gru(
    now: Tensor, h: Tensor, c: Tensor, *, r: Tensor, rb: Tensor, activations: Any, settings: _Settings, **_: Any
) -> tuple[Tensor, Tensor]:
    gate, new = activations
    n = settings.hidden
    first = _clipped(now[:, : 2 * n] + h @ r[: 2 * n].t() + rb[: 2 * n], settings)
    update, reset = torch.split(gate(first), n, 1)
    if settings.before_reset:
        inner = reset * (h @ r[2 * n :].t() + rb[2 * n :])
    else:
        inner = (reset * h) @ r[2 * n :].t() + rb[2 * n :]
    made = new(_clipped(now[:, 2 * n :] + inner, settings))
    return (1 - update) * made + update * h, c


def _lstm(
    now: Tensor,
    h: Tensor,
    c: Tensor,
    *,
    r: Tensor,
    rb: Tensor,
    peep: Tensor | None,
    activations: Any,
    settings: _Settings,
) -> tuple[Tensor, Tensor]:
    gate, new, out = activations
    i, o, f, g = torch.split(now + h @ r.t() + rb, settings.hidden, 1)
    pi, po, pf = (0.0, 0.0, 0.0) if peep is None else torch.split(peep, settings.hidden)
    enter = gate(_clipped(i + pi * c, settings))
    forget = 1 - enter if settings.coupled else gate(_clipped(f + pf * c, settings))
    c = forget * c + enter * new(_clipped(g, settings))
    leave = gate(_clipped(o + po * c, settings))
    return leave * out(c), c


_CELLS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
