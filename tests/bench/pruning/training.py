"""How the networks of the scoreboard are trained: AdamW, one cycle of the learning rate, light augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import torch
from bench.pruning.data import Data
from bench.pruning.networks import NETWORKS
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

__all__ = ["Recipe", "train"]

_THREADS: Final = 1  # so that sums are added in one order wherever this runs


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a trained model depends on, beside the seed and the code.

    Attributes:
        data: A key of ``data.SOURCES``.
        network: A key of ``networks.NETWORKS``.
        epochs: How often all samples are seen.
        samples: How many of the training samples are used; ``None`` for all.
        rate: The highest learning rate.
        batch: Samples of a step.
        shift: Images move by up to so many pixels.
        flip: Half of the images are mirrored.
        drop: The share of tokens that are padded over.
    """

    data: str
    network: str
    epochs: int
    samples: int | None = None
    rate: float = 4e-3
    batch: int = 128
    shift: int = 0
    flip: bool = False
    drop: float = 0.0


def train(recipe: Recipe, data: Data, seed: int) -> nn.Module:
    """The network of the recipe, trained with the first samples of ``data``, in evaluation mode."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        return _train(recipe, data, seed)
    finally:
        torch.set_num_threads(threads)


def _train(recipe: Recipe, data: Data, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    chosen = torch.randperm(len(y))[: recipe.samples]
    x, y = x[chosen], y[chosen]
    network: Any = NETWORKS[recipe.network]()
    network.to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = len(y) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, epochs=recipe.epochs, steps_per_epoch=steps)
    augment = _tokens_dropped if x.ndim == 2 else _images_moved
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(y))[: steps * recipe.batch].reshape(steps, recipe.batch):
            optimizer.zero_grad()
            loss: Any = F.cross_entropy(network(augment(recipe, x[batch])), y[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
    trained: nn.Module = network.to(memory_format=torch.contiguous_format).eval()
    return trained


_Augment = Callable[[Recipe, Tensor], Tensor]


def _images_moved(recipe: Recipe, images: Tensor) -> Tensor:
    if recipe.flip:
        images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)
    if not recipe.shift:
        return images
    count, (height, width) = len(images), images.shape[-2:]
    background = float(images.min())
    padded = F.pad(images, [recipe.shift] * 4, value=background)
    down, right = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    index = torch.arange(count)[:, None, None]
    return padded[index, 0, rows[:, :, None], columns[:, None, :]][:, None]


def _tokens_dropped(recipe: Recipe, ids: Tensor) -> Tensor:
    return ids.masked_fill(torch.rand(ids.shape) < recipe.drop, 0)
