"""Losses: one table, one spec for any weighted sum of them, and ways to balance several tasks."""

from __future__ import annotations

from graphopt.distillation.losses.balance import Balance
from graphopt.distillation.losses.base import Loss
from graphopt.distillation.losses.objective import BALANCES, LOSSES, Needs, Objective, parse

__all__ = ["BALANCES", "LOSSES", "Balance", "Loss", "Needs", "Objective", "parse"]
