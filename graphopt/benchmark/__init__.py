"""Timing models side by side under ONNX Runtime: latency, session creation, memory, size."""

from __future__ import annotations

from graphopt.benchmark.latency import bench
from graphopt.benchmark.stats import Interval, Latency
from graphopt.benchmark.table import BenchRow, BenchTable

__all__ = ["BenchRow", "BenchTable", "Interval", "Latency", "bench"]
