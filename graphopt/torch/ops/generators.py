"""What makes tensors from nothing: ConstantOfShape, Range, EyeLike, random numbers, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphopt.torch.registry import op
from graphopt.torch.values import Ints, Run, Sizes, ints, number, torch_dtype

__all__: list[str] = []

_ZERO = Ints((0.0,), 1, torch.float32)


@op("ConstantOfShape", since=9)
def constant_of_shape(shape: Sizes, *, value: Ints = _ZERO, run: Run) -> Tensor:
    return torch.full(ints(shape), value.values[0], dtype=value.dtype, device=run.device)


@op("Range", since=11)
def range_(start: Sizes, limit: Sizes, delta: Sizes, *, run: Run) -> Tensor:
    begin, end, step = number(start), number(limit), number(delta)
    count = max(0, int(-((begin - end) // step)))
    if start.dtype.is_floating_point:  # as ONNX defines it; torch.arange rounds otherwise
        made: Tensor = torch.arange(count, dtype=start.dtype, device=run.device) * step + begin
        return made
    places: Tensor = torch.arange(begin, begin + count * step, step, dtype=start.dtype, device=run.device)
    return places


@op("EyeLike", since=9)
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = x.dtype if dtype is None else torch_dtype(dtype)
    rows, columns = x.shape
    places = torch.arange(columns, device=x.device) - torch.arange(rows, device=x.device)[:, None]
    return (places == k).to(kind)


def _kind(dtype: int | None, like: torch.dtype | None = None) -> torch.dtype:
    found = like if dtype is None else torch_dtype(dtype)
    return found or torch.float32


def _seeded(seed: float | None, device: torch.device) -> torch.Generator | None:
    return None if seed is None else torch.Generator(device).manual_seed(int(seed))


@op("RandomNormal", pure=False)
def random_normal(
    *, shape: Sequence[int], mean: float = 0.0, scale: float = 1.0, dtype: int = 1, seed: float | None = None, run: Run
) -> Tensor:
    noise = torch.randn(*shape, dtype=_kind(dtype), device=run.device, generator=_seeded(seed, run.device))
    return noise * scale + mean


@op("RandomUniform", pure=False)
def random_uniform(
    *, shape: Sequence[int], low: float = 0.0, high: float = 1.0, dtype: int = 1, seed: float | None = None, run: Run
) -> Tensor:
    noise = torch.rand(*shape, dtype=_kind(dtype), device=run.device, generator=_seeded(seed, run.device))
    return noise * (high - low) + low


@op("RandomNormalLike", pure=False)
def random_normal_like(
    x: Tensor, *, mean: float = 0.0, scale: float = 1.0, dtype: int | None = None, seed: float | None = None
) -> Tensor:
    kind = _kind(dtype, x.dtype)
    return torch.randn(x.shape, dtype=kind, device=x.device, generator=_seeded(seed, x.device)) * scale + mean


@op("RandomUniformLike", pure=False)
def random_uniform_like(
    x: Tensor, *, low: float = 0.0, high: float = 1.0, dtype: int | None = None, seed: float | None = None
) -> Tensor:
    kind = _kind(dtype, x.dtype)
    return torch.rand(x.shape, dtype=kind, device=x.device, generator=_seeded(seed, x.device)) * (high - low) + low


@op("Bernoulli", since=15, pure=False)
def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Tensor:
    return torch.bernoulli(x, generator=_seeded(seed, x.device)).to(_kind(dtype, x.dtype))


@op("Multinomial", since=7, pure=False)
def multinomial(x: Tensor, *, sample_size: int = 1, dtype: int = 6, seed: float | None = None) -> Tensor:
    chances = torch.softmax(x, -1)
    drawn = torch.multinomial(chances, sample_size, replacement=True, generator=_seeded(seed, x.device))
    return drawn.to(_kind(dtype))


@op("Dropout", pure=False)
@op("Dropout", since=7, pure=False)
def dropout_attribute(x: Tensor, *, ratio: float = 0.5, is_test: int = 1, run: Run) -> tuple[Tensor, Tensor]:
    return _dropout(x, ratio, run.training, None)


@op("Dropout", since=12, pure=False)
def dropout(
    x: Tensor, ratio: Sizes | None = None, training_mode: Sizes | None = None, *, seed: int | None = None, run: Run
) -> tuple[Tensor, Tensor]:
    training = run.training or (training_mode is not None and bool(number(training_mode)))
    return _dropout(x, 0.5 if ratio is None else number(ratio), training, seed)


def _dropout(x: Tensor, ratio: float, training: bool, seed: int | None) -> tuple[Tensor, Tensor]:
    """Also the mask; ``seed`` is ignored, as each run is to drop others."""
    if not training or ratio == 0:
        return x, torch.ones((), dtype=torch.bool, device=x.device).expand(x.shape)
    return torch.native_dropout(x, ratio, True)


def _window(size: Any, periodic: int, output_datatype: int, weights: Sequence[float], run: Run) -> Tensor:
    count = int(number(size))
    places = torch.arange(count, dtype=torch.float64, device=run.device) * (
        2 * torch.pi / (count if periodic else max(1, count - 1))
    )
    made = torch.zeros(count, dtype=torch.float64, device=run.device)
    for order, weight in enumerate(weights):
        made = made + (-1) ** order * weight * torch.cos(order * places)
    return made.to(_kind(output_datatype))


@op("HannWindow", since=17)
def hann_window(size: Sizes, *, periodic: int = 1, output_datatype: int = 1, run: Run) -> Tensor:
    return _window(size, periodic, output_datatype, (0.5, 0.5), run)


@op("HammingWindow", since=17)
def hamming_window(size: Sizes, *, periodic: int = 1, output_datatype: int = 1, run: Run) -> Tensor:
    return _window(size, periodic, output_datatype, (25 / 46, 21 / 46), run)


@op("BlackmanWindow", since=17)
def blackman_window(size: Sizes, *, periodic: int = 1, output_datatype: int = 1, run: Run) -> Tensor:
    return _window(size, periodic, output_datatype, (0.42, 0.5, 0.08), run)
