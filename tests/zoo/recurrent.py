"""Recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from zoo.architecture import EXPORTERS, Architecture
from zoo.layers import VOCABULARY, floats, scaled, tokens

__all__ = ["ARCHITECTURES"]

_TIME_FIRST = {"x": {1: "N"}}
_BATCH_FIRST = {"x": {0: "N"}}


class Recurrent(nn.Module):
    """A recurrent network and a classifier of each step, or of the last one."""

    def __init__(
        self, width: float, kind: Callable[..., nn.RNNBase], inputs: int = 12, last: bool = False, **options: Any
    ) -> None:
        super().__init__()
        hidden = scaled(16, width)
        self.recurrent, self.last = kind(inputs, hidden, **options), last
        self.classifier = nn.Linear(hidden * (2 if options.get("bidirectional") else 1), 5)

    def forward(self, x: Tensor) -> Any:
        y = self.recurrent(x)[0]
        return self.classifier(y[:, -1] if self.last else y)


class FromZeros(Recurrent):
    """Makes its own initial state of zeros."""

    def forward(self, x: Tensor) -> Any:
        zeros = torch.zeros(1, x.shape[0], self.recurrent.hidden_size)
        return self.classifier(self.recurrent(x, (zeros, zeros))[0])


class FinalState(Recurrent):
    """Classifies the final hidden states of both directions, concatenated."""

    def forward(self, x: Tensor) -> Any:
        _, (h, _) = self.recurrent(x)
        return self.classifier(torch.cat([h[-2], h[-1]], -1))


class Crnn(nn.Module):
    """Convolutions over an image, whose columns (channels times height) a recurrent network reads."""

    def __init__(self, width: float) -> None:
        super().__init__()
        first, second = scaled(8, width), scaled(16, width)
        self.features = nn.Sequential(
            *(nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU(), nn.MaxPool2d((2, 1))),
        )
        self.reader = Recurrent(width, nn.LSTM, 4 * second, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Any:
        return self.reader(self.features(x).permute(0, 3, 1, 2).flatten(2))


class Tagger(nn.Module):
    """Embedding, LSTM in both directions, a label a token."""

    def __init__(self, width: float) -> None:
        super().__init__()
        size = scaled(24, width)
        self.embedding = nn.Embedding(VOCABULARY, size)
        self.reader = Recurrent(width, nn.LSTM, size, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Any:
        return self.reader(self.embedding(x))


def _plain(
    name: str,
    kind: Callable[..., nn.RNNBase],
    dynamic: Mapping[str, Mapping[int, str]] = _TIME_FIRST,
    network: Callable[..., nn.Module] = Recurrent,
    **options: Any,
) -> Architecture:
    # torch.export takes the number of steps for a constant.
    exporters = ("legacy",) if "S" in dynamic.get("x", {}).values() else EXPORTERS
    return Architecture(
        name,
        lambda width: network(width, kind, **options),
        floats((6, 4, 12)),
        dynamic=dynamic,
        exporters=exporters,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _plain("lstm", nn.LSTM),
    _plain("gru", nn.GRU),
    _plain("rnn", nn.RNN),
    _plain("rnn-relu-static", nn.RNN, {}, nonlinearity="relu"),
    _plain("lstm-any-length", nn.LSTM, {"x": {0: "S", 1: "N"}}),
    _plain("gru-any-length-bidirectional", nn.GRU, {"x": {0: "N", 1: "S"}}, batch_first=True, bidirectional=True),
    _plain("lstm-no-bias", nn.LSTM, bias=False),
    _plain("lstm-bidirectional", nn.LSTM, bidirectional=True),
    _plain("lstm-bidirectional-stacked", nn.LSTM, bidirectional=True, num_layers=2),
    _plain("gru-stacked", nn.GRU, num_layers=2),
    _plain("lstm-last-step", nn.LSTM, _BATCH_FIRST, last=True, batch_first=True),
    _plain("lstm-zeros", nn.LSTM, _BATCH_FIRST, FromZeros, batch_first=True),
    _plain("lstm-final-state", nn.LSTM, _BATCH_FIRST, FinalState, batch_first=True, bidirectional=True),
    Architecture("crnn", Crnn, floats((2, 1, 16, 12)), dynamic={"x": {0: "N"}}),
    Architecture("tagger", Tagger, tokens((2, 7)), dynamic=_BATCH_FIRST),
)
