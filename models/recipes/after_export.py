"""Train in torch, export, compress, save: a pipeline in one script, ``python models/recipes/after_export.py out.onnx``.

The data are scikit-learn's digits, as arrays; yours would be arrays too, a torch data set that gives them, or files.
Needs ``graphopt[data,distill,report]``, and ``onnxscript``, which ``torch.onnx.export`` wants.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import graphopt
from graphopt.reporting.page import page


def trained(x: torch.Tensor, y: torch.Tensor, epochs: int) -> nn.Module:
    """A network of your own, trained as you are used to."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * 64, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // 32 * 32].view(-1, 32):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(x[rows]), y[rows]))
            optimizer.step()
    return network.eval()


def main(output: Path, epochs: int = 10, macs: float = 0.3) -> Any:
    """Writes the compressed model, and a page beside it that shows what was done; gives the report."""
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    x_train, x_test, y_train, y_test = train_test_split(x, labels, test_size=0.3, stratify=labels, random_state=0)

    network = trained(torch.from_numpy(x_train), torch.from_numpy(y_train), epochs)
    exported: Any = torch.onnx.export(
        network,
        (torch.from_numpy(x_train[:2]),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )

    # What torch gives is what graphopt works on: there is no need for a file in between.
    model, report = graphopt.compress(
        exported.model,
        {"image": x_train, "y": y_train},
        evaluation={"image": x_test, "y": y_test},
        goal={"macs": macs},
        max_drop=2.0,  # percentage points; anything worse raises graphopt.errors.Infeasible or Harmful
        skip=["distill"],
        with_report=True,
    )
    graphopt.save(model, output)
    output.with_suffix(".html").write_text(page(report.to_dict()), encoding="utf-8")
    return report


if __name__ == "__main__":
    rich.print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "small.onnx")))
