"""The table of operators, one family a file; importing it fills :mod:`graphopt.torch.registry`."""

from __future__ import annotations

from graphopt.torch.ops import (
    activation,
    arithmetic,
    attention,
    casting,
    control,
    convolution,
    gathering,
    generators,
    linear,
    loss,
    microsoft,
    movement,
    norm,
    padding,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    scattering,
    selection,
    sequences,
    signal,
    sizes,
    slicing,
    softmax,
    warping,
)

__all__: list[str] = []
