"""Runs passes written for onnx_ir (``onnx_ir.passes.PassBase``) inside a graphopt pipeline."""

from __future__ import annotations

import dataclasses
import re

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety

__all__ = ["StockPass", "wrap"]


@dataclasses.dataclass(frozen=True)
class StockPass(GraphPass):
    """A stock onnx_ir pass as a whole-graph pass; make one with :func:`wrap`.

    Attributes:
        stock: The onnx_ir pass.
    """

    stock: ir.passes.PassBase

    def run(self, model: ir.Model, context: Context) -> Outcome:
        result = self.stock(model)
        if result.model is not model:
            _move(result.model, model)
        context.refresh()
        return Outcome(int(result.modified), None if result.modified else ())


def wrap(stock: ir.passes.PassBase, safety: Safety = Safety.NUMERIC) -> StockPass:
    """Makes a stock pass usable wherever graphopt takes a pass.

    Args:
        stock: Any onnx_ir pass, in place or functional.
        safety: What it may change; onnx_ir passes do not say, so it is verified like a numeric one unless told.

    Returns:
        A pass named ``ir-`` and the class's name in kebab case: ``IdentityEliminationPass`` is
        ``ir-identity-elimination``.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(stock).__name__.removesuffix("Pass")).lower()
    kind = type(type(stock).__name__, (StockPass,), {"name": f"ir-{words}", "safety": safety})
    made: StockPass = kind(stock)
    return made


def _move(source: ir.Model, target: ir.Model) -> None:
    """Makes ``target`` what a functional pass returned; whoever holds ``target`` sees the result."""
    target.graph = source.graph
    target.ir_version = source.ir_version
    target.functions.clear()
    target.functions.update(source.functions)
    target.metadata_props.clear()
    target.metadata_props.update(source.metadata_props)
