"""Trains ``models/digits.onnx``, the network of the demo: ``python models/builders/digits.py [FILE]``.

A residual network of about 85,000 parameters for the 8x8 digits that come with scikit-learn, trained on
``digits:split=train`` alone, so that ``digits:split=test`` is an honest examination. Needs the extras ``data`` and
``distill``, and a few minutes of a processor. Another release of torch gives other weights that are as good.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from graphopt.datasets import open_dataset
from graphopt.datasets.column import LABELS

__all__ = ["build", "images", "train"]

_TARGET: Final = Path(__file__).parents[1] / "digits.onnx"
_WIDTH: Final = 48
_EPOCHS: Final = 40
_BATCH: Final = 64
_RATE: Final = 3e-3


class _Residual(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def build() -> nn.Module:
    """The network, not trained: images (N, 1, 8, 8) in [0, 1] to logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, _WIDTH, 3, padding=1, bias=False),
        nn.BatchNorm2d(_WIDTH),
        nn.ReLU(),
        _Residual(_WIDTH),
        _Residual(_WIDTH),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * _WIDTH, 10),
    )


def images(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of ``train`` or ``test``."""
    columns = open_dataset(f"digits:split={split}").columns(())
    rows = np.arange(columns[LABELS].shape[0])
    return torch.from_numpy(columns["x"].read(rows)), torch.from_numpy(columns[LABELS].read(rows)).long()


def train(network: nn.Module, epochs: int = _EPOCHS, seed: int = 0) -> None:
    """Trains on images that are moved by up to one pixel, the rate rising and falling once."""
    x, y = images("train")
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = len(x) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=draw)[: steps * _BATCH].view(steps, _BATCH):
            down, right = torch.randint(-1, 2, (2,), generator=draw).tolist()
            moved = torch.roll(nn.functional.pad(x[rows], (1, 1, 1, 1)), (down, right), (2, 3))[:, :, 1:-1, 1:-1]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(moved), y[rows], label_smoothing=0.05)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()


def main(arguments: list[str]) -> int:
    """Trains, writes the file, and prints how good it is."""
    target = Path(arguments[0]) if arguments else _TARGET
    torch.manual_seed(0)
    network = build()
    train(network)
    options: dict[str, Any] = {
        "input_names": ["image"],
        "output_names": ["logits"],
        "dynamic_axes": {"image": {0: "batch"}, "logits": {0: "batch"}},
        "opset_version": 17,
        "dynamo": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (torch.zeros(1, 1, 8, 8),), str(target), **options)
    x, y = images("test")
    with torch.no_grad():
        right = (network(x).argmax(1) == y).float().mean().item()
    print(f"{target}: {target.stat().st_size:,} bytes, {right:.2%} of {len(y)} images that it has not seen")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
