"""Settings that would do nothing are refused before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": "distill", "quantization_aware": True}, "quantization-aware is of the stage distill.* distill is sk"),
        ({"skip": "distill", "tune": 2}, "tune is of the stage distill.* where distill is skipped"),
        ({"skip": "distill", "loss": "kd"}, "loss is of the stage distill"),
        ({"skip": "distill", "augment": "shift:pixels=1"}, "augment is of the stage distill"),
        ({"skip": ["refine", "distill"], "epochs": 5}, "epochs is of the stage distill"),
        (
            {"skip": "prune", "epochs": 5},
            "nothing is distilled where prune is skipped\nLeave epochs out, or do not skip",
        ),
        ({"skip": "quantize", "quantization_aware": True}, "becomes int8, and quantize is skipped"),
        ({"precisions": "int8-weights", "quantization_aware": True}, "and int8 is not among the precisions\nLeave"),
    ],
)
def test_settings_of_a_stage_that_is_skipped(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before the model is looked at: there is none."""
    with pytest.raises(UsageError, match=message):
        graphopt.compress(tmp_path / "none.onnx", goal="macs=0.5", **options)


def test_what_has_a_stage_is_taken(digits: Path) -> None:
    """As far as the data, which are wrong; with the stage skipped it would not come so far."""
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(graphopt.errors.ModelError):
        graphopt.compress(
            digits / "model.onnx", {"x": x}, goal="macs=0.5", quantization_aware=True, tune=2, loss="kd", epochs=1
        )


def test_nothing_is_learnt_without_data(digits: Path) -> None:
    with pytest.raises(UsageError, match="loss is of the stage distill, and nothing is distilled without data"):
        graphopt.compress(digits / "model.onnx", goal="macs=0.5", loss="kd")
