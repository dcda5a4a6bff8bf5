"""What a phone makes of a model: which nodes ONNX Runtime's providers there take, and the operators it needs."""

from __future__ import annotations

from graphopt.mobile.report import Refusal, Share, Survey
from graphopt.mobile.surveying import survey

__all__ = ["Refusal", "Share", "Survey", "survey"]
